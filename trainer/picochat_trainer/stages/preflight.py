"""Preflight: measures data, rows and machine, and judges the plan before anything is trained. No torch without a GPU.

Writes preflight.json (report and facts) and preflight.md. Succeeds whenever it could measure: a blocked report is a
result, and whoever runs the stages stops there.
"""

from picochat_contract import layout
from picochat_contract.configs import PreflightConfig
from picochat_contract.preflight import PreflightRecord, PreflightStatus
from picochat_contract.preflight_judge import judge, record

from picochat_trainer.atomic import write_text
from picochat_trainer.context import StageContext
from picochat_trainer.preflight.machine import machine_facts
from picochat_trainer.preflight.markdown import preflight_markdown
from picochat_trainer.preflight.measuring import measure


def run(context: StageContext, config: PreflightConfig) -> dict[str, float]:
    ranks = config.plan.resources.num_ranks if config.plan else 1
    facts = measure(context.path, machine_facts(context.run_dir, ranks))
    report = record(judge(config, facts), facts)
    write_text(context.output(layout.PREFLIGHT), report.model_dump_json(indent=2) + "\n")
    write_text(context.output(layout.PREFLIGHT_MD), preflight_markdown(report))
    level = "info" if report.status is PreflightStatus.READY else "warning"
    context.events.log(level, f"preflight {report.status}: {report.summary}")
    return metrics_of(report)


def metrics_of(report: PreflightRecord) -> dict[str, float]:
    hours = report.budget["estimated_hours"]
    return {
        "num_checks": len(report.checks),
        "num_blocking": len(report.blocking),
        "num_warnings": len(report.warnings),
        "num_waived": len(report.waived),
        **({"estimated_hours": float(hours)} if isinstance(hours, float) else {}),
    }
