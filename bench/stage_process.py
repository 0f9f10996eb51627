"""The process of a base stage under StepTimes.

python bench/stage_process.py RUN_FOLDER STEPS_JSON NUM_STEPS STARTED     (started by the benches)
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from step_times import StepTimes


def main() -> int:
    run_dir, out, num_steps, started = sys.argv[1:]
    times = StepTimes(Path(out), int(num_steps), float(started))
    optim = importlib.import_module("picochat_trainer.training.optim")
    step = optim.Optimizers.step

    def stamped(self: Any, *args: Any, **options: Any) -> None:
        step(self, *args, **options)
        times.stamp()

    optim.Optimizers.step = stamped
    process = importlib.import_module("picochat_trainer.process")
    config = Path(run_dir) / "stages" / "base" / "stage.json"
    return int(process.main(["base", "--config", str(config), "--out", run_dir]))


if __name__ == "__main__":
    sys.exit(main())
