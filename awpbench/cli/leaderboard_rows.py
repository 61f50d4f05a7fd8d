"""`awpbench leaderboard add`, `retract`, `restore`, `history`, `check`, `merge`: what happens to rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tabulate import tabulate

from awpbench.cli import common
from awpbench.cli.leaderboard import FileOption
from awpbench.errors import CheckError, UsageError

if TYPE_CHECKING:
    from awpbench.leaderboard.row import Reported, Row

RowArgument = Annotated[
    str, typer.Argument(metavar="ROW_ID", help="Id of a row; its beginning is enough.", show_default=False)
]


def add(
    result: Annotated[Path, typer.Argument(help="A result.json, or the folder that eval wrote.", show_default=False)],
    *,
    card: Annotated[str | None, typer.Option(help="TOML file: link, name, authors, venue, additional_data.")] = None,
    file: FileOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Add the row of a finished evaluation, or supersede the one it repeats."""
    from awpbench.leaderboard.store import write_row

    written = write_row(result, file=file, card=card)
    if as_json:
        common.print_json({"file": str(written.path), "row": written.row, "outcome": written.outcome})
    else:
        common.print_text(str(written))


def retract(
    row: RowArgument,
    *,
    reason: Annotated[str, typer.Option(help="Why it does not count any more.", show_default=False)],
    file: FileOption = None,
) -> None:
    """Mark a row as one that does not count any more; it stays in the file, with the reason."""
    from awpbench.leaderboard import store

    path = store.find(file)
    common.print_text(f"retracted the row {store.retract(path, row, reason).awpbench.id} in {path}")


def restore(
    row: RowArgument,
    *,
    reason: Annotated[str | None, typer.Option(help="Why it counts again.")] = None,
    file: FileOption = None,
) -> None:
    """Let a retracted row count again."""
    from awpbench.leaderboard import store

    path = store.find(file)
    common.print_text(f"restored the row {store.restore(path, row, reason).awpbench.id} in {path}")


def history(row: RowArgument, *, file: FileOption = None, as_json: common.JsonOption = False) -> None:
    """Print what happened to a row, oldest first."""
    from awpbench.leaderboard import store

    found = store.find_row(store.by_id(store.read(store.find(file))), row)
    if as_json:
        own = found.document()["awpbench"]
        common.print_json({key: own[key] for key in ("id", "digest", "retracted", "history")})
    else:
        common.print_text(f"{found.awpbench.id}\n{_table(found)}")


def _table(row: Row | Reported) -> str:
    """Write a line per event, with what the row reported and its digest until then, and one for the row as it is."""
    from awpbench.leaderboard.checking import printable
    from awpbench.leaderboard.history import reported

    events = row.awpbench.history
    past = [(e.date or "?", e.action, e.reported or "", (e.digest or "")[:12], e.reason or "") for e in events]
    state = "retracted" if row.awpbench.retracted else "counts"
    now = ("now", state, reported(row) or "", (row.awpbench.digest or "")[:12], "")
    headers = ("date", "what", "reported", "digest", "reason")
    return tabulate([tuple(map(printable, line)) for line in [*past, now]], headers=headers, disable_numparse=True)


def check(*, file: FileOption = None, as_json: common.JsonOption = False) -> None:
    """Check that every row is as awpbench wrote it and follows from the result that it names."""
    from awpbench.leaderboard import checking, store

    path = store.find(file)
    report = checking.check(path)
    if as_json:
        findings = [{"row": finding.row, "what": finding.what} for finding in report.findings]
        common.print_json({"file": str(path), "rows": report.rows, "built_again": report.rebuilt, "findings": findings})
    elif report.findings:
        common.print_text("\n".join(map(str, report.findings)))
    else:
        built = f"{report.rebuilt} built again from the results that they name"
        common.print_text(f"{report.rows} rows, {built}: as awpbench wrote it")
    if report.findings:
        count = len(report.findings)
        what = f"{path} is not as awpbench wrote it: {count} finding{'s' if count > 1 else ''}"
        raise CheckError(what, "Restore it from version control, or add the results of these rows again.")


def merge(
    a: Annotated[Path, typer.Argument(help="A leaderboard, which is changed unless --out is given.")],
    b: Annotated[Path, typer.Argument(help="Another leaderboard.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Write the rows of both into this file.")] = None,
    prefer: Annotated[
        str | None, typer.Option(help="a or b: whose rows stand where the two contradict each other.")
    ] = None,
) -> None:
    """Merge two leaderboards; rows that contradict each other are named, and nothing is written."""
    from awpbench.leaderboard.merging import SIDES, merge_files

    if prefer is not None and prefer not in SIDES:
        raise UsageError(f"--prefer {prefer} names neither file", "Write --prefer a or --prefer b.")
    merged = merge_files(a, b, out=out, prefer=SIDES[prefer] if prefer else None)
    alone = f"{merged.only_a} only in {a}, {merged.only_b} only in {b}"
    common.print_text(f"{out or a}: {len(merged.rows)} rows, {alone}")


ROW_COMMANDS = (add, retract, restore, history, check, merge)
