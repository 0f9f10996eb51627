"""Tokens of one optimizer step of base pretraining: as given, or derived from the number of steps.

The law is Step Law's (arXiv 2503.04715): B = 0.58 D^0.571 tokens, where D is all that the run trains on. A spec has
steps, not tokens; with D = steps x B the law is solved for B. SFT derives nothing: its default is one forward pass.
"""

import math
from dataclasses import dataclass
from typing import Final

from picochat_contract.config_base import MAX_ROWS
from picochat_contract.configs import BaseConfig, BaseSection, BaseSettings, BatchSource, OptimConfig
from picochat_contract.errors import Code, SpecError

FACTOR: Final = 0.58
POWER: Final = 0.571
DERIVED: Final = "derived by Step Law, arXiv 2503.04715"
_WORDS: Final[dict[BatchSource, str]] = {
    "given": "given",
    "derived": DERIVED,
    "one_pass": "one forward pass, as max_minutes leaves the number of steps open",
}


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What all ranks read in one forward pass."""

    rows: int
    """Per rank."""
    sequence_len: int
    num_ranks: int

    @property
    def tokens(self) -> int:
        return self.rows * self.sequence_len * self.num_ranks

    def __str__(self) -> str:
        return f"{self.rows:,} x {self.sequence_len:,} x {self.num_ranks:,} = {self.tokens:,}"


def micro_batch(settings: BaseSettings, num_ranks: int) -> MicroBatch:
    return MicroBatch(
        rows=settings.device_batch_size, sequence_len=settings.model.sequence_len, num_ranks=num_ranks
    )


def stage_config(section: BaseSection, num_ranks: int) -> BaseConfig:
    """The section with its batch settled for this many ranks; raise SpecError where it cannot be."""
    source: BatchSource = "derived"
    if section.grad_accum_steps is not None or section.global_batch_tokens is not None:
        source = "given"
    elif (
        section.max_minutes is not None
    ):  # then `max_steps` may stand out of reach, and says nothing of the tokens
        source = "one_pass"
    accumulation = accumulation_steps(
        micro_batch(section, num_ranks),
        grad_accum_steps=section.grad_accum_steps,
        global_batch_tokens=section.global_batch_tokens,
        law_tokens=0 if source == "one_pass" else law_batch_of_steps(section.max_steps),
    )
    settings = {name: getattr(section, name) for name in BaseSettings.model_fields}
    return BaseConfig(**settings, grad_accum_steps=accumulation, batch_source=source)


def accumulation_steps(
    micro: MicroBatch, *, grad_accum_steps: int | None, global_batch_tokens: int | None, law_tokens: float
) -> int:
    """Forward passes per optimizer step: as given by either number, else as many as come nearest to `law_tokens`.

    Raise SpecError where the tokens are no whole number of passes, where both are given and differ, and where the
    passes are more than a config holds.
    """
    if global_batch_tokens is None:
        found = grad_accum_steps or nearest_passes(micro, law_tokens)
    else:
        found = _whole_passes(micro, global_batch_tokens)
        if grad_accum_steps not in (None, found):
            raise SpecError(
                Code.INVALID_VALUE,
                f"grad_accum_steps {grad_accum_steps:,} and global_batch_tokens {global_batch_tokens:,} do not agree: these "
                f"are {found:,} forward passes of {_WHAT} = {micro} tokens; give one of the two, and leave the other out",
                param="global_batch_tokens",
            )
    if found > MAX_ROWS:
        whence = DERIVED if grad_accum_steps is None and global_batch_tokens is None else "as given"
        raise SpecError(
            Code.INVALID_VALUE,
            f"grad_accum_steps would be {found:,}, and {MAX_ROWS:,} is the most: a step of {found * micro.tokens:,} tokens, "
            f"{whence}, takes so many forward passes of {_WHAT} = {micro} tokens; give global_batch_tokens or "
            "grad_accum_steps, fewer max_steps, or more device_batch_size",
            param="global_batch_tokens",
        )
    return found


def nearest_passes(micro: MicroBatch, num_tokens: float) -> int:
    """Forward passes, one at least, that together come nearest to so many tokens."""
    return max(1, round(num_tokens / micro.tokens))


def source_in_words(config: OptimConfig) -> str:
    """Where the rows of a step come from, as reports say it."""
    return _WORDS[config.batch_source] if isinstance(config, BaseConfig) else "given"


def law_batch(num_tokens: float) -> float:
    """Tokens per step that suit a training on `num_tokens`."""
    return FACTOR * math.pow(num_tokens, POWER)


def law_batch_of_steps(num_steps: int) -> float:
    """Tokens per step that suit a training of `num_steps` steps: `law_batch(num_steps * B) = B`."""
    return math.pow(law_batch(num_steps), 1 / (1 - POWER))


_WHAT: Final = "device_batch_size x sequence_len x ranks"


def _whole_passes(micro: MicroBatch, global_batch_tokens: int) -> int:
    passes, rest = divmod(global_batch_tokens, micro.tokens)
    if not rest:
        return passes
    nearest = [f"{count * micro.tokens:,}" for count in (passes, passes + 1) if count]
    fit = (
        f"the nearest values that fit are {' and '.join(nearest)}" if passes else f"the least is {nearest[0]}"
    )
    raise SpecError(
        Code.INVALID_VALUE,
        f"global_batch_tokens must be a multiple of {_WHAT} = {micro} tokens: got {global_batch_tokens:,}; {fit}",
        param="global_batch_tokens",
    )
