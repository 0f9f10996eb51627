"""Every measure equals its definition, counted by brute force, and neither cuts nor worker processes change a result."""

import random
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from picochat_trainer.data.contamination import Item, ItemIndex, Variant, scan, scanning
from picochat_trainer.data.contamination.patterns import template_limit
from picochat_trainer.data.contamination.segments import cut_blocks
from picochat_trainer.data.normalize import words
from picochat_trainer.data.workers import Workers


def random_case(seed: int) -> tuple[list[Item], list[tuple[str, str]]]:
    """Items and documents of few words, so that everything overlaps with everything."""
    rng = random.Random(seed)
    vocabulary = [f"word{n}" for n in range(rng.choice((1, 2, 3, 6, 40)))] + [
        "\u6771",
        "\u00e9",
        "12",
        "+",
        "7",
    ] * (seed % 2)

    def some(low: int, high: int) -> list[str]:
        return [rng.choice(vocabulary) for _ in range(rng.randint(low, high))]

    bases = [some(0, 30) for _ in range(rng.randint(1, 8))]
    items = []
    for number in range(rng.randint(1, 25)):
        said = rng.choice(bases)[: rng.randint(0, 20)] + some(0, 10) if rng.random() < 0.6 else some(0, 40)
        prompt = rng.choice((" ", ", ")).join(said)
        items.append(Item(str(number), prompt.title(), rng.choice((None, "", " ".join(some(0, 6))))))
    documents = []
    for number in range(rng.randint(1, 4)):
        said = []
        for _ in range(rng.randint(0, 6)):
            item = rng.choice(items)
            tokens = words(f"{item.prompt} {item.answer or ''}")
            said += tokens[rng.randint(0, 5) :] if rng.random() < 0.5 else tokens
            said += some(0, 5)
        documents.append((f"d{number}", " ".join(said)))
    return items, documents


def grams(tokens: list[str]) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + 8]) for start in range(len(tokens) - 7)]


def by_brute_force(
    items: list[Item], texts: list[list[str]]
) -> Iterator[tuple[str, Variant, tuple[float, ...]]]:
    """normalised, ngram_any_13, palm70_8, tulu50_8, longest_match_8 by their definitions."""
    of_prompt: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for item in items:
        prompt = words(item.prompt)
        of_prompt.setdefault(tuple(prompt), set()).update(grams(prompt + words(item.answer or "")))
    counts = Counter(gram for found in of_prompt.values() for gram in found)
    for item in items:
        prompt, answer = words(item.prompt), words(item.answer or "")
        repeats = Counter(grams(prompt + answer))
        for variant, tokens in ((Variant.PROMPT, prompt), (Variant.PROMPT_ANSWER, prompt + answer)):
            template = [
                counts[gram] >= template_limit(len(of_prompt)) or repeats[gram] > 4 for gram in grams(tokens)
            ]
            generic = {first + step for first, is_one in enumerate(template) if is_one for step in range(8)}
            distinctive = set(range(len(tokens))) - generic if template else set()
            counted = [first for first, is_one in enumerate(template) if not is_one and distinctive]
            whole = any(
                tokens == text[start : start + len(tokens)]
                for text in texts
                for start in range(len(text) - len(tokens) + 1)
            )
            found, coverage, runs = set(), 0, []
            for text in texts:
                here = {first for first in counted if grams(tokens)[first] in set(grams(text))}
                found |= here
                coverage = max(
                    coverage, len({first + step for first in here for step in range(8)} & distinctive)
                )
                runs += list(runs_in(text, tokens, here))
            size = len(distinctive) or 1
            longest = max((len(set(range(first, end)) & distinctive) for first, end in runs), default=0)
            long = any(end - first >= min(13, max(8, len(distinctive))) for first, end in runs)
            partial_values = (
                0,
                float(long),
                len(found) / (len(counted) or 1),
                coverage / size,
                longest / size,
            )
            yield item.key, variant, (1, 1, 1, 1, 1) if whole else partial_values


def runs_in(text: list[str], tokens: list[str], counted: set[int]) -> Iterator[tuple[int, int]]:
    """Tokens in a row, from one up to another, that stand in the text and begin 8-grams which count."""
    wanted, there = grams(tokens), grams(text)
    for shift in range(-len(tokens), len(text)):
        begin = None
        for first in range(len(wanted) + 1):
            equal = (
                first in counted and 0 <= first + shift < len(there) and there[first + shift] == wanted[first]
            )
            if equal and begin is None:
                begin = first
            elif not equal and begin is not None:
                yield begin, first + 7
                begin = None


@pytest.mark.parametrize("seed", range(60))
def test_measures_are_those_of_brute_force(seed: int) -> None:
    items, documents = random_case(seed)
    result = scan(ItemIndex(items), documents)
    for key, variant, expected in by_brute_force(items, [words(text) for _, text in documents]):
        measured = result.items[key].measured(variant)
        if measured is not None:
            names = ("normalised", "ngram_any_13", "palm70_8", "tulu50_8", "longest_match_8")
            assert [measured.value(name) for name in names] == pytest.approx(expected), (key, variant)


@pytest.mark.parametrize("seed", range(30))
def test_the_cut_of_the_text_changes_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    items, documents = random_case(seed)
    documents.append(("long", " ".join(text for _, text in documents * 12)))
    index = ItemIndex(items)
    whole = scan(index, documents)
    monkeypatch.setattr(scanning, "cut_blocks", partial(cut_blocks, block_characters=100))
    assert scan(index, documents) == whole


def test_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    items, documents = random_case(4)
    documents = documents * 200
    alone = scan(ItemIndex(items), documents)
    monkeypatch.setattr(scanning, "Workers", partial(Workers, pool_after_bytes=0))
    monkeypatch.setattr(scanning, "BLOCKS_PER_TASK", 1)
    monkeypatch.setattr(scanning, "cut_blocks", partial(cut_blocks, block_characters=5000))
    assert scan(ItemIndex(items), documents, workers=2) == alone
    assert alone.findings
