"""Where the time of a compiled training step on the CPU goes: matmuls, attention, loss, optimizer, other kernels, Python.

    python bench/profile_step.py [--shape 1.5m] [--rows 32] [--steps 5] [--top 25] [--threads 1]

Runs the base stage's process with torch.profiler around some steps after the warm-up. Times are of the main thread: what the
other threads do meanwhile is part of the kernel that started them. Profiling slows a step by some per cent; train_cpu.py tells
the speed.
"""

import argparse
import importlib
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from generated_run import base_config, write_inputs, write_job
from stage_process import after_each_step, run_base
from step_times import WARM_STEPS, load_line
from train_cpu import BYTES_PER_TOKEN, MIN_BYTES, SHAPES, VOCAB_SIZE

# First match wins. Fused kernels carry the names of what is fused in them.
KINDS = (
    ("optimizer", r"_fused_adamw|Optimizer\.|clip_grad|_foreach_norm|linalg_vector_norm|_foreach_mul|muon"),
    ("attention matmuls", r"::bmm|::baddbmm|scaled_dot_product|flash_attention"),
    ("matmuls", r"::mm$|::addmm|mkldnn|::linear$|gemm|::matmul"),
    ("loss", r"log_softmax|nll_loss|cross_entropy"),
    ("attention softmax", r"softmax"),
    ("embedding", r"embedding|index_put|scatter|index_add"),
    ("fused kernels", r"cpp_fused|kernel_cpp|^graph_"),
    ("copies", r"aten::(copy_|to|_to_copy|clone|contiguous|fill_|zero_|empty)"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="1.5m")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument(
        "--threads",
        type=int,
        help="1 tells most on a busy machine: threads that wait for each other are no work",
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        _run_here(args)
        return
    num_steps = WARM_STEPS + args.steps
    config = base_config(num_steps, model=SHAPES[args.shape], device_batch_size=args.rows)
    needed = (num_steps + 2) * args.rows * config.model.sequence_len * BYTES_PER_TOKEN
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder / "inputs", vocab_size=VOCAB_SIZE, num_bytes=max(MIN_BYTES, int(1.2 * needed)))
        write_job(folder, folder / "inputs", config, {"device": "cpu", "num_threads": args.threads})
        print(load_line(), flush=True)
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--folder", name], check=True)


def _run_here(args: argparse.Namespace) -> None:
    done, profilers = [0], list[Any]()

    def prepare() -> None:
        importlib.import_module("torch._inductor.config").cpp.enable_kernel_profile = True
        after_each_step(count)

    def count() -> None:
        done[0] += 1
        if done[0] == WARM_STEPS:
            profiler = importlib.import_module("torch.profiler")
            profilers.append(profiler.profile(activities=[profiler.ProfilerActivity.CPU], record_shapes=True))
            profilers[0].start()
        if done[0] == WARM_STEPS + args.steps:
            profilers[0].stop()
            _report(profilers[0], args.steps, args.top)
            sys.stdout.flush()
            os._exit(0)

    raise SystemExit(run_base(args.folder, prepare))


def _report(profiler: Any, num_steps: int, top: int) -> None:
    events = [event for event in profiler.events() if event.device_type.name == "CPU"]
    begin, end = min(e.time_range.start for e in events), max(e.time_range.end for e in events)
    step_ms = (end - begin) / 1e3 / num_steps
    kinds: dict[str, float] = defaultdict(float)
    for event in events:
        kinds[_kind(event.name)] += event.self_cpu_time_total / 1e3 / num_steps
    kinds["between the operators (Python)"] = step_ms - sum(kinds.values())
    print(f"one step: {step_ms:.1f} ms while profiled\n")
    print(f"{'ms a step':>10}{'share':>8}  what")
    for name, value in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"{value:>10.2f}{value / step_ms:>8.1%}  {name}")
    print(f"\n{'ms a step':>10}{'calls':>8}  operator (self time)")
    averages = sorted(profiler.key_averages(), key=lambda a: -a.self_cpu_time_total)[:top]
    for average in averages:
        value = average.self_cpu_time_total / 1e3 / num_steps
        print(f"{value:>10.2f}{average.count / num_steps:>8.0f}  {average.key[:110]}")
    print(f"\n{'ms a step':>10}{'calls':>8}{'GFLOP/s':>9}  matmul, by shape")
    by_shape = profiler.key_averages(group_by_input_shape=True)
    products = [a for a in by_shape if a.key in ("aten::mm", "aten::bmm") and a.input_shapes]
    for average in sorted(products, key=lambda a: -a.self_cpu_time_total):
        left, right = average.input_shapes[:2]
        gflop = 2 * math.prod(left) * right[-1] * average.count / num_steps / 1e9
        value = average.self_cpu_time_total / 1e3 / num_steps
        print(f"{value:>10.2f}{average.count / num_steps:>8.0f}{1e3 * gflop / value:>9.0f}  {left} @ {right}")


def _kind(name: str) -> str:
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), "other operators")


if __name__ == "__main__":
    main()
