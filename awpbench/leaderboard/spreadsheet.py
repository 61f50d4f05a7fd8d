"""The leaderboard as CSV: one line per row, every number in a column of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from awpbench.leaderboard.attacks import COLUMNS, Attack, place
from awpbench.leaderboard.columns import FIXED, OF_REPORTED, gap, numbers, percent
from awpbench.leaderboard.details import Score
from awpbench.leaderboard.escape import csv_cell
from awpbench.leaderboard.row import Reported, Row
from awpbench.leaderboard.view import Gain, Group, Line, Ranking, Report, Reports

GROUP = ("dataset", "norm", "eps", "data", "indices", "n", "suite", "series", "dialect", "ranked_by")
HEAD = (
    "kind",
    "source",
    *GROUP,
    "rank_low",
    "rank_high",
    "id",
    "model",
    "defense",
    "awp",
    "architecture",
    "extra_data",
)
TAIL = (
    *("incomplete", "worst_case", "worst_low", "worst_high", "worst_n"),
    *("gain", "gain_low", "gain_high", "gain_p", "gap", "best_known"),
    *("selection", "audit", "venue", "digest", "retracted"),
)
PARTS = ("", "_low", "_high", "_n")


def csv_text(rankings: Sequence[Ranking], reports: Sequence[Reports], retracted: Sequence[Row | Reported] = ()) -> str:
    """Write rankings, reported rows, and retracted ones without a rank; a cell that nothing is known of is empty."""
    measured = [line for ranking in rankings for line in ranking.lines]
    names = {name for line in measured for name in line.details.attacks}
    names |= {name for row in retracted if isinstance(row, Row) for name in row.awpbench.attacks}
    names |= {"clean", "autoattack"} if reports else set()
    attacks = [f"{name}{part}" for name in sorted(names, key=lambda name: place(name, COLUMNS)) for part in PARTS]
    text = io.StringIO()
    writer = csv.DictWriter(text, (*HEAD, *attacks, *TAIL), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_ranked(line) for line in measured)
    writer.writerows(_reported(line) for each in reports for line in each.lines)
    writer.writerows(map(_retracted, retracted))
    return text.getvalue()


def _ranked(line: Line) -> dict[str, str]:
    low, high = map(str, line.rank)
    return {**_measured(line), "rank_low": low, "rank_high": high, **_gained(line.gain)}


def _measured(line: Line) -> dict[str, str]:
    row = line.details
    group = Group.of(row)
    words = {"model": "model", "defense": "defense", "awp": "AWP", "architecture": "architecture"}
    words |= {"extra_data": "extra data", "id": "id", "selection": "selection", "audit": "audit", "venue": "venue"}
    cells: dict[str, str] = {}
    for name, attack in row.attacks.items():
        cells |= _scored(attack, [f"{name}{part}" for part in PARTS])
    cells |= {key: csv_cell(FIXED[name].cell(line)) for key, name in words.items()}
    cells |= {field: csv_cell(str(getattr(group, field))) for field in GROUP}
    incomplete = " ".join(name for name, attack in row.attacks.items() if not attack.complete)
    cells |= _scored(row.worst_case, ["worst_case", "worst_low", "worst_high", "worst_n"])
    return {
        **cells,
        "kind": "measured",
        "incomplete": incomplete,
        "gap": percent(gap(line)),
        "digest": row.digest or "",
    }


def _scored(score: Attack | Score | None, keys: Sequence[str]) -> dict[str, str]:
    return {} if score is None else dict(zip(keys, numbers(score), strict=True))


def _gained(gain: Gain | None) -> dict[str, str]:
    if gain is None:
        return {}
    low, high = gain.interval
    shares = {"gain": gain.difference, "gain_low": low, "gain_high": high}
    return {**{key: percent(share) for key, share in shares.items()}, "gain_p": f"{gain.p:.3g}"}


def _reported(line: Report) -> dict[str, str]:
    own = line.row.awpbench
    words = {key: key for key in ("id", "model", "architecture", "eps", "clean", "autoattack", "venue", "source")}
    words |= {"extra_data": "extra data", "best_known": "best known"}
    cells = {key: csv_cell(OF_REPORTED[name].cell(line)) for key, name in words.items()}
    cells |= {"dataset": csv_cell(own.dataset), "norm": own.threat, "digest": own.digest or ""}
    place = "" if line.place is None else str(line.place)
    return {**cells, "kind": "reported", "rank_low": place, "rank_high": place}


def _retracted(row: Row | Reported) -> dict[str, str]:
    cells = _measured(Line(row, (0, 0), None)) if isinstance(row, Row) else _reported(Report(row, None))
    return {**cells, "retracted": csv_cell(row.awpbench.retracted.reason if row.awpbench.retracted else "")}
