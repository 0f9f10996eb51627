"""How much of one text is in another: token F1, ROUGE-L, repetition, support by the corpus. Diagnostics, not rules."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from picochat_trainer.data.normalize import words

RUN_WORDS: Final = 3  # words in a row that must stand in the corpus to be supported by it


def token_f1(reply: str, reference: str) -> float:
    """F1 over the bags of words (SQuAD's measure)."""
    left, right = Counter(words(reply)), Counter(words(reference))
    return _f_measure((left & right).total(), left.total(), right.total())


def rouge_l(reply: str, reference: str) -> float:
    """ROUGE-L F-measure (Lin 2004, beta 1): long replies gain nothing by length alone."""
    left, right = words(reply), words(reference)
    return _f_measure(_longest_common_subsequence(left, right), len(left), len(right))


def repeated_share(reply: str) -> float:
    """Share of 3-word runs that occurred before in the reply."""
    runs = list(_runs(words(reply)))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def unique_word_share(reply: str) -> float:
    found = words(reply)
    return len(set(found)) / len(found) if found else 0.0


def corpus_support(replies: Sequence[str], documents: Iterable[str]) -> list[float | None]:
    """Share of each reply's 3-word runs that stand in a document; None for a reply without words.

    A reply shorter than that counts as one run. Vocabulary alone would be no support: every word of a language
    stands in a large corpus.
    """
    wanted = [list(dict.fromkeys(_runs(words(reply), keep_short=True))) for reply in replies]
    missing = {run for of_reply in wanted for run in of_reply}
    found: set[tuple[str, ...]] = set()
    for text in documents if missing else ():
        tokens = words(text)
        for length in {len(run) for run in missing}:
            found |= missing.intersection(zip(*(tokens[start:] for start in range(length)), strict=False))
        missing -= found
        if not missing:
            break
    return [
        sum(run in found for run in of_reply) / len(of_reply) if of_reply else None for of_reply in wanted
    ]


def _runs(tokens: list[str], *, keep_short: bool = False) -> Iterator[tuple[str, ...]]:
    if keep_short and 0 < len(tokens) < RUN_WORDS:
        yield tuple(tokens)
    for start in range(len(tokens) - RUN_WORDS + 1):
        yield tuple(tokens[start : start + RUN_WORDS])


def _f_measure(common: int, left: int, right: int) -> float:
    return 2 * common / (left + right) if common else 0.0


def _longest_common_subsequence(left: list[str], right: list[str]) -> int:
    row = [0] * (len(right) + 1)
    for token in left:
        diagonal = 0
        for column, other in enumerate(right, start=1):
            above = row[column]
            row[column] = diagonal + 1 if token == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
