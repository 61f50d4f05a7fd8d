"""What a data set is made of: its files, where to get them, how to read and split it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from awpbench.data.images import ImageSet
from awpbench.defaults import facts_of
from awpbench.errors import InputError

Split = Literal["train", "test"]
VARIABLE = "AWPBENCH_DATA"  # names the data folder


@dataclass(frozen=True)
class Download:
    """One compressed file of the publisher: the addresses to try in turn, its MD5, and the data files it holds."""

    urls: tuple[str, ...]
    md5: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Files:
    """The files of a data set: they lie in `folder` below the data folder, and people find them at `origin`."""

    folder: str
    origin: str
    needed: Mapping[Split, tuple[str, ...]]
    downloads: tuple[Download, ...]


@dataclass(frozen=True)
class Source:
    """A data set: what is known of it before reading, and how to read and split it.

    A split whose fingerprint nobody has told is not in `fingerprints`: then `read` compares its files with the MD5 sums
    of the publisher, which say as much. Of a user's own images nothing is known, not even `counts`.

    `read(root, split)` returns one split in file order. `hold_out(labels, n)` returns the positions of `n` training
    images to set aside for validation. `files` is None where the images come with an installed package.
    """

    name: str
    counts: Mapping[Split, int]
    fingerprints: Mapping[Split, str]
    read: Callable[[Path, Split], ImageSet]
    hold_out: Callable[[Tensor, int], Tensor]
    files: Callable[[], Files] | None = None


def data_folder(data_dir: Path | None) -> Path:
    """Return `data_dir`, else the folder that AWPBENCH_DATA names, else `awpbench/data` in the user's cache folder."""
    if data_dir is not None:
        return data_dir.expanduser()
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "awpbench" / "data"


def shuffled(labels: Tensor, n: int) -> Tensor:
    """Return the first `n` of a permutation of all positions, drawn from RandomState(0) (Rice et al. 2020)."""
    return torch.from_numpy(np.random.RandomState(0).permutation(len(labels))[:n])


def verified(source: Source, split: Split, found: ImageSet, root: Path) -> ImageSet:
    """Return `found` if it is the published data set, as far as is known; raises InputError that names what differs."""
    shape, count, facts = tuple(found.images.shape[1:]), source.counts.get(split), facts_of(source.name)
    if count is not None and len(found) != count:
        raise not_original(source.name, root, f"{len(found)} {split} images, not {count}")
    if shape != facts.shape:
        raise not_original(source.name, root, f"{split} images of shape {shape}, not {facts.shape}")
    low, high = (int(value) for value in found.labels.aminmax())
    if low < 0 or high >= facts.classes:
        raise not_original(source.name, root, f"{split} labels from {low} to {high}, not 0 to {facts.classes - 1}")
    if split in source.fingerprints and found.fingerprint() != source.fingerprints[split]:
        raise not_original(source.name, root, f"{split} images or labels that differ from the published ones")
    return found


def not_original(name: str, root: Path, found: str) -> InputError:
    """Make the error for files that are there and are not the data set's own."""
    return InputError(f"{name}: found {found} (in {root})", f"Run '{fetch_command(name, root)}' to replace the files.")


def fetch_command(name: str, root: Path) -> str:
    """Return the command line that puts the data set into `root`."""
    return f"awpbench data fetch {name} --data-dir {shlex.quote(str(root))}"
