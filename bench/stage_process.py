"""The process of a base stage under StepTimes; also what other benches use to look into such a process.

python bench/stage_process.py RUN_FOLDER STEPS_JSON NUM_STEPS STARTED     (started by the benches)
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


def main() -> int:
    run_dir, out, num_steps, started = sys.argv[1:]
    times = StepTimes(Path(out), int(num_steps), float(started))
    return run_base(Path(run_dir), lambda: after_each_step(times.stamp))


if __name__ == "__main__":
    sys.exit(main())
