"""Learning rates as functions of the time in epochs, fractions included, as in Rice, Wong and Kolter (2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from awpbench.config import Schedule


def piecewise(t: float, epochs: int, lr: float) -> float:
    """Divide the rate by 10 at half and again at three quarters of the epochs."""
    if t / epochs < 0.5:
        return lr
    return lr / 10 if t / epochs < 0.75 else lr / 100


def cosine(t: float, epochs: int, lr: float) -> float:
    """Follow half a cosine from the full rate down to 0."""
    return lr * 0.5 * (1 + math.cos(math.pi * t / epochs))


def cyclic(t: float, epochs: int, lr: float) -> float:
    """Rise linearly from 0 over the first 40 % of the epochs and fall linearly back to 0."""
    peak = 0.4 * epochs
    return lr * (t / peak if t < peak else max(0.0, epochs - t) / (epochs - peak))


SCHEDULES: Mapping[Schedule, Callable[[float, int, float], float]] = {
    "piecewise": piecewise,
    "cosine": cosine,
    "cyclic": cyclic,
}
