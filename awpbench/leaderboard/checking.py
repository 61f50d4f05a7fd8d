"""Whether a leaderboard is as awpbench wrote it, and whether its rows follow from the results that they name."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awpbench import rundir
from awpbench.errors import AwpbenchError, InputError
from awpbench.leaderboard import store
from awpbench.leaderboard.details import checked
from awpbench.leaderboard.migrations import migrated
from awpbench.leaderboard.row import SCHEMA_VERSION, Board, Reported, Row, row_of


@dataclass(frozen=True)
class Finding:
    """What is wrong with a row, named by its id or else by its place; with the file as a whole where `row` is None."""

    row: str | None
    what: str

    def __str__(self) -> str:
        """Write it on one line of printable characters."""
        return printable(f"{self.row}: {self.what}" if self.row else self.what)


@dataclass(frozen=True)
class Report:
    """What a check found: how many rows there are, how many were built again from their results, what is wrong."""

    rows: int
    rebuilt: int
    findings: tuple[Finding, ...]


def printable(text: str) -> str:
    """Escape what a terminal would obey or not show: control characters, line ends, marks of direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check(path: Path) -> Report:
    """Check a leaderboard, each row by itself, so that a broken one hides no other.

    Every field of a row is held by its digest, RobustBench's keys also by the `awpbench` object, and that by the result
    that it names. Raises InputError where the file is missing, holds no rows, or is of a newer schema.
    """
    data, document = store.load(path)
    shell = {**document, "rows": [] if isinstance(document.get("rows"), list) else document.get("rows")}
    checked(Board, migrated(shell, SCHEMA_VERSION), str(path), store.UNDO)
    raw = document["rows"]
    names = [_name(values, place) for place, values in enumerate(raw, 1)]
    findings = _of_the_order(names, raw)
    rebuilt = 0
    current = document["schema_version"] == SCHEMA_VERSION
    for name, values, found in zip(names, raw, migrated(document, SCHEMA_VERSION)["rows"], strict=True):
        try:
            row = row_of(found, "it", "")
        except InputError as error:
            what = error.what.removeprefix("it does not fit: ").replace("Value error, ", "")
            findings.append(Finding(name, what.replace(f"the row {name} is", "it is")))
            continue
        problem = _of_the_row(row, path.resolve().parent)
        if problem is None and current and json.dumps(row.document()) != json.dumps(values):
            problem = "its keys are not those that awpbench writes, or are in another order"
        rebuilt += problem is None and isinstance(row, Row) and row.awpbench.result is not None
        findings += [] if problem is None else [Finding(name, problem)]
    expected = store.laid_out(document["schema_version"], raw)
    if expected != data:
        findings.append(Finding(None, f"line {_first_difference(expected, data)} is not as awpbench writes it"))
    return Report(len(raw), rebuilt, tuple(findings))


def _name(values: Any, place: int) -> str:
    own = values.get("awpbench") if isinstance(values, dict) else None
    name = own.get("id") if isinstance(own, dict) else None
    return name if isinstance(name, str) and name else f"row {place}"


def _of_the_order(names: list[str], raw: list[Any]) -> list[Finding]:
    twice = [Finding(name, f"{count} rows have this id") for name, count in Counter(names).items() if count > 1]
    order = [] if names == sorted(names) else [Finding(None, "the rows are not in the order of their ids")]
    return [*twice, *order]


def _of_the_row(row: Row | Reported, root: Path) -> str | None:
    """Say what is wrong with a row that fits, or return None."""
    if row.awpbench.digest is None:
        return "it has no digest"
    if isinstance(row, Reported) or row.awpbench.result is None:
        return None
    where = row.awpbench.result
    folder = root / where
    for each in (folder, folder / rundir.RESULT, folder / rundir.PER_IMAGE):
        if not each.resolve().is_relative_to(root):
            return f"{where} leads out of the folder of the leaderboard"
    if not folder.is_dir():
        return f"the folder of its result is missing: {where}"
    try:
        again = store.build(folder, where).with_bibliography_of(row)
    except AwpbenchError as error:
        return error.what
    differing = differences(row, again)
    return f"built again from {where}, it differs in {', '.join(differing)}" if differing else None


def differences(one: Row | Reported, other: Row | Reported) -> list[str]:
    """Name the keys in which two rows differ, but for history, retraction and the version that built them."""
    here, there = one.content(), other.content()
    own, others = here.pop("awpbench"), there.pop("awpbench")
    outer = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    return [*outer, *(key for key in {**own, **others} if own.get(key) != others.get(key))]


def _first_difference(expected: bytes, data: bytes) -> int:
    """Return the number of the first line in which two files differ."""
    lines, others = expected.splitlines(keepends=True), data.splitlines(keepends=True)
    pairs = enumerate(zip(lines, others, strict=False))
    return 1 + next((i for i, (one, other) in pairs if one != other), min(len(lines), len(others)))
