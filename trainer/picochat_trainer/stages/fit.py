"""Fit: the SFT model on its own training rows, and on the rows that SFT held out.

Writes sft_fit/ and sft_fit_heldout/, each with sft_fit_report.json (evidence for the gate) and report.md.
Which row is which comes from the line numbers in sft/sft_report.json.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from picochat_contract import layout
from picochat_contract.configs import FitConfig
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import file_sha256, write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.inference.engine import Engine
from picochat_trainer.scoring.fit_items import fit_item, sample_rows
from picochat_trainer.scoring.report import report_json, report_markdown
from picochat_trainer.scoring.session import Session
from picochat_trainer.scoring.tally import fit_evidence
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tuning.rows import ChatRow, EvalItem, read_chat

ROWS_OF: Final[dict[str, Literal["train", "heldout"]]] = {
    layout.FIT_REPORT: "train",
    layout.FIT_HELDOUT_REPORT: "heldout",
}


def run(context: StageContext, config: FitConfig) -> dict[str, float]:
    rows = read_chat(context.path(layout.CHAT))
    train_lines, val_lines = read_split(context.path(layout.SFT_REPORT), rows)
    seen = _items(rows, train_lines, config)
    held_out = _items(rows, val_lines, config)
    checkpoint = context.path(layout.SFT_CHECKPOINT)
    tokenizer_path = context.path(layout.TOKENIZER)
    engine = Engine.load(checkpoint, tokenizer_path, context.device)
    # What was loaded, not what lies there: the engine may have fallen back to `.previous`.
    subject = engine.checkpoint_sha256 or file_sha256(checkpoint / layout.WEIGHTS)
    session = Session(
        engine=engine,
        tokenizer=Tokenizer.load(tokenizer_path),
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    total = len(seen) + len(held_out)
    fit = _score(context, config, session, seen, subject, layout.FIT_REPORT, "SFT fit", 0, total)
    heldout = _score(
        context,
        config,
        session,
        held_out,
        subject,
        layout.FIT_HELDOUT_REPORT,
        "SFT fit, held-out rows",
        len(seen),
        total,
    )
    return {"sft_fit": fit, "sft_heldout_fit": heldout}


def read_split(path: Path, rows: Sequence[ChatRow]) -> tuple[list[int], list[int]]:
    """Line numbers of training and held-out rows from the SFT report, checked against the file."""
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))["dataset"]
        train, val = [int(n) for n in dataset["train_lines"]], [int(n) for n in dataset["val_lines"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{path} has no usable dataset.train_lines and dataset.val_lines ({error}); run the sft stage again",
            param=layout.SFT_REPORT,
        ) from error
    unknown = sorted({*train, *val} - {row.line for row in rows})
    if unknown or set(train) & set(val):
        problem = f"line {unknown[0]} is no row of it" if unknown else "a line is in both parts"
        raise ContractError(
            Code.INPUT_CHANGED,
            f"{path} does not fit {layout.CHAT}: {problem}; run the sft stage again on this file",
            param=layout.SFT_REPORT,
        )
    return train, val


def _items(rows: Sequence[ChatRow], lines: Sequence[int], config: FitConfig) -> list[EvalItem]:
    chosen = sample_rows(rows, lines, max_rows=config.max_rows, seed=config.seed)
    return [fit_item(row) for row in chosen]


def _score(
    context: StageContext,
    config: FitConfig,
    session: Session,
    items: Sequence[EvalItem],
    subject: str,
    report_name: str,
    title: str,
    done_before: int,
    total: int,
) -> float:
    """Ask, judge, write the report; return the pass rate."""
    judgements = session.run(
        items, on_done=lambda done: context.events.progress(done_before + done, total, "rows", title)
    )
    evidence = fit_evidence(judgements, subject, ROWS_OF[report_name])
    write_json(context.output(report_name), report_json(evidence, judgements, config.model_dump(mode="json")))
    scores = {"all rows": evidence.overall, **evidence.groups}
    markdown_name = report_name.rsplit("/", 1)[0] + "/report.md"
    write_text(context.output(markdown_name), report_markdown(title, scores, judgements))
    context.events.log(
        "info", f"{title}: {evidence.overall.num_passed} of {evidence.overall.num_examples} rows pass"
    )
    return evidence.overall.pass_rate
