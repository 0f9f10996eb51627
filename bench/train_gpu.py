"""Training on one CUDA GPU in ten minutes: ours beside stock transformers, with kernels, memory, start-up and decoding.

    python bench/train_gpu.py --out "$OUT/train_gpu.json"            one GPU; no network, no corpus, nothing but the repository
    python bench/train_gpu.py --smoke                                tiny shapes on the CPU: proves the paths, measures nothing
    python bench/train_gpu.py --only 1b --minutes 9                  a part of the rows: kernels, 100m, 1b or decode

Needs the repository's environment with the extra `hf`. Every row is a process of its own, so that memory and first steps are
honest. Ours is the base stage's process with the preset's own settings; only steps, batch, the pieces named in the row's name
and what is not training (validation, checkpoints, canaries, samples) are changed. The baseline is Qwen3ForCausalLM of the same
shape with torch.compile, sdpa, bf16 autocast and fused AdamW (stock_transformers.py). MFU is PaLM's count with attention over
the bf16 matmul rate measured in this run, and over the H100's and H200's 989 TFLOP/s. Joules of a step are by the driver's counter
(gpu_energy.py). First steps of a model's first row are with an empty compiler cache. Rows are in the order of their worth:
what does not fit `--minutes` is named and left out. The JSON is written anew after each row.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from generated_run import NEVER, stage_command, write_inputs, write_job, write_rows
from gpu_energy import EnergyLog, first_device
from picochat_contract.configs import BaseConfig
from picochat_contract.model_size import flops_per_token
from picochat_contract.scales import SCALES
from picochat_contract.spec import validated
from picochat_trainer.tokens import TokenStore
from step_times import ChildFailedError, Measured, load_line, measure

HERE = Path(__file__).parent
PEAK_TFLOPS = 989  # H100 and H200, bf16, dense, by data sheet
WARM_STEPS = 3
SMOKE_MODEL = {"n_layer": 1, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "sequence_len": 32}


@dataclass(frozen=True)
class Row:
    """One process that trains."""

    name: str
    part: str
    """100m or 1b."""
    rows: int
    grad_accum_steps: int
    timed_steps: int
    stock: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    seconds: float = 50
    """It is expected to take, its start and compilation included."""

    @property
    def num_steps(self) -> int:
        return WARM_STEPS + self.timed_steps


_SEQ = {"parallel_residual": False}
_KEEP = {"gradient_checkpointing": False}  # the preset computes blocks again, for GPUs with less memory
PRESETS = {"100m": "h100-100m", "1b": "h200-1b-ddp8"}
ROWS = (
    Row("picochat h100-100m, 64 rows x 2 (preset)", "100m", 64, 2, 30, seconds=60),
    Row("picochat h100-100m-seq, 64 rows x 2", "100m", 64, 2, 30, model=_SEQ),
    Row("stock Qwen3 of h100-100m-seq, 64 rows x 2", "100m", 64, 2, 30, stock=True, model=_SEQ, seconds=70),
    Row("picochat h200-1b, keeping blocks, 8 rows x 4", "1b", 8, 4, 5, changes=_KEEP, seconds=80),
    Row("picochat h200-1b-seq, keeping blocks, 8 rows x 4", "1b", 8, 4, 5, changes=_KEEP, model=_SEQ, seconds=70),
    Row("stock Qwen3 of h200-1b-seq, keeping, 8 rows x 4", "1b", 8, 4, 5, stock=True, changes=_KEEP, model=_SEQ,
        seconds=90),
    Row("picochat h100-100m, 128 rows x 1", "100m", 128, 1, 30),
    Row("picochat h100-100m, 256 rows x 1", "100m", 256, 1, 20),
    Row("picochat h200-1b, recomputing (preset), 16 rows x 2", "1b", 16, 2, 5, seconds=70),
    Row("picochat h100-100m, Muon, 64 rows x 2", "100m", 64, 2, 30, changes={"optimizer": "muon"}),
    Row("picochat h200-1b, FSDP on one rank, 8 rows x 4", "1b", 8, 4, 5, changes=_KEEP,
        resources={"distributed_strategy": "fsdp"}, seconds=70),
    Row("picochat h100-100m, 32 rows x 4", "100m", 32, 4, 30),
)  # fmt: skip


@dataclass
class Session:
    """What rows share."""

    folder: Path
    smoke: bool
    deadline: float
    kernels: dict[str, Any] = field(default_factory=dict)
    stores: dict[str, TokenStore] = field(default_factory=dict)
    read_energy: Callable[[], int] | None = None
    """Millijoules of the GPU."""
    energy_note: str | None = None
    """Why there is no figure of it."""

    def find_energy(self) -> None:
        """Look for the GPU's counter."""
        try:
            self.read_energy = first_device()
        except OSError as error:
            self.energy_note = f"no energy counter: {error}"

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def config(self, row: Row) -> BaseConfig:
        settings = SCALES[PRESETS[row.part]]["base"]
        model = {**settings["model"], **(SMOKE_MODEL if self.smoke else {}), **row.model}
        fixed = {
            "max_steps": row.num_steps + 1,
            "device_batch_size": row.rows,
            "grad_accum_steps": row.grad_accum_steps,
            "warmup_steps": 2,
            "val_fraction": 0.02,
            "canary_count": 0,
            "sample_tokens": 0,
            "eval_every": NEVER,
            "checkpoint_every": NEVER,
        }
        small = {"precision": "auto", "compile": "off"} if self.smoke else {}
        return validated(BaseConfig, {**settings, **fixed, **small, **row.changes, "model": model})

    def store(self, part: str) -> TokenStore:
        """Inputs of a part's rows, made for the first of them."""
        if part not in self.stores:
            vocab_size = 512 if self.smoke else SCALES[PRESETS[part]]["tokenizer"]["vocab_size"]
            size = 200_000 if self.smoke else 14_000_000
            self.stores[part] = write_inputs(self.inputs(part), vocab_size=vocab_size, num_bytes=size)
        return self.stores[part]

    def inputs(self, part: str) -> Path:
        return self.folder / f"inputs-{part}"

    def measure(self, number: int, row: Row) -> tuple[Measured, float | None]:
        """What the row's process did, and the joules of one of its timed steps where the GPU tells them."""
        folder, begun = self.folder / f"row{number}", [0.0]
        command = self._command(folder, row)

        def start(out: Path, started: float) -> Sequence[str]:
            begun[0] = started
            return command(out, started)

        kind = "stock" if row.stock else "ours"
        variables = {
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / f"compiled-{row.part}-{kind}"),
            "HF_HUB_OFFLINE": "1",
        }
        with EnergyLog(self.read_energy) if self.read_energy is not None else nullcontext() as energy:
            found = measure(
                start, folder, variables, warm_steps=WARM_STEPS, timeout_seconds=self.seconds_left
            )
        if energy is None:
            return found, None
        try:
            return found, joules_per_step(energy, begun[0], json.loads((folder / "steps.json").read_bytes()))
        except OSError as error:
            self.energy_note = f"no joules per step of {row.name}: {error}"
            return found, None

    def _command(self, folder: Path, row: Row) -> Callable[[Path, float], Sequence[str]]:
        store, config = self.store(row.part), self.config(row)
        if row.stock:
            job, script = self._stock_job(folder, row, config, store), str(HERE / "stock_transformers.py")
            return lambda out, started: [sys.executable, script, str(job), str(out), repr(started)]
        device = "cpu" if self.smoke else "cuda"
        write_job(folder, self.inputs(row.part), config, {"device": device, **row.resources})
        alone = bool(row.resources)
        return lambda out, started: stage_command(folder, row.num_steps, out, started, alone=alone)

    def _stock_job(self, folder: Path, row: Row, config: BaseConfig, store: TokenStore) -> Path:
        folder.mkdir(parents=True)
        write_rows(store, config, 8, folder / "rows.npy")
        job = {
            "what": "loop",
            "model": config.model.model_dump(),
            "vocab_size": store.vocab_size,
            "rows": row.rows,
            "grad_accum_steps": row.grad_accum_steps,
            "gradient_checkpointing": config.gradient_checkpointing,
            "rows_file": str(folder / "rows.npy"),
            "num_steps": row.num_steps,
            "bf16": not self.smoke,
            "compile": not self.smoke,
        }
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        return path

    def figures(self, row: Row, measured: Measured, joules: float | None) -> dict[str, Any]:
        config = self.config(row)
        tokens = row.rows * row.grad_accum_steps * config.model.sequence_len
        speed = tokens / measured.median
        tflops = speed * flops_per_token(config.model, self.store(row.part).vocab_size) / 1e12
        rate = self.kernels.get("matmul_tflops")
        return {
            "tokens_per_second": speed,
            "best_tokens_per_second": tokens / min(measured.step_seconds),
            "tokens_per_step": tokens,
            "step_ms": 1e3 * measured.median,
            "tflops": tflops,
            "mfu_of_matmul": tflops / rate if rate else None,
            "mfu_of_989": tflops / PEAK_TFLOPS,
            "first_step_seconds": measured.first_step_seconds,
            "peak_gpu_gb": measured.peak_gpu_mb / 1024 if measured.peak_gpu_mb is not None else None,
            "peak_host_mb": measured.peak_mb,
            "joules_per_step": joules,
        }


