"""torchrun inside the stage process, so that a rank's exit code and SIGTERM keep their meaning.

The torchrun program itself ends with 1 whatever happened to its ranks. On several machines each of them runs this
process with the same job; they meet at `resources.rdzv_endpoint`, which one of them serves.
"""

import os
import signal
from pathlib import Path

from picochat_contract.errors import Code
from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import StageError, StageJob
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.run import main as torchrun

from picochat_trainer.training.control import SetupState, read_control

SHUTDOWN_SECONDS = "300"  # for the last checkpoint of a large model; torchrun's own 30 s would cut it off
_OURS = (Code.INTERNAL.value, Code.RANKS_NOT_READY.value)  # exit 1; any other code is bad input, exit 2


def run(job: StageJob, config_path: Path, run_dir: Path) -> int:
    """Start this machine's ranks of the stage and return the exit code of the stage, the same on every machine."""
    stage_dir = run_dir / "stages" / job.stage.value
    arguments = [*_meeting(job), f"--nproc-per-node={job.resources.nproc_per_node}", "-m", "picochat_trainer"]
    arguments += [job.stage.value, "--config", str(config_path), "--out", str(run_dir)]
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # what torchrun sets with a warning; each rank then sets its own
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    try:
        torchrun(arguments)
    except SignalException as stopped:
        # torchrun has passed the signal on and waited for the ranks, which write a checkpoint first.
        done = (stage_dir / "manifest.json").exists()
        return StageExit.DONE if done else _ended_by(signal.Signals(stopped.sigval))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        if job.resources.nnodes > 1:
            return _common_code(stage_dir, code if code > 0 else StageExit.FAILED)
        if code < 0:  # a rank was killed: whoever waits for this process shall see the same signal
            os.kill(os.getpid(), -code)
        return code
    except (RendezvousError, DistError):
        if job.resources.nnodes == 1 or read_control(stage_dir) is None:
            raise
        # The machine that serves the rendezvous was through first and took it away.
        return _common_code(stage_dir, StageExit.FAILED)
    return StageExit.DONE


def _meeting(job: StageJob) -> list[str]:
    resources = job.resources
    if resources.nnodes == 1:
        return ["--standalone"]
    return [
        f"--nnodes={resources.nnodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={resources.rdzv_endpoint}",
        f"--rdzv-id={job.attempt_id or job.fingerprint or job.stage.value}",
    ]


def _common_code(stage_dir: Path, code: int) -> int:
    """How the stage ended, by what its ranks wrote; a machine whose connection broke knows no better than `code`."""
    control = read_control(stage_dir)
    if control is not None and control.state is SetupState.DONE:
        return StageExit.DONE
    if control is not None and control.state is SetupState.INTERRUPTED:
        return StageExit.INTERRUPTED
    try:
        error = StageError.model_validate_json((stage_dir / "error.json").read_bytes())
    except (OSError, ValueError):
        return code
    return StageExit.FAILED if error.code in _OURS else StageExit.BAD_INPUT


def _ended_by(received: signal.Signals) -> StageExit:
    return StageExit.INTERRUPTED if received in (signal.SIGTERM, signal.SIGINT) else StageExit.FAILED
