"""The file that holds the leaderboard: where it lies, how it is read, and how it is written under a lock."""

from __future__ import annotations

import glob
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from awpbench import rundir
from awpbench.errors import InputError, RefusedError
from awpbench.leaderboard.details import FOLDER, checked
from awpbench.leaderboard.migrations import migrated
from awpbench.leaderboard.row import SCHEMA_VERSION, Board, Row, board_of, card_of

FILE = "leaderboard.json"
VARIABLE = "AWPBENCH_LEADERBOARD"
LOCK_SECONDS = 60.0


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
    mend = "Restore it from version control, or move it away and add the results again: awpbench leaderboard add"
    document = _json_object(path, mend)
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        what = f"{path} has schema version {version}; this awpbench reads {SCHEMA_VERSION}"
        raise InputError(what, "Update awpbench; the file was not changed.")
    return checked(
        Board,
        migrated(document, SCHEMA_VERSION),
        str(path),
        "Undo the last edit of the file; rows are never written by hand.",
    )


def canonical(board: Board) -> bytes:
    """Return the one form of a leaderboard: rows by id, one key order, commas apart so that a row owns its lines."""
    rows = [json.dumps(row.document(), indent=1, allow_nan=False) for row in board.rows]
    body = ["\n,\n".join(rows)] if rows else []
    return "\n".join(["{", f'"schema_version": {board.schema_version},', '"rows": [', *body, "]", "}", ""]).encode()


def upsert(path: Path, row: Row) -> str:
    """Put a row into the file, in place of the row with its id, and say `added` or `superseded`.

    The file is made where there is none. Works under a lock beside the file; on return the row is in the file. Raises
    RefusedError where the lock stays taken, InputError where the file cannot be read or written, and then leaves the
    file as it was.
    """
    path = path.resolve()  # so that a link stays a link
    try:
        _check_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock(path), timeout=LOCK_SECONDS, mode=0o666):
            _remove_leftovers(path)
            rows = {old.awpbench.id: old for old in read(path).rows} if path.exists() else {}
            outcome = "superseded" if row.awpbench.id in rows else "added"
            rows[row.awpbench.id] = row
            rundir.atomic_write(path, canonical(board_of(tuple(rows.values()))))
    except Timeout:
        what = f"another process has held the lock of {path} for {LOCK_SECONDS:g} s"
        raise RefusedError(what, "Wait until it ends, then: awpbench leaderboard add RESULT") from None
    except OSError as error:
        raise _unwritable(path, error) from error
    return outcome


def load_row(result: Path, card: str | None = None, *, root: Path | None = None) -> Row:
    """Build the row of a result.json, named itself or by its folder; `card` is a TOML file.

    The row says where the result lies where that is below `root`, the leaderboard's folder. Raises InputError where a
    file is missing, broken or does not fit, CheckError where the result is not as it was written or holds NaN.
    """
    from awpbench.evaluation.results import Result  # numpy, which printing does not need

    folder = result if result.is_dir() else result.parent
    found = Result.read(folder)
    found.check()
    below = None if root is None else _below(folder, root)
    return Row.from_result(found.document, found.arrays, None if card is None else _card(Path(card)), folder=below)


def _below(folder: Path, root: Path) -> str | None:
    """Return where a folder lies within another one, or None where it does not, or has a name that rows cannot hold."""
    try:
        inside = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None
    return inside if re.match(FOLDER, inside) else None


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
        card_of(_card(Path(card)))


def write_row(result_dir: Path, *, file: str | None, card: str | None) -> tuple[Path, str]:
    """Write the row of a finished evaluation; return the leaderboard's path and `added` or `superseded`.

    Raises what `load_row` and `upsert` raise.
    """
    path = find(file)
    row = load_row(result_dir, card, root=path.resolve().parent)
    return path, upsert(path, row)


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


def _json_object(path: Path, mend: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", mend) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", mend) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", mend) from None
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object", mend)
    return document


def _card(path: Path) -> dict[str, Any]:
    mend = 'Write lines such as: venue = "NeurIPS 2020"'
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no card {path}", "Check the path given to --card.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the path given to --card.") from None
    except ValueError as error:
        raise InputError(f"{path} is not a TOML file: {error}", mend) from None
