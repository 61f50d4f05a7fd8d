"""Commands of `awpbench leaderboard` that exchange rows with RobustBench and with papers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awpbench.cli import common
from awpbench.cli.leaderboard import FileOption, With
from awpbench.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from awpbench.leaderboard.papers import Paper
    from awpbench.leaderboard.row import Board, Reported, Row

import_app = typer.Typer(help="Add rows that others published.", no_args_is_help=True)
export_app = typer.Typer(help="Write rows in the form of others.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="RobustBench's folder model_info.", show_default=False)]


@import_app.command("robustbench")
def import_robustbench(folder: Folder, *, file: FileOption = None, as_json: common.JsonOption = False) -> None:
    """Add the rows of RobustBench's files, marked as reported."""
    from awpbench.leaderboard.robustbench import bridge, files

    _put(bridge.imported(files.read(folder)), file=file, as_json=as_json)


@export_app.command("robustbench")
def export_robustbench(
    folder: Folder,
    *,
    file: FileOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that say something else.")] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Write rows as RobustBench's files: its own as they came, measured ones in its curated style."""
    from awpbench.leaderboard.robustbench import bridge, files

    entries, left_out = bridge.exported(_board(file))
    counts = files.write(folder, entries, force=force)
    for reason, number in sorted(Counter(left_out.values()).items()):
        common.note(f"left out {_rows(number)}: {reason}")
    if as_json:
        common.print_json({"folder": str(folder), **counts, "left_out": left_out})
    else:
        told = ", ".join(f"{name} {number}" for name, number in counts.items())
        common.print_text(f"{folder}: {told}")


def quote(
    quotation: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What a paper reports.", show_default=False)],
    *,
    file: FileOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Add a row that a paper reports, marked as reported and never ranked among measured ones."""
    from awpbench.leaderboard.quote import quoted

    _put([quoted(quotation)], file=file, as_json=as_json)


def submit(
    row_id: Annotated[str, typer.Argument(metavar="ROW_ID", help="Of a measured row.", show_default=False)],
    *,
    file: FileOption = None,
) -> None:
    """Print the filled text of RobustBench's issue "New Model(s)", its title first."""
    from awpbench.leaderboard.row import Reported
    from awpbench.leaderboard.submission import submission

    row = _find(_board(file), row_id)
    if isinstance(row, Reported):
        what = f"the row {row.awpbench.id} is reported: {row.awpbench.source.reference}"
        raise RefusedError(what, "Submit a row that awpbench measured.")
    if row.awpbench.retracted is not None:
        what = f"the row {row.awpbench.id} was retracted: {row.awpbench.retracted.reason}"
        raise RefusedError(what, "Submit a row that counts.")
    made = submission(row)
    for doubt in made.doubts:
        common.note(f"warning: {doubt}")
    if made.to_fill:
        common.note(f"to fill in by hand: {', '.join(made.to_fill)}")
    common.print_text(f"{made.title}\n\n{made.text}")


def bibtex(
    row_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW_ID]...", help="Rows; else all that count.", show_default=False)
    ] = None,
    *,
    beside: Annotated[With | None, typer.Option("--with", help="robustbench: also the papers of its rows.")] = None,
    file: FileOption = None,
) -> None:
    """Print a BibTeX entry for each paper behind rows."""
    from awpbench.leaderboard.papers import bibtex as written

    board = _board(file)
    rows = [_find(board, name) for name in row_ids] if row_ids else _counting(board)
    found = [(row.awpbench.id, *_paper(row)) for row in rows]
    missing = [name for name, _, paper in found if paper is None]
    if missing:
        more = f", and {len(missing) - 5} more" if missing[5:] else ""
        common.note(f"no title or authors for {_rows(len(missing))}: {', '.join(missing[:5])}{more}")
    named = [(key, paper) for _, key, paper in found if paper is not None]
    text = written([*named, *(_published() if beside else [])])
    if text:
        common.print_text(text)


EXCHANGE = (quote, submit, bibtex)


def _put(rows: list[Reported], *, file: str | None, as_json: bool) -> None:
    from awpbench.leaderboard.store import find, upsert

    path = find(file)
    outcomes = upsert(path, rows)
    counts = {outcome: outcomes.count(outcome) for outcome in ("added", "superseded", "unchanged")}
    if as_json:
        common.print_json({"file": str(path), **counts})
    else:
        told = ", ".join(f"{name} {number}" for name, number in counts.items())
        common.print_text(f"reported rows in {path}: {told}")


def _board(file: str | None) -> Board:
    from awpbench.leaderboard.store import find, read

    return read(find(file))


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _find(board: Board, name: str) -> Row | Reported:
    from awpbench.leaderboard.store import by_id, find_row

    return find_row(by_id(board), name)


def _counting(board: Board) -> list[Row | Reported]:
    return [row for row in board.rows if row.awpbench.retracted is None]


def _paper(row: Row | Reported) -> tuple[str | None, Paper | None]:
    """Return the paper of a row, and the key that RobustBench gives it."""
    from awpbench.leaderboard.papers import Paper
    from awpbench.leaderboard.row import Reported

    keys: Mapping[str, object] = row.keys if isinstance(row, Reported) else row.document()
    theirs = isinstance(row, Reported) and row.awpbench.source.kind == "robustbench"
    return row.awpbench.model.split("_")[0] if theirs else None, Paper.of(keys)


def _published() -> list[tuple[str | None, Paper]]:
    from awpbench.leaderboard.papers import Paper
    from awpbench.leaderboard.robustbench.published import published

    found: list[tuple[str | None, Paper]] = []
    for row in published():
        keys = {"name": row.title, "authors": row.authors, "venue": row.venue, "link": row.link}
        paper = Paper.of(keys)
        if paper is not None:
            found.append((row.id.split("_")[0], paper))
    return found
