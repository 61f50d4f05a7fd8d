"""The tables of rows whose numbers others reported: apart from measured ones, each with its source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from awpbench.leaderboard.columns import UNKNOWN
from awpbench.leaderboard.page.parts import (
    Cell,
    Entry,
    Facts,
    Heading,
    Table,
    figure,
    pairs,
    past,
    percent,
    web_address,
    worded,
    written,
)
from awpbench.leaderboard.page.scatter import Dot, scatter
from awpbench.leaderboard.row import Board, Reported
from awpbench.leaderboard.view import Report, Reports, deciding, number, reported

ORDER = {"robustbench": " The order is RobustBench's.", "paper": ""}
WHO = {"robustbench": "reported by RobustBench", "paper": "reported in papers"}


def tables(board: Board) -> list[Table]:
    """Lay out the reported rows that count: a table per kind of source, data set and threat."""
    return [_table(reports) for reports in reported(board)]


def _robust(row: Reported) -> float | None:
    """Return the accuracy in percent by which a row is ranked."""
    return number(row.keys.get(deciding(row) or ""))


def _table(reports: Reports) -> Table:
    kind, dataset, threat = reports.kind, reports.dataset, reports.threat
    columns = _reported_columns(threat)
    entries = [_reported_entry(report, columns) for report in reports.lines]
    return Table(
        f"r-{hashlib.sha256(f'{kind} {dataset} {threat}{reports.attacked}'.encode()).hexdigest()[:16]}",
        f"{dataset}, {threat}{reports.attacked}: {WHO[kind]}",
        "Numbers that others published, each with its source. awpbench did not measure them, they come without "
        f"intervals, and they are not ranked together with measured rows.{ORDER[kind]}",
        False,
        (Heading("rank", "Rank", "By RobustBench's rule.", "rank"), *(heading for heading, _ in columns)),
        tuple(entries),
        (),
        scatter([dot for dot in (_reported_dot(report.row) for report in reports.lines) if dot is not None]),
        "Robust accuracy",
        {"dataset": dataset, "norm": threat},
    )


ReportedColumn = tuple[Heading, Callable[[Reported], Cell]]


def _reported_columns(threat: str) -> list[ReportedColumn]:
    attacked = "corruptions_acc" if threat == "corruptions" else "autoattack_acc"
    label = "Accuracy under corruptions" if threat == "corruptions" else "AA accuracy"

    def of(key: str) -> Callable[[Reported], Cell]:
        return lambda row: worded(written(row.keys.get(key)))

    def flag(key: str) -> Callable[[Reported], Cell]:
        return lambda row: worded(_flag(row.keys.get(key)) or UNKNOWN)

    return [
        (Heading("method", "Method", "The paper, and its name at the source.", "text"), _reported_method),
        (Heading("clean", "Standard accuracy", "On clean images, in percent.", "figure"), _number("clean_acc")),
        (
            Heading(attacked.removesuffix("_acc"), label, "In percent.", "figure"),
            _number(attacked),
        ),
        (Heading("best_known", "Best known robust accuracy", RANKS, "figure"), _reported_best),
        (Heading("unreliable", "Potentially unreliable", "As its source says.", "text"), flag("unreliable")),
        (
            Heading("extra_data", "Extra data", "Trained on more images.", "text"),
            flag("additional_data"),
        ),
        (Heading("architecture", "Architecture", "", "text"), of("architecture")),
        (Heading("venue", "Venue", "", "text"), of("venue")),
        (Heading("claimed", "Claimed", "The robust accuracy that its authors report.", "figure"), _number("reported")),
        (Heading("eps", "eps", "The budget of the attack.", "text"), of("eps")),
        (Heading("source", "Source", "Who reported it.", "text"), _source),
    ]


RANKS = "The lowest accuracy that any attack left, AutoAttack's where none left less; RobustBench ranks by it."


def _flag(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else ""


def _number(key: str) -> Callable[[Reported], Cell]:
    return lambda row: figure(row.keys.get(key))


def _reported_best(row: Reported) -> Cell:
    return figure(row.keys.get(deciding(row) or ""))


def _reported_method(row: Reported) -> Cell:
    text = written(row.keys.get("name")) or row.awpbench.model
    below = [row.awpbench.model, written(row.keys.get("footnote"))]
    return Cell(text, text.lower(), ". ".join(filter(None, below)), web_address(row.keys.get("link")))


def _source(row: Reported) -> Cell:
    source = row.awpbench.source
    kind = {"robustbench": "RobustBench", "paper": "paper"}[source.kind]
    attack = f" (under {source.attack})" if source.attack else ""
    return Cell(kind, kind.lower(), source.reference + attack, web_address(source.reference))


def _reported_entry(report: Report, columns: Sequence[ReportedColumn]) -> Entry:
    row, place = report.row, report.place
    keys, own = row.keys, row.awpbench
    filters = {
        "dataset": own.dataset,
        "threat": own.threat,
        "defense": "",
        "awp": "",
        "extra": _flag(keys.get("additional_data")),
        "architecture": written(keys.get("architecture")),
    }
    words = (own.id, own.model, *(written(keys.get(key)) for key in ("name", "authors", "venue")), *filters.values())
    source = {"source": own.source.kind, "reference": own.source.reference}
    facts = [Facts("Reported, not measured here", pairs({"id": own.id, "model": own.model, **source, **keys}))]
    return Entry(
        own.id,
        own.model,
        (
            Cell("" if place is None else str(place), None if place is None else -float(place)),
            *(cell(row) for _, cell in columns),
        ),
        (*facts, *past(keys, own)),
        filters,
        words,
        {},
        None,
    )


def _reported_dot(row: Reported) -> Dot | None:
    clean, robust = percent(row.keys.get("clean_acc")), _robust(row)
    if clean is None or robust is None or not (0 <= clean <= 100 and 0 <= robust <= 100):
        return None
    return Dot(row.awpbench.id, row.awpbench.model, "reported", clean / 100, robust / 100)
