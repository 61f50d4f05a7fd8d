"""Two people's leaderboards made one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Literal

from awpbench.errors import RefusedError
from awpbench.leaderboard import store
from awpbench.leaderboard.checking import differences
from awpbench.leaderboard.details import Card, Event
from awpbench.leaderboard.history import event, reported
from awpbench.leaderboard.row import Reported, Row

AnyRow = Row | Reported
Rows = Mapping[str, AnyRow]
Side = Literal["a", "b"]
SIDES: dict[str, Side] = {"a": "a", "b": "b"}


@dataclass(frozen=True)
class Merged:
    """The rows of two leaderboards by id, and how many of them stand in one alone."""

    rows: dict[str, AnyRow]
    only_a: int
    only_b: int


def merge_files(a: Path, b: Path, *, out: Path | None = None, prefer: Side | None = None) -> Merged:
    """Merge two leaderboards into `out`, or else into the first of them; older schema versions are brought up to date.

    Raises RefusedError where `out` is there and is neither of the two, and where rows contradict each other unless one
    side is preferred; raises what `store.changing` raises. Then no file is changed.
    """
    target = out or a
    store.read(a)  # so that a first file that is not there is not made
    if out is not None and out.exists() and not any(out.samefile(each) for each in (a, b) if each.exists()):
        raise RefusedError(f"{out} is there already", "Name a file that is not there, or one of the two.")
    with store.changing(target) as rows:
        merged = merge(store.by_id(store.read(a)), store.by_id(store.read(b)), prefer=prefer, names=(str(a), str(b)))
        rows.clear()
        rows.update(merged.rows)
    return merged


def merge(a: Rows, b: Rows, *, prefer: Side | None = None, names: tuple[str, str] = ("a", "b")) -> Merged:
    """Merge two leaderboards' rows. Raises RefusedError, which names all rows that contradict each other."""
    rows = {**a, **b}
    conflicts = []
    for name in sorted(a.keys() & b.keys()):
        row = _settled(a[name], b[name])
        if row is None and prefer is not None:
            row = _preferred(a[name], b[name]) if prefer == "a" else _preferred(b[name], a[name])
        if row is None:
            conflicts.append(_told(name, a[name], b[name], names))
        else:
            rows[name] = row
    if conflicts:
        count = "a row" if len(conflicts) == 1 else f"{len(conflicts)} rows"
        mend = "Nothing was written. Say whose rows stand: --prefer a or --prefer b"
        raise RefusedError(f"the two files contradict each other in {count}: {'; '.join(conflicts)}", mend)
    return Merged(rows, len(a.keys() - b.keys()), len(b.keys() - a.keys()))


def _settled(one: AnyRow, other: AnyRow) -> AnyRow | None:
    """Return which of two rows with one id stands, whatever their order; None where they contradict each other."""
    for new, old in ((one, other), (other, one)):
        if old.awpbench.digest in {each.digest for each in new.awpbench.history}:
            return new
    if one.same_content(other):
        short, long = sorted((one, other), key=_weight)
        return None if _forgets_a_retraction(long, short) else long
    for new, old in ((one, other), (other, one)):
        if _has_the_evidence_that_lacks(new, old):
            return new
    return None


def _weight(row: AnyRow) -> tuple[int, bool, str]:
    return len(row.awpbench.history), row.awpbench.retracted is not None, dumps(row.document())


def _forgets_a_retraction(row: AnyRow, other: AnyRow) -> bool:
    """Tell whether a row knows nothing of another one's retraction: neither that nor that it was taken back."""
    if other.awpbench.retracted is None:
        return False
    told = [each for each in other.awpbench.history if each.action == "retracted"]
    return not told or told[-1] not in row.awpbench.history


def _has_the_evidence_that_lacks(row: AnyRow, old: AnyRow) -> bool:
    """Tell whether a row holds all of one from before schema version 2, and which images withstood besides."""
    if not isinstance(row, Row) or not isinstance(old, Row) or old.awpbench.retracted is not None:
        return False
    if row.awpbench.outcomes is None or old.awpbench.outcomes is not None:
        return False
    card = {key: getattr(old, key) for key in Card.model_fields}
    return card in (Card().model_dump(), {key: getattr(row, key) for key in Card.model_fields})


def _preferred(row: AnyRow, other: AnyRow) -> AnyRow:
    """Let a row stand over one that contradicts it, and its history hold that of both."""
    ours, theirs = row.awpbench.history, other.awpbench.history
    shared = _shared(ours, theirs)
    over = event("superseded", other, "the other row was preferred in a merge")
    history = (*theirs, over, *ours[shared:])
    return row.sealed(history=history, retracted=row.awpbench.retracted)


def _shared(one: tuple[Event, ...], other: tuple[Event, ...]) -> int:
    """Return how many events two histories begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (mine, yours) in pairs if mine != yours), min(len(one), len(other)))


def _told(name: str, a: AnyRow, b: AnyRow, names: tuple[str, str]) -> str:
    differing = differences(a, b) or ["retracted"]
    return f"{name}: {names[0]} says {_said(a)}, {names[1]} says {_said(b)}, which differ in {', '.join(differing)}"


def _said(row: AnyRow) -> str:
    by = f"awpbench {row.awpbench.tool_version}" if isinstance(row, Row) else row.awpbench.source.reference
    day = row.awpbench.history[-1].date if row.awpbench.history else None
    retracted = ", retracted" if row.awpbench.retracted else ""
    return f"{reported(row) or 'no accuracy'} ({by}, {day or 'day unknown'}{retracted})"
