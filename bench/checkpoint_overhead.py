"""What resume checkpoints cost a training at the default interval, beside a plain blocking torch.save in the same run.

    python bench/checkpoint_overhead.py [--shape 1.5m] [--every 50] [--saves 3] [--rounds 2]

Base stage's process three times in turn: without checkpoints, with ours, and with `torch.save` and fsync of the same tensors in
their place (the baseline). `blocked` is what the training's own thread spends in saving, a save, and its share of the time of
`--every` steps: the goal is under 2 %. `after` is how much longer the steps behind a save take than the median step, since the
file is written then: the sum over ten steps, a save. `whole` is the time of all steps over that of the run without, which
also carries the machine's noise.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from generated_run import NEVER, base_config, write_inputs, write_job
from stage_process import after_each_step, run_base
from step_times import WARM_STEPS, load_line
from train_cpu import BYTES_PER_TOKEN, MIN_BYTES, SHAPES, VOCAB_SIZE

GOAL = 0.02
STEPS_AFTER = 10
MODES = ("none", "picochat", "torch.save")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="1.5m")
    parser.add_argument("--every", type=int, default=50, help="steps; the default of a base stage")
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8, help="a step; the demo's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _run_stage(args.child[0], Path(args.child[1]), int(args.child[2]))
        return
    num_steps = args.every * args.saves + STEPS_AFTER + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        length = SHAPES[args.shape]["sequence_len"]
        size = max(MIN_BYTES, num_steps * args.rows * length * BYTES_PER_TOKEN)
        write_inputs(folder / "inputs", vocab_size=VOCAB_SIZE, num_bytes=size)
        print(f"shape {args.shape}, {args.rows} rows, every {args.every} steps; {load_line()}\n", flush=True)
        found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
        for number in range(args.rounds):
            for mode in MODES:
                run_dir = folder / f"{mode}{number}"
                every = NEVER if mode == "none" else args.every
                config = base_config(
                    num_steps,
                    model=SHAPES[args.shape],
                    device_batch_size=args.rows,
                    checkpoint_every=every,
                )
                write_job(run_dir, folder / "inputs", config, {"device": "cpu"})
                found[mode].append(_run(mode, run_dir, num_steps, folder / "compiled"))
    _table(found, args.every)


def _run(mode: str, run_dir: Path, num_steps: int, cache: Path) -> dict[str, Any]:
    child = ["--child", mode, str(run_dir), str(num_steps)]
    done = subprocess.run(
        ["env", f"TORCHINDUCTOR_CACHE_DIR={cache}", sys.executable, __file__, *child],
        capture_output=True,
        text=True,
        check=False,
    )
    out = run_dir / "times.json"
    if not out.exists():
        raise SystemExit(f"{mode}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _run_stage(mode: str, run_dir: Path, num_steps: int) -> None:
    """In the stage's process: take the time of steps and of what saving keeps the training from."""
    ends: list[float] = []
    saves: list[tuple[int, float]] = []
    polled = [0.0]

    def prepare() -> None:
        checkpointer = importlib.import_module("picochat_trainer.training.checkpointer").Checkpointer
        save, poll = checkpointer.save, checkpointer.poll

        def timed_save(self: Any, *args: Any, **options: Any) -> None:
            begin = time.perf_counter()
            if mode == "torch.save":
                _save_plainly(self, run_dir / "plain.pt")
            else:
                save(self, *args, **options)
            saves.append((len(ends), time.perf_counter() - begin))

        def timed_poll(self: Any) -> None:
            begin = time.perf_counter()
            poll(self)
            polled[0] += time.perf_counter() - begin

        checkpointer.save, checkpointer.poll = timed_save, timed_poll
        after_each_step(stamp)

    def stamp() -> None:
        ends.append(time.perf_counter())
        if len(ends) == num_steps:
            result = {"ends": ends, "saves": saves, "polled": polled[0]}
            (run_dir / "times.json").write_text(json.dumps(result), encoding="utf-8")
            os._exit(0)

    raise SystemExit(run_base(run_dir, prepare))


def _save_plainly(self: Any, path: Path) -> None:
    torch = importlib.import_module("torch")
    states = [part.state_dict() for part in self._optimizer.parts]
    with path.open("wb") as file:
        torch.save({"model": self._training.model.state_dict(), "optimizers": states}, file)
        file.flush()
        os.fsync(file.fileno())


def _table(found: dict[str, list[dict[str, Any]]], every: int) -> None:
    none = statistics.median(_whole(run) for run in found["none"])
    print(
        f"{'checkpoints':<14}{'saves':>6}{'step ms':>9}{'blocked ms':>12}{'share':>8}{'after ms':>10}{'share':>8}{'whole':>8}"
    )
    for mode, runs in found.items():
        steps = [t for run in runs for t in _steps(run)]
        median = statistics.median(steps)
        whole = statistics.median(_whole(run) for run in runs) / none
        saves = [save for run in runs for save in run["saves"]]
        if not saves:
            print(f"{mode:<14}{0:>6}{1e3 * median:>9.1f}{'':>38}{whole:>7.3f}x")
            continue
        polled = sum(run["polled"] for run in runs) / len(saves)
        blocked = statistics.median(seconds for _, seconds in saves) + polled
        after = statistics.median(_after(run, step, median) for run in runs for step, _ in run["saves"])
        share = blocked / (every * median)
        print(f"{mode:<14}{len(saves):>6}{1e3 * median:>9.1f}{1e3 * blocked:>12.1f}{share:>8.2%}{1e3 * after:>10.1f}"
              f"{after / (every * median):>8.2%}{whole:>7.3f}x")  # fmt: skip
        if mode == "picochat":
            told = "met" if share + max(after, 0) / (every * median) < GOAL else "MISSED"
            print(f"{'':<14}goal, blocked and after under {GOAL:.0%}: {told}")
    print(f"\n{load_line()} at the end")


def _steps(run: dict[str, Any]) -> list[float]:
    """Seconds of each step after the warm-up, without those in which a checkpoint was saved."""
    ends, with_save = run["ends"], {step for step, _ in run["saves"]}
    return [ends[i] - ends[i - 1] for i in range(WARM_STEPS, len(ends)) if i not in with_save]


def _after(run: dict[str, Any], step: int, median: float) -> float:
    """How much longer than usual the steps behind a save took, without the save itself."""
    ends = run["ends"]
    seconds = [ends[i] - ends[i - 1] for i in range(step, min(step + STEPS_AFTER, len(ends)))]
    saved = next(seconds for at, seconds in run["saves"] if at == step)
    return sum(seconds) - saved - median * len(seconds)


def _whole(run: dict[str, Any]) -> float:
    ends: list[float] = run["ends"]
    return ends[-1] - ends[WARM_STEPS - 1]


if __name__ == "__main__":
    main()
