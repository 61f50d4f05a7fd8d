"""A claimed clean accuracy against the measured one: a net that was loaded wrongly shows here first.

Importable without torch.
"""

from __future__ import annotations

from fractions import Fraction

from awpbench.errors import CheckError, UsageError
from awpbench.evaluation.statistics import wilson

TOLERANCE = Fraction("0.05")  # points, on the whole test set: what RobustBench's own test of its model zoo allows


def read_percent(percent: float) -> float:
    """Return a claimed accuracy in percent as it is; raises UsageError for one that is not from 0 to 100."""
    if not 0 <= percent <= 100:  # NaN neither
        raise UsageError(
            f"--expect-clean is {percent:g}, which is no percentage", "Write it as in: --expect-clean 85.36."
        )
    return percent


def check_clean(claimed: float, correct: int, n: int, total: int) -> None:
    """Raise CheckError where a claimed clean accuracy in percent is not the measured one of `correct` in `n` images.

    On the whole test set of `total` images they may differ by 0.05 points, both taken exactly. On a part of it the
    claim must lie in the 95 % Wilson interval.
    """
    measured = f"the clean accuracy is {100 * correct / n:.2f} % ({correct} of {n} images"
    if n >= total:
        right = abs(Fraction(100 * correct, n) - Fraction(str(claimed))) <= TOLERANCE
        allowed = f"allowed: {float(TOLERANCE)} points"
    else:
        low, high = (100 * bound for bound in wilson(correct, n))
        right, allowed = low <= claimed <= high, f"95 % interval {low:.2f} - {high:.2f} %"
    if not right:
        what = f"{measured}; {allowed}), not {claimed:g} % as expected"
        raise CheckError(what, "Check the weights, --dataset, --arch and --preprocessing, or the claim.")
