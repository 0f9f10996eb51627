"""`picochat run tiny`: all stages on this machine, in one run folder, without a server. No torch at import."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from picochat_client.outcome import verdict_exit
from picochat_client.specs import located_files, read_spec
from picochat_contract import layout
from picochat_contract.configs import Device, DistributedStrategy, GateProfile
from picochat_contract.errors import Code, SpecError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.overrides import with_setting, with_value
from picochat_contract.scales import SCALES
from picochat_contract.spec import RunSpec, expand, parse_mapping
from picochat_contract.stages import STAGES, StageName

from picochat_trainer.atomic import write_text
from picochat_trainer.commands.dataset_options import with_dataset_options
from picochat_trainer.commands.display import print_run
from picochat_trainer.commands.dry_run import Prices, dry_run, say
from picochat_trainer.commands.shown_run import run_shown
from picochat_trainer.commands.train_options import ConfirmPaidLaunch, board_folder, take_up
from picochat_trainer.local_run import read_gate
from picochat_trainer.machines import together
from picochat_trainer.paid_launch import confirmed_spec

SPEC_FILE = "run_spec.json"
_SEEDED = ("dataset", "base", "sft", "fit", "eval")
_TRAINED = (layout.BASE_DIR, layout.SFT_DIR)
_SCALES = f"Preset: {', '.join(SCALES)} or custom. [demo]"

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def run() -> None:
    """Run all stages here, without a server."""


@app.command()
def tiny(
    out_dir: Annotated[Path, typer.Option(help="The run folder; a second call goes on in it.")],
    spec: Annotated[Path | None, typer.Option(help="Run spec, YAML or JSON.")] = None,
    scale: Annotated[str | None, typer.Option(help=_SCALES)] = None,
    input: Annotated[
        list[Path] | None, typer.Option(help="File or folder for the corpus; may be repeated.")
    ] = None,
    dataset_pack: Annotated[
        Path | None, typer.Option(help="Dataset pack: corpus, chat, eval and more in one file.")
    ] = None,
    corpus_recipe: Annotated[
        Path | None, typer.Option(help="Corpus recipe: sources with weights and limits.")
    ] = None,
    chat_input: Annotated[Path | None, typer.Option(help="Chat JSONL for SFT.")] = None,
    eval_input: Annotated[Path | None, typer.Option(help="Eval JSONL.")] = None,
    dpo_input: Annotated[Path | None, typer.Option(help="Preference JSONL, compared with the eval.")] = None,
    external_eval: Annotated[
        list[str] | None, typer.Option(help="External benchmark as name=path; may be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all stages.")] = None,
    base_max_steps: Annotated[int | None, typer.Option(help="Base optimizer steps.")] = None,
    sft_max_steps: Annotated[int | None, typer.Option(help="SFT optimizer steps.")] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            help="Stop base training after this many minutes; SFT has sft.max_minutes, the other stages no limit."
        ),
    ] = None,
    until: Annotated[StageName | None, typer.Option(help="Last stage to run.")] = None,
    gate: Annotated[
        GateProfile | None, typer.Option(help="none, research, first_release or skill_release.")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="auto, cpu or cuda.")] = None,
    nproc_per_node: Annotated[int | None, typer.Option(help="torchrun processes for base and SFT.")] = None,
    nnodes: Annotated[int | None, typer.Option(help="Machines; each is given the same command.")] = None,
    rdzv_endpoint: Annotated[
        str | None, typer.Option(help="host:port of the first machine, where they meet; with --nnodes.")
    ] = None,
    distributed_strategy: Annotated[
        DistributedStrategy | None,
        typer.Option(help="ddp, or fsdp, which shares weights and optimizer out."),
    ] = None,
    base_resume_from: Annotated[
        Path | None, typer.Option(help="Resume checkpoint that base begins with; it is copied.")
    ] = None,
    sft_resume_from: Annotated[
        Path | None, typer.Option(help="Resume checkpoint that SFT begins with; it is copied.")
    ] = None,
    tensorboard_log_dir: Annotated[
        Path | None,
        typer.Option(
            help="Write TensorBoard event files into base/ and sft/ of this folder; needs pip install 'picochat[monitor]'."
        ),
    ] = None,
    preflight_only: Annotated[
        bool, typer.Option("--preflight-only", help="Stop after preflight; exit 2 where it blocks.")
    ] = False,
    dry_run_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after this many base steps and say what the rest would take; without it, the same command goes on from "
            "there.",
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of one GPU, for the cost in --dry-run-steps.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Exit 2 where a dry run's estimate costs more.")
    ] = None,
    confirm_paid_launch: ConfirmPaidLaunch = False,
    allow_leaky_eval: Annotated[
        bool, typer.Option("--allow-leaky-eval", help="Go on although eval prompts are in the data.")
    ] = False,
    allow_unsafe_long_run: Annotated[
        bool, typer.Option("--allow-unsafe-long-run", help="Go on although plan or corpus is blocked.")
    ] = False,
    allow_default_tuning_data: Annotated[
        bool,
        typer.Option("--allow-default-tuning-data", help="Go on with generated rows beside an own corpus."),
    ] = False,
    set: Annotated[
        list[str] | None, typer.Option(help="Any key of the spec, such as base.learning_rate=0.001.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit 2 when the gate blocks, 3 when it warns.")] = False,
) -> int:
    """Run all stages from dataset to report; finished stages are reused, and a blocked preflight ends it (exit 2)."""
    values = located_files(read_spec(spec)) if spec else {}
    if scale is not None or "scale" not in values:
        values["scale"] = scale or ("custom" if spec else "demo")
    values = {"name": out_dir.absolute().name, **values}
    values = with_dataset_options(
        values,
        pack=dataset_pack,
        recipe=corpus_recipe,
        sources=input or [],
        rows={"chat": chat_input, "eval": eval_input, "preferences": dpo_input},
        external=external_eval or [],
    )
    for key, value in {
        **{f"{stage}.seed": seed for stage in _SEEDED},
        "base.max_steps": base_max_steps,
        "base.max_minutes": max_minutes,
        "sft.max_steps": sft_max_steps,
        **{f"{stage}.tensorboard": True for stage in _TRAINED if tensorboard_log_dir is not None},
        "until": until.value if until else None,
        "gate.profile": gate,
        "resources.device": device,
        "resources.nproc_per_node": nproc_per_node,
        "resources.nnodes": nnodes,
        "resources.rdzv_endpoint": rdzv_endpoint,
        "resources.distributed_strategy": distributed_strategy,
        "preflight.allow_leaky_eval": allow_leaky_eval or None,
        "preflight.allow_unsafe_long_run": allow_unsafe_long_run or None,
        "preflight.allow_default_tuning_data": allow_default_tuning_data or None,
    }.items():
        if value is not None:
            values = with_value(values, key, value)
    for setting in set or []:
        values = with_setting(values, setting)
    parsed = parse_mapping(values)
    prices = Prices(per_hour=price_per_hour, max_cost=max_cost)
    paths = _board_paths(out_dir, tensorboard_log_dir)

    def lead() -> int:
        _take_up(base_resume_from, out_dir, StageName.BASE)
        _take_up(sft_resume_from, out_dir, StageName.SFT)
        if dry_run_steps is not None:
            return dry_run(parsed, out_dir, dry_run_steps, prices, paths=paths, confirmed=confirm_paid_launch)
        prices.refuse_without_dry_run()
        if preflight_only:
            return _run(parsed, out_dir, paths, strict=strict, preflight_only=True)
        wanted = confirmed_spec(parsed, out_dir, confirmed=confirm_paid_launch, say=say)
        return _run(wanted, out_dir, paths, strict=strict, preflight_only=False)

    return together(out_dir, parsed.resources, lead, say)


def _take_up(resume_from: Path | None, out_dir: Path, stage: StageName) -> None:
    """Only where the stage has not begun: a second call goes on in what the first one left."""
    folder = out_dir / stage.value
    begun = (folder / layout.RESUME_CHECKPOINT).exists() or (out_dir / "stages" / stage.value).exists()
    if not begun:
        take_up(resume_from, folder, f"{stage.value}_resume_from")


def _board_paths(out_dir: Path, folder: Path | None) -> dict[str, str]:
    """Each stage has a folder of its own: TensorBoard shows them as two curves."""
    if folder is None:
        return {}
    return {
        f"{stage}/{layout.TENSORBOARD}": str(board_folder(out_dir / stage, folder / stage))
        for stage in _TRAINED
    }


def _run(
    spec: RunSpec, out_dir: Path, paths: Mapping[str, str], *, strict: bool, preflight_only: bool
) -> int:
    stages = _until_preflight(spec) if preflight_only else expand(spec)
    code = run_shown(spec, out_dir, stages, paths=paths, preflight_in_full=preflight_only)
    write_text(out_dir / SPEC_FILE, spec.model_dump_json(indent=2) + "\n")
    if code != ClientExit.OK or preflight_only:
        return code
    print_run(out_dir, stages)
    # Without --strict a blocked gate is a result, not a failure: the run did what it was asked to do.
    if not strict or StageName.GATE not in stages:
        return ClientExit.OK
    report = read_gate(out_dir)
    return verdict_exit(report.verdict, strict=True) if report else ClientExit.GATE_BLOCKED


def _until_preflight(spec: RunSpec) -> dict[StageName, Any]:
    """The stages up to preflight, which still judges the whole run."""
    stages = expand(spec)
    if StageName.PREFLIGHT not in stages:
        raise SpecError(
            Code.INVALID_VALUE,
            f"until is {spec.until}, which comes before preflight; leave it out with --preflight-only",
            param="until",
        )
    wanted = {StageName.PREFLIGHT, *STAGES[StageName.PREFLIGHT].needs}
    return {name: config for name, config in stages.items() if name in wanted}
