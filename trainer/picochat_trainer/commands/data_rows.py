"""`picochat data inspect`: a look at tuning rows. No torch."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from picochat_contract.exit_codes import ClientExit
from rich.console import Console
from rich.table import Table
from rich.text import Text

from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tuning.inspect import inspect_file
from picochat_trainer.tuning.inspection import Inspection, Kind, Spread

SHOWN_PROBLEMS: Final = 20
SHOWN_NAMES: Final = 12

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


class KindOption(StrEnum):
    AUTO = "auto"
    CHAT = "chat"
    EVAL = "eval"
    PREFERENCES = "preferences"


KINDS: Final[dict[KindOption, Kind | None]] = {
    KindOption.AUTO: None,
    KindOption.CHAT: "chat",
    KindOption.EVAL: "eval",
    KindOption.PREFERENCES: "preferences",
}


@app.command()
def inspect(
    input: Annotated[Path, typer.Option(help="Chat, eval or preference JSONL.")],
    kind: Annotated[KindOption, typer.Option(help="auto: by the keys of the first rows.")] = KindOption.AUTO,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json: lengths in its tokens, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object.")] = False,
) -> None:
    """Look at tuning rows before they train: bad lines, repeats, balance, lengths; exit 2 where the file is blocked."""
    encoder = Tokenizer.load(tokenizer) if tokenizer else None
    found = inspect_file(input, kind=KINDS[kind], tokenizer=encoder)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        _print_inspection(found)
    if found.status == "blocked":
        raise typer.Exit(ClientExit.GATE_BLOCKED)


def _print_inspection(found: Inspection) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _lines(found):
        table.add_row(name, Text(value))
    Console().print(table)
    for problem in found.problems[:SHOWN_PROBLEMS]:
        print(f"  line {problem.line}: {problem.message}")
    if found.num_invalid > SHOWN_PROBLEMS:
        print(f"  {found.num_invalid - SHOWN_PROBLEMS} more lines are no rows; --json lists up to 100")
    print(f"{found.kind} rows {found.status}")
    for reason in found.reasons:
        print(f"  {reason.status} {reason.check}: {reason.message}")


def _lines(found: Inspection) -> list[tuple[str, str]]:
    lines = [("rows", f"{found.num_rows:,} of {found.num_lines:,} lines")]
    if found.repeats is not None:
        repeats = found.repeats
        lines.append(("prompts that came before", f"{repeats.num_exact:,} ({repeats.exact_share:.1%})"))
        lines.append(("prompts nearly as before", f"{repeats.num_near:,} ({repeats.near_share:.1%})"))
        lines += [
            (f"  line {near.line}", f"line {near.earlier_line}, {near.similarity:.2f}: {near.prompt}")
            for near in (*repeats.exact_examples[:3], *repeats.near_examples[:3])
        ]
    if found.families is not None:
        largest = found.families.largest_share
        lines.append(("template families", f"{found.families.num_families:,}, the largest {largest:.1%}"))
    for name in ("prompt_words", "answer_words", "prompt_tokens", "answer_tokens"):
        spread: Spread | None = getattr(found, name)
        if spread is not None:
            text = f"{spread.least} to {spread.most}, mean {spread.mean:g}, median {spread.median:g}, p90 {spread.p90:g}"
            lines.append((name.replace("_", " "), text))
    if found.category_entropy is not None:
        lines.append(("balance of categories", f"{found.category_entropy:.2f} of 1"))
    for name in ("categories", "skills", "answer_styles", "curriculum_stages", "splits", "levels"):
        counts: dict[str, int] = getattr(found, name)
        if counts:
            lines.append((name.replace("_", " "), _counts(counts)))
    if found.curriculum is not None:
        lines.append(("curriculum", found.curriculum))
    if found.unanswerable_share is not None:
        lines.append(("unanswerable", f"{found.unanswerable_share:.1%}"))
    for constant in found.constant_answers[:3]:
        text = f"{constant.answer!r} is right for {constant.share:.0%} of {constant.category}"
        lines.append(("constant answer", text))
    return lines + _kind_lines(found)


def _kind_lines(found: Inspection) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    if found.shapes is not None and found.shapes.num_conversations:
        shapes = found.shapes
        text = (
            f"{shapes.num_conversations:,} of up to {shapes.turns.most} turns, {shapes.num_with_system:,} with a system "
            f"text, {shapes.num_with_tools:,} with tools, {shapes.num_with_tool_calls:,} with tool calls"
        )
        lines.append(("conversations", text))
    if found.rules is not None:
        lines.append(("items per rule", _counts(found.rules.num_items)))
        by_number = ", ".join(f"{size}: {items:,}" for size, items in found.rules.items_by_num_rules.items())
        lines.append(("items by number of rules", by_number))
    if found.pairs is not None:
        pairs = found.pairs
        lines += [
            (
                "chosen longer",
                f"{pairs.chosen_longer_share:.1%}, rejected longer {pairs.rejected_longer_share:.1%}",
            ),
            ("told apart by length alone", f"{pairs.length_only_accuracy:.1%}"),
            (
                "repeat the prompt",
                f"chosen {pairs.chosen_echo_share:.1%}, rejected {pairs.rejected_echo_share:.1%}",
            ),
            ("difference in words", f"{pairs.content_difference:.2f} of 1"),
        ]
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:SHOWN_NAMES])
    return shown + (f", {len(counts) - SHOWN_NAMES} more" if len(counts) > SHOWN_NAMES else "")
