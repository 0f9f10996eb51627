"""The words of all items in flat arrays: N tokens of P patterns, one after the other.

A pattern is the distinct text of one item, or of several equal ones of the same group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.contamination.grams import SEED, gram_hashes
from picochat_trainer.data.contamination.measures import MIN_LETTERS, MIN_TOKENS, NGRAM, UNSPACED_LETTERS
from picochat_trainer.data.contamination.patterns import MAX_REPEATS, Item, template_limit
from picochat_trainer.data.contamination.tokens import Hashes, Places, tokenize
from picochat_trainer.data.normalize import is_unspaced, words

_BATCH: Final = 1 << 17  # characters that are split into tokens at once
_SORTED_AT_ONCE: Final = 1 << 20
_GROUP_FACTOR: Final = np.uint64(0xC2B2AE3D27D4EB4F)


Counts = NDArray[np.int32]
"""(N)"""


class Text(NamedTuple):
    """What makes two items the same pattern."""

    group: str
    prompt: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The patterns as arrays over tokens (N) and patterns (P)."""

    hashes: Hashes
    """(N)"""
    begins: Places
    """(P + 1): pattern p has the tokens `begins[p]` up to `begins[p + 1]`."""
    of_token: NDArray[np.int32]
    """(N): the pattern."""
    num_tokens: Places
    """(P): prompt and answer."""
    num_prompt: Places
    """(P)"""
    has_prompt: NDArray[np.bool_]
    """(P): the prompt alone is long enough to search for."""
    has_both: NDArray[np.bool_]
    """(P): there is an answer, and prompt and answer together are long enough."""
    template_ngrams: NDArray[np.bool_]
    """(N): the n-gram that begins here is a template."""
    template_seeds: NDArray[np.bool_]
    """(N)"""

    @property
    def template_long_seeds(self) -> NDArray[np.bool_]:
        """(N): both seeds in it are templates."""
        return self.template_seeds & np.append(self.template_seeds[1:], True)[: len(self.template_seeds)]

    @property
    def shortest(self) -> Places:
        """(P): tokens of the shortest part that is searched for and long enough to have n-grams, or of the whole pattern."""
        return np.where(self.has_prompt & (self.num_prompt >= NGRAM), self.num_prompt, self.num_tokens)

    @property
    def searched(self) -> NDArray[np.bool_]:
        return self.has_prompt | self.has_both


def distinct_texts(items: Sequence[Item]) -> tuple[list[Text], list[int]]:
    """The texts of the patterns, and for each item the number of its pattern."""
    numbers: dict[Text, int] = {}
    of_item = [
        numbers.setdefault(Text(item.group, item.prompt.strip(), (item.answer or "").strip()), len(numbers))
        for item in items
    ]
    return list(numbers), of_item


def lay_out(texts: Sequence[Text]) -> tuple[Layout, Counts, Counts]:
    """With the layout: how many different prompts of its group hold the n-gram, and the seed, that begins at each token."""
    hashes, lengths = _tokenize_all([field for text in texts for field in (text.prompt, text.answer)])
    num_prompt, num_answer = lengths[::2], lengths[1::2]
    num_tokens = num_prompt + num_answer
    begins = np.append(0, np.cumsum(num_tokens))
    of_token = np.repeat(np.arange(len(texts), dtype=np.int32), num_tokens)
    has_prompt = np.array(
        [_searchable(text.prompt, length) for text, length in zip(texts, num_prompt.tolist(), strict=True)],
        np.bool_,
    )
    has_both = np.array(
        [
            length > 0 and _searchable(f"{text.prompt}\n{text.answer}", total)
            for text, length, total in zip(texts, num_answer.tolist(), num_tokens.tolist(), strict=True)
        ],
        np.bool_,
    )
    groups, forms = _forms(texts, hashes, begins, num_prompt)
    grams = gram_hashes(hashes)
    template_ngrams, ngram_counts = _templates(grams.ngrams, NGRAM, of_token, groups, forms)
    template_seeds, seed_counts = _templates(grams.seeds, SEED, of_token, groups, forms)
    layout = Layout(
        hashes=hashes,
        begins=begins,
        of_token=of_token,
        num_tokens=num_tokens,
        num_prompt=num_prompt,
        has_prompt=has_prompt,
        has_both=has_both,
        template_ngrams=template_ngrams,
        template_seeds=template_seeds,
    )
    return layout, ngram_counts, seed_counts


