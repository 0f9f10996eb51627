"""`picochat data honesty`: look for an eval in everything that trains. No torch."""

from pathlib import Path
from typing import Annotated, Final

import typer
from picochat_contract.exit_codes import ClientExit

from picochat_trainer.atomic import write_json
from picochat_trainer.data.honesty import honesty_report
from picochat_trainer.data.readiness import Status

SHOWN_FINDINGS: Final = 20

app = typer.Typer()


@app.command()
def honesty(
    corpus: Annotated[Path, typer.Option(help="corpus.txt")],
    chat_input: Annotated[Path, typer.Option(help="Chat JSONL: the SFT rows.")],
    eval_input: Annotated[Path, typer.Option(help="Eval JSONL.")],
    out_dir: Annotated[Path, typer.Option(help="Where honesty_report.json goes.")],
) -> None:
    """Look for eval prompts in the SFT rows and in the corpus; exit 2 where an SFT row leaks one."""
    report = honesty_report(corpus=corpus, chat=chat_input, eval=eval_input)
    write_json(out_dir / "honesty_report.json", report)
    print(f"honesty {report['status']}: {report['summary']}")
    for finding in report["findings"][:SHOWN_FINDINGS]:
        print(
            f"  {finding['kind']}: {eval_input.name} line {finding['eval_line']} and {finding['other_source']} "
            f"line {finding['other_line']}: {finding['eval_prompt']!r}"
        )
    hidden = len(report["findings"]) + report["findings_omitted"] - SHOWN_FINDINGS
    if hidden > 0:
        print(f"  {hidden} more")
    print(out_dir / "honesty_report.json")
    if report["status"] == Status.BLOCKED:
        raise typer.Exit(ClientExit.GATE_BLOCKED)
