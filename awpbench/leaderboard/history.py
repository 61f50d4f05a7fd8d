"""What becomes of a row over time: it is added, superseded, retracted and restored, and its history tells."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

from awpbench.errors import RefusedError
from awpbench.leaderboard.derived import hash_of
from awpbench.leaderboard.details import PERCENT, Card, Event, Retraction
from awpbench.leaderboard.row import Reported, Row

Outcome = Literal["added", "superseded", "unchanged"]
Action = Literal["superseded", "retracted", "restored"]


def today() -> str:
    """Return the day, UTC."""
    return datetime.now(UTC).date().isoformat()


def reported(row: Row | Reported) -> str | None:
    """Return the accuracy that a row reports, in percent with two decimals; None where it says none in that form."""
    value = row.reported if isinstance(row, Row) else row.keys.get("reported")
    return value if isinstance(value, str) and re.fullmatch(PERCENT, value) else None


def event(action: Action, before: Row | Reported, reason: str | None = None) -> Event:
    """Tell what happens today to a row."""
    told = " ".join(reason.split()) if reason else None
    facts = {"digest": before.awpbench.digest, "reported": reported(before), "result": substance(before)}
    return Event(date=today(), action=action, **facts, reason=told)


def substance(row: Row | Reported) -> str | None:
    """Return the hash of what a row says, whatever its card: of its result, or of the keys that are no bibliography."""
    if isinstance(row, Row):
        return row.awpbench.hashes.get("result")
    return hash_of({key: value for key, value in row.keys.items() if key not in Card.model_fields})


def following(
    old: Row | Reported | None, new: Row | Reported, keep_bibliography: bool
) -> tuple[Row | Reported, Outcome]:
    """Return the row that stands in the file once `new` was put in place of `old`, and what that is called.

    A retraction ends where something else was measured, or reported, than what was retracted: neither a new card ends
    it, nor the retracted result itself after another one. Raises RefusedError where one of the two was measured and the
    other was not.
    """
    if old is None:
        return new.sealed(history=(Event(date=today(), action="added"),)), "added"
    if type(old) is not type(new):
        what = f"the row {new.awpbench.id} is {old.awpbench.kind}: no {new.awpbench.kind} row supersedes it"
        raise RefusedError(what, "Give the other row another id.")
    if keep_bibliography and isinstance(old, Row) and isinstance(new, Row):
        new = new.with_bibliography_of(old)
    if new.same_content(old):
        return old, "unchanged"
    history = (*old.awpbench.history, event("superseded", old))
    same = substance(old) == substance(new)
    retracted = old.awpbench.retracted if same else _retraction(history, substance(new))
    return new.sealed(history=history, retracted=retracted), "superseded"


def _retraction(history: tuple[Event, ...], result: str | None) -> Retraction | None:
    """Return the retraction of a result that a history tells of, None where there is none or it was restored."""
    found = None
    for each in history:
        if each.result == result and each.action == "retracted":
            found = Retraction(date=each.date or today(), reason=each.reason or "not told")
        elif each.result == result and each.action == "restored":
            found = None
    return found


def with_mark(row: Row | Reported, reason: str | None, *, restored: bool) -> Row | Reported:
    """Return a row retracted, or restored. Raises RefusedError where it is so already."""
    name, retraction = row.awpbench.id, row.awpbench.retracted
    if restored and retraction is None:
        raise RefusedError(f"the row {name} counts: it is not retracted", "Leave it.")
    if not restored and retraction is not None:
        what = f"the row {name} was retracted on {retraction.date}: {retraction.reason}"
        raise RefusedError(what, f"To give another reason, first: awpbench leaderboard restore {name}")
    told = event("restored" if restored else "retracted", row, reason)
    mark = None if restored else Retraction(date=today(), reason=told.reason or "")
    return row.sealed(history=(*row.awpbench.history, told), retracted=mark)