def joules_per_step(energy: EnergyLog, started: float, steps: dict[str, Any]) -> float:
    """Of the timed steps of a process that was started then and left `steps`; raise OSError where the counter failed."""
    seconds = steps["step_seconds"]
    first = started + steps["first_step_seconds"]
    warm = first + sum(seconds[: WARM_STEPS - 1])
    return energy.joules(warm, first + sum(seconds)) / len(seconds[WARM_STEPS - 1 :])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--only", nargs="+", choices=("kernels", "100m", "1b", "decode"))
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on the CPU")
    args = parser.parse_args()
    parts = set(args.only or ("kernels", "100m", "1b", "decode"))
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        session = Session(Path(name), args.smoke, time.monotonic() + 60 * args.minutes)
        print(load_line(), flush=True)
        session.find_energy()
        # Always: every MFU is a part of the matmul rate.
        session.kernels = _json_from(
            [str(HERE / "gpu_kernels.py"), *(["--smoke"] if args.smoke else [])], session
        )
        for number, row in enumerate(_smaller(ROWS) if args.smoke else ROWS):
            if row.part in parts:
                results.append(_run(session, number, row))
                _write(args.out, session, results)
        if "decode" in parts:
            session.kernels["decode"] = _decode(session)
            _write(args.out, session, results)
    if args.smoke:
        print("\nSMOKE: all shapes are tiny, whatever the rows are called; no figure below means anything")
    if "kernels" in parts:
        _print_kernels(session.kernels)
    _print_decode(session.kernels.get("decode"))
    _print_rows(results)
    if session.energy_note:
        print(session.energy_note)
    if any(
        result.get("problem") for result in (*results, session.kernels, session.kernels.get("decode", {}))
    ):
        raise SystemExit(1)


