"""Adds up matches into measures and findings, document by document, in the order of the documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from picochat_trainer.data.contamination.matches import Match, Near, Run, Span, Whole
from picochat_trainer.data.contamination.measures import NGRAM, Measure, Name
from picochat_trainer.data.contamination.patterns import Part, Pattern
from picochat_trainer.data.contamination.results import FindingKind, Measured

MAX_PLACES: Final = 5
_RANKS: Final = {kind: rank for rank, kind in enumerate(FindingKind)}


class Place(NamedTuple):
    """A finding of a pattern, before it is told for each of its items."""

    kind: FindingKind
    part: int
    measure: Name
    value: float
    strength: float
    """Share of the part that stands there."""
    first: int
    last: int
    """First and last token of the pattern."""
    document: int
    document_id: str
    span: Span

    @property
    def order(self) -> tuple[int, float, int, int]:
        return (_RANKS[self.kind], -self.strength, self.document, self.span.start)


@dataclass
class _PartTally:
    wholly: bool = False
    exact: bool = False
    long_ngram: bool = False
    ngrams: set[int] = field(default_factory=set)
    coverage: float = 0.0
    longest: float = 0.0
    near: float = 0.0


class PatternTally:
    """Everything found of one pattern so far. Matches of one document come one after the other."""

    def __init__(self, pattern: Pattern, rules: dict[str, Measure]) -> None:
        self._pattern = pattern
        self._rules = rules
        self._parts = [_PartTally() for _ in pattern.parts]
        self._document: list[Match] = []
        self._harmless: set[frozenset[tuple[int, int]]] = set()
        """Runs that some document had, and nothing else, without breaking a rule: a stock phrase is met a million times."""
        self._widest: Place | None = None
        """The best overlap below every rule of a single document: evidence for `palm70_8`."""
        self.places: list[Place] = []
        self.num_documents = 0

    def add(self, match: Match) -> None:
        if self._document and self._document[0].document != match.document:
            self._close_document()
        self._document.append(match)

    def finish(self) -> list[Measured]:
        """The measures of each part; no more matches may come."""
        self._close_document()
        measured = [
            self._measured(part, tally) for part, tally in zip(self._pattern.parts, self._parts, strict=True)
        ]
        palm = self._rules[Name.PALM70_8]
        if not self.places and self._widest is not None and palm.hit(measured[self._widest.part].palm70_8):
            self._keep(self._widest._replace(value=measured[self._widest.part].palm70_8))
        return measured

    def _close_document(self) -> None:
        if not self._document:
            return
        wholes = [whole for match in self._document for whole in match.wholes]
        runs = [run for match in self._document for run in match.runs]
        nears = [near for match in self._document for near in match.nears]
        seen = frozenset((run.first, run.num_tokens) for run in runs)
        if seen in self._harmless and not wholes and not nears:
            self._document = []
            return
        found = [
            place
            for number in range(len(self._parts))
            for place in (
                *self._add_wholes(number, wholes),
                *self._add_nears(number, nears),
                *self._add_runs(number, runs),
            )
        ]
        self._document = []
        if found:
            # Of two that are as strong, the one that shows the answer too.
            self._keep(min(found, key=lambda place: (*place.order[:2], -place.part, *place.order[2:])))
        else:
            self._harmless.add(seen)

    def _keep(self, place: Place) -> None:
        self.num_documents += 1
        self.places = sorted([*self.places, place], key=lambda place: place.order)[:MAX_PLACES]

    def _add_wholes(self, number: int, wholes: Sequence[Whole]) -> Iterator[Place]:
        part, tally = self._pattern.parts[number], self._parts[number]
        for whole in wholes:
            if whole.part == number:
                tally.wholly = True
                tally.exact |= whole.exact
                kind = FindingKind.EXACT if whole.exact else FindingKind.NORMALISED
                yield self._place(kind, number, Name(kind), 1.0, (0, part.num_tokens - 1), whole.span)

    def _add_nears(self, number: int, nears: Sequence[Near]) -> Iterator[Place]:
        tally = self._parts[number]
        for near in nears:
            if near.part == number:
                tally.near = max(tally.near, near.share)
                if self._rules[Name.NEAR].hit(near.share):
                    tokens = (near.first, near.last)
                    yield self._place(FindingKind.NEAR, number, Name.NEAR, near.share, tokens, near.span)

    def _add_runs(self, number: int, runs: Sequence[Run]) -> Iterator[Place]:
        part = self._pattern.parts[number]
        values, best = _overlap(part, runs, self._parts[number])
        if best is None:
            return
        tokens = (best.first, min(best.first + best.num_tokens, part.num_tokens) - 1)
        span = best.span if part.num_tokens > self._pattern.num_prompt else best.span.up_to(best.prompt_end)
        broken = [name for name, value in values.items() if self._rules[name].hit(value)]
        name = broken[0] if broken else Name.PALM70_8
        place = self._place(FindingKind.OVERLAP, number, name, values.get(name, 0.0), tokens, span)
        place = place._replace(strength=values[Name.TULU50_8])
        if broken:
            yield place
        elif self._widest is None or place.strength > self._widest.strength:
            self._widest = place

    def _place(
        self, kind: FindingKind, part: int, measure: Name, value: float, tokens: tuple[int, int], span: Span
    ) -> Place:
        document = self._document[0]
        return Place(
            kind, part, measure, value, value, *tokens, document.document, document.document_id, span
        )

    def _measured(self, part: Part, tally: _PartTally) -> Measured:
        if tally.wholly:
            return Measured(
                exact=tally.exact,
                normalised=True,
                ngram_any_13=True,
                palm70_8=1.0,
                tulu50_8=1.0,
                longest_match_8=1.0,
                near=1.0,
            )
        return Measured(
            ngram_any_13=tally.long_ngram,
            palm70_8=len(tally.ngrams) / len(part.ngrams) if part.ngrams else 0.0,
            tulu50_8=tally.coverage,
            longest_match_8=tally.longest,
            near=tally.near,
        )


def _overlap(part: Part, runs: Sequence[Run], tally: _PartTally) -> tuple[dict[Name, float], Run | None]:
    """The measures that one document gives, and the run that shows most of it; adds to the tally of all documents."""
    covered: set[int] = set()
    longest, best, long_ngram = 0, None, False
    for run in runs:
        end = min(run.first + run.num_tokens, part.num_tokens)
        if end - run.first < NGRAM:
            continue
        tokens = part.distinctive.intersection(range(run.first, end))
        covered |= tokens
        tally.ngrams.update(part.ngrams.intersection(range(run.first, end - NGRAM + 1)))
        long_ngram |= end - run.first >= part.long_ngram
        if best is None or (len(tokens), -run.span.start) > (longest, -best.span.start):
            longest, best = len(tokens), run
    if best is None or not part.distinctive:
        return {}, None
    values = {
        Name.LONGEST_MATCH_8: longest / len(part.distinctive),
        Name.TULU50_8: len(covered) / len(part.distinctive),
        Name.NGRAM_ANY_13: float(long_ngram),
    }
    tally.long_ngram |= long_ngram
    tally.coverage = max(tally.coverage, values[Name.TULU50_8])
    tally.longest = max(tally.longest, values[Name.LONGEST_MATCH_8])
    return values, best
