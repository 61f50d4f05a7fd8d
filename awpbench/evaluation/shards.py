"""Arrays in files: evidence per image, with equal bytes for equal values, and the shards of unfinished work."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from awpbench import rundir
from awpbench.errors import RefusedError

Arrays = dict[str, npt.NDArray[Any]]


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]], *, compressed: bool = False) -> bytes:
    """Write a .npz as numpy.savez or savez_compressed does, but without the time of day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, wherever it is written
            info.compress_type = archive.compression
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def read_npz(data: bytes) -> Arrays:
    """Return the arrays of a .npz. Raises ValueError for damaged bytes, and for pickled objects, which are not read."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return dict(file)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged: {error}") from error


def key_of(values: Mapping[str, Any]) -> str:
    """Hash plain values: equal keys mean equal work."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Shards:
    """Finished blocks in a folder, one file each, named by the hash of all that decides its content."""

    def __init__(self, folder: Path, evaluation: str) -> None:
        self._folder = folder
        self._evaluation = evaluation

    def load(self, job: str, positions: range) -> Arrays | None:
        """Return a finished block, or None where it was never finished, or its file is damaged."""
        try:
            return read_npz(self._path(job, positions).read_bytes())
        except (OSError, ValueError):
            return None

    def save(self, job: str, positions: range, arrays: Arrays) -> None:
        """Keep a finished block."""
        rundir.atomic_write(self._path(job, positions), npz_bytes(arrays))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time into the block."""
        with self._lock("lock"):
            yield

    @contextmanager
    def claimed(self, share: str) -> Iterator[None]:
        """Let one process at a time work on a share; raises RefusedError at once where another one does."""
        try:
            lock = self._lock(f"working-on-{share}", blocking=False)
        except Timeout:
            what = f"another process is working on this evaluation in {self._folder.parent}"
            raise RefusedError(what, "Wait until it ends, or give another --out.") from None
        with lock:
            yield

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _lock(self, name: str, **how: Any) -> AbstractContextManager[object]:
        """Take a lock, released at the end of a with block; who finishes removes the folder under those who wait."""
        lock = FileLock(self._folder / name, **how)
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                return lock.acquire()

    def _path(self, job: str, positions: range) -> Path:
        key = key_of({"evaluation": self._evaluation, "job": job, "positions": [positions.start, positions.stop]})
        return self._folder / f"{job.replace(' ', '-')}-{key[:32]}.npz"
