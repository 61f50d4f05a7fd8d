"""MNIST (LeCun et al. 1998), in its own idx format, where torchvision keeps it; Fashion-MNIST is packed alike."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awpbench.data.images import ImageSet
from awpbench.data.sources import Download, Files, Source, Split, not_original, shuffled

FOLDER = "MNIST/raw"
NAMES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def files() -> Files:
    """Return the four idx files, each in its own compressed download."""
    from torchvision.datasets import MNIST

    return files_of(MNIST, FOLDER)


def read(root: Path, split: Split) -> ImageSet:
    """Return one split; raises InputError where a file is no idx file of the right number of dimensions."""
    return read_from(FOLDER, "mnist", root, split)


def files_of(reader: Any, folder: str) -> Files:
    """Return the files that a torchvision reader lists."""
    downloads = tuple(
        Download(tuple(mirror + name for mirror in reader.mirrors), md5, (name.removesuffix(".gz"),))
        for name, md5 in reader.resources
    )
    return Files(folder, f"{reader.mirrors[0]}NAME.gz", NAMES, downloads)


def read_from(folder: str, name: str, root: Path, split: Split) -> ImageSet:
    """Return one split of the data set `name` from `folder` below `root`; errors as in `read`."""
    image_file, label_file = NAMES[split]
    images = _read_idx(name, root, folder, image_file, dimensions=3).unsqueeze(1)
    labels = _read_idx(name, root, folder, label_file, dimensions=1).to(torch.int64)
    if len(images) != len(labels):
        raise not_original(name, root, f"{len(images)} {split} images and {len(labels)} labels")
    return ImageSet(images, labels, torch.arange(len(images), device="cpu"))


def _read_idx(dataset: str, root: Path, folder: str, name: str, *, dimensions: int) -> Tensor:
    """Return the bytes of an idx file; it begins with 0, 0, 8, the number of dimensions, each of them in 4 bytes."""
    content = (root / folder / name).read_bytes()
    start = 4 + 4 * dimensions
    if len(content) <= start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise not_original(dataset, root, f"a {name} that does not begin as an idx file")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise not_original(dataset, root, f"a {name} of {len(content)} bytes, not {start + math.prod(shape)}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


SOURCE = Source(
    name="mnist",
    counts={"train": 60_000, "test": 10_000},
    fingerprints={
        "train": "39a6679b12119c48e765e9f0d93147d412ccb0b5e78319d027e06322c28365d8",
        "test": "65d252e01c29855413b90d281245adae1b9c0db2b01f0aa2a063ac2d713784a5",
    },
    read=read,
    hold_out=shuffled,
    files=files,
)
