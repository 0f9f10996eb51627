"""Seconds from the start of a base stage's process to the end of its first optimizer step, split into what they go to.

    python bench/first_step.py [--scale demo] [--repeat 2]

Prepares the scale's own corpus, tokenizer and tokens once; then starts the base stage with an empty compiler cache, again with
the cache that this filled, and with `compile: off` (the baseline), `--repeat` times in turn. Columns: `import` up to the
loaded stage, `data` up to the training loop (tokens, split, canaries, weights), `compile` building and trying out the compiled
loss, `step` all the rest up to the end of the first step. The process that starts the stage (`picochat run`, `train`) is not in it.

Cold is what a machine sees that has never compiled: no kernels, no graphs, and no precompiled C++ headers, which PyTorch keeps
in the system's temporary folder whatever TORCHINDUCTOR_CACHE_DIR says. It is not what a machine sees that has just started:
Python's bytecode is there, and the files of PyTorch and of the C++ compiler are in the page cache.
"""

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from picochat_contract.api import EventOut
from picochat_contract.manifest import StageJob
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.stages import StageName
from picochat_contract.states import STAGE_DONE
from picochat_trainer.local_run import LocalRun
from stage_process import after_each_step, run_base
from step_times import load_line

PARTS = ("import", "data", "compile", "step")
GOAL_SECONDS = 20
NAMES = ("cold cache", "warm cache", "compile: off")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _run_stage(Path(args.child[0]), float(args.child[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = _prepare(folder, args.scale)
        print(f"scale {args.scale}: {load_line()}\n", flush=True)
        found: dict[str, list[dict[str, float]]] = {what: [] for what in NAMES}
        for _ in range(args.repeat):
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as caches:
                for what in NAMES:
                    found[what].append(_first_step(folder, jobs[what == NAMES[2]], Path(caches)))
    _table(found)


def _prepare(folder: Path, scale: str) -> tuple[StageJob, StageJob]:
    """Run the stages that base needs; return its job, compiled and eager."""
    spec = parse_mapping({"scale": scale, "name": "bench", "until": "base"})
    stages = expand(spec)
    base = stages[StageName.BASE]
    before = {name: stages[name] for name in (StageName.DATASET, StageName.TOKENIZER)}
    run = LocalRun(run_dir=folder, stages=before, resources=spec.resources, on_event=_ignore)
    for row in run.run():
        if row.state not in STAGE_DONE:
            raise SystemExit(f"{row.name} ended as {row.state}: {row.message}")
    settings = base.model_dump(mode="json")
    jobs = [
        StageJob.model_validate(
            {
                "stage": StageName.BASE,
                "config": {**settings, "compile": compile},
                "resources": spec.resources.model_dump(mode="json"),
            }
        )
        for compile in ("on", "off")
    ]
    return jobs[0], jobs[1]


def _ignore(event: EventOut) -> None:
    pass


def _variables(caches: Path) -> list[str]:
    """Put what PyTorch, Triton and CUDA keep of what they have compiled below `caches`, an empty folder at first."""
    folders = {
        "TMPDIR": caches,
        "TORCHINDUCTOR_CACHE_DIR": caches / "inductor",
        "TRITON_CACHE_DIR": caches / "triton",
        "CUDA_CACHE_PATH": caches / "cuda",
    }
    return [f"{name}={path}" for name, path in folders.items()]


def _first_step(folder: Path, job: StageJob, caches: Path) -> dict[str, float]:
    """Run the stage to its first step; seconds of each part."""
    shutil.rmtree(folder / "base", ignore_errors=True)
    config = folder / "stages" / "base" / "stage.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(job.model_dump_json(), encoding="utf-8")
    out = folder / "parts.json"
    out.unlink(missing_ok=True)
    child = [sys.executable, __file__, "--child", str(folder), repr(time.perf_counter())]
    with (folder / "output.txt").open("wb") as log:
        command = ["env", *_variables(caches), *child]
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if not out.exists():
        text = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"the stage ended with exit code {code}:\n{text[-2000:]}")
    parts: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
    return parts


def _run_stage(folder: Path, started: float) -> None:
    """In the stage's process: take the times of its parts and end at the first step."""
    times: dict[str, float] = {"compile": 0.0}

    def prepare() -> None:
        base = importlib.import_module("picochat_trainer.stages.base")
        loop = importlib.import_module("picochat_trainer.training.loop")
        times["imported"] = time.perf_counter()
        train, compile_loss = base.train, loop.compile_loss

        def timed_train(*args: Any, **options: Any) -> Any:
            times["train"] = time.perf_counter()
            return train(*args, **options)

        def timed_compile(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            result = compile_loss(*args, **options)
            times["compile"] = time.perf_counter() - begin
            return result

        base.train, loop.compile_loss = timed_train, timed_compile
        after_each_step(finish)

    def finish() -> None:
        parts = {
            "import": times["imported"] - started,
            "data": times["train"] - times["imported"],
            "compile": times["compile"],
            "step": time.perf_counter() - times["train"] - times["compile"],
        }
        (folder / "parts.json").write_text(json.dumps(parts), encoding="utf-8")
        os._exit(0)

    raise SystemExit(run_base(folder, prepare))


def _table(found: dict[str, list[dict[str, float]]]) -> None:
    baseline = min(sum(parts.values()) for parts in found[NAMES[2]])
    print(
        f"{'seconds':<16}"
        + "".join(f"{part:>9}" for part in PARTS)
        + f"{'total':>9}{'best':>7}{'/ eager':>9}"
    )
    for what, runs in found.items():
        best = min(sum(parts.values()) for parts in runs)
        values = [statistics.median(parts[part] for parts in runs) for part in PARTS]
        line = f"{what:<16}" + "".join(f"{value:>9.2f}" for value in values)
        print(f"{line}{sum(values):>9.2f}{best:>7.2f}{best / baseline:>8.1f}x")
    cold = min(sum(parts.values()) for parts in found[NAMES[0]])
    print(
        f"\ngoal: {GOAL_SECONDS} s with a cold cache: {'met' if cold <= GOAL_SECONDS else 'MISSED'}; {load_line()}"
    )


if __name__ == "__main__":
    main()
