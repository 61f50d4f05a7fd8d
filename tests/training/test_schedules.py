"""Learning rates at their edges."""

from __future__ import annotations

import pytest

from awpbench.defaults import resolve_training
from awpbench.training.schedules import (
    SCHEDULES,
    cosine,
    cyclic,
    learning_rate,
    linear,
    multi_decay,
    one_drop,
    piecewise,
)


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


@pytest.mark.parametrize(("t", "rate"), [(0, 0.1), (25, 0.0505), (50, 0.001)])
def test_cosine_ends_at_the_rate_given(t: float, rate: float) -> None:
    assert cosine(t, 50, 0.1, lr_end=0.001) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(
    ("t", "rate"), [(0, 0.1), (30, 0.1), (45, 0.055), (60, 0.01), (75, 0.0055), (90, 0.001)]
)  # interpolated between 1, 1, 0.1 and 0.01 of the rate at thirds
def test_linear_holds_a_third_then_falls_in_two_straight_lines(t: float, rate: float) -> None:
    assert linear(t, 90, 0.1) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(("t", "rate"), [(0.01, 0.1), (99.99, 0.1), (100, 0.01), (200, 0.01)])
def test_one_drop_drops_at_half(t: float, rate: float) -> None:
    assert one_drop(t, 200, 0.1) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("t", "rate"), [(0.01, 0.1), (19.99, 0.1), (20, 0.09), (39.99, 0.09), (40, 0.08), (199.99, 0.01), (200, 0.0)]
)
def test_multi_decay_takes_a_tenth_off_at_every_tenth(t: float, rate: float) -> None:
    assert multi_decay(t, 200, 0.1) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("epochs", [1, 3, 7, 200])
@pytest.mark.parametrize(
    ("schedule", "last"),
    [("piecewise", 0.001), ("cosine", 0.0), ("cyclic", 0.0), ("linear", 0.001), ("one-drop", 0.01), ("multi-decay", 0)],
)
def test_every_schedule_scales_to_any_number_of_epochs(schedule: str, last: float, epochs: int) -> None:
    config, _ = resolve_training({"schedule": schedule, "epochs": epochs})
    steps = 40  # in an epoch: no edge falls between two steps
    assert learning_rate(config, epochs) == pytest.approx(last, abs=1e-12)
    rates = [learning_rate(config, epochs * (i + 1) / (10 * steps)) for i in range(10 * steps)]
    assert rates == pytest.approx(
        [SCHEDULES[config.schedule]((i + 1) / (10 * steps), 1, 0.1) for i in range(10 * steps)]
    )


def test_the_end_of_the_cosine_is_that_of_the_run() -> None:
    config, _ = resolve_training({"schedule": "cosine", "lr": 0.001, "lr_end": 1e-6, "epochs": 50})
    assert learning_rate(config, 50) == pytest.approx(1e-6)
    assert learning_rate(config, 25) == pytest.approx((0.001 + 1e-6) / 2)


def test_no_schedule_is_ever_negative_or_above_the_largest_rate() -> None:
    for schedule in SCHEDULES.values():
        assert all(0 <= schedule(step / 10, 20, 0.1) <= 0.1 + 1e-12 for step in range(1, 201))
