"""Parts of a whole number by their shares."""

from collections.abc import Collection, Mapping


def apportioned(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that add up to `total`, by largest remainder; `shares` add up to 1."""
    exact = {name: total * share for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def shares_among(shares: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """The shares of `names` alone, so that they add up to 1."""
    chosen = {name: share for name, share in shares.items() if name in names}
    total = sum(chosen.values())
    return {name: share / total for name, share in chosen.items()}