def _tokenize_all(fields: Sequence[str]) -> tuple[Hashes, Places]:
    """Hashes of the tokens of all fields, and how many each field has."""
    hashes = [np.zeros(0, np.uint64)]
    lengths = np.zeros(len(fields), np.int64)
    first = size = 0
    for number, field in enumerate(fields):
        size += len(field) + 1
        if size >= _BATCH or number == len(fields) - 1:
            batch = fields[first : number + 1]
            tokens = tokenize("\0".join(batch))
            ends = np.cumsum([len(each) + 1 for each in batch])
            lengths[first : number + 1] = np.diff(np.searchsorted(tokens.starts, ends), prepend=0)
            hashes.append(tokens.hashes)
            first, size = number + 1, 0
    return np.concatenate(hashes), lengths


def _searchable(text: str, num_tokens: int) -> bool:
    if num_tokens >= max(MIN_TOKENS, MIN_LETTERS):
        return True
    letters = sum(UNSPACED_LETTERS if is_unspaced(token) else len(token) for token in words(text))
    return num_tokens >= MIN_TOKENS and letters >= MIN_LETTERS


def _forms(
    texts: Sequence[Text], hashes: Hashes, begins: Places, num_prompt: Places
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each pattern the number of its group, and one that it shares with those whose prompt has the same words."""
    groups: dict[str, int] = {}
    forms: dict[tuple[str, bytes], int] = {}
    of_pattern = []
    for text, begin, length in zip(texts, begins.tolist(), num_prompt.tolist(), strict=False):
        form = (text.group, hashes[begin : begin + length].tobytes())
        of_pattern.append((groups.setdefault(text.group, len(groups)), forms.setdefault(form, len(forms))))
    found = np.array(of_pattern, np.int32).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _templates(
    grams: Hashes,
    size: int,
    of_token: NDArray[np.int32],
    groups: NDArray[np.int32],
    forms: NDArray[np.int32],
) -> tuple[NDArray[np.bool_], Counts]:
    """Whether the gram that begins at each token is a template, and how many different prompts hold it."""
    template, counts = np.zeros(len(of_token), np.bool_), np.zeros(len(of_token), np.int32)
    limits = np.array([template_limit(count) for count in _prompts_of_groups(groups, forms)])
    inside = (
        np.flatnonzero(of_token[: len(grams)] == of_token[size - 1 :])
        if len(grams)
        else np.zeros(0, np.int64)
    )
    # Equal grams are in the same share, so that sorting needs little memory.
    num_shares = np.uint64(len(inside) // _SORTED_AT_ONCE + 1)
    share_of = (grams[inside] >> np.uint64(32)) % num_shares
    for share in range(int(num_shares)):
        places = inside[share_of == share]
        patterns = of_token[places]
        keys = grams[places] ^ (groups[patterns].astype(np.uint64) * _GROUP_FACTOR)
        order = np.lexsort((patterns, forms[patterns], keys))
        places, patterns = places[order], patterns[order]
        num_forms, repeats = _count(keys[order], forms[patterns], patterns)
        counts[places] = num_forms
        template[places] = (num_forms >= limits[groups[patterns]]) | (repeats > MAX_REPEATS)
    return template, counts


def _count(
    keys: Hashes, forms: NDArray[np.int32], patterns: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of the sorted rows: forms with the same key, and rows with the same key, form and pattern."""
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    new_key = np.append(True, keys[1:] != keys[:-1])
    new_form = new_key | np.append(True, forms[1:] != forms[:-1])
    new_pattern = new_form | np.append(True, patterns[1:] != patterns[:-1])
    num_forms = np.add.reduceat(new_form.astype(np.int64), np.flatnonzero(new_key))[np.cumsum(new_key) - 1]
    repeats = np.diff(np.append(np.flatnonzero(new_pattern), len(keys)))[np.cumsum(new_pattern) - 1]
    return num_forms, repeats


def _prompts_of_groups(groups: NDArray[np.int32], forms: NDArray[np.int32]) -> list[int]:
    """Number of different prompts in each group."""
    _, first = np.unique(forms, return_index=True)
    return np.bincount(groups[first], minlength=int(groups.max(initial=0)) + 1).tolist()
