"""Rows that are generated together. A row may join or leave between two tokens; none waits for another's end.

The active rows always fill the first slots of the cache: a finished row's slot is taken over by the last one, so
a decode step works on a plain view of the cache.

B rows, T tokens, D model dim, V vocab
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from picochat_contract.errors import Code, ContractError

from picochat_trainer.inference.sampling import RowSampler, SamplingParams, sample
from picochat_trainer.inference.text import TextAssembler
from picochat_trainer.model import GPT, KVCache

FinishReason = Literal["stop", "length"]
PREFILL_TOKENS = 8192  # per pass, with padding: bounds memory and how long running rows wait


@dataclass(frozen=True)
class StreamPiece:
    """What one token added to an answer."""

    text: str
    """Whole characters only; often empty while a character or a stop text is incomplete."""
    token_id: int | None
    """None if the token ended the answer without being part of it."""
    finish_reason: FinishReason | None
    """Set on the last piece."""
    truncated: bool
    """The prompt did not fit the context: its first tokens were dropped."""


@dataclass(frozen=True)
class Completion:
    token_ids: tuple[int, ...]
    """Without the token that ended the answer; with those of a stop text."""
    text: str
    finish_reason: FinishReason
    truncated: bool
    """The prompt did not fit the context: its first tokens were dropped."""


class Generation:
    """One answer in the making."""

    def __init__(
        self, prompt_ids: Sequence[int], params: SamplingParams, context: int, token_bytes: Sequence[bytes]
    ) -> None:
        self.params = params
        self.prompt_ids = fit_prompt(prompt_ids, params.max_new_tokens, context)
        self.truncated = len(self.prompt_ids) < len(prompt_ids)
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.cancelled = False  # set from any thread: the row leaves before its next token
        self.sampler = RowSampler(params, len(token_bytes))
        self.sampler.note(self.prompt_ids)
        # The last token needs no place of its own: nothing comes after it.
        self._limit = min(params.max_new_tokens, context - len(self.prompt_ids) + 1)
        self._token_bytes = token_bytes
        self._assembler = TextAssembler(params.stop)

    @property
    def ended(self) -> bool:
        return self.cancelled or self.finish_reason is not None

    def accept(self, token_id: int) -> StreamPiece:
        """Take the next token into the answer."""
        if token_id in self.params.stop_ids:
            self.finish_reason = "stop"
            return StreamPiece(self._assembler.finish(), None, "stop", self.truncated)
        self.token_ids.append(token_id)
        self.sampler.note((token_id,))
        text = self._assembler.feed(self._token_bytes[token_id])
        if self._assembler.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self._limit:
            self.finish_reason = "length"
            text += self._assembler.finish()
        return StreamPiece(text, token_id, self.finish_reason, self.truncated)

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        return Completion(tuple(self.token_ids), self._assembler.text, self.finish_reason, self.truncated)


def fit_prompt(prompt_ids: Sequence[int], max_new_tokens: int, context: int) -> list[int]:
    """Keep the last tokens of a prompt that is longer than the context, and room for the answer.

    The answer may take at most half of the context from such a prompt.
    """
    if not prompt_ids:
        raise ContractError(
            Code.INVALID_VALUE, "prompt: expected at least one token, got none", param="prompt"
        )
    if len(prompt_ids) <= context:
        return list(prompt_ids)
    return list(prompt_ids[-(context - min(max_new_tokens, context // 2)) :])


class Batch:
    """`slots` rows of static cache. Not for several threads at once, `Generation.cancelled` excepted."""

    def __init__(self, model: GPT, slots: int) -> None:
        self.model = model
        weight = model.model.embed_tokens.weight
        self._device = weight.device
        self._cache = KVCache.empty(model.config, slots, device=weight.device, dtype=weight.dtype)
        self._active: list[Generation] = []
        self._waiting: list[Generation] = []

    @property
    def num_free(self) -> int:
        return self._cache.slots - len(self._active) - len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._active or self._waiting)

    def admit(self, generation: Generation) -> None:
        """Let a generation join at the next step; there must be a free slot."""
        if not self.num_free:
            raise RuntimeError("the batch is full: look at num_free before admitting")
        self._waiting.append(generation)

    @torch.inference_mode()
    def step(self) -> list[tuple[Generation, StreamPiece]]:
        """Give every active row one token, and newly admitted rows their first."""
        self._drop_ended()
        pieces = self._decode()
        pieces += self._prefill()
        self._drop_ended()
        return pieces

    def _decode(self) -> list[tuple[Generation, StreamPiece]]:
        if not self._active:
            return []
        rows = self._cache.rows(0, len(self._active))
        tokens_B1 = torch.tensor([[row.token_ids[-1]] for row in self._active], device=self._device)
        last_BD = self.model.hidden(tokens_B1, rows)[:, 0]
        rows.advance(1)
        return self._choose(last_BD, self._active)

    def _prefill(self) -> list[tuple[Generation, StreamPiece]]:
        joining = self._take_waiting()
        if not joining:
            return []
        lengths = [len(row.prompt_ids) for row in joining]
        rows = self._cache.rows(len(self._active), len(self._active) + len(joining))
        rows.lengths_B.zero_()
        tokens_BT = torch.zeros(len(joining), max(lengths), dtype=torch.int64)
        for tokens_T, row in zip(tokens_BT, joining, strict=True):
            tokens_T[: len(row.prompt_ids)] = torch.tensor(row.prompt_ids)
        hidden_BTD = self.model.hidden(tokens_BT.to(self._device), rows)
        rows.advance(lengths)
        self._active += joining
        last_B = torch.tensor(lengths, device=self._device) - 1
        return self._choose(hidden_BTD[torch.arange(len(joining), device=self._device), last_B], joining)

    def _take_waiting(self) -> list[Generation]:
        """The first waiting rows that fit one pass; always at least one."""
        joining: list[Generation] = []
        longest = 0
        for row in self._waiting:
            longest = max(longest, len(row.prompt_ids))
            if joining and longest * (len(joining) + 1) > PREFILL_TOKENS:
                break
            joining.append(row)
        del self._waiting[: len(joining)]
        return joining

    def _choose(
        self, last_BD: torch.Tensor, rows: Sequence[Generation]
    ) -> list[tuple[Generation, StreamPiece]]:
        logits_BV = self.model.logits(last_BD).float()
        if not torch.isfinite(logits_BV).all():
            raise ContractError(
                Code.CHECKPOINT_CORRUPT,
                "expected finite logits, got NaN or infinity: the weights are broken or diverged; use an earlier checkpoint",
            )
        chosen = sample(logits_BV, [row.sampler for row in rows])
        return [(row, row.accept(token_id)) for row, token_id in zip(rows, chosen, strict=True)]

    def _drop_ended(self) -> None:
        self._waiting = [row for row in self._waiting if not row.ended]
        for slot in reversed(range(len(self._active))):
            if self._active[slot].ended:
                last = len(self._active) - 1
                if slot != last:
                    self._cache.move(last, slot)
                    self._active[slot] = self._active[last]
                self._active.pop()
