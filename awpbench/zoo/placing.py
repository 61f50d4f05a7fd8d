"""Put a whole folder in its place, so that a reader or a kill never meets half of it. Importable without torch.

The folder is built beside its place, under a name that begins with a dot, and renamed. Only between the two renames
that replace a folder is there none; the old one then lies beside it, and `recover` puts it back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from awpbench.errors import RefusedError

LOCK_SECONDS = 60.0


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other writers from a folder while the block runs; raises RefusedError where one has it for a minute."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(_beside(target, "lock"), timeout=LOCK_SECONDS, mode=0o666):
            recover(target)
            yield
    except Timeout:
        what = f"another process has been publishing {target} for {LOCK_SECONDS:g} s"
        raise RefusedError(what, "Wait until it ends, then give the command again.") from None


def recover(target: Path) -> None:
    """Undo what a killed writer left: the folder that it had moved away comes back, what it was building goes."""
    old = _beside(target, "old.tmp")
    if old.exists() and not target.exists():
        old.rename(target)
    _remove(old)
    for left in (_beside(target, "gone.tmp"), _beside(target, "new.tmp")):
        shutil.rmtree(left, ignore_errors=True)


def place(target: Path, files: Mapping[str, bytes], finish: Callable[[Path], Mapping[str, bytes]]) -> None:
    """Make a folder of files, by their paths within it, in place of the one that may be there; within `locked`.

    `finish` is given the folder before it is in its place and returns the files that complete it; what it raises leaves
    everything as it was.
    """
    old, new = _beside(target, "old.tmp"), _beside(target, "new.tmp")
    try:
        _write(new, files)
        _write(new, finish(new))
        if target.exists():
            target.rename(old)
        new.rename(target)
    except BaseException:
        recover(target)
        raise
    _sync(target.parent)
    _remove(old)


def _remove(old: Path) -> None:
    """Remove a folder that was moved away; renamed first, for no half of it may ever come back."""
    if old.exists():
        gone = old.with_name(old.name.replace(".old.tmp", ".gone.tmp"))
        shutil.rmtree(gone, ignore_errors=True)
        old.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the renames within a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
