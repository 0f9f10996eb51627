"""Honesty: the eval, the tuning rows and the corpus compared with each other before anything is trained. No torch.

Writes honesty/honesty_report.json (evidence for preflight and gate) and honesty/report.md.
"""

from picochat_contract import layout
from picochat_contract.data_configs import HonestyConfig

from picochat_trainer.atomic import write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.honesty.data_files import read_data_files
from picochat_trainer.honesty.markdown import honesty_markdown
from picochat_trainer.honesty.report import data_report

COUNTS = (
    "exact_prompt_leaks",
    "preference_prompt_leaks",
    "corpus_prompt_hits",
    "near_prompt_leaks",
    "duplicate_eval_prompts",
)


def run(context: StageContext, config: HonestyConfig) -> dict[str, float]:
    context.events.progress(0, 2, "steps", "reading corpus, rows and items")
    data = read_data_files(context.path)
    context.events.progress(1, 2, "steps", "comparing them")
    report = data_report(data, config, workers=context.num_workers)
    write_json(context.output(layout.HONESTY), report)
    write_text(context.output(layout.HONESTY_MD), honesty_markdown("Honesty report", report))
    level = "info" if report["status"] == "ready" else "warning"
    context.events.log(level, f"honesty {report['status']}: {report['summary']}")
    context.events.progress(2, 2, "steps")
    return {name: float(report[name]) for name in COUNTS}
