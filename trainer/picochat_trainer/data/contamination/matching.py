"""Finds what the documents of a block share with the patterns of an index.

Candidates come from hashes of 8-grams (equal runs, and patterns as a whole) and of 4-grams (edited copies); each is then
compared with the text itself, token by token. What is found in a document depends on that document alone, not on what else
is in the block.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.contamination.alignment import align
from picochat_trainer.data.contamination.grams import LONG_SEED, SEED, GramTable, gram_hashes
from picochat_trainer.data.contamination.index import ItemIndex
from picochat_trainer.data.contamination.matches import MAX_EXCERPT, Match, Near, Run, Span, Whole
from picochat_trainer.data.contamination.measures import NGRAM, Variant
from picochat_trainer.data.contamination.patterns import Part, Pattern
from picochat_trainer.data.contamination.segments import CUT_TOKENS, Segment
from picochat_trainer.data.contamination.tokens import Hashes, Places, tokenize


@dataclass
class _Found:
    """Of one pattern in one segment."""

    wholes: dict[int, Whole] = field(default_factory=dict)
    runs: dict[tuple[int, int], Run] = field(default_factory=dict)
    nears: dict[int, Near] = field(default_factory=dict)


class _Block:
    """The tokens of all segments in one row: T tokens, S segments."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.text = "\0".join(segment.text for segment in segments)
        self.tokens = tokenize(self.text)
        lengths = np.array([len(segment.text) + 1 for segment in segments])
        self.begins = np.cumsum(lengths) - lengths
        """(S): first character of each segment in the text."""
        bounds = np.searchsorted(self.tokens.starts, np.append(self.begins, lengths.sum()))
        cut_left = np.array([segment.cut_left for segment in segments])
        cut_right = np.array([segment.cut_right for segment in segments])
        self.first_tokens = bounds[:-1] + CUT_TOKENS * cut_left
        self.end_tokens = bounds[1:] - CUT_TOKENS * cut_right

    def segments_of(self, places: Places, size: int) -> tuple[Places, NDArray[np.bool_]]:
        """The segment of each token, and whether `size` tokens from there are all in it."""
        found = np.searchsorted(self.first_tokens, places, side="right") - 1
        return found, (places >= self.first_tokens[found]) & (places + size <= self.end_tokens[found])

    def span(self, segment: int, first: int, last: int) -> Span:
        """From one token to another, in characters of the document."""
        begin, end = int(self.tokens.starts[first]), int(self.tokens.ends[last])
        shift = self.segments[segment].start - int(self.begins[segment])
        return Span(begin + shift, end + shift, self.text[begin : min(end, begin + MAX_EXCERPT)])


@dataclass(frozen=True)
class _Hits:
    """H places in a block that hold a gram of a pattern."""

    places: Places
    segments: Places
    patterns: Places
    firsts: Places
    whole: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_] | Places) -> "_Hits":
        return _Hits(
            self.places[chosen],
            self.segments[chosen],
            self.patterns[chosen],
            self.firsts[chosen],
            self.whole[chosen],
            self.counted[chosen],
        )


def match_block(index: ItemIndex, segments: Sequence[Segment]) -> list[Match]:
    """Everything found in the segments, in the order of the documents, then of the patterns."""
    block = _Block(segments)
    grams = gram_hashes(block.tokens.hashes)
    of_ngrams = _look_up(index.ngrams, grams.ngrams, block, NGRAM)
    of_seeds = _look_up(index.seeds, grams.seeds, block, SEED)
    of_long_seeds = _look_up(index.long_seeds, grams.long_seeds, block, LONG_SEED)
    found: dict[tuple[int, int], _Found] = {}
    for hits in (of_ngrams, of_seeds):
        _find_wholes(index, block, hits.where(hits.whole), found)
    _find_runs(index, block, of_ngrams.where(of_ngrams.counted), found)
    for hits in (of_seeds, of_long_seeds):
        _find_nears(index, block, hits.where(hits.counted), found)
    return [
        Match(
            segments[segment].document,
            segments[segment].document_id,
            pattern,
            tuple(of_both.wholes.values()),
            tuple(of_both.runs.values()),
            tuple(of_both.nears.values()),
        )
        for (segment, pattern), of_both in sorted(found.items())
        if of_both.wholes or of_both.runs or of_both.nears
    ]


