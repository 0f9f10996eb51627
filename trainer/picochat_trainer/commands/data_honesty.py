"""`picochat data honesty`: look for an eval in everything that trains. No torch."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from picochat_client.packs import dataset_settings
from picochat_contract import layout
from picochat_contract.data_configs import HonestyConfig
from picochat_contract.errors import Code, SpecError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import expand, parse_mapping, validated
from picochat_contract.stages import StageName

from picochat_trainer.atomic import write_json, write_text
from picochat_trainer.commands.display import exit_code, explain_failure, live_display
from picochat_trainer.cores import available_cores
from picochat_trainer.data.readiness import Status
from picochat_trainer.honesty.data_files import read_data_files
from picochat_trainer.honesty.markdown import honesty_markdown
from picochat_trainer.honesty.report import data_report
from picochat_trainer.inputs import locate
from picochat_trainer.local_run import LocalRun
from picochat_trainer.tuning.external import read_external
from picochat_trainer.tuning.rows import to_jsonl

SHOWN_FINDINGS: Final = 20

app = typer.Typer()


@app.command()
def honesty(
    out_dir: Annotated[Path, typer.Option(help="Where honesty_report.json and report.md go.")],
    pack: Annotated[
        Path | None,
        typer.Option("--pack", "--dataset-pack", help="dataset_pack.json: cleaned first, as a run would do."),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="corpus.txt or corpus_manifest.json, as it is; instead of --pack.")
    ] = None,
    chat_input: Annotated[Path | None, typer.Option(help="Chat JSONL: the SFT rows.")] = None,
    eval_input: Annotated[Path | None, typer.Option(help="Eval JSONL.")] = None,
    preferences: Annotated[Path | None, typer.Option(help="Preference JSONL.")] = None,
    external_eval: Annotated[
        list[str] | None, typer.Option(help="name=path of an external benchmark; may be given again.")
    ] = None,
    near_threshold: Annotated[
        float, typer.Option(help="Share of words that must align for an edited copy.")
    ] = HonestyConfig().near_threshold,
    max_findings: Annotated[int, typer.Option(help="Findings listed per pair.")] = 1_000,
) -> None:
    """Compare corpus, SFT rows, preferences, eval and external benchmarks; exit 2 where an eval prompt leaked."""
    config = validated(HonestyConfig, {"near_threshold": near_threshold, "max_findings": max_findings})
    loose = {"--corpus": corpus, "--chat-input": chat_input, "--eval-input": eval_input}
    if (pack is None) == (corpus is None) or (pack is None and not all(loose.values())):
        raise SpecError(
            Code.INVALID_VALUE,
            f"give either --pack, or all of {', '.join(loose)}",
            param="--pack",
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    if pack is not None:
        run_dir, moved = _built(pack, out_dir, config), {}
    else:
        assert corpus is not None and chat_input is not None and eval_input is not None
        run_dir, moved = out_dir, _moved(corpus, chat_input, eval_input, preferences)
        _take_external(external_eval or [], out_dir)
    data = read_data_files(lambda name: locate(name, run_dir, moved))
    report = data_report(data, config, workers=available_cores())
    write_json(out_dir / "honesty_report.json", report)
    write_text(out_dir / "report.md", honesty_markdown("Honesty report", report))
    _print(report, out_dir)
    if report["status"] == Status.BLOCKED:
        raise typer.Exit(ClientExit.GATE_BLOCKED)


def _built(pack: Path, out_dir: Path, config: HonestyConfig) -> Path:
    """Build the pack's data in `out_dir`, as the dataset stage of a run would."""
    spec = parse_mapping(
        {
            "dataset": dataset_settings(pack),
            "honesty": config.model_dump(mode="json"),
            "until": StageName.DATASET.value,
        }
    )
    stages = expand(spec)
    with live_display("data honesty", list(stages)) as on_event:
        rows = LocalRun(run_dir=out_dir, stages=stages, resources=spec.resources, on_event=on_event).run()
    code = exit_code(rows)
    if code != ClientExit.OK:
        explain_failure(rows)
        raise typer.Exit(code)
    return out_dir


def _moved(corpus: Path, chat: Path, items: Path, preferences: Path | None) -> dict[str, str]:
    """Run-folder names to the files that were given."""
    moved = {layout.CHAT: chat, layout.EVAL: items}
    if corpus.suffix == ".json":
        moved[layout.CORPUS_MANIFEST] = corpus
        moved[layout.CORPUS_DIR] = corpus.with_name(layout.CORPUS_DIR)
        moved[layout.CORPUS] = corpus.with_name(layout.CORPUS)
    else:
        moved[layout.CORPUS] = corpus
        moved[layout.CORPUS_MANIFEST] = corpus.with_name(layout.CORPUS_MANIFEST)
    if preferences is not None:
        moved[layout.PREFERENCES] = preferences
    return {name: str(path.absolute()) for name, path in moved.items()}


def _take_external(given: list[str], out_dir: Path) -> None:
    """Read each benchmark and lay it into `out_dir` in the eval format."""
    for entry in given:
        name, _, path = entry.partition("=")
        if not name or not path:
            raise SpecError(
                Code.INVALID_VALUE,
                f"--external-eval expects name=path, got {entry!r}",
                param="--external-eval",
            )
        write_text(out_dir / layout.EXTERNAL_DIR / f"{name}.jsonl", to_jsonl(read_external(Path(path), name)))


def _print(report: dict[str, Any], out_dir: Path) -> None:
    print(f"honesty {report['status']}: {report['summary']}")
    for pair in report["contamination_matrix"]["pairs"]:
        print(f"  {pair['pair']}: {pair['risk']}, {pair['num_contaminated']} of {pair['num_targets']} items")
    for finding in report["findings"][:SHOWN_FINDINGS]:
        print(f"  {finding['kind']} ({finding['measure']}): {finding['message']}: {finding['span_text']!r}")
    hidden = len(report["findings"]) + report["findings_omitted"] - SHOWN_FINDINGS
    if hidden > 0:
        print(f"  {hidden} more")
    print(out_dir / "honesty_report.json")
