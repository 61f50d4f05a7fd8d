"""Rows of the leaderboard from RobustBench's files, and RobustBench's files from rows of the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable

from awpbench.leaderboard import escape
from awpbench.leaderboard.details import Source
from awpbench.leaderboard.robustbench.files import OURS, Entry
from awpbench.leaderboard.row import Board, Reported, Row

DATASETS = ("cifar10", "cifar100", "imagenet")  # those that RobustBench has tables of


def imported(entries: Iterable[Entry]) -> list[Reported]:
    """Return the reported rows of RobustBench's files. Raises InputError for a file whose names make no id."""
    return [_reported(entry) for entry in entries]


def _reported(entry: Entry) -> Reported:
    place = f"{entry.dataset}/{entry.threat}/{entry.model}"
    return Reported.of(
        f"robustbench.{place.replace('/', '.')}",
        model=entry.model,
        dataset=entry.dataset,
        threat=entry.threat,
        keys=entry.document,
        source=Source(kind="robustbench", reference=f"RobustBench, model_info/{place}.json"),
    )


def exported(board: Board) -> tuple[list[Entry], dict[str, str]]:
    """Return what of a leaderboard can be a file of RobustBench, and why the other rows cannot, by their id."""
    entries, left_out = [], {}
    for row in board.rows:
        reason = _reason(row)
        if reason is None:
            entries.append(_entry(row))
        else:
            left_out[row.awpbench.id] = reason
    return entries, left_out


def _entry(row: Row | Reported) -> Entry:
    own = row.awpbench
    document = {key: value for key, value in row.document().items() if key != OURS}
    if isinstance(row, Reported):
        return Entry(own.dataset, row.awpbench.threat, own.model, document)
    return Entry(own.dataset, row.awpbench.norm, own.id, document)


def _reason(row: Row | Reported) -> str | None:
    if row.awpbench.retracted is not None:
        return "retracted"
    if isinstance(row, Reported):
        return None if row.awpbench.source.kind == "robustbench" else "quoted from a paper"
    if row.awpbench.dataset not in DATASETS:
        return f"RobustBench has no table of {escape.plain(row.awpbench.dataset)}"
    return None if row.autoattack_acc is not None else "AutoAttack is not complete, by which RobustBench ranks"
