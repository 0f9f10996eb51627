"""Intervals for proportions. Every rate that a gate reads carries its sample size and one of these."""

import math


def wilson_interval(passed: int, total: int, confidence_z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of `passed / total`, 95 % by default; (0, 1) where nothing was measured.

    Source: Wilson, JASA 22 (1927) 209-212.
    """
    if total == 0:
        return 0.0, 1.0
    z2 = confidence_z**2
    rate = passed / total
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    half = confidence_z / (1 + z2 / total) * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total**2))
    # At the two ends the bound is the rate itself; rounding must not put the interval off it.
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    high = 1.0 if passed == total else min(1.0, centre + half)
    return low, high
