"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017), in MNIST's idx format, where torchvision keeps it."""

from __future__ import annotations

from pathlib import Path

from awpbench.data.images import ImageSet
from awpbench.data.mnist import files_of, read_from
from awpbench.data.sources import Files, Source, Split, shuffled

FOLDER = "FashionMNIST/raw"


def files() -> Files:
    """Return the four idx files, each in its own compressed download."""
    from torchvision.datasets import FashionMNIST

    return files_of(FashionMNIST, FOLDER)


def read(root: Path, split: Split) -> ImageSet:
    """Return one split; raises InputError where a file is no idx file of the right number of dimensions."""
    return read_from(FOLDER, "fashion-mnist", root, split)


SOURCE = Source(
    name="fashion-mnist",
    counts={"train": 60_000, "test": 10_000},
    fingerprints={
        "train": "8bd259516a9466e3b865dfae1171144f4673ae543743f0a52e7467aecfbc2809",
        "test": "3ccb8aec7f8a0e8b35321569ee8c586a31c71c15a4e00acbdde8be47ab8c585a",
    },
    read=read,
    hold_out=shuffled,
    files=files,
)
