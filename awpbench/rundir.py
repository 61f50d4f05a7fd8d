"""What lies where in a run folder, and writes that never leave a half-written file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG = "config.json"
PROVENANCE = "provenance.json"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
LOG = "train.log"
TENSORBOARD = "tensorboard"  # a folder of event files
LAST = "last.pt"
BEST = "best.pt"
EVAL = "eval"
RESULT = "result.json"
EVAL_TIMING = "timing.json"
PER_IMAGE = "per_image.npz"
EVIDENCE = "evidence.npz"
SHARDS = "shards"


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file as a whole (temporary file in the same folder, fsync, rename) and keep its mode.

    Raises OSError, whose `filename` is the path, and leaves what was there: where the disk is full, for example.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, on a line of its own also where a kill tore the last one; raises OSError as above."""
    with _named(path), path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(f"{line}\n".encode())


def remove_torn(run: Path) -> None:
    """Remove the temporary files that a kill within `atomic_write` left in a folder."""
    for path in run.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in an OSError: a full disk does not say which write it ended."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(folder: Path) -> None:
    """Raise an OSError that names a folder where no file can be made in it, or in the nearest one above that exists."""
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        error.filename, error.filename2 = str(folder), None
        raise


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically; NaN and infinity are refused with a ValueError."""
    atomic_write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
