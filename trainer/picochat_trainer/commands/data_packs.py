"""`picochat data init-pack|benchmark-pack|task-pack`: dataset packs and the rows in them. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit

from picochat_trainer.atomic import write_text
from picochat_trainer.data.imports.outputs import check_free
from picochat_trainer.tuning.packs.files import PackFiles, open_pack
from picochat_trainer.tuning.packs.generated import Made, RowOptions, make_rows, shuffled
from picochat_trainer.tuning.packs.hub_rows import DATASETS, HubOptions
from picochat_trainer.tuning.packs.mixture import make_mixture
from picochat_trainer.tuning.packs.profiles import BenchmarkProfile, RowSource, TaskProfile
from picochat_trainer.tuning.packs.report import pack_markdown
from picochat_trainer.tuning.packs.starting import init_pack, pack_path, planned_files
from picochat_trainer.tuning.packs.verdict import Verdict, judge_rows
from picochat_trainer.tuning.preferences import read_preferences
from picochat_trainer.tuning.promotion import promote as promote_rows
from picochat_trainer.tuning.release_skills import AnswerStyle
from picochat_trainer.tuning.rows import to_jsonl
from picochat_trainer.tuning.skills.question import Side

SHOWN_LEAKS: Final = 5

app = typer.Typer()
PackOption = Annotated[Path, typer.Option("--pack", "--dataset-pack", help="Dataset pack to make rows for.")]
SftRows = Annotated[int, typer.Option(min=32, help="SFT rows to make.")]
EvalRows = Annotated[int, typer.Option(min=16, help="Eval items to make.")]
Source = Annotated[
    RowSource,
    typer.Option(help="hf: smoltalk, MMLU, GSM8K and ARC, too; auto: where they can be opened."),
]
Style = Annotated[
    AnswerStyle, typer.Option(help="Sums and spellings: the bare answer, or the steps and then the answer.")
]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal rows.")]
MaxRowChars = Annotated[
    int, typer.Option(min=100, help="Leave out rows whose prompt and answer are longer, in characters.")
]
LocalCopy = Annotated[
    list[str] | None,
    typer.Option(help=f"NAME=FOLDER with a copy of {', '.join(DATASETS)}; may be given again."),
]
HubRevision = Annotated[
    list[str] | None, typer.Option(help="NAME=COMMIT of a dataset to read; may be given again.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Promote = Annotated[bool, typer.Option("--promote/--no-promote", help="Name the rows in the pack.")]


@app.command("init-pack")
def write_pack(
    corpus: Annotated[Path, typer.Option(help="File, folder or corpus recipe.")],
    out: Annotated[Path, typer.Option(help="Folder of the pack, or the pack as a .json file.")],
    name: Annotated[str, typer.Option(help="Name of the pack.")] = "picochat-pack",
    description: Annotated[str | None, typer.Option(help="What the data are.")] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence of every source that names none itself.")
    ] = None,
    starters: Annotated[
        bool, typer.Option("--starters", help="Also make first SFT, eval and preference rows.")
    ] = False,
    seed: Seed = 42,
    force: Force = False,
) -> None:
    """Write a dataset pack around a corpus."""
    replaced = _replaced(planned_files(out, starters=starters), force)
    made = init_pack(
        out,
        corpus,
        name=name,
        description=description,
        license=license,
        starters=starters,
        seed=seed,
    )
    for path in replaced:
        print(f"replaced {path}")
    for key, count in made.rows.items():
        print(f"{key}: {count} rows")
    print(pack_path(out))


@app.command()
def benchmark_pack(
    pack: PackOption,
    chat_out: Annotated[
        Path | None, typer.Option(help="Default: chat_benchmark.jsonl beside the pack.")
    ] = None,
    eval_out: Annotated[
        Path | None, typer.Option(help="Default: eval_benchmark.jsonl beside the pack.")
    ] = None,
    sft_rows: SftRows = 300,
    eval_rows: EvalRows = 80,
    source: Source = RowSource.OFFLINE,
    profile: Annotated[
        BenchmarkProfile, typer.Option(help="full: all skills and rows about the pack's own corpus.")
    ] = BenchmarkProfile.FULL,
    skill_answer_style: Style = "direct",
    seed: Seed = 42,
    max_row_chars: MaxRowChars = 2_000,
    local_copy: LocalCopy = None,
    hub_revision: HubRevision = None,
    force: Force = False,
    promote: Promote = True,
) -> None:
    """Make SFT rows and eval items of one profile, judge them, write them; exit 2 where an eval prompt would leak."""
    files = open_pack(pack)
    outputs = _Outputs(
        chat=chat_out or pack.with_name("chat_benchmark.jsonl"),
        eval=eval_out or pack.with_name("eval_benchmark.jsonl"),
        report=(chat_out or pack).with_name("benchmark_tuning_pack.md"),
    )
    replaced = _replaced(outputs.paths, force)
    options = _row_options(files, seed, skill_answer_style, source, max_row_chars, local_copy, hub_revision)
    made = Made()
    make_rows(profile, sft_rows, eval_rows, options, made)
    facts = {"profile": profile.value, **_facts(files, options)}
    _publish("Benchmark tuning pack", files, made, outputs, facts, replaced, promote=promote)


@app.command()
def task_pack(
    pack: PackOption,
    out_dir: Annotated[
        Path | None, typer.Option(help="Folder for rows and report. Default: the pack's.")
    ] = None,
    chat_out: Annotated[
        Path | None, typer.Option(help="Default: chat_mixture_<profile>.jsonl in --out-dir.")
    ] = None,
    eval_out: Annotated[
        Path | None, typer.Option(help="Default: eval_mixture_<profile>.jsonl in --out-dir.")
    ] = None,
    sft_rows: SftRows = 1_600,
    eval_rows: EvalRows = 320,
    source: Source = RowSource.OFFLINE,
    profile: Annotated[
        TaskProfile, typer.Option(help="Which components are mixed, in which shares.")
    ] = TaskProfile.CAPABILITY,
    skill_answer_style: Style = "scratchpad",
    seed: Seed = 42,
    max_row_chars: MaxRowChars = 2_000,
    local_copy: LocalCopy = None,
    hub_revision: HubRevision = None,
    force: Force = False,
    promote: Promote = True,
) -> None:
    """Make a weighted mixture of benchmark profiles, every row tagged; exit 2 where an eval prompt would leak."""
    files = open_pack(pack)
    folder = out_dir or pack.parent
    outputs = _Outputs(
        chat=chat_out or folder / f"chat_mixture_{profile}.jsonl",
        eval=eval_out or folder / f"eval_mixture_{profile}.jsonl",
        report=folder / f"task_mixture_{profile}.md",
    )
    replaced = _replaced(outputs.paths, force)
    options = _row_options(files, seed, skill_answer_style, source, max_row_chars, local_copy, hub_revision)
    mixture = make_mixture(profile, sft_rows, eval_rows, options)
    facts = {"profile": profile.value, **_facts(files, options)}
    _publish(
        "Task mixture",
        files,
        mixture.made,
        outputs,
        facts,
        replaced,
        promote=promote,
        weights=mixture.shares,
    )


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    chat: Path
    eval: Path
    report: Path

    @property
    def paths(self) -> list[Path]:
        return [self.chat, self.eval, self.report]


def _replaced(paths: Sequence[Path], force: bool) -> list[Path]:
    """Outputs that are there already and may be overwritten; raise `exists` where they may not."""
    check_free(paths, force=force, option="--force")
    return [path for path in paths if path.exists()]


def _row_options(
    files: PackFiles,
    seed: int,
    style: AnswerStyle,
    source: RowSource,
    max_characters: int,
    copies: list[str] | None,
    revisions: list[str] | None,
) -> RowOptions:
    return RowOptions(
        seed=seed,
        style=style,
        source=source,
        hub=HubOptions(
            copies=_named(copies, "--local-copy"),
            revisions=_named(revisions, "--hub-revision"),
            max_characters=max_characters,
        ),
        documents=files.texts,
        corpus_license=files.pack.license,
    )


def _named(given: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE pairs of datasets that are known."""
    pairs = {}
    for entry in given or []:
        name, _, value = entry.partition("=")
        if name not in DATASETS or not value:
            raise ContractError(
                Code.INVALID_VALUE,
                f"{option} {entry!r}: expected NAME=VALUE with a name of {', '.join(DATASETS)}",
                param=option,
            )
        pairs[name] = value
    return pairs


