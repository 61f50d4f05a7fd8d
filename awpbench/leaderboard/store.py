"""The file that holds the leaderboard: where it lies, how it is read, and how it is written under a lock."""

from __future__ import annotations

import glob
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from awpbench import rundir
from awpbench.errors import InputError, RefusedError, UsageError, nearest
from awpbench.leaderboard.details import FOLDER, checked
from awpbench.leaderboard.history import Outcome, following, with_mark
from awpbench.leaderboard.migrations import migrated
from awpbench.leaderboard.row import SCHEMA_VERSION, Board, Reported, Row, board_of, card_of

FILE = "leaderboard.json"
VARIABLE = "AWPBENCH_LEADERBOARD"
LOCK_SECONDS = 60.0
RESTORE = "Restore it from version control, or move it away and add the results again: awpbench leaderboard add"
UNDO = "Undo the last edit of the file; rows are never written by hand."


def find(explicit: str | None) -> Path:
    """Return where the leaderboard lies, or would be made.

    That is the path given, else AWPBENCH_LEADERBOARD, else the nearest leaderboard.json at or above the working folder.
    """
    named = explicit or os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    here = Path.cwd()
    return next((folder / FILE for folder in (here, *here.parents) if (folder / FILE).is_file()), here / FILE)


def read(path: Path) -> Board:
    """Read a leaderboard. Raises InputError where it is missing, broken, or of a newer schema; changes nothing."""
    _, document = load(path)
    return checked(Board, migrated(document, SCHEMA_VERSION), str(path), UNDO)


