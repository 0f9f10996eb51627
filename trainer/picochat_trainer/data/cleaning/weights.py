"""How often a document stands in the corpus: its source's weight, with the fraction drawn by a hash of the text."""

from math import floor


def num_copies(sha256: str, weight: float) -> int:
    """0 or more; over many texts the mean is `weight`. The same text gets the same number in every build."""
    whole = floor(weight)
    return whole + (int(sha256[:13], 16) < (weight - whole) * 16**13)
