"""Training speed on the CPU beside stock transformers.Trainer and litgpt, on the same shape and rows, in the same run.

    python bench/train_cpu.py [--shape 1.5m] [--steps 40] [--rounds 2] [--quick] [--peer-python /path/to/venv/bin/python]

About six minutes on two quiet cores, one and a half with --quick. Ours is the base stage's process as `picochat train base`
starts it; the others are described in stock_transformers.py and peer_litgpt.py. Rows, batch, steps and number of parameters
are equal (parameters are counted, not trusted); validation, checkpoints and reports are left out of all. Programs take turns,
round by round; each step is timed at the optimizer, five warm-up steps are left out, and medians are over the steps of all
rounds. FLOP are PaLM's count with attention (6 N + 12 L H h T per token). First step: seconds from process start, with an empty
compiler cache (round 1) and a full one (later). The loss is the last one told: each program should have learned as much.

litgpt needs an environment of its own: python -m venv V; V/bin/pip install litgpt "torch>=2.11,<=2.13.0" (a CPU build of torch,
see tools/torch_index.py). Our process lets waiting threads sleep sooner than the others do, which helps it on a busy machine:
there, --spin 1000 gives all of them the same. Measures no GPU, no other machine, and no quality.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from generated_run import base_config, last_loss, stage_command, write_inputs, write_job, write_rows
from picochat_contract.configs import BaseConfig
from picochat_contract.model_size import flops_per_token, num_parameters
from picochat_trainer.cores import available_cores, cpu_has_bf16
from step_times import WARM_STEPS, ChildFailedError, Measured, load_line, measure

HERE = Path(__file__).parent
SHAPES: dict[str, dict[str, Any]] = {
    "1.5m": {"n_layer": 5, "n_head": 2, "n_kv_head": 1, "n_embd": 128, "sequence_len": 256},
    "3m": {"n_layer": 6, "n_head": 3, "n_kv_head": 1, "n_embd": 192, "sequence_len": 256},
}
VOCAB_SIZE = 4_096
BYTES_PER_TOKEN = 3  # of the generated text, at least
MIN_BYTES = 3_000_000  # fewer do not fill the vocabulary
QUICK_STEPS = 10
MATMUL = 2_048


@dataclass
class Program:
    """One line of the table."""

    name: str
    runs: list[Measured] = field(default_factory=list)
    loss: float | None = None
    problem: str | None = None

    @property
    def steps(self) -> list[float]:
        return [seconds for run in self.runs for seconds in run.step_seconds]


@dataclass
class Bench:
    """What is measured: the job that all programs are given."""

    folder: Path
    config: BaseConfig
    vocab_size: int
    num_steps: int
    peer_python: Path | None
    spin_count: int | None

    @property
    def rows(self) -> int:
        return self.config.device_batch_size

    @property
    def num_parameters(self) -> int:
        return num_parameters(self.config.model, self.vocab_size)

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.config.model.sequence_len

    def programs(self) -> list[Program]:
        bf16 = "bf16" if cpu_has_bf16() else "float32"
        names = ["picochat base stage", f"HF Trainer, {bf16}", f"HF Trainer, {bf16}, torch_compile"]
        return [Program(name) for name in (*names, *(["litgpt pretrain"] if self.peer_python else []))]

    def run(self, number: int, program: Program) -> None:
        """Measure one program once; what goes wrong becomes its line."""
        folder = self.folder / f"program{number}"
        variables = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"), "HF_HUB_OFFLINE": "1"}
        if self.spin_count is not None:
            variables["GOMP_SPINCOUNT"] = str(self.spin_count)
        try:
            measured = (
                self._ours(folder, variables) if number == 0 else self._other(number, folder, variables)
            )
        except ChildFailedError as error:
            program.problem = str(error)
            return
        told = re.search(r"Total parameters: ([0-9,]+)", measured.log)
        if told and int(told[1].replace(",", "")) != self.num_parameters:
            program.problem = f"it has {told[1]} parameters, ours {self.num_parameters:,}"
            return
        program.runs.append(measured)
        program.loss = last_loss(folder) if number == 0 else _loss_in(measured.log)

    def _ours(self, folder: Path, variables: dict[str, str]) -> Measured:
        write_job(folder, self.folder / "inputs", self.config, {"device": "cpu"})
        return measure(
            lambda out, started: stage_command(folder, self.num_steps, out, started), folder, variables
        )

    def _other(self, number: int, folder: Path, variables: dict[str, str]) -> Measured:
        job = {
            "what": "trainer",
            "model": self.config.model.model_dump(),
            "hidden": self.config.model.hidden,
            "vocab_size": self.vocab_size,
            "rows": self.rows,
            "rows_file": str(self.folder / "rows.npy"),
            "num_steps": self.num_steps,
            "bf16": cpu_has_bf16(),
            "compile": number == 2,
            "threads": available_cores(),
            "folder": str(folder / "out"),
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        python = str(self.peer_python) if number == 3 else sys.executable
        script = HERE / ("peer_litgpt.py" if number == 3 else "stock_transformers.py")
        return measure(
            lambda out, started: [python, str(script), str(path), str(out), repr(started)], folder, variables
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="1.5m")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40, help="that are timed, besides the warm-up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="10 steps, one round")
    parser.add_argument("--peer-python", type=Path, help="a Python that can import litgpt")
    parser.add_argument("--spin", type=int, help="GOMP_SPINCOUNT for all programs")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.rounds = QUICK_STEPS, 1
    peer = _peer(args.peer_python)
    with tempfile.TemporaryDirectory() as name:
        bench = _prepare(Path(name), args, peer)
        programs = bench.programs()
        for _ in range(args.rounds):
            for number, program in enumerate(programs):
                if program.problem is None:
                    bench.run(number, program)
    figures = _table(bench, programs)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if any(program.problem for program in programs):
        raise SystemExit(1)


def _prepare(folder: Path, args: argparse.Namespace, peer: Path | None) -> Bench:
    num_steps = args.steps + WARM_STEPS
    config = base_config(num_steps, model=SHAPES[args.shape], device_batch_size=args.rows)
    needed = (num_steps + 2) * args.rows * config.model.sequence_len
    store = write_inputs(
        folder / "inputs",
        vocab_size=VOCAB_SIZE,
        num_bytes=max(MIN_BYTES, int(needed * BYTES_PER_TOKEN * 1.2)),
    )
    write_rows(store, config, num_steps + 2, folder / "rows.npy")
    bench = Bench(folder, config, store.vocab_size, num_steps, peer, args.spin)
    print(
        f"{bench.num_parameters:,} parameters: {json.dumps(SHAPES[args.shape])}, vocabulary {bench.vocab_size:,}"
    )
    print(f"{args.rows} rows of {config.model.sequence_len} tokens a step, {args.steps} steps x {args.rounds} rounds, "
          f"torch {torch.__version__}, {load_line()}")  # fmt: skip
    print(
        f"matmul of {MATMUL}: {_matmul_gflops():,.0f} GFLOP/s in {'bf16' if cpu_has_bf16() else 'float32'}\n"
    )
    return bench


def _peer(python: Path | None) -> Path | None:
    """The Python of the peer, if it works; else say loudly that there is none."""
    if python is None:
        print("PEER SKIPPED: no --peer-python was given; this run says nothing about litgpt\n")
        return None
    done = subprocess.run(
        [str(python), "-c", "import litgpt.pretrain, importlib.metadata as m; print(m.version('litgpt'))"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"PEER SKIPPED: {python} cannot import litgpt.pretrain: {last}\n")
        return None
    print(f"peer: litgpt {done.stdout.strip()}")
    return python


def _matmul_gflops() -> float:
    a, b = (torch.randn(MATMUL, MATMUL, dtype=torch.bfloat16 if cpu_has_bf16() else None) for _ in range(2))
    a @ b
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * MATMUL**3 / min(times) / 1e9


def _loss_in(log: str) -> float | None:
    found = re.findall(r"(?:'loss': '?|loss train: )([0-9.]+)", log)
    return float(found[-1]) if found else None


def _table(bench: Bench, programs: list[Program]) -> list[dict[str, Any]]:
    flops = flops_per_token(bench.config.model, bench.vocab_size)
    print(f"{'':<34}{'tok/s':>9}{'best':>9}{'GFLOP/s':>9}{'best':>7}{'first s':>9}{'warm':>6}{'peak MB':>9}{'loss':>7}"
          f"{'load':>6}{'ours is':>9}")  # fmt: skip
    ours = statistics.median(programs[0].steps) if programs[0].runs else None
    figures = []
    for program in programs:
        if program.problem is not None or not program.runs:
            print(f"{program.name:<34} FAILED: {program.problem}")
            figures.append({"name": program.name, "problem": program.problem})
            continue
        median, best = statistics.median(program.steps), min(program.steps)
        speed, fastest = bench.tokens_per_step / median, bench.tokens_per_step / best
        warm = min((run.first_step_seconds for run in program.runs[1:]), default=None)
        entry = {
            "name": program.name,
            "tokens_per_second": speed,
            "best_tokens_per_second": fastest,
            "gflops": speed * flops / 1e9,
            "best_gflops": fastest * flops / 1e9,
            "first_step_seconds": program.runs[0].first_step_seconds,
            "warm_first_step_seconds": warm,
            "peak_mb": max(run.peak_mb for run in program.runs),
            "loss": program.loss,
            "load": max(run.load_before for run in program.runs),
            "ours_is": median / ours if ours else None,
        }
        figures.append(entry)
        print(f"{program.name:<34}{speed:>9,.0f}{fastest:>9,.0f}{entry['gflops']:>9,.0f}{entry['best_gflops']:>7,.0f}"
              f"{entry['first_step_seconds']:>9.1f}{_or_dash(warm, '.1f'):>6}{entry['peak_mb']:>9,.0f}"
              f"{_or_dash(program.loss, '.3f'):>7}{entry['load']:>6.2f}{_or_dash(entry['ours_is'], '.2f'):>8}x")  # fmt: skip
    print(f"\n{load_line()} at the end")
    return figures


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main()
