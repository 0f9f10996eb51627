"""How much of an item a passage holds in order: the longest common subsequence of their tokens, by weight."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from rapidfuzz.distance import LCSseq

MIN_SHARE: Final = 0.5
"""Alignments below this are chance: any two English passages of a length share a third of their words in order."""
_SHORT: Final = 16


class Alignment(NamedTuple):
    share: float
    """Weight of the aligned tokens over the weight of all."""
    first_token: int
    last_token: int
    first_word: int
    """Of the passage, beside `first_token`."""
    last_word: int


def align(tokens: Sequence[str], weights: Sequence[float], passage: Sequence[str]) -> Alignment | None:
    """None where less than `MIN_SHARE` aligns, or of a short item more than one token in eight is missing."""
    needed = int(len(tokens) * MIN_SHARE / 2)
    if len(tokens) < _SHORT:
        # A few common words in a row are in any text: of short items only one word in eight may be another.
        needed = len(tokens) - max(1, (len(tokens) + 4) // 8)
    if LCSseq.similarity(tokens, passage, score_cutoff=needed) < needed:
        return None
    aligned = [
        (block.src_start + step, block.dest_start + step)
        for block in LCSseq.opcodes(tokens, passage)
        if block.tag == "equal"
        for step in range(block.src_end - block.src_start)
    ]
    share = sum(weights[token] for token, _ in aligned) / sum(weights)
    if not aligned or share < MIN_SHARE:
        return None
    return Alignment(share, aligned[0][0], aligned[-1][0], aligned[0][1], aligned[-1][1])
