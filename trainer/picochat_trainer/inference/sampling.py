"""Choice of the next token. Every row has its own settings and random stream, so its choice never depends on
which rows happen to share its batch.

B rows, V vocab, k candidates
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from picochat_contract.errors import Code, ContractError
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    max_new_tokens: int = 120
    temperature: float = 0.8
    """0 is greedy: the most likely token, whatever the other settings."""
    top_k: int = 0
    """Sample among this many most likely tokens; 0 means all."""
    top_p: float = 1.0
    """Sample among the fewest tokens whose probabilities sum to at least this (arXiv 1904.09751)."""
    repetition_penalty: float = 1.0
    """Over 1 makes tokens of the prompt and the answer less likely (CTRL, arXiv 1909.05858)."""
    seed: int = 42
    stop_ids: Collection[int] = frozenset()
    """Tokens that end the answer and are not part of it."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""

    def __post_init__(self) -> None:
        require("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more")
        require("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 (greedy) or more")
        require("top_k", self.top_k, self.top_k >= 0, "0 (all) or more")
        require("top_p", self.top_p, 0 < self.top_p <= 1, "over 0 and at most 1")
        require(
            "repetition_penalty",
            self.repetition_penalty,
            0 < self.repetition_penalty < math.inf,
            "over 0; 1 is none",
        )
        require("seed", self.seed, -(2**63) <= self.seed < 2**63, "a 64-bit integer")
        require("stop", self.stop, all(self.stop), "texts that are not empty")


def require(param: str, value: object, accepted: bool, expected: str) -> None:
    if not accepted:
        raise ContractError(Code.INVALID_VALUE, f"{param}: expected {expected}, got {value!r}", param=param)


@dataclass
class RowSampler:
    """What one row needs besides its logits: settings, random stream, tokens seen so far."""

    params: SamplingParams
    vocab_size: int
    generator: torch.Generator = field(init=False)
    seen: Tensor | None = field(init=False, default=None)
    """True for tokens that the penalty applies to; None without a penalty."""

    def __post_init__(self) -> None:
        self.generator = torch.Generator("cpu").manual_seed(self.params.seed)
        if self.params.repetition_penalty != 1:
            self.seen = torch.zeros(self.vocab_size, dtype=torch.bool)

    def note(self, token_ids: Sequence[int]) -> None:
        """Remember tokens for the repetition penalty."""
        if self.seen is not None:
            self.seen[list(token_ids)] = True


def sample(logits_BV: Tensor, samplers: Sequence[RowSampler]) -> list[int]:
    """Choose one token per row; the penalised rows of float32 `logits_BV` are changed in place."""
    for row, sampler in enumerate(samplers):
        if sampler.seen is not None:
            _penalise(logits_BV[row], sampler.seen, sampler.params.repetition_penalty)
    greedy = [row for row, sampler in enumerate(samplers) if sampler.params.temperature == 0]
    if len(greedy) == len(samplers):
        return logits_BV.argmax(dim=-1).tolist()
    choices = [0] * len(samplers)
    plain: list[int] = []
    cut: list[int] = []
    for row, sampler in enumerate(samplers):
        params = sampler.params
        if params.temperature > 0:
            all_tokens = params.top_p == 1 and not 0 < params.top_k < logits_BV.shape[1]
            (plain if all_tokens else cut).append(row)
    for rows, choose in ((greedy, _most_likely), (plain, _among_all), (cut, _among_likely)):
        if rows:
            chosen = choose(logits_BV[rows], [samplers[row] for row in rows])
            for row, token_id in zip(rows, chosen, strict=True):
                choices[row] = token_id
    return choices


def _penalise(logits_V: Tensor, seen: Tensor, penalty: float) -> None:
    penalised_V = torch.where(logits_V > 0, logits_V / penalty, logits_V * penalty)
    logits_V.copy_(torch.where(seen.to(logits_V.device), penalised_V, logits_V))


def _most_likely(logits_BV: Tensor, samplers: Sequence[RowSampler]) -> list[int]:
    return logits_BV.argmax(dim=-1).tolist()


def _among_all(logits_BV: Tensor, samplers: Sequence[RowSampler]) -> list[int]:
    weights_BV = torch.softmax(logits_BV / _column(samplers, "temperature", logits_BV), dim=-1)
    return _draw(weights_BV, samplers).tolist()


def _among_likely(logits_BV: Tensor, samplers: Sequence[RowSampler]) -> list[int]:
    vocab_size = logits_BV.shape[1]
    limits = [min(sampler.params.top_k or vocab_size, vocab_size) for sampler in samplers]
    top_Bk, ids_Bk = logits_BV.topk(max(limits), dim=-1)  # descending
    limits_B1 = torch.tensor(limits, device=logits_BV.device)[:, None]
    beyond_Bk = torch.arange(max(limits), device=logits_BV.device) >= limits_B1
    scaled_Bk = top_Bk / _column(samplers, "temperature", logits_BV)
    weights_Bk = torch.softmax(scaled_Bk.masked_fill(beyond_Bk, -math.inf), dim=-1)
    # A token is out when those before it reach top_p already; the first never is.
    before_Bk = weights_Bk.cumsum(dim=-1) - weights_Bk
    weights_Bk = weights_Bk.masked_fill(before_Bk >= _column(samplers, "top_p", logits_BV), 0.0)
    return ids_Bk.gather(1, _draw(weights_Bk, samplers)[:, None])[:, 0].tolist()


def _column(samplers: Sequence[RowSampler], name: str, like: Tensor) -> Tensor:
    values = [getattr(sampler.params, name) for sampler in samplers]
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _draw(weights_Bk: Tensor, samplers: Sequence[RowSampler]) -> Tensor:
    """Inverse transform: the first column whose cumulated weight passes a uniform draw, one per row."""
    draws = [torch.rand((), generator=sampler.generator).item() for sampler in samplers]
    cumulated_Bk = weights_Bk.cumsum(dim=-1)
    # Scaled by the true total, which rounding and top_p leave unequal to 1; a draw is under 1, so one passes.
    draws_B1 = torch.tensor(draws, dtype=weights_Bk.dtype, device=weights_Bk.device)[:, None]
    passed_Bk = cumulated_Bk > draws_B1 * cumulated_Bk[:, -1:]
    return passed_Bk.to(torch.uint8).argmax(dim=-1)
