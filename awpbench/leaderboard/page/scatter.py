"""Clean against robust accuracy of the rows of one table: where everything stands in a drawing without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 400  # in the units of the drawing
LEFT, RIGHT, TOP, BOTTOM = 66, 24, 14, 52  # margins around the axes
WHISKERS = 300  # points; beyond that only the frontier's are drawn, or nothing could be told apart
Interval = tuple[float, float]


@dataclass(frozen=True)
class Dot:
    """A row: its accuracies as fractions, their intervals where there are any, and the family that colours it."""

    id: str
    name: str
    family: str
    clean: float
    robust: float
    clean_interval: Interval | None = None
    robust_interval: Interval | None = None


@dataclass(frozen=True)
class Mark:
    """A dot as it is drawn; `across` and `along` are the ends of its whiskers."""

    dot: Dot
    x: float
    y: float
    across: Interval | None
    along: Interval | None
    best: bool

    @property
    def title(self) -> str:
        """What is said of the dot when it is pointed at."""
        return f"{self.dot.name}: clean {_told(self.dot.clean, self.dot.clean_interval)}, robust " + _told(
            self.dot.robust, self.dot.robust_interval
        )


@dataclass(frozen=True)
class Scatter:
    """A drawing: marks, the ticks of both axes (place, text), the families in it and the path of the frontier."""

    marks: tuple[Mark, ...]
    across: tuple[tuple[float, str], ...]
    along: tuple[tuple[float, str], ...]
    families: tuple[str, ...]
    frontier: str
    thinned: bool
    radius: float

    width = WIDTH
    height = HEIGHT
    left = LEFT
    right = WIDTH - RIGHT
    top = TOP
    bottom = HEIGHT - BOTTOM


def scatter(dots: Sequence[Dot]) -> Scatter | None:
    """Draw the dots, or nothing where there is none."""
    if not dots:
        return None
    clean_ends = [end for dot in dots for end in dot.clean_interval or (dot.clean,)]
    robust_ends = [end for dot in dots for end in dot.robust_interval or (dot.robust,)]
    across, along = ticks(min(clean_ends), max(clean_ends)), ticks(min(robust_ends), max(robust_ends))
    best = frontier(dots)
    thinned = len(dots) > WHISKERS

    def x(share: float) -> float:
        return _placed(share, across, LEFT, WIDTH - RIGHT)

    def y(share: float) -> float:
        return _placed(share, along, HEIGHT - BOTTOM, TOP)

    def mark(dot: Dot) -> Mark:
        bare = thinned and dot not in best
        ends = (None, None) if bare else (dot.clean_interval, dot.robust_interval)
        wide, high = ends
        return Mark(
            dot,
            x(dot.clean),
            y(dot.robust),
            (x(wide[0]), x(wide[1])) if wide else None,
            (y(high[0]), y(high[1])) if high else None,
            dot in best,
        )

    steps = [f"M{LEFT} {y(best[0].robust):g}"]
    for dot in best:
        steps.append(f"V{y(dot.robust):g}H{x(dot.clean):g}")
    return Scatter(
        tuple(mark(dot) for dot in dots),
        tuple((x(tick), f"{100 * tick:g}") for tick in across),
        tuple((y(tick), f"{100 * tick:g}") for tick in along),
        tuple(sorted({dot.family for dot in dots})),
        "".join([*steps, f"V{HEIGHT - BOTTOM}"]),
        thinned,
        5.5 if len(dots) <= 60 else 4.0 if not thinned else 3.0,
    )


def frontier(dots: Sequence[Dot]) -> list[Dot]:
    """Return the dots than which no other is better in one accuracy and at least as good in the other, by clean one."""
    best: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (-dot.clean, -dot.robust, dot.id)):
        twin = best and (dot.clean, dot.robust) == (best[-1].clean, best[-1].robust)
        if not best or twin or dot.robust > best[-1].robust:
            best.append(dot)
    return best[::-1]


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Return round fractions around an interval of them, three to nine, the first and last outside it."""
    span = 100 * (high - low)
    step = next(step for step in (0.5, 1, 2, 5, 10, 20) if span <= 6 * step or step == 20)
    first = max(0, math.floor(100 * low / step))
    last = min(math.floor(100 / step), math.ceil(100 * high / step))
    while last - first < 2:
        first, last = (first - 1, last) if (last + 1) * step > 100 else (first, last + 1)
    return tuple(step * place / 100 for place in range(first, last + 1))


def _placed(share: float, axis: Sequence[float], start: float, end: float) -> float:
    return round(start + (end - start) * (share - axis[0]) / (axis[-1] - axis[0]), 1)


def _told(share: float, interval: Interval | None) -> str:
    ends = "" if interval is None else f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"
    return f"{100 * share:.2f}{ends}"
