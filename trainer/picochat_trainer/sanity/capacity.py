"""Does one step of a preset fit, of base and of SFT: forward, backward and update of the exact micro-batch, with optimizer
states and EMA, and with the gradients of the micro-batch before where a training holds them.

Memory is what was really taken, not an estimate; on a CPU it is measured only where that takes seconds. What it leaves
out: the buffers of NCCL, and the data that a validation holds. Of a preset that shares its weights out (FSDP) it measures
the whole, which is more than a rank has.

B rows, T tokens
"""

import gc
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.model_size import flops_per_token, vocab_size
from picochat_contract.plan_figures import sft_as_base
from picochat_contract.preflight_footprint import training_memory
from picochat_contract.spec import RunSpec
from torch import Tensor, nn

from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import choose_backend
from picochat_trainer.preflight.machine import memory_bytes
from picochat_trainer.sanity.check import Finding, failed, judged, skipped
from picochat_trainer.sanity.setup import SEED, Setup
from picochat_trainer.training.compiled import compile_pieces
from picochat_trainer.training.ema import Ema
from picochat_trainer.training.hardware import autocast, autocast_dtype
from picochat_trainer.training.optim import make_optimizer
from picochat_trainer.training.spikes import SpikeGuard

STEPS: Final = 2  # the first makes the optimizer's states, the second runs with all that there is
MAX_CPU_BYTES: Final = 2 << 30
MAX_CPU_OPERATIONS: Final = 2e12
"""Of one step, about half a minute of two cores."""
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"  # proc(5)


def check_capacity(setup: Setup) -> Finding:
    limit = f"at least {setup.min_free_fraction:.0%} of the memory stays free"
    if setup.preset is None:
        return skipped("no --capacity-scale was given", limit)
    stages = {"base": _with_rows(setup), "SFT": sft_as_base(setup.preset.base_config, setup.preset.sft)}
    if not setup.on_gpu:
        for stage, config in stages.items():
            estimate = _estimate(setup, config)
            reason = why_not_on_cpu(setup.preset, config, estimate)
            if reason is not None:
                words = f"a GPU would hold about {estimate / 1e9:.1f} GB by estimate"
                return skipped(f"needs CUDA: {stage}: {reason}; {words}", limit)
    free, said = 1.0, []
    for stage, config in stages.items():
        words = f"{stage}: {_words(setup.preset, config)}"
        try:
            used, total = measure(setup, config)
        except torch.OutOfMemoryError as error:
            first = str(error).strip().splitlines()[0]
            return failed(0.0, limit, f"{setup.preset.scale}: {words} does not fit: {first}")
        finally:
            _forget(setup)
        free = min(free, 1 - used / total)
        estimated = f"preflight estimates {_estimate(setup, config) / 1e9:.2f} GB for the step alone"
        said.append(f"{words} took {used / 1e9:.2f} GB of {total / 1e9:.1f} GB, {estimated}")
    message = f"{setup.preset.scale}, with what the process held before: {'; '.join(said)}"
    return judged(free >= setup.min_free_fraction, free, limit, message)


def num_micro_batches(preset: RunSpec, base: BaseConfig) -> int:
    """Per measured step. Two where the second one's activations lie beside gradients: those of the first, where a step
    accumulates; with several ranks DDP's buckets, which have their size and stay."""
    return 2 if base.grad_accum_steps > 1 or preset.resources.num_ranks > 1 else 1


