"""`picochat eval chat`: score an SFT checkpoint on an eval file. Runs the eval stage in its own process."""

import json
from pathlib import Path
from typing import Annotated

import typer
from picochat_contract import layout
from picochat_contract.configs import EvalConfig, Resources
from picochat_contract.events import EventType, StageEvent
from picochat_contract.evidence import EvalEvidence
from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import StageJob
from picochat_contract.spec import validated
from picochat_contract.stages import StageName

from picochat_trainer.launch import StageResult, run_stage
from picochat_trainer.scoring.report import score_table
from picochat_trainer.scoring.tally import headline_scores
from picochat_trainer.tuning.rows import read_eval

REPORT_MD = "eval/report.md"

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def evaluate() -> None:
    """Score a checkpoint."""


@app.command()
def chat(
    input: Annotated[Path, typer.Option(help="Eval JSONL.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder of an SFT model.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json of the run that trained it.")],
    out_dir: Annotated[Path, typer.Option(help="Where eval_report.json and report.md go.")],
    support_corpus: Annotated[
        Path | None,
        typer.Option(help="corpus_manifest.json or corpus.txt, for items that ask for its support."),
    ] = None,
    honesty_report: Annotated[
        Path | None,
        typer.Option(
            help="honesty_report.json about this eval file: the score is then given on clean items too."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, tokens.")] = 80,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.")] = 0.0,
    seed: Annotated[int, typer.Option()] = 42,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Ask the model every item and judge the replies by the item's rules."""
    read_eval(input)  # a bad row is told at once, before the seconds that loading a model takes
    config = validated(
        EvalConfig, {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    )
    job = StageJob(
        stage=StageName.EVAL,
        config=config.model_dump(mode="json"),
        resources=validated(Resources, {"device": device}),
        paths=_paths(input, checkpoint, tokenizer, out_dir, support_corpus, honesty_report),
    )
    result = run_stage(out_dir, job, _show_progress)
    if result.exit_code != StageExit.DONE:
        raise typer.Exit(_explain(result, out_dir))
    report = json.loads((out_dir / "eval_report.json").read_text(encoding="utf-8"))
    print("\n".join(score_table(headline_scores(EvalEvidence.model_validate(report)))))
    print(out_dir / "report.md")


def _paths(
    input: Path,
    checkpoint: Path,
    tokenizer: Path,
    out_dir: Path,
    corpus: Path | None,
    honesty_report: Path | None,
) -> dict[str, str]:
    paths = {
        layout.EVAL: input,
        layout.SFT_CHECKPOINT: checkpoint,
        layout.TOKENIZER: tokenizer,
        layout.TOKENIZER_CONFIG: tokenizer.with_name("tokenizer_config.json"),
        layout.EVAL_REPORT: out_dir / "eval_report.json",
        REPORT_MD: out_dir / "report.md",
    }
    if honesty_report is not None:
        paths[layout.HONESTY] = honesty_report
    if corpus is not None and corpus.suffix == ".json":
        paths[layout.CORPUS_MANIFEST] = corpus
        paths[layout.CORPUS_DIR] = corpus.with_name(layout.CORPUS_DIR)
        paths[layout.CORPUS] = corpus.with_name(layout.CORPUS)
    elif corpus is not None:
        paths[layout.CORPUS] = corpus
    return {name: str(path.absolute()) for name, path in paths.items()}


def _show_progress(event: StageEvent) -> None:
    if event.type is EventType.LOG:
        typer.echo(event.data["message"], err=True)


def _explain(result: StageResult, out_dir: Path) -> int:
    """Say why the stage gave up, and return the exit code."""
    if result.error is not None:
        typer.echo(f"error [{result.error.code}]: {result.error.message}", err=True)
    elif not result.stopped:
        typer.echo(
            f"error: the eval process ended with {result.exit_code}; see {out_dir}/stages/eval/log.txt",
            err=True,
        )
    return result.exit_code if result.exit_code > 0 else int(StageExit.FAILED)
