"""Prompts that are the same prompt: compared by their normal form, so case, spacing and punctuation hide nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from picochat_trainer.data.normalize import normal_form
from picochat_trainer.honesty.texts import TextItem


@dataclass(frozen=True, kw_only=True)
class SamePrompt:
    """An item and the first other one with its prompt."""

    item: TextItem
    other: TextItem
    occurrences: int
    """How many others have it."""


def shared_prompts(items: Sequence[TextItem], others: Sequence[TextItem]) -> list[SamePrompt]:
    """Items whose prompt is also one of `others`."""
    by_prompt = _by_prompt(others)
    return [
        SamePrompt(item=item, other=same[0], occurrences=len(same))
        for item in items
        if (same := by_prompt.get(_key(item)))
    ]


def repeated_prompts(items: Sequence[TextItem]) -> list[SamePrompt]:
    """Every item whose prompt an earlier one has."""
    return [
        SamePrompt(item=item, other=same[0], occurrences=len(same) - 1)
        for same in _by_prompt(items).values()
        for item in same[1:]
    ]


def _by_prompt(items: Sequence[TextItem]) -> dict[str, list[TextItem]]:
    found: dict[str, list[TextItem]] = {}
    for item in items:
        found.setdefault(_key(item), []).append(item)
    return found


def _key(item: TextItem) -> str:
    # A prompt of signs only has no words; its own text then stands for it.
    return normal_form(item.prompt) or item.prompt.strip()
