"""The stage process of docs/protocol.md section 1: check the job, run the stage, write the manifest last.

    python -m picochat_trainer <stage> --config RUN/stages/<stage>/stage.json --out RUN

With several ranks it starts torchrun by itself, unless torchrun has started it. Imports torch only for stages that use
it.
"""

import argparse
import importlib
import logging
import math
import os
import platform
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from picochat_contract.config_base import Config
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import StageExit
from picochat_contract.layout import check_artifact_path, kind_of
from picochat_contract.manifest import Manifest, OutputFile, StageError, StageJob, code_version, fingerprint
from picochat_contract.spec import validated
from picochat_contract.stages import STAGES, StageName
from pydantic import ValidationError

from picochat_trainer.atomic import file_sha256, remove_folder, write_text
from picochat_trainer.context import Interrupted, StageContext
from picochat_trainer.cores import keep_freed_memory, limit_spinning
from picochat_trainer.inputs import input_digests
from picochat_trainer.settings import RankSettings
from picochat_trainer.training.control import CONTROL, RankSetup, RanksNotReadyError

logger = logging.getLogger(__name__)

INFERENCE_COMMANDS = ("serve", "chat", "generate")
STAGE_MODULES: dict[StageName, str] = {
    StageName.DATASET: "dataset",
    StageName.HONESTY: "honesty",
    StageName.PREFLIGHT: "preflight",
    StageName.TOKENIZER: "tokenizer",
    StageName.BASE: "base",
    StageName.SFT: "sft",
    StageName.FIT: "fit",
    StageName.EVAL: "evaluate",
    StageName.AUDIT: "audit",
    StageName.GATE: "gate",
    StageName.REPORT: "report",
}
_REPORTED_PACKAGES = ("picochat", "torch", "numpy", "tokenizers", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among those that torchrun started."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    under_torchrun: bool = False
    attempt: str = ""
    """The same on all ranks that were started together."""

    @classmethod
    def from_environment(cls) -> "Ranks":
        # The protocol between torchrun and its children is the environment; nothing else here reads it.
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        return cls(
            rank=int(os.environ["RANK"]),
            local_rank=int(os.environ["LOCAL_RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            under_torchrun=True,
            attempt=f"{os.environ['TORCHELASTIC_RUN_ID']}:{os.environ.get('MASTER_PORT', '')}",
        )


def main(argv: list[str]) -> int:
    """Run a stage, or pass on to a command of the inference package; return the exit code."""
    limit_spinning(os.environ)
    if argv and argv[0] in INFERENCE_COMMANDS:
        # Imported here because it needs torch, and a dataset stage must start without it.
        commands = importlib.import_module("picochat_trainer.inference.commands")
        return int(commands.main(argv))
    parser = argparse.ArgumentParser(prog="python -m picochat_trainer")
    parser.add_argument("stage", choices=[stage.value for stage in StageName])
    parser.add_argument("--config", type=Path, required=True, help="stage.json, a StageJob")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    args = parser.parse_args(argv)
    ranks = Ranks.from_environment()
    code = _run_or_explain(StageName(args.stage), args.config, args.out, ranks)
    if ranks.under_torchrun:
        from picochat_trainer.training.distributed import exit_process  # needs torch, which is loaded already

        exit_process(code)
    return code


def _run_or_explain(stage: StageName, config_path: Path, run_dir: Path, ranks: Ranks) -> int:
    """The edge of the process: every ending becomes an exit code, and error.json where it is a failure."""
    stage_dir = run_dir / "stages" / stage.value
    try:
        _end_on_stop()
        if ranks.under_torchrun:
            _die_with_parent()
        if ranks.rank == 0:
            _clear(stage_dir)
        job = _read_job(stage, config_path)
        if STAGES[stage].distributed and job.resources.num_ranks > 1 and not ranks.under_torchrun:
            launch = importlib.import_module("picochat_trainer.torchrun")  # needs torch
            return int(launch.run(job, config_path, run_dir))
        _set_up_logging(ranks.rank)
        if STAGES[stage].distributed:
            keep_freed_memory()
        return run_stage(run_dir, job, ranks)
    except Interrupted:
        logger.info("interrupted")
        return StageExit.INTERRUPTED
    except ContractError as error:
        _explain(stage_dir, StageError(code=error.code, message=error.message, param=error.param))
        if error.code == Code.CHECKPOINT_NOT_WRITTEN:  # a full disk, say: another machine may do better
            return StageExit.FAILED
        return StageExit.BAD_INPUT
    except RanksNotReadyError as error:
        _explain(stage_dir, StageError(code=Code.RANKS_NOT_READY, message=str(error)))
        return StageExit.FAILED
    except Exception as error:
        logger.exception("the stage failed")
        _explain(stage_dir, StageError(code=Code.INTERNAL, message=f"{type(error).__name__}: {error}"))
        return StageExit.FAILED


def run_stage(run_dir: Path, job: StageJob, ranks: Ranks) -> StageExit:
    """Check the inputs, run the stage's module, write the manifest."""
    config = validated(STAGES[job.stage].config, job.config)
    setup = _setup(run_dir, job, ranks) if ranks.world_size > 1 else None
    with setup.telling() if setup is not None else nullcontext():
        return _run_module(run_dir, job, config, ranks, setup)


def _run_module(
    run_dir: Path, job: StageJob, config: Config, ranks: Ranks, setup: RankSetup | None
) -> StageExit:
    started = time.monotonic()
    definition = STAGES[job.stage]
    device, threads = _prepare_torch(job, ranks) if definition.uses_torch else ("cpu", 0)
    context = StageContext(
        run_dir,
        job,
        device=device,
        rank=ranks.rank,
        local_rank=ranks.local_rank,
        world_size=ranks.world_size,
        setup=setup,
    )
    _listen_for_stop(context)
    inputs = input_digests(context.path, job.stage) if context.is_main else {}
    if context.is_main:
        _refuse_changed(inputs, job.inputs)
    module = importlib.import_module(f"picochat_trainer.stages.{STAGE_MODULES[job.stage]}")
    metrics: dict[str, float] = module.run(context, config)
    if context.is_main:
        manifest = Manifest(
            stage=job.stage,
            fingerprint=job.fingerprint or fingerprint(job.stage, config, inputs, job.resources),
            code_version=code_version(job.stage),
            created_at=datetime.now(UTC),
            duration_seconds=time.monotonic() - started,
            outputs=_output_files(context),
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
            environment=_environment(device, threads),
        )
        _finish(context, manifest)
    return StageExit.DONE


def _read_job(stage: StageName, config_path: Path) -> StageJob:
    try:
        job = StageJob.model_validate_json(config_path.read_bytes())
    except OSError as error:
        raise ContractError(
            Code.FILE_UNREADABLE, f"cannot read the stage job {config_path}: {error}", param="--config"
        ) from error
    except ValidationError as error:
        raise ContractError(
            Code.INVALID_VALUE, f"{config_path} is no stage job: {error}", param="--config"
        ) from error
    if job.stage != stage:
        raise ContractError(
            Code.INVALID_VALUE, f"{config_path} is a job for {job.stage}, not for {stage}", param="--config"
        )
    return job


def _setup(run_dir: Path, job: StageJob, ranks: Ranks) -> RankSetup:
    """Begin to set up several ranks; the process group is for later, when there is something to talk about."""
    settings = RankSettings.from_environment()

    def join() -> None:
        # Imported here because the first sign of life shall not wait for torch.
        from picochat_trainer.training import distributed, hardware

        device = hardware.resolve_device(job.resources.device, ranks.local_rank)
        distributed.start(device, ranks.world_size, settings.timeout)

    return RankSetup(
        run_dir / "stages" / job.stage.value,
        is_main=ranks.rank == 0,
        attempt=ranks.attempt,
        settings=settings,
        join=join,
        awaits_end=job.resources.nnodes > 1,
    )


def _prepare_torch(job: StageJob, ranks: Ranks) -> tuple[str, int]:
    # Imported here because stages without a model must not wait seconds for torch.
    from picochat_trainer.training import hardware

    device = hardware.resolve_device(job.resources.device, ranks.local_rank)
    return device, hardware.set_threads(job.resources)


def _end_on_stop() -> None:
    """Until the stage is ready to save anything, a stop ends it at once; loading torch alone takes seconds."""

    def stop(signum: int, frame: Any) -> None:
        raise Interrupted

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _listen_for_stop(context: StageContext) -> None:
    def stop(signum: int, frame: Any) -> None:
        context.request_stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _refuse_changed(found: dict[str, str], expected: dict[str, str]) -> None:
    for name, digest in expected.items():
        if found.get(name) != digest:
            raise ContractError(
                Code.INPUT_CHANGED,
                f"{name} has sha256 {found.get(name, 'none: it is missing')}, the job expects {digest}; run the "
                "stage that writes it again",
                param=name,
            )


def _output_files(context: StageContext) -> tuple[OutputFile, ...]:
    files: dict[str, OutputFile] = {}
    for name in context.outputs:
        path = context.path(name)
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            below = file.relative_to(path).as_posix() if file != path else ""
            full = check_artifact_path(f"{name}/{below}" if below else name)
            files[full] = OutputFile(
                path=full, sha256=file_sha256(file), size_bytes=file.stat().st_size, kind=kind_of(full)
            )
    return tuple(files[name] for name in sorted(files))


def _finish(context: StageContext, manifest: Manifest) -> None:
    context.events.close()
    # From here the stage is done: a stop signal no longer changes that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    write_text(context.stage_dir / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
    for folder in context.scratch_folders:
        remove_folder(folder)


def _environment(device: str, threads: int) -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "device": device,
    }
    if threads:
        found["threads"] = str(threads)
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _clear(stage_dir: Path) -> None:
    """What an earlier attempt said no longer holds."""
    stage_dir.mkdir(parents=True, exist_ok=True)
    (stage_dir / "manifest.json").unlink(missing_ok=True)
    (stage_dir / "error.json").unlink(missing_ok=True)
    (stage_dir / CONTROL).unlink(missing_ok=True)


def _explain(stage_dir: Path, error: StageError) -> None:
    logger.error("%s: %s", error.code, error.message)
    if not (stage_dir / "error.json").exists():  # with several ranks, the first one names the cause
        write_text(stage_dir / "error.json", error.model_dump_json(indent=2) + "\n")


def _set_up_logging(rank: int) -> None:
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.ERROR,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def _die_with_parent() -> None:
    """Ask Linux to kill this rank when torchrun dies: ranks are sessions of their own, out of a killpg's reach."""
    if sys.platform == "linux":
        import ctypes  # only needed, and only there, on Linux

        parent = os.getppid()
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)
