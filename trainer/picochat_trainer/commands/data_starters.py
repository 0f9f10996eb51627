"""`picochat data sft-starter|eval-starter|preference-starter`: first rows for an own corpus. No torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from picochat_client.packs import corpus_settings, read_dataset_file, rows_path
from picochat_contract.data_configs import Source
from picochat_contract.errors import Code, ContractError, SpecError
from pydantic import TypeAdapter

from picochat_trainer.atomic import write_text
from picochat_trainer.tuning.promotion import PackKey, promote
from picochat_trainer.tuning.rows import Row, read_chat, to_jsonl
from picochat_trainer.tuning.skills.question import Side
from picochat_trainer.tuning.starters.evaluation import eval_items
from picochat_trainer.tuning.starters.preference import preference_starter
from picochat_trainer.tuning.starters.report import starter_markdown
from picochat_trainer.tuning.starters.sft import sft_rows
from picochat_trainer.tuning.starters.texts import SourceText, read_corpus, read_sources, texts_of_side

SOURCES: Final = TypeAdapter(list[Source])

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Corpus = Annotated[
    Path | None, typer.Option("--input", help="File, folder, or corpus of a run to ask about.")
]
Pack = Annotated[Path | None, typer.Option(help="Dataset pack or corpus recipe instead of --input.")]
Out = Annotated[Path, typer.Option(help="JSONL to write; a report goes beside it as .md.")]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal rows.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Promote = Annotated[bool, typer.Option("--promote", help="Name the rows in the pack.")]


@app.command()
def sft_starter(
    out: Out,
    input: Corpus = None,
    pack: Pack = None,
    max_items: Annotated[int, typer.Option(min=1)] = 32,
    seed: Seed = 42,
    force: Force = False,
    promote: Promote = False,
) -> None:
    """Write SFT rows about a corpus: what its documents say, and what they do not."""
    _check_output(out, _read(input, pack), pack, force, promote)
    texts = texts_of_side(_documents(input, pack), Side.SFT)
    rows = sft_rows(texts, max_items=max_items, seed=seed)
    _write("chat", "SFT starter", rows, out, pack if promote else None, _provenance(texts, input, pack, seed))


@app.command()
def eval_starter(
    out: Out,
    input: Corpus = None,
    pack: Pack = None,
    max_items: Annotated[int, typer.Option(min=1)] = 24,
    seed: Seed = 42,
    force: Force = False,
    promote: Promote = False,
) -> None:
    """Write eval items about documents of a corpus that the SFT starter leaves alone."""
    _check_output(out, _read(input, pack), pack, force, promote)
    texts = texts_of_side(_documents(input, pack), Side.EVAL)
    items = eval_items(texts, max_items=max_items, seed=seed)
    _write(
        "eval", "Eval starter", items, out, pack if promote else None, _provenance(texts, input, pack, seed)
    )


@app.command("preference-starter")
def write_preferences(
    out: Out,
    input: Annotated[Path | None, typer.Option(help="Chat JSONL: its answers are the chosen ones.")] = None,
    pack: Annotated[
        Path | None, typer.Option(help="Dataset pack with chat rows, instead of --input.")
    ] = None,
    max_items: Annotated[int, typer.Option("--max-items", "--max-rows", min=0, help="0: all rows.")] = 0,
    seed: Seed = 42,
    force: Force = False,
    promote: Promote = False,
) -> None:
    """Write preference pairs whose rejected answers are wrong in content, not in form."""
    source = _chat_file(input, pack)
    _check_output(out, [source], pack, force, promote)
    made = preference_starter(read_chat(source), max_items=max_items, seed=seed)
    leads = ", ".join(f"{form} {lead:+.2f}" for form, lead in made.leads.items())
    facts = {
        "chosen answers from": str(source),
        "seed": str(seed),
        "chosen leads rejected in form (share of pairs)": leads,
        "conversations left out": str(made.num_conversations),
        "rows without a wrong answer": str(made.num_without_rejection),
        "pairs left out to balance the forms": str(made.num_unbalanced),
    }
    _write("preferences", "Preference starter", made.rows, out, pack if promote else None, facts)


def _documents(input: Path | None, pack: Path | None) -> Callable[[], Iterator[tuple[str, str]]]:
    if (input is None) == (pack is None):
        raise ContractError(Code.INVALID_VALUE, "give exactly one of --input and --pack", param="--input")
    if input is not None:
        if not input.exists():
            raise ContractError(
                Code.CORPUS_MISSING, f"there is no file or folder {str(input)!r}", param="--input"
            )
        return lambda: read_corpus(input)
    assert pack is not None
    sources = SOURCES.validate_python(corpus_settings(pack))
    return lambda: read_sources(sources)


def _chat_file(input: Path | None, pack: Path | None) -> Path:
    if (input is None) == (pack is None):
        raise ContractError(Code.INVALID_VALUE, "give exactly one of --input and --pack", param="--input")
    if input is not None:
        return input
    assert pack is not None
    chat = rows_path(pack, "chat")
    if chat is None:
        raise ContractError(
            Code.INVALID_VALUE,
            f"{pack} names no chat rows; make some with `picochat data sft-starter --pack {pack} --promote`, or give "
            "--input",
            param="chat",
        )
    return chat


def _read(input: Path | None, pack: Path | None) -> list[Path]:
    """What the documents come from."""
    if input is not None or pack is None:
        return [input] if input else []
    return [Path(source["path"]) for source in corpus_settings(pack)]


def _check_output(out: Path, read: Sequence[Path], pack: Path | None, force: bool, promote: bool) -> None:
    if promote and pack is None:
        raise ContractError(
            Code.INVALID_VALUE, "--promote needs --pack, the pack to name the rows in", param="--promote"
        )
    sources = {path.resolve() for path in (*read, *([pack] if pack else []))}
    for path in (out, out.with_suffix(".md")):
        if path.resolve() in sources:
            raise ContractError(
                Code.EXISTS, f"{path} would be written over the source; choose another --out", param="--out"
            )
        if path.exists() and not force:
            raise ContractError(
                Code.EXISTS,
                f"{path} is there already; give another --out, or --force to replace it",
                param="--out",
            )


def _provenance(
    texts: Sequence[SourceText], input: Path | None, pack: Path | None, seed: int
) -> dict[str, str]:
    return {"corpus": str(input or pack), "texts of this side": str(len(texts)), "seed": str(seed)}


def _write(
    key: PackKey, title: str, rows: Sequence[Row], out: Path, pack: Path | None, facts: Mapping[str, str]
) -> None:
    if not rows:
        raise ContractError(
            Code.CORPUS_TOO_SMALL,
            "no row could be made: expected texts with sentences of 8 words or more, words with spaces between them "
            f"({', '.join(f'{name} {value}' for name, value in facts.items())})",
            param="--input",
        )
    write_text(out, to_jsonl(rows))
    write_text(out.with_suffix(".md"), starter_markdown(title, rows, facts))
    print(f"{len(rows)} rows: {out}")
    if pack is not None:
        promote(pack, {key: out})
        print(f"{pack} names them as {key}")
        try:
            read_dataset_file(pack)
        except SpecError as error:
            print(f"before a run: {error.message}")