def _smaller(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(
        replace(row, rows=2, grad_accum_steps=min(row.grad_accum_steps, 2), timed_steps=2) for row in rows
    )


def _run(session: Session, number: int, row: Row) -> dict[str, Any]:
    result: dict[str, Any] = {"name": row.name, "part": row.part, "stock": row.stock, "changes": row.changes}
    if session.seconds_left < row.seconds and not session.smoke:
        result["left_out"] = f"{session.seconds_left:.0f} s were left, it takes about {row.seconds:.0f}"
    else:
        try:
            result |= session.figures(row, *session.measure(number, row))
        except ChildFailedError as error:
            result["problem"] = str(error)
    told = result.get("problem") or result.get("left_out") or f"{result['tokens_per_second']:,.0f} tokens/s"
    print(f"{row.name}: {told}", flush=True)
    return result


def _json_from(command: list[str], session: Session) -> dict[str, Any]:
    """The JSON that a child writes to the path it is given; its problem where it fails."""
    out = session.folder / "child.json"
    out.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, *command, str(out)],
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, session.seconds_left),
        )
    except subprocess.TimeoutExpired as late:
        return {"problem": f"{Path(command[0]).name}: stopped after {late.timeout:.0f} s"}
    if not out.exists():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"problem": f"{Path(command[0]).name}: exit code {done.returncode}: {last}"}
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _decode(session: Session) -> dict[str, Any]:
    if session.seconds_left < 45 and not session.smoke:
        return {"left_out": f"{session.seconds_left:.0f} s were left, it takes about 45"}
    scale, rows = ("demo", ["1", "2"]) if session.smoke else ("h100-100m", ["1", "16", "64", "256"])
    return _json_from(
        [
            str(HERE / "decode.py"),
            "--device",
            "auto",
            "--scale",
            scale,
            "--rows",
            *rows,
            "--repeats",
            "2",
            "--new-tokens",
            "8" if session.smoke else "128",
            "--json",
        ],
        session,
    )


