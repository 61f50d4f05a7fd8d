"""What the page is made of: cells, columns, rows and tables, and how values become their text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from awpbench.leaderboard.columns import UNKNOWN
from awpbench.leaderboard.details import Details, Event, ReportedDetails
from awpbench.leaderboard.page import commands
from awpbench.leaderboard.page.scatter import Scatter

Kind = Literal["rank", "text", "figure", "accuracy", "difference"]  # what a cell holds, to sort it and to write CSV
Value = float | str | None


WIDTHS_OF: Mapping[Kind, int] = {"rank": 84, "text": 116, "figure": 112, "accuracy": 128, "difference": 138}
WIDTHS = {"method": 310, "architecture": 170, "source": 250}  # of columns of long words, in pixels


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what stands small below it, where it links to, and the value to sort by (None: unknown)."""

    text: str
    value: Value
    below: str = ""
    link: str | None = None
    bar: tuple[float, float, float] | None = None  # an interval and what it is of, as fractions


@dataclass(frozen=True)
class Heading:
    """The head of a column: its name in a file, its label, and what it means."""

    key: str
    label: str
    help: str
    kind: Kind

    @property
    def width(self) -> int:
        """How wide the column is, in pixels: known ahead, so that a browser need not measure every cell."""
        return (
            WIDTHS.get(self.key)
            or {"rank": 84, "text": 116, "figure": 112, "accuracy": 128, "difference": 138}[self.kind]
        )


@dataclass(frozen=True)
class Facts:
    """A part of a row's details: values by name, or lines to copy."""

    title: str
    values: tuple[tuple[str, str], ...] = ()
    lines: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """A row of a table, with everything that is shown, searched and compared of it."""

    id: str
    name: str
    cells: tuple[Cell, ...]
    facts: tuple[Facts, ...]
    filters: Mapping[str, str]
    words: tuple[str, ...]
    scores: Mapping[str, tuple[int, int, float, float]]
    outcomes: tuple[str, str] | None


@dataclass(frozen=True)
class Table:
    """A table of the page, and the drawing beside it."""

    key: str
    title: str
    about: str
    measured: bool
    columns: tuple[Heading, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    plot: Scatter | None
    robust: str  # the label of the drawing's upright axis
    group: Mapping[str, str]

    @property
    def width(self) -> int:
        """How wide the table is, in pixels."""
        return sum(heading.width for heading in self.columns)


FILTERS = {
    "dataset": "Data set",
    "threat": "Threat",
    "defense": "Defense",
    "awp": "AWP",
    "extra": "Extra data",
    "architecture": "Architecture",
}
FAMILIES = {"awp": "with AWP", "plain": "without AWP", "other": "not trained by awpbench", "reported": "reported"}


def web_address(value: object) -> str | None:
    """Return an http(s) address that may be linked to, or None."""
    return value if isinstance(value, str) and re.fullmatch(r"https?://[\x21-\x7e]+", value, re.IGNORECASE) else None


def worded(text: str, below: str = "") -> Cell:
    """Make a cell of words, which sort from A."""
    known = text not in ("", UNKNOWN)
    return Cell("unknown" if text == UNKNOWN else text, text.lower() if known else None, below)


def figure(value: object) -> Cell:
    """Make a cell of a number that somebody wrote, as it is written."""
    number = percent(value)
    return Cell("" if value is None else written(value), number)


def percent(value: object) -> float | None:
    """Return the number that RobustBench wrote as text, or None where it is none."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def written(value: object) -> str:
    """Write any value of JSON as a text."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, sort_keys=True)


def past(keys: Mapping[str, Any], own: Details | ReportedDetails) -> list[Facts]:
    """Return a row's history and citation."""
    events = tuple((event.date or "date unknown", _event(event)) for event in own.history)
    history = [Facts("History", events)] if events else []
    entry = tuple(commands.citation(keys))
    return [*history, Facts("Cite", lines=entry, note="" if entry else "This row names no paper.")]


def _event(event: Event) -> str:
    reported = f", before: {event.reported} %" if event.reported else ""
    return f"{event.action}{reported}{f' ({event.reason})' if event.reason else ''}"


def pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Write nested values as names and texts, without what is not known."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += [(f"{key}, {name}", text) for name, text in pairs(value)]
        elif value is not None and value != "":
            found.append((key, written(value)))
    return tuple(found)
