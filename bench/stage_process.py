"""The process of a base stage under StepTimes; also what other benches use to look into such a process.

python bench/stage_process.py RUN_FOLDER STEPS_JSON NUM_STEPS STARTED [alone]     (started by the benches)

With `alone` the process is a group of one rank, without which FSDP would shard nothing.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step_times import StepTimes


def run_base(run_dir: Path, prepare: Callable[[], None]) -> int:
    """Be the process of the base stage of `run_dir`; `prepare` is called when it would load the stage, and torch with it."""
    process = importlib.import_module("picochat_trainer.process")
    run_stage = process.run_stage

    def prepared(*args: Any, **options: Any) -> Any:
        prepare()
        return run_stage(*args, **options)

    process.run_stage = prepared
    config = run_dir / "stages" / "base" / "stage.json"
    return int(process.main(["base", "--config", str(config), "--out", str(run_dir)]))


def after_each_step(call: Callable[[], None]) -> None:
    """Have `call` called at the end of every optimizer step of this process."""
    optimizers = importlib.import_module("picochat_trainer.training.optim").Optimizers
    step = optimizers.step

    def watched(self: Any, *args: Any, **options: Any) -> None:
        step(self, *args, **options)
        call()

    optimizers.step = watched


def form_group() -> None:
    """Make a process group of this process alone, with the back ends of the training's own."""
    import torch.distributed as dist
    from torch.cuda import is_available

    backend = "cpu:gloo,cuda:nccl" if is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def main() -> int:
    run_dir, out, num_steps, started, *alone = sys.argv[1:]
    times = StepTimes(Path(out), int(num_steps), float(started))

    def prepare() -> None:
        after_each_step(times.stamp)
        if alone:
            form_group()

    return run_base(Path(run_dir), prepare)


if __name__ == "__main__":
    sys.exit(main())
