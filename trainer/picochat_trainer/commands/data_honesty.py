"""`picochat data honesty`: look for an eval in everything that trains. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from picochat_contract import layout
from picochat_contract.data_configs import HonestyConfig
from picochat_contract.errors import Code, ContractError, SpecError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import expand, parse_mapping, validated
from picochat_contract.stages import StageName

from picochat_trainer.atomic import file_sha256, write_json, write_text
from picochat_trainer.commands.dataset_options import parse_benchmark, with_dataset_options
from picochat_trainer.commands.display import exit_code, explain_failure, live_display
from picochat_trainer.cores import available_cores
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.readiness import Status
from picochat_trainer.honesty.data_files import DataFiles, read_data_files, read_files
from picochat_trainer.honesty.markdown import honesty_markdown
from picochat_trainer.honesty.report import data_report
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
        Path | None,
        typer.Option(help="Text file, corpus_manifest.json or its folder, as it is; instead of --pack."),
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
    rows = {"chat": chat_input, "eval": eval_input, "preferences": preferences}
    if (pack is None) == (corpus is None):
        raise SpecError(Code.INVALID_VALUE, "give either --pack or --corpus, one of the two", param="--pack")
    out_dir.mkdir(parents=True, exist_ok=True)
    if pack is not None:
        data = _of_pack(pack, rows, external_eval or [], out_dir)
    elif chat_input is None or eval_input is None:
        raise SpecError(
            Code.INVALID_VALUE,
            "--corpus needs --chat-input and --eval-input: the eval is looked for in both",
            param="--chat-input" if chat_input is None else "--eval-input",
        )
    else:
        assert corpus is not None, "one of the two was given"
        data = read_files(
            _corpus(corpus),
            chat_input,
            eval_input,
            preferences=preferences,
            external=_converted(external_eval or [], out_dir),
        )
    report = data_report(data, config, workers=available_cores())
    write_json(out_dir / "honesty_report.json", report)
    write_text(out_dir / "report.md", honesty_markdown("Honesty report", report))
    _print(report, out_dir)
    if report["status"] == Status.BLOCKED:
        raise typer.Exit(ClientExit.GATE_BLOCKED)


def _of_pack(
    pack: Path, rows: Mapping[str, Path | None], external: Sequence[str], out_dir: Path
) -> DataFiles:
    """Build the pack's data in `out_dir` as the dataset stage of a run would; options win over the pack."""
    values = with_dataset_options({}, pack=pack, recipe=None, sources=[], rows=rows, external=external)
    spec = parse_mapping({**values, "until": StageName.DATASET.value})
    stages = expand(spec)
    with live_display("data honesty", list(stages)) as on_event:
        done = LocalRun(run_dir=out_dir, stages=stages, resources=spec.resources, on_event=on_event).run()
    code = exit_code(done)
    if code != ClientExit.OK:
        explain_failure(done)
        raise typer.Exit(code)
    return read_data_files(out_dir.joinpath)


def _corpus(path: Path) -> CorpusStore:
    """A folder or manifest is a built corpus; a text file is one where the manifest beside it is about that file."""
    if not path.exists():
        raise ContractError(
            Code.CORPUS_MISSING,
            f"there is no {path}; give a text file, a corpus_manifest.json or the folder that holds one",
            param="--corpus",
        )
    if path.name == layout.CORPUS and path.with_name(layout.CORPUS_MANIFEST).is_file():
        built = CorpusStore.at(path.parent)
        if (built.manifest or {}).get("text_sha256") == file_sha256(path):
            return built
    return CorpusStore.of(path)


def _converted(given: Sequence[str], out_dir: Path) -> dict[str, Path]:
    """Each benchmark in the eval format, under `out_dir`: the lines of its findings are lines of that file."""
    converted = {}
    for name, path in map(parse_benchmark, given):
        converted[name] = out_dir / layout.EXTERNAL_DIR / f"{name}.jsonl"
        write_text(converted[name], to_jsonl(read_external(path, name)))
    return converted


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
