"""What all checks are given: the device and number format, the preset that is to be paid for, and a folder to work in."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from picochat_contract.configs import AttentionBackend, ModelConfig, Precision
from picochat_contract.model_size import num_parameters, vocab_size
from picochat_contract.spec import RunSpec

from picochat_trainer.model import GPT

SAMPLE_MODEL: Final = ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=256, sequence_len=128)
"""Modern in all its parts, and small enough for a CPU."""
SAMPLE_VOCAB: Final = 512
MAX_CPU_PARAMETERS: Final = 40_000_000
SEED: Final = 1234


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Options of the suite, resolved."""

    device: str
    """torch device name: cpu or cuda:0."""
    precision: Precision
    dtype: torch.dtype | None
    """Of autocast; None is plain float32."""
    attn_backend: AttentionBackend
    include_compile: bool
    preset: RunSpec | None
    capacity_batch_size: int | None
    """Rows per micro-batch; None takes the preset's."""
    min_free_fraction: float
    folder: Path
    """Empty at the start, removed at the end."""
    num_gpus: int

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @cached_property
    def model_config(self) -> ModelConfig:
        """The preset's model with two layers and a short context; another one where that is too large for a CPU."""
        if self.preset is None:
            return SAMPLE_MODEL
        full = self.preset.base.model
        small = full.model_copy(
            update={"n_layer": 2, "sequence_len": min(full.sequence_len, 256), "dropout": 0.0}
        )
        too_large = num_parameters(small, self.vocab) > MAX_CPU_PARAMETERS
        if not self.on_gpu and too_large:
            return small.model_copy(
                update={"n_head": 4, "n_kv_head": 2, "n_embd": 4 * full.head_dim, "mlp_hidden": None}
            )
        return small

    @cached_property
    def vocab(self) -> int:
        if self.preset is None:
            return SAMPLE_VOCAB
        return vocab_size(self.preset.tokenizer)

    def model(self, **changes: object) -> GPT:
        """A fresh one on the device; `changes` are of its config."""
        model = GPT(self.model_config.model_copy(update=changes), self.vocab)
        model.init_weights(SEED)
        return model.to(self.device)

    def tokens(self, rows: int, length: int) -> torch.Tensor:
        """tokens_BT, the same in every call."""
        generator = torch.Generator().manual_seed(SEED)
        return torch.randint(self.vocab, (rows, length), generator=generator).to(self.device)
