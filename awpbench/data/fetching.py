"""Fetch a data set's files: checked and unpacked aside, so that no half file ever bears a data file's name."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from awpbench.data import Progress
from awpbench.data.sources import Download, Files, Source, Split, fetch_command
from awpbench.errors import InputError

CHUNK = 1 << 18  # bytes between two reports of progress
TIMEOUT = 30  # seconds without a byte


class _NotFetched(Exception):
    """An address did not give the right file; the text says why."""


def provide(source: Source, root: Path, splits: tuple[Split, ...], *, offline: bool, progress: Progress | None) -> None:
    """Do nothing where the files of `splits` lie in `root`, else fetch the whole data set.

    Raises InputError, which says what to put where, if files are missing and `offline`, or if they cannot be fetched.
    """
    if source.files is None:
        return
    files = source.files()
    needed = dict.fromkeys(name for split in splits for name in files.needed[split])
    missing = [name for name in needed if not os.path.isfile(root / files.folder / name)]
    if not missing:
        return
    what = f"{source.name}: {', '.join(missing)} missing in {root / files.folder}"
    if offline:
        raise InputError(what, _mend(source.name, files, root))
    try:
        download(source.name, files, root, progress)
    except InputError as error:
        raise InputError(f"{what}; {error.what.removeprefix(source.name + ': ')}", error.mend) from error


def download(name: str, files: Files, root: Path, progress: Progress | None) -> None:
    """Fetch all files of a data set into `root`, replacing those that are there once all have arrived.

    Raises InputError where no address gives a file with the right MD5, or where `root` cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=root) as scratch:
            for one in files.downloads:
                _unpack(_retrieve(one, Path(scratch), progress), one, files.folder)
            (root / files.folder).mkdir(parents=True, exist_ok=True)
            for member in (member for one in files.downloads for member in one.members):
                os.replace(Path(scratch) / member, root / files.folder / member)
    except _NotFetched as error:
        raise InputError(f"{name}: could not be fetched ({error})", _mend(name, files, root)) from error
    except OSError as error:
        raise InputError(
            f"{name}: could not be written to {root} ({error.strerror or error})",
            "Make room, or name another folder with --data-dir or AWPBENCH_DATA.",
        ) from error


def _mend(name: str, files: Files, root: Path) -> str:
    what = f"{files.folder}/ (unpacked from {files.origin})"
    if files.folder == ".":
        what = f"{' and '.join(member for one in files.downloads for member in one.members)} (from {files.origin})"
    put = f"Put {what} into {root}"
    return f"{put}, or run '{fetch_command(name, root)}' with a network."


def _retrieve(one: Download, scratch: Path, progress: Progress | None) -> Path:
    """Download a file from the first address that gives it with the right MD5."""
    target = scratch / one.urls[0].rpartition("/")[2]
    faults = []
    for url in one.urls:
        try:
            _stream(url, one.md5, target, progress)
            return target
        except _NotFetched as error:
            faults.append(f"{url}: {error}")
    raise _NotFetched("; ".join(faults))


def _stream(url: str, md5: str, target: Path, progress: Progress | None) -> None:
    digest, done, total = hashlib.md5(usedforsecurity=False), 0, 0
    with target.open("wb") as file:
        for chunk, total in _chunks(url):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total, target.name)
    if done < total:
        raise _NotFetched(f"it ended after {done} of {total} bytes")
    if digest.hexdigest() != md5:
        raise _NotFetched(f"its MD5 is {digest.hexdigest()}, not {md5}")


def _chunks(url: str) -> Iterator[tuple[bytes, int]]:
    """Yield the content of an address piece by piece, each with the bytes expected in all (0: unknown)."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            total = int(response.headers.get("Content-Length", 0))
            while chunk := response.read(CHUNK):
                yield chunk, total
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise _NotFetched(str(reason)) from error


def _unpack(packed: Path, one: Download, folder: str) -> None:
    """Write the members of a tar archive, or the one file in a gzip, beside it; a file that is not packed stays."""
    if packed.name.endswith(".tar.gz"):
        with tarfile.open(packed) as archive:
            for member in one.members:
                content = archive.extractfile(f"{folder}/{member}")
                assert content is not None  # the MD5 says which archive this is
                _copy(content, packed.with_name(member))
    elif packed.name.endswith(".gz"):
        with gzip.open(packed) as unpacked:
            _copy(unpacked, packed.with_name(one.members[0]))


def _copy(content: IO[bytes] | gzip.GzipFile, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)
