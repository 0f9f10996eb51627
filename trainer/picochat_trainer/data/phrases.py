"""Finds many phrases in a long text in one pass: an Aho-Corasick automaton over word tokens.

Time is linear in the words of the text plus the words of the phrases, however alike the phrases are.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.normalize import words


def words_of_file(path: Path) -> Iterator[tuple[str, int]]:
    """Every word of a text file in normal form, with its line number; memory holds one line."""
    number = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                for word in words(line):
                    yield word, number
    except FileNotFoundError as error:
        raise ContractError(
            Code.CORPUS_MISSING, f"no corpus at {path}: expected a text file", param=str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{path}, after line {number}: expected UTF-8 text ({error.reason}); build the corpus again",
            param=str(path),
        ) from error


@dataclass
class _Node:
    after: dict[str, "_Node"] = field(default_factory=dict)
    fallback: "_Node | None" = None
    """Node of the longest proper suffix that is also a prefix of a phrase."""
    phrase: int | None = None
    shorter: "_Node | None" = None
    """Nearest node down the fallback chain that ends a phrase."""


class PhraseIndex:
    """A fixed set of phrases, each a sequence of tokens."""

    def __init__(self, phrases: Sequence[Sequence[str]]) -> None:
        self._root = _Node()
        self._lengths = [len(phrase) for phrase in phrases]
        for index, phrase in enumerate(phrases):
            self._insert(index, phrase)
        self._link()

    def matches(self, tokens: Iterable[tuple[str, int]]) -> Iterator[tuple[int, int]]:
        """Yield (phrase index, place of its first token) for every occurrence; a token comes with its place."""
        places: deque[int] = deque(maxlen=max(self._lengths, default=1))
        node = self._root
        for token, place in tokens:
            places.append(place)
            node = self._step(node, token)
            ending = node if node.phrase is not None else node.shorter
            while ending is not None:
                assert ending.phrase is not None
                yield ending.phrase, places[-self._lengths[ending.phrase]]
                ending = ending.shorter

    def _insert(self, index: int, phrase: Sequence[str]) -> None:
        node = self._root
        for token in phrase:
            node = node.after.setdefault(token, _Node())
        if node is self._root or node.phrase is not None:
            raise ValueError(f"phrase {index} is empty or repeats another one")
        node.phrase = index

    def _link(self) -> None:
        queue = deque([self._root])
        while queue:
            parent = queue.popleft()
            for token, node in parent.after.items():
                fallback = self._root if parent.fallback is None else self._step(parent.fallback, token)
                node.fallback = fallback
                node.shorter = fallback if fallback.phrase is not None else fallback.shorter
                queue.append(node)

    def _step(self, node: _Node, token: str) -> _Node:
        current: _Node | None = node
        while current is not None:
            after = current.after.get(token)
            if after is not None:
                return after
            current = current.fallback
        return self._root
