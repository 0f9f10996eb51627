"""Finds what a document shares with the patterns of an index."""

import re
from collections import defaultdict

from rapidfuzz.distance import LCSseq

from picochat_trainer.data.contamination.index import ItemIndex
from picochat_trainer.data.contamination.matches import MAX_EXCERPT, Match, Near, Run, Span, Whole
from picochat_trainer.data.contamination.patterns import NGRAM, SEED, Pattern
from picochat_trainer.data.normalize import words


class _Document:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.spans: list[tuple[int, int]] = []
        for found in re.finditer(r"\w+|[-+*/^%<>=]", text):
            for token in words(found.group()):
                self.tokens.append(token)
                self.spans.append(found.span())

    def span(self, first: int, last: int) -> Span:
        start, end = self.spans[first][0], self.spans[last][1]
        return Span(start, end, self.text[start : min(end, start + MAX_EXCERPT)])


def match_document(index: ItemIndex, number: int, text: str) -> list[Match]:
    document = _Document(text)
    tokens = document.tokens
    hits: dict[int, set[int]] = defaultdict(set)
    for place in range(len(tokens) - SEED + 1):
        for pattern, first in index.seeds.get(tuple(tokens[place : place + SEED]), ()):
            hits[pattern].add(place - first)
    found = []
    for pattern_number, shifts in sorted(hits.items()):
        pattern = index.patterns[pattern_number]
        wholes, runs, nears = [], [], []
        for shift in sorted(shifts):
            wholes += _wholes(pattern, document, shift)
            runs += _runs(pattern, document, shift)
            nears += _nears(pattern, document, shift)
        if wholes or runs or nears:
            found.append(Match(number, pattern_number, tuple(wholes), tuple(runs), tuple(nears)))
    return found


def _wholes(pattern: Pattern, document: _Document, shift: int) -> list[Whole]:
    found = []
    for number, part in enumerate(pattern.parts):
        if (
            shift >= 0
            and tuple(document.tokens[shift : shift + part.num_tokens]) == pattern.tokens[: part.num_tokens]
        ):
            span = document.span(shift, shift + part.num_tokens - 1)
            verbatim = pattern.prompt in document.text[max(0, span.start - 5) : span.end + 5]
            found.append(Whole(number, verbatim, span))
    return found


def _runs(pattern: Pattern, document: _Document, shift: int) -> list[Run]:
    found = []
    distinctive = set().union(*(part.ngrams for part in pattern.parts))
    first = None
    for place in range(len(pattern.tokens) - NGRAM + 2):
        at = place + shift
        equal = (
            place in distinctive
            and at >= 0
            and tuple(document.tokens[at : at + NGRAM]) == pattern.tokens[place : place + NGRAM]
        )
        if equal and first is None:
            first = place
        elif not equal and first is not None:
            length = place - first + NGRAM - 1
            found.append(Run(first, length, document.span(first + shift, first + shift + length - 1)))
            first = None
    return found


def _nears(pattern: Pattern, document: _Document, shift: int) -> list[Near]:
    found = []
    for number, part in enumerate(pattern.parts):
        if not part.weights:
            continue
        slack = max(1, part.num_tokens // 8)
        start = max(0, shift - slack)
        window = document.tokens[start : max(0, shift + part.num_tokens + slack)]
        aligned = [
            (op.src_start + step, op.dest_start + step)
            for op in LCSseq.opcodes(pattern.tokens[: part.num_tokens], window)
            if op.tag == "equal"
            for step in range(op.src_end - op.src_start)
        ]
        share = sum(part.weights[place] for place, _ in aligned) / sum(part.weights)
        if aligned and share >= 0.5:
            span = document.span(start + aligned[0][1], start + aligned[-1][1])
            found.append(Near(number, share, aligned[0][0], aligned[-1][0], span))
    return found
