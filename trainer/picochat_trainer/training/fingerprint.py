"""What a resumed training must have in common with the one that it goes on from.

Three classes of settings. Those of `compared` change what is learned, or which weights are chosen: a resume with another
is refused, by name. Those of `rounding` change how the same sums are computed (how a step's rows are shared out, kernels,
compiler, chunks, device, threads, version of torch), so that results differ in the last bits only, and with dropout in what
is dropped: they are told, not refused; without them changed, a resume on the CPU is bit-equal. The version of numpy, which
draws the order of the batches, is told with them. What is left only watches or interrupts. A number format is no rounding:
bf16 and float32 differ by more than their last bits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from picochat_contract.configs import OptimConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.learning_rates import (
    effective_learning_rate,
    effective_warmup_steps,
    effective_weight_decay,
    rows_per_step,
)
from picochat_contract.manifest import code_version
from picochat_contract.stages import StageName

from picochat_trainer.context import StageContext
from picochat_trainer.training.hardware import arithmetic, autocast_dtype

ROUNDING: Final = "rounding"

COMPARED_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "model": ("model", "document_mask"),
    "data": (
        "val_fraction",
        "split_mode",
        "dataset_mode",
        "canary_count",
        "canary_repeats",
        "sampling",
        "train_on",
        "seed",
    ),
    "optimizer": ("optimizer", "grad_clip", "ema_decay", "loss_spike_rollback"),
    "schedule": ("max_steps", "lr_decay", "decay_fraction", "min_lr_ratio"),
    "choice": ("eval_every", "early_stop_patience", "early_stop_min_delta"),
}
"""Config fields that are compared as they are, by section of the fingerprint. A stage has those that its config has."""
RESOLVED_FIELDS: Final = ("learning_rate", "auto_lr_scaling", "warmup_steps", "weight_decay", "precision")
"""Fields of which only what becomes of them is compared."""
ROUNDING_FIELDS: Final = (
    "device_batch_size",
    "grad_accum_steps",
    "compile",
    "attn_backend",
    "gradient_checkpointing",
    "loss_chunk_tokens",
)
"""Of the first two, their product with the number of ranks is compared."""
FREE_FIELDS: Final = (
    "max_minutes",
    "checkpoint_every",
    "keep_every",
    "log_every",
    "stop_after_steps",
    "tensorboard",
    "sample_tokens",
    "sample_prompt",
    "batch_source",
)


def training_fingerprint(
    stage: StageName, context: StageContext, config: OptimConfig, *, data: dict[str, str], tokenizer: str
) -> dict[str, Any]:
    """The fingerprint of one training; `data` and `tokenizer` are digests."""
    settings = config.model_dump(mode="json")
    sections: dict[str, dict[str, Any]] = {
        section: {field: settings[field] for field in fields if field in settings}
        for section, fields in COMPARED_FIELDS.items()
    }
    num_ranks = context.world_size
    sections["data"] |= data
    sections["optimizer"] |= {
        "learning_rate": effective_learning_rate(config, num_ranks),
        "weight_decay": effective_weight_decay(config, num_ranks),
    }
    sections["schedule"]["warmup_steps"] = effective_warmup_steps(config)
    return {
        "code": code_version(stage),
        "tokenizer": tokenizer,
        **sections,
        "batch": {"rows_per_step": rows_per_step(config, num_ranks)},
        "precision": precision_of(config, context.device),
        ROUNDING: {
            **{field: settings[field] for field in ROUNDING_FIELDS},
            "num_ranks": num_ranks,
            "strategy": context.resources.distributed_strategy if num_ranks > 1 else None,
            "device": context.device.split(":")[0],
            **arithmetic(context.device),
            "numpy": np.__version__,
        },
    }


def precision_of(config: OptimConfig, device: str) -> str:
    """The number format that matrix products really have on this machine: float32 or bf16."""
    return "float32" if autocast_dtype(config.precision, device) is None else "bf16"


def refuse_other_fingerprint(found: dict[str, Any], expected: dict[str, Any], directory: Path) -> None:
    """Raise `fingerprint_mismatch`, naming each difference, unless both are equal but for `rounding`."""
    differences = list(_differences(_without_rounding(found), _without_rounding(expected), ""))
    if differences:
        raise ContractError(
            Code.FINGERPRINT_MISMATCH,
            f"{directory} belongs to another training: {'; '.join(differences)}. Restore the setting, or delete "
            "the folder to start from the beginning",
            param=differences[0].split(":")[0],
        )


def rounding_differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Differences that are not refused, in words."""
    return list(_differences(found.get(ROUNDING, {}), expected.get(ROUNDING, {}), ""))


def _without_rounding(fingerprint: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fingerprint.items() if name != ROUNDING}


def _differences(found: Any, expected: Any, where: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from _differences(found.get(key), expected.get(key), f"{where}.{key}" if where else key)
    elif found != expected:
        yield f"{where}: the checkpoint has {found!r}, this job has {expected!r}"
