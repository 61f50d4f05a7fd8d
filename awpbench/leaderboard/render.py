"""The leaderboard as tables: Markdown, CSV and JSON as text; headers and cells for whoever draws them otherwise.

Names come from strangers: every cell is freed of control characters, and each format escapes what it would interpret.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tabulate import tabulate

from awpbench.leaderboard.attacks import COLUMNS, Attack, beside, place, strongest, told
from awpbench.leaderboard.row import Board, Details
from awpbench.leaderboard.store import canonical

LEGEND = "Accuracy in percent, its 95 % Wilson interval, and n, the number of images. Ranks hold within a table only."
BEFORE, AFTER = ("rank", "model", "defense", "AWP", "architecture"), ("selection",)
UNKNOWN = "?"
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


class Group(NamedTuple):
    """What rows share to be ranked together: images, threat, suite, the definitions of all attacks, and the n of the
    attack that ranks.
    """

    dataset: str
    norm: str
    eps: str
    data: str
    indices: str
    suite: str
    series: str
    dialect: str
    ranked_by: str
    definitions: str
    n: int

    @classmethod
    def of(cls, row: Details) -> Group:
        """Return the group of a row."""
        name = strongest(row.attacks)
        ranking = {each: attack.definition for each, attack in row.attacks.items() if not beside(each)}
        data, indices = str(row.hashes["data"]), str(row.hashes["indices"])
        threat = (row.dataset, row.norm, row.eps, data, indices)
        of_suite = (row.suite, row.suite_series, row.dialect, name, json.dumps(ranking))
        return cls(*threat, *of_suite, row.attacks[name].n)


@dataclass(frozen=True)
class Table:
    """One group of comparable rows, best first; all text is plain, without control characters."""

    title: str
    notes: tuple[str, ...]  # how each attack is defined
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(board: Board) -> list[Table]:
    """Return one table per group of comparable rows, or an empty one."""
    empty = Table("no results yet", (), (*BEFORE, *AFTER), ())
    return [_table(group, rows) for group, rows in _groups(board)] or [empty]


def render(board: Board, format: str) -> str:
    """Write the leaderboard as `md`, `json` or `csv`, text that ends with a newline. JSON is the file's own form."""
    if format == "json":
        return canonical(board).decode()
    return _csv(board) if format == "csv" else _markdown(board)


def plain(text: str) -> str:
    """Replace what is no visible character (line ends, escape codes, text direction marks) by a blank."""
    return "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in text)


def _groups(board: Board) -> list[tuple[Group, list[Details]]]:
    groups: dict[Group, list[Details]] = defaultdict(list)
    for row in board.rows:
        groups[Group.of(row.awpbench)].append(row.awpbench)
    return [(group, _ranked(groups[group], group.ranked_by)) for group in sorted(groups)]


def _ranked(rows: list[Details], ranked_by: str) -> list[Details]:
    return sorted(rows, key=lambda row: (-row.attacks[ranked_by].correct, row.id))


def _ranks(rows: list[Details], ranked_by: str) -> list[int]:
    """Number the rows; equal accuracies share a rank."""
    correct = [row.attacks[ranked_by].correct for row in rows]
    return [1 + sum(other > own for other in correct) for own in correct]


def _table(group: Group, rows: list[Details]) -> Table:
    attacks = _attack_names(rows)
    cells = [
        (str(rank), *_description(row), *(_accuracy(row.attacks.get(name)) for name in attacks), _selection(row))
        for rank, row in zip(_ranks(rows, group.ranked_by), rows, strict=True)
    ]
    return Table(
        plain(_title(group, partial=any(row.partial for row in rows))),
        tuple(map(plain, _notes(group))),
        (*BEFORE, *attacks, *AFTER),
        tuple(tuple(plain(cell) for cell in line) for line in cells),
    )


def _attack_names(rows: Iterable[Details]) -> list[str]:
    return sorted({name for row in rows for name in row.attacks}, key=lambda name: place(name, COLUMNS))


def _title(group: Group, *, partial: bool) -> str:
    """Say what the rows of a table share."""
    images = f"{group.n} images" + (" (part of the test set)" if partial else "")
    threat = f"{group.dataset}, {group.norm} {group.eps}, data {group.data[:8]}, images {group.indices[:8]}"
    suite = f"suite {group.suite} {group.series}, dialect {group.dialect}"
    return f"{threat}, {suite}; ranked by {group.ranked_by} on {images}"


def _notes(group: Group) -> list[str]:
    """Say how each attack is defined: step, start and all the rest."""
    return [f"{name}: {told(how)}" for name, how in json.loads(group.definitions).items() if how]


def _description(row: Details) -> tuple[str, str, str, str]:
    width = f" (width {row.width})" if row.width else ""
    model = f"{row.model} (suspicious)" if row.audit.verdict == "suspicious" else row.model
    return model, row.defense or UNKNOWN, _awp(row), (row.architecture or UNKNOWN) + width


def _selection(row: Details) -> str:
    return row.selection or UNKNOWN


def _awp(row: Details) -> str:
    if row.defense is None:
        return UNKNOWN
    if row.awp is None:
        return "no (RWP)" if (row.train or {}).get("rwp") else "no"
    return f"{row.awp.gamma:g}" + (f" after {row.awp.warmup} epochs" if row.awp.warmup else "")


def _accuracy(attack: Attack | None) -> str:
    if attack is None:
        return ""
    percent, low, high, n = _numbers(attack)
    nan = f" (NaN logits on {attack.nan_logits})" if attack.nan_logits else ""
    nan += " (NaN gradients)" if attack.nan_gradients else ""
    return f"{percent} [{low}, {high}] n={n}" + ("" if attack.complete else " (incomplete)") + nan


def _markdown(board: Board) -> str:
    blocks = [LEGEND]
    for table in tables(board):
        ours = len(BEFORE)  # from here on cells hold no text from outside
        rows = [[*map(_escaped, row[:ours]), *row[ours:]] for row in table.rows]
        text = tabulate(rows, headers=table.columns, tablefmt="github", disable_numparse=True)
        notes = ["\n".join(f"- {_escaped(note)}" for note in table.notes)] if table.notes else []
        blocks += [f"### {_escaped(table.title)}", text, *notes]
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    """Escape what Markdown, or HTML inside it, would interpret; an underscore within a word is none of it."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~!#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)


def _csv(board: Board) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    attacks = _attack_names(row.awpbench for row in board.rows)
    of_group = ("dataset", "norm", "eps", "data", "indices", "n", "suite", "series", "dialect", "ranked_by")
    of_attacks = [f"{name}{part}" for name in attacks for part in ("", "_low", "_high", "_n")]
    writer.writerow([*of_group, "rank", "id", *BEFORE[1:], *of_attacks, "incomplete", *AFTER])
    for group, rows in _groups(board):
        for rank, row in zip(_ranks(rows, group.ranked_by), rows, strict=True):
            shared = [str(getattr(group, field)) for field in of_group]
            measured = [cell for name in attacks for cell in _numbers(row.attacks.get(name))]
            incomplete = " ".join(name for name, attack in row.attacks.items() if not attack.complete)
            cells = (*shared, str(rank), row.id, *_description(row), *measured, incomplete, _selection(row))
            writer.writerow([_inert(cell) for cell in cells])
    return text.getvalue()


def _numbers(attack: Attack | None) -> tuple[str, str, str, str]:
    if attack is None:
        return "", "", "", ""
    low, high = attack.interval
    return attack.percent, f"{100 * low:.2f}", f"{100 * high:.2f}", str(attack.n)


def _inert(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    text = plain(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
