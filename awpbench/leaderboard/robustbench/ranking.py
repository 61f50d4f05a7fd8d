"""How RobustBench ranks a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from awpbench.leaderboard.robustbench.files import Entry


class Place(NamedTuple):
    """A row of a ranked table: its number, counted from 1, and the accuracy in percent that decides it."""

    number: int
    accuracy: float
    entry: Entry


def rank(entries: Iterable[Entry]) -> list[Place]:
    """Rank the entries of one table as RobustBench does, best first.

    Rows are numbered in turn, equal accuracies too. RobustBench leaves these in the order in which the file system
    lists its folder; here it is the order of the models' names.
    """
    rows = [(accuracy(entry), entry) for entry in entries]
    rows.sort(key=lambda row: (-row[0], row[1].model))
    return [Place(number, *row) for number, row in enumerate(rows, start=1)]


def accuracy(entry: Entry) -> float:
    """Return what decides an entry's place: `external` if present, else `autoattack_acc`; in corruptions their own."""
    return float(next(entry.document[key] for key in deciding_keys(entry.threat) if key in entry.document))


def deciding_keys(threat: str) -> tuple[str, ...]:
    """Name the keys that decide a place in a table of this threat, the first that a row has before the others."""
    return ("corruptions_acc",) if threat == "corruptions" else ("external", "autoattack_acc")
