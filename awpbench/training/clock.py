"""Where the seconds of training go: the batch, the attack, the perturbation of the weights, the update."""

from __future__ import annotations

import time
from typing import Any

import torch

PARTS = ("batch", "attack", "ascent", "update")  # of a step; ascent: everything that weight perturbation costs

Mark = Any  # a moment: seconds, or on CUDA an event


class StepClock:
    """Adds up the seconds of the parts of steps.

    On CUDA it records events, which wait for nothing, and looks at them when `seconds` is asked for: what is timed is
    the work on the GPU in order, not the moment at which it was queued.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._before: Mark = 0.0
        self._laps: list[tuple[str, Mark, Mark]] = []

    def start(self) -> None:
        """Begin a step."""
        self._before = self._now()

    def lap(self, part: str) -> None:
        """Say that the time since `start`, or since the last lap, belonged to a part of the step."""
        now = self._now()
        self._laps.append((part, self._before, now))
        self._before = now

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part, over all steps."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        total = dict.fromkeys(PARTS, 0.0)
        for part, before, after in self._laps:
            total[part] += _between(before, after)
        return total

    def _now(self) -> Mark:
        if self._cuda is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._cuda))
        return event


def _between(before: Mark, after: Mark) -> float:
    if isinstance(before, float):
        return float(after) - before
    return float(before.elapsed_time(after)) / 1000  # milliseconds
