"""How many rows a test split needs to show a difference, before anything is trained. No torch."""

import math
from statistics import NormalDist

SIGNIFICANCE, POWER = 0.05, 0.8
DIFFERING = 0.25
"""The share of rows on which base and tuned model are taken to differ, where nobody can know it yet."""
LEAST_DIFFERING = 6
"""McNemar's exact test needs so many rows that differ, all one way, for p < 0.05."""
NORMAL = NormalDist()


def rows_needed(difference: float, differing: float = DIFFERING) -> int:
    """Rows that show a difference of shares (0.02: two points) in 80 of 100 repetitions, by McNemar's paired test.

    Connor 1987, Biometrics 43: the variance of the paired difference is `differing - difference**2`.

    Args:
        differing: the share of rows that one model gets right and the other wrong; at least the difference itself.
    """
    share = max(differing, difference)
    alpha, beta = NORMAL.inv_cdf(1 - SIGNIFICANCE / 2), NORMAL.inv_cdf(POWER)
    wanted = (alpha * math.sqrt(share) + beta * math.sqrt(share - difference**2)) ** 2 / difference**2
    return math.ceil(max(wanted, LEAST_DIFFERING / difference))


def detectable(rows: int, differing: float = DIFFERING) -> float | None:
    """The smallest difference, in hundredths, that so many rows show; None where none is."""
    found = (points / 100 for points in range(1, 101) if rows_needed(points / 100, differing) <= rows)
    return next(found, None)