def _look_up(table: GramTable, hashes: Hashes, block: _Block, size: int) -> _Hits:
    places, grams = table.lookup(hashes)
    segments, inside = block.segments_of(places, size)
    repeated, entries = table.entries(np.flatnonzero(inside), grams[inside])
    return _Hits(
        places[repeated],
        segments[repeated],
        table.patterns[entries].astype(np.int64),
        table.firsts[entries].astype(np.int64),
        table.whole[entries],
        table.counted[entries],
    )


def _find_wholes(index: ItemIndex, block: _Block, hits: _Hits, found: dict[tuple[int, int], _Found]) -> None:
    layout, hashes = index.layout, block.tokens.hashes
    shifts = hits.places - hits.firsts
    lengths = np.where(layout.has_prompt, layout.num_prompt, layout.num_tokens)[hits.patterns]
    fits = (shifts >= block.first_tokens[hits.segments]) & (
        shifts + lengths <= block.end_tokens[hits.segments]
    )
    hits, shifts, lengths = hits.where(fits), shifts[fits], lengths[fits]
    begins = layout.begins[hits.patterns]
    alike = (hashes[shifts] == layout.hashes[begins]) & (
        hashes[shifts + lengths - 1] == layout.hashes[begins + lengths - 1]
    )
    for segment, number, shift in zip(
        hits.segments[alike].tolist(), hits.patterns[alike].tolist(), shifts[alike].tolist(), strict=True
    ):
        pattern = index.pattern(number)
        fitting = [part for part in pattern.parts if shift + part.num_tokens <= block.end_tokens[segment]]
        there = tuple(block.tokens.words(shift, shift + fitting[-1].num_tokens))
        for part_number, part in enumerate(fitting):
            if there[: part.num_tokens] == part.tokens:
                span = block.span(segment, shift, shift + part.num_tokens - 1)
                whole = Whole(part_number, _is_exact(pattern, part, block, shift), span)
                wholes = found.setdefault((segment, number), _Found()).wholes
                if part_number not in wholes or (whole.exact and not wholes[part_number].exact):
                    wholes[part_number] = whole


def _is_exact(pattern: Pattern, part: Part, block: _Block, shift: int) -> bool:
    """Whether the item's text, signs at both ends included, stands at this token character by character."""
    fields = [(pattern.prompt, 0, pattern.num_prompt, 0)]
    if part.variant is Variant.PROMPT_ANSWER:
        fields.append((pattern.answer, pattern.num_prompt, len(pattern.tokens), len(pattern.prompt) + 1))
    for text, first, end, offset in fields:
        if first == end:
            return False
        lead, length = pattern.spans[first][0] - offset, len(text)
        begin = int(block.tokens.starts[shift + first]) - lead
        if begin < 0 or block.text[begin : begin + length] != text:
            return False
    return True


def _find_runs(index: ItemIndex, block: _Block, hits: _Hits, found: dict[tuple[int, int], _Found]) -> None:
    shifts = hits.places - hits.firsts
    order = np.lexsort((hits.places, shifts, hits.patterns))
    hits, shifts = hits.where(order), shifts[order]
    goes_on = (np.diff(hits.places) == 1) & (np.diff(hits.patterns) == 0) & (np.diff(shifts) == 0)
    begins = np.flatnonzero(np.append(True, ~goes_on)[: len(shifts)])
    lengths = np.diff(np.append(begins, len(shifts))) + NGRAM - 1
    by_place = np.argsort(hits.places[begins], kind="stable")
    columns = (hits.segments, hits.patterns, hits.places, hits.firsts)
    rows = np.stack([*(column[begins] for column in columns), lengths], axis=1)[by_place]
    for segment, number, place, first, length in rows.tolist():
        of_both = found.setdefault((segment, number), _Found())
        pattern = index.pattern(number)
        # A pattern that is there as a whole needs no further evidence.
        if (first, length) in of_both.runs or len(of_both.wholes) == len(pattern.parts):
            continue
        wanted = pattern.tokens[first : first + length]
        for skipped, equal in _equal_runs(block.tokens.words(place, place + length), wanted):
            begin, in_pattern = place + skipped, first + skipped
            span = block.span(segment, begin, begin + equal - 1)
            prompt_end = span.end
            if in_pattern < pattern.num_prompt < in_pattern + equal:
                prompt_end = block.span(segment, begin, begin + pattern.num_prompt - in_pattern - 1).end
            of_both.runs.setdefault((in_pattern, equal), Run(in_pattern, equal, prompt_end, span))