def load(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return a leaderboard's bytes and the JSON object in them, whose rows may be anything.

    Raises InputError where the file is missing, holds no JSON object, or is of a newer schema.
    """
    data, document = json_object(path, RESTORE)
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        what = f"{path} has schema version {version}; this awpbench reads {SCHEMA_VERSION}"
        raise InputError(what, "Update awpbench; the file was not changed.")
    if isinstance(version, float):  # 2.0 equals 2
        raise InputError(f"{path} does not fit: schema_version: Input should be {SCHEMA_VERSION}", UNDO)
    return data, document


def canonical(board: Board) -> bytes:
    """Return the one form of a leaderboard: rows by id, one key order, commas apart so that a row owns its lines."""
    return laid_out(board.schema_version, [row.document() for row in board.rows])


def laid_out(version: Any, rows: Iterable[Any]) -> bytes:
    """Lay out rows, which may be anything that JSON holds, as the file has them."""
    body = ["\n,\n".join(json.dumps(row, indent=1) for row in rows)]
    lines = ["{", f'"schema_version": {json.dumps(version)},', '"rows": [', *filter(None, body), "]", "}", ""]
    return "\n".join(lines).encode()


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Row | Reported]]:
    """Lend the rows of a leaderboard, by id, to be changed; write them when the block ends.

    The file is made where there is none; where no row has changed, not a byte is written. Works under a lock beside
    the file; after the block the rows are in the file. Raises RefusedError where the lock stays taken, InputError where
    the file cannot be read or written, and then leaves the file as it was, as it does where the block raises.
    """
    path = Path(os.path.realpath(path))  # so that a link stays a link
    try:
        _check_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock(path), timeout=LOCK_SECONDS, mode=0o666):
            _remove_leftovers(path)
            before = by_id(read(path)) if path.exists() else None
            rows = dict(before or {})
            yield rows
            if rows != before:
                rundir.atomic_write(path, canonical(board_of(tuple(rows.values()))))
    except Timeout:
        what = f"another process has held the lock of {path} for {LOCK_SECONDS:g} s"
        raise RefusedError(what, "Wait until it ends, then repeat the command.") from None
    except OSError as error:
        raise _unwritable(path, error) from error


def by_id(board: Board) -> dict[str, Row | Reported]:
    """Return the rows of a leaderboard by their ids."""
    return {row.awpbench.id: row for row in board.rows}


def upsert(path: Path, rows: Iterable[Row | Reported], *, keep_bibliography: bool = False) -> list[Outcome]:
    """Put rows into the file in one locked write, each in place of the row with its id; return an outcome for each.

    With `keep_bibliography` a measured row takes its bibliography from the row that it supersedes. Raises what
    `changing` raises, and RefusedError where a measured row would give way to a reported one or the reverse.
    """
    with changing(path) as found:
        outcomes: list[Outcome] = []
        for row in rows:
            name = row.awpbench.id
            found[name], outcome = following(found.get(name), row, keep_bibliography)
            outcomes.append(outcome)
    return outcomes


def retract(path: Path, name: str, reason: str) -> Row | Reported:
    """Mark a row, named as in `find_row`, as one that does not count any more; return it as it is in the file now.

    Raises UsageError without a reason, RefusedError where the row is retracted already, and what `changing` raises.
    """
    if not reason.strip():
        raise UsageError("a retraction needs a reason", 'Write it: --reason "the wrong checkpoint was evaluated"')
    return _marked(path, name, reason)


def restore(path: Path, name: str, reason: str | None = None) -> Row | Reported:
    """Let a retracted row count again; return it. Raises RefusedError where it counts, and what `changing` raises."""
    return _marked(path, name, reason, restored=True)


def _marked(path: Path, name: str, reason: str | None, *, restored: bool = False) -> Row | Reported:
    read(path)  # so that a file that is not there is not made
    with changing(path) as rows:
        row = find_row(rows, name)
        marked = with_mark(row, reason, restored=restored)
        rows[row.awpbench.id] = marked
    return marked


def find_row(rows: Mapping[str, Row | Reported], name: str) -> Row | Reported:
    """Return the row with an id, of which the beginning is enough where no other row shares it. Raises UsageError."""
    if name in rows:
        return rows[name]
    found = [known for known in rows if name and known.startswith(name)]
    if len(found) == 1:
        return rows[found[0]]
    if found:
        raise UsageError(f"{len(found)} ids begin with {name!r}", f"Write more of one: {', '.join(sorted(found)[:5])}.")
    mend = f"{nearest(name, rows)}Ids stand in: awpbench leaderboard --format csv"
    raise UsageError(f"there is no row called {name!r}", mend)


def load_row(result: Path, card: str | None = None, *, root: Path | None = None) -> Row:
    """Build the row of a result.json, named itself or by its folder; `card` is a TOML file.

    The row says where the result lies where that is below `root`, the leaderboard's folder. Raises what `build` raises,
    and InputError for a card that cannot be used.
    """
    if not result.is_dir() and (result.name != rundir.RESULT or not result.is_file()):
        mend = "Name the folder that awpbench eval wrote, or the result.json in it."
        raise InputError(f"there is no result at {result}", mend)
    folder = result if result.is_dir() else result.parent
    below = None if root is None else _below(folder, root)
    return build(folder, below, None if card is None else read_card(Path(card)))


def build(folder: Path, below: str | None, card: dict[str, Any] | None = None) -> Row:
    """Build the row of the result in a folder, which the row says to lie at `below`.

    Raises InputError where a file is missing, broken or does not fit, CheckError where the result is not as it was
    written or holds NaN.
    """
    from awpbench.evaluation.results import Result  # numpy, which printing does not need

    found = Result.read(folder)
    found.check()
    return Row.from_result(found.document, found.arrays, card, folder=below)


def _below(folder: Path, root: Path) -> str | None:
    """Return where a folder lies within another one, or None where it does not, or has a name that rows cannot hold."""
    try:
        inside = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None
    return inside if re.fullmatch(FOLDER, inside) else None


def check_targets(*, file: str | None, card: str | None) -> None:
    """Raise what `write_row` would for a leaderboard that cannot be read or written, or a card that cannot be used.

    To be called before an evaluation of hours, not after it.
    """
    path = find(file)
    if path.exists():
        read(path)
    try:
        _check_writable(path.resolve())
    except OSError as error:
        raise _unwritable(path, error) from error
    if card is not None:
        card_of(read_card(Path(card)))


class Written(NamedTuple):
    """The leaderboard that a row was written to, what became of it there, and its id."""

    path: Path
    outcome: Outcome
    row: str

    def __str__(self) -> str:
        """Say so in one line."""
        where = f"the row {self.row} in {self.path}"
        return f"{where} is unchanged" if self.outcome == "unchanged" else f"{self.outcome} {where}"


def write_row(result_dir: Path, *, file: str | None, card: str | None) -> Written:
    """Write the row of a finished evaluation; without a card it keeps the bibliography of the row that it supersedes.

    Raises what `load_row` and `upsert` raise.
    """
    path = find(file)
    row = load_row(result_dir, card, root=path.resolve().parent)
    (outcome,) = upsert(path, [row], keep_bibliography=card is None)
    return Written(path, outcome, row.awpbench.id)


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _check_writable(path: Path) -> None:
    """Raise OSError where the leaderboard or its lock cannot be made: to wait for such a lock would be in vain."""
    rundir.check_writable(path.parent)
    if _lock(path).exists():
        _lock(path).open("ab").close()


def _unwritable(path: Path, error: OSError) -> InputError:
    mend = "Make room or permission there, or name another file with --file."
    return InputError(f"{path} cannot be written: {error.strerror or error}", mend)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers left behind: under the lock, every temporary file is stale."""
    for stale in path.parent.glob(glob.escape(f".{path.name}.") + "*.tmp"):
        stale.unlink(missing_ok=True)


def json_object(path: Path, mend: str) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a file and the JSON object in them; raises InputError where there is none."""
    try:
        data = path.read_bytes()
        document = json.loads(data)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", mend) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", mend) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", mend) from None
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object", mend)
    return data, document


def read_card(path: Path) -> dict[str, Any]:
    """Read the TOML file of bibliographic keys, unchecked; raises InputError where it is missing or no TOML."""
    mend = 'Write lines such as: venue = "NeurIPS 2020"'
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no card {path}", "Check the path given to --card.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the path given to --card.") from None
    except ValueError as error:
        raise InputError(f"{path} is not a TOML file: {error}", mend) from None