def _facts(files: PackFiles, options: RowOptions) -> dict[str, object]:
    return {
        "pack": files.path,
        "source": options.source.value,
        "answer style of the skills": options.style,
        "seed": options.seed,
        "row budget in characters": options.hub.max_characters,
    }


def _publish(
    title: str,
    files: PackFiles,
    made: Made,
    outputs: _Outputs,
    facts: Mapping[str, object],
    replaced: Sequence[Path],
    *,
    promote: bool,
    weights: Mapping[str, float] | None = None,
) -> None:
    """Judge the rows and write them; leave everything as it is where an eval prompt leaks."""
    seed = int(str(facts["seed"]))
    chat, items = shuffled(made.chat, seed, Side.SFT), shuffled(made.eval, seed, Side.EVAL)
    preferences = files.rows_path("preferences")
    verdict = judge_rows(
        chat,
        items,
        files.texts,
        preferences=read_preferences(preferences) if preferences else (),
        external=files.external_paths(),
    )
    for line in verdict.lines:
        print(line)
    if verdict.leaks:
        _print_leaks(verdict)
        raise typer.Exit(ClientExit.GATE_BLOCKED)
    write_text(outputs.chat, to_jsonl(chat))
    write_text(outputs.eval, to_jsonl(items))
    page = pack_markdown(title, chat, items, facts=facts, notes=made.notes, verdict=verdict, weights=weights)
    write_text(outputs.report, page)
    for path in replaced:
        print(f"replaced {path}")
    for note in made.notes:
        print(f"note: {note}")
    print(f"{len(chat)} SFT rows: {outputs.chat}\n{len(items)} eval items: {outputs.eval}\n{outputs.report}")
    if promote:
        promote_rows(files.path, {"chat": outputs.chat, "eval": outputs.eval})
        print(f"{files.path} names them")


def _print_leaks(verdict: Verdict) -> None:
    leaks = [finding for finding in verdict.honesty["findings"] if finding["kind"].startswith("exact_")]
    for leak in leaks[:SHOWN_LEAKS]:
        print(f"  {leak['message']}: {leak['span_text']!r}")
    print("nothing was written: an eval prompt is also a prompt that trains")