def _equal_runs(words: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where at least `NGRAM` tokens in a row are equal: all of it, unless hashes of different words were equal."""
    if tuple(words) == tuple(wanted):
        yield 0, len(words)
        return
    begin = 0
    for place in range(len(words) + 1):
        if place == len(words) or words[place] != wanted[place]:
            if place - begin >= NGRAM:
                yield begin, place - begin
            begin = place + 1


def _find_nears(index: ItemIndex, block: _Block, hits: _Hits, found: dict[tuple[int, int], _Found]) -> None:
    for segment, number, shift in _passages(index, hits):
        pattern = index.pattern(number)
        of_both = found.get((segment, number))
        for part_number, part in enumerate(pattern.parts):
            if not part.weights or (of_both and part_number in of_both.wholes):
                continue
            near = _near(block, segment, pattern, part_number, shift)
            if near is not None:
                nears = found.setdefault((segment, number), _Found()).nears
                if part_number not in nears or _order(near) < _order(nears[part_number]):
                    nears[part_number] = near


def _passages(index: ItemIndex, hits: _Hits) -> Iterable[tuple[int, int, int]]:
    """(segment, pattern, shift) wherever enough seeds of a pattern stand about where they stand in the pattern.

    A shift is the token of the block at which the pattern would begin.
    """
    if not len(hits.places):
        return []
    slacks, required = np.maximum(1, index.layout.num_tokens // 8), index.required_seeds
    # Far enough apart that seeds in two segments are never counted together.
    gap = index.max_tokens + 2 * int(slacks.max()) + 1
    shifts = hits.places + hits.segments * gap - hits.firsts + gap
    width = int(shifts.max()) + gap
    keys = hits.patterns * width + shifts
    order = np.argsort(keys, kind="stable")
    keys, patterns = keys[order], hits.patterns[order]
    # Nearly all patterns go here: fewer seeds than needed are anywhere near each other.
    last = np.arange(len(keys)) + required[patterns] - 1
    fits = np.flatnonzero(last < len(keys))
    close = fits[keys[last[fits]] - keys[fits] <= 2 * slacks[patterns[fits]]]
    kept = np.isin(patterns, patterns[close])
    order, keys, patterns = order[kept], keys[kept], patterns[kept]
    slack = slacks[patterns]
    near = np.searchsorted(keys, keys + slack, side="right") - np.searchsorted(keys, keys - slack)
    chosen = np.flatnonzero(
        (near >= required[patterns]) & np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    )
    segments = hits.segments[order][chosen]
    shifts = keys[chosen] % width - gap - segments * gap
    return zip(segments.tolist(), patterns[chosen].tolist(), shifts.tolist(), strict=True)


def _near(block: _Block, segment: int, pattern: Pattern, part_number: int, shift: int) -> Near | None:
    part = pattern.parts[part_number]
    slack = max(1, part.num_tokens // 8)
    first = max(shift - slack, int(block.first_tokens[segment]))
    end = min(shift + part.num_tokens + slack, int(block.end_tokens[segment]))
    cut = block.segments[segment]
    # Where a cut shortens the passage, the neighbouring piece has all of it.
    if (cut.cut_left and first > shift - slack) or (cut.cut_right and end < shift + part.num_tokens + slack):
        return None
    found = align(part.tokens, part.weights, block.tokens.words(first, end))
    if found is None:
        return None
    span = block.span(segment, first + found.first_word, first + found.last_word)
    return Near(part_number, found.share, found.first_token, found.last_token, span)


def _order(near: Near) -> tuple[float, int, int]:
    return -near.share, near.span.start, near.span.end
