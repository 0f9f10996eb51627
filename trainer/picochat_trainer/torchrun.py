"""torchrun inside the stage process, so that a rank's exit code and SIGTERM keep their meaning.

The torchrun program itself ends with 1 whatever happened to its ranks.
"""

import os
import signal
from pathlib import Path

from picochat_contract.exit_codes import StageExit
from picochat_contract.stages import StageName
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

SHUTDOWN_SECONDS = "300"  # for the last checkpoint of a large model; torchrun's own 30 s would cut it off


def run(stage: StageName, config_path: Path, run_dir: Path, nproc_per_node: int) -> int:
    """Start `nproc_per_node` ranks of the stage on this machine and return the exit code of the stage."""
    arguments = ["--standalone", f"--nproc_per_node={nproc_per_node}", "-m", "picochat_trainer"]
    arguments += [stage.value, "--config", str(config_path), "--out", str(run_dir)]
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # what torchrun sets with a warning; each rank then sets its own
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    try:
        torchrun(arguments)
    except SignalException as stopped:
        # torchrun has passed the signal on and waited for the ranks, which write a checkpoint first.
        done = (run_dir / "stages" / stage.value / "manifest.json").exists()
        return StageExit.DONE if done else _ended_by(signal.Signals(stopped.sigval))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        if code < 0:  # a rank was killed: whoever waits for this process shall see the same signal
            os.kill(os.getpid(), -code)
        return code
    return StageExit.DONE


def _ended_by(received: signal.Signals) -> StageExit:
    return StageExit.INTERRUPTED if received in (signal.SIGTERM, signal.SIGINT) else StageExit.FAILED
