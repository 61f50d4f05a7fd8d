"""Intervals and paired tests. Importable without torch."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of `correct` in `n` (Wilson 1927)."""
    centre = (correct + Z95**2 / 2) / (n + Z95**2)
    half = Z95 / (n + Z95**2) * math.sqrt(correct * (n - correct) / n + Z95**2 / 4)
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return low, high


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p of McNemar's test; b and c count the images that only one of two nets got right."""
    n, tail, ways = b + c, 0, 1  # ways: to choose k of n
    for k in range(min(b, c) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, float(2 * tail / 2**n))


def paired_difference(b: int, c: int, n: int) -> tuple[float, float]:
    """Return a 95 % interval of a difference of two accuracies on the same n images (Bonett and Price 2012).

    b and c count the images that only the one or only the other of two nets got right; the difference is (b - c) / n.
    """
    one, other = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = Z95 * math.sqrt((one + other - (one - other) ** 2) / (n + 2))
    return max(-1.0, one - other - half), min(1.0, one - other + half)


def mean_std(values: list[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation of a sample (n - 1), None where there is one value only."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