def why_not_on_cpu(preset: RunSpec, base: BaseConfig, estimate: int) -> str | None:
    """Why one step is not tried on a CPU; None where it is over in seconds and fits."""
    tokens = num_micro_batches(preset, base) * base.device_batch_size * base.model.sequence_len
    operations = flops_per_token(base.model, vocab_size(preset.tokenizer)) * float(tokens)
    if estimate > min(MAX_CPU_BYTES, memory_bytes() // 2):
        return f"it is tried on a CPU up to {MAX_CPU_BYTES / 1e9:.1f} GB and half of its memory"
    if operations > MAX_CPU_OPERATIONS:
        return f"a step of {operations:.1e} operations is too slow on a CPU, where {MAX_CPU_OPERATIONS:.0e} are the limit"
    return None


def measure(setup: Setup, base: BaseConfig) -> tuple[int, int]:
    """(bytes taken at the peak, bytes that there are) of steps of `num_micro_batches` on this device."""
    assert setup.preset is not None
    outside = _start(setup)
    vocab = vocab_size(setup.preset.tokenizer)
    dtype = autocast_dtype(base.precision, setup.device) if setup.precision == "auto" else setup.dtype
    model = GPT(base.model, vocab)
    model.init_weights(base.seed)
    model.to(setup.device).train()
    model.gradient_checkpointing = base.gradient_checkpointing
    model.loss_chunk_tokens = base.loss_chunk_tokens
    model.document_token = 0 if base.document_mask else None
    with autocast(setup.device, dtype):
        choose_backend(model, base.attn_backend, setup.device)
    if setup.on_gpu and base.compile != "off":
        compile_pieces(model)  # as training will do
    optimizer = make_optimizer(model, base, num_ranks=1)
    ema = Ema(model, base.ema_decay) if base.ema_decay else None
    guard = SpikeGuard(model, optimizer, saved={}, ema=ema) if base.loss_spike_rollback else None
    generator = torch.Generator().manual_seed(SEED)
    shape = (base.device_batch_size, base.model.sequence_len + 1)
    tokens_BT = torch.randint(vocab, shape, generator=generator).to(setup.device)
    for _ in range(STEPS):
        for _ in range(num_micro_batches(setup.preset, base)):
            with autocast(setup.device, dtype):
                loss = model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), base.grad_clip or 1.0)
        optimizer.step()
        if ema is not None:
            ema.update()
        optimizer.zero_grad()
        if guard is not None:
            guard.snapshot()
    _refuse_nonsense(loss)
    return _taken(setup, outside)


def _with_rows(setup: Setup) -> BaseConfig:
    assert setup.preset is not None
    base = setup.preset.base_config
    rows = setup.capacity_batch_size or base.device_batch_size
    return base.model_copy(update={"device_batch_size": rows})


def _estimate(setup: Setup, base: BaseConfig) -> int:
    assert setup.preset is not None
    vocab = vocab_size(setup.preset.tokenizer)
    bf16 = base.precision == "bf16" or (base.precision == "auto" and setup.dtype is not None)
    return training_memory(base, vocab, on_gpu=setup.on_gpu, bf16=bf16).total


def _words(preset: RunSpec, base: BaseConfig) -> str:
    return (
        f"{base.device_batch_size} rows x {base.model.sequence_len} tokens with {base.optimizer}"
        f"{', EMA' if base.ema_decay else ''}{', rollback snapshot' if base.loss_spike_rollback else ''}"
        f"{', 2 micro-batches, the second beside the gradients' if num_micro_batches(preset, base) > 1 else ''}"
    )


def _start(setup: Setup) -> int:
    """Begin to watch for the peak; bytes of the device that others, and CUDA itself, hold."""
    _forget(setup)
    if not setup.on_gpu:
        with suppress(OSError):  # without it the peak is that of the whole process: an upper bound
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        return 0
    torch.cuda.reset_peak_memory_stats(setup.device)
    free, total = torch.cuda.mem_get_info(setup.device)
    return total - free - torch.cuda.memory_reserved(setup.device)


def _taken(setup: Setup, outside: int) -> tuple[int, int]:
    if setup.on_gpu:
        total = torch.cuda.mem_get_info(setup.device)[1]
        return torch.cuda.max_memory_reserved(setup.device) + outside, total
    return _peak_of_process(), memory_bytes()


def _peak_of_process() -> int:
    """Largest resident memory since `_start`, as Linux counts it."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no VmHWM")
    return int(found[1]) * 1024


def _forget(setup: Setup) -> None:
    gc.collect()
    if setup.on_gpu:
        torch.cuda.empty_cache()


def _refuse_nonsense(loss: Tensor) -> None:
    if not bool(loss.detach().isfinite()):
        raise ValueError(f"the loss of a step is {float(loss)}: the memory of such a step says nothing")