def _write(out: Path | None, session: Session, results: list[dict[str, Any]]) -> None:
    if out is not None:
        content = {
            "smoke": session.smoke,
            "energy_note": session.energy_note,
            **session.kernels,
            "training": results,
        }
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _print_kernels(found: dict[str, Any]) -> None:
    if "problem" in found:
        print(f"\nKERNELS FAILED: {found['problem']}")
        return
    print(f"\n{found['device']}, torch {found['torch']}, bf16 matmul {found['matmul_tflops']:,.0f} TFLOP/s")
    print(f"\n{'attention, forward and backward':<34}{'ms':>9}{'TFLOP/s':>9}{'/ math':>8}{'differs by':>12}")
    math = {row["shape"]: row.get("ms") for row in found["attention"] if row["form"] == "math"}
    for row in found["attention"]:
        name = f"{row['shape']}, {row['form']}"
        if "problem" in row:
            print(f"{name:<34} not here: {row['problem']}")
            continue
        ratio = math[row["shape"]] / row["ms"] if math[row["shape"]] else float("nan")
        print(f"{name:<34}{row['ms']:>9.3f}{row['tflops']:>9.1f}{ratio:>7.1f}x{row['max_difference']:>12.4f}")
    print(f"\n{'optimizer step, one rank':<34}{'ms':>9}{'parameters':>14}")
    for row in found["optimizers"]:
        print(f"{row['optimizer']:<34}{row['ms']:>9.2f}{row['parameters']:>14,}")


def _print_decode(found: dict[str, Any] | None) -> None:
    if found is None:
        return
    if "rows" not in found:
        print(f"\nDECODE: {found.get('problem') or 'left out: ' + found['left_out']}")
        return
    print(f"\n{'decode, ' + found['scale']:<34}{'tok/s':>9}{'no cache':>10}{'ratio':>8}")
    for row in found["rows"]:
        print(
            f"{row['rows']:<34}{row['cached']:>9,.0f}{row['plain']:>10,.0f}{row['cached'] / row['plain']:>7.1f}x"
        )


def _print_rows(results: list[dict[str, Any]]) -> None:
    """The table: every training row, and ours over stock of the same model."""
    stock = {row["part"]: row.get("tokens_per_second") for row in results if row["stock"]}
    print(f"\n{'training':<54}{'tok/s':>10}{'step ms':>9}{'TFLOP/s':>9}{'of matmul':>10}{'of 989':>8}{'GPU GB':>8}"
          f"{'first s':>9}{'J/step':>9}{'/ stock':>9}")  # fmt: skip
    for row in results:
        if "tokens_per_second" not in row:
            print(f"{row['name']:<54} {row.get('problem') or 'left out: ' + row['left_out']}")
            continue
        base = stock.get(row["part"])
        print(f"{row['name']:<54}{row['tokens_per_second']:>10,.0f}{row['step_ms']:>9.1f}{row['tflops']:>9.1f}"
              f"{_share(row['mfu_of_matmul']):>10}{_share(row['mfu_of_989']):>8}{_form(row['peak_gpu_gb'], '.1f'):>8}"
              f"{row['first_step_seconds']:>9.1f}{_form(row['joules_per_step'], '.0f'):>9}"
              f"{_form(row['tokens_per_second'] / base if base else None, '.2f'):>9}")  # fmt: skip


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _form(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main()
