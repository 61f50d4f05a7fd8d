"""CIFAR-100 (Krizhevsky 2009) with its fine labels, read and checked by torchvision."""

from __future__ import annotations

from pathlib import Path

from awpbench.data.cifar10 import files_of, read_with
from awpbench.data.images import ImageSet
from awpbench.data.sources import Files, Source, Split, shuffled


def files() -> Files:
    """Return the three files of the Python version, all in one archive."""
    from torchvision.datasets import CIFAR100

    return files_of(CIFAR100)


def read(root: Path, split: Split) -> ImageSet:
    """Return one split; raises InputError where a file's MD5, compared before anything is unpickled, is not known."""
    from torchvision.datasets import CIFAR100

    return read_with(CIFAR100, "cifar100", root, split)


SOURCE = Source(
    name="cifar100",
    counts={"train": 50_000, "test": 10_000},
    fingerprints={},  # not told; the MD5 of each file is compared
    read=read,
    hold_out=shuffled,
    files=files,
)
