"""Learning rates at their edges."""

from __future__ import annotations

import pytest

from awpbench.training.schedules import SCHEDULES, cosine, cyclic, piecewise


@pytest.mark.parametrize(
    ("t", "rate"), [(0.01, 0.1), (99.99, 0.1), (100, 0.01), (149.99, 0.01), (150, 0.001), (200, 0.001)]
)
def test_piecewise_drops_at_half_and_at_three_quarters(t: float, rate: float) -> None:
    assert piecewise(t, 200, 0.1) == pytest.approx(rate)


@pytest.mark.parametrize(("t", "rate"), [(0, 0.1), (50, 0.08535533905932738), (100, 0.05), (200, 0.0)])
def test_cosine_falls_from_the_full_rate_to_zero(t: float, rate: float) -> None:
    assert cosine(t, 200, 0.1) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(("t", "rate"), [(0, 0.0), (40, 0.05), (80, 0.1), (140, 0.05), (200, 0.0)])
def test_cyclic_rises_to_forty_percent_and_falls(t: float, rate: float) -> None:
    assert cyclic(t, 200, 0.1) == pytest.approx(rate, abs=1e-12)


def test_no_schedule_is_ever_negative_or_above_the_largest_rate() -> None:
    for schedule in SCHEDULES.values():
        assert all(0 <= schedule(step / 10, 20, 0.1) <= 0.1 + 1e-12 for step in range(1, 201))
