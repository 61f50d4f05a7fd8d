from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.evaluation.statistics import mcnemar, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(244, 300, 0.7654, 0.8534), (75, 300, 0.2044, 0.3020), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)],
)
def test_the_wilson_interval_of_known_counts(correct: int, n: int, low: float, high: float) -> None:
    """The last two are z^2 / (n + z^2) by hand, the first two scipy's binomtest(...).proportion_ci(method="wilson")."""
    assert wilson(correct, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_accuracy_lies_in_0_to_1_and_is_symmetric(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert (1 - high, 1 - low) == (pytest.approx(wilson(n - correct, n)[0]), pytest.approx(wilson(n - correct, n)[1]))


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (0, 6, 0.03125), (1, 7, 18 / 256), (2, 2, 1.0), (3, 10, 0.09228515625)],
)
def test_mcnemar_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, rel=1e-12)
    assert mcnemar(c, b) == mcnemar(b, c)


def test_mcnemar_of_a_large_data_set_neither_overflows_nor_vanishes() -> None:
    assert mcnemar(5000, 5000) == 1.0
    assert 0 < mcnemar(700, 500) < 1e-8
