"""CIFAR-10 (Krizhevsky 2009), read and checked by torchvision; CIFAR-100 is packed alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from awpbench.data.images import ImageSet
from awpbench.data.sources import Download, Files, Source, Split, not_original, shuffled


def files() -> Files:
    """Return the seven files of the Python version, all in one archive."""
    from torchvision.datasets import CIFAR10

    return files_of(CIFAR10)


def read(root: Path, split: Split) -> ImageSet:
    """Return one split; raises InputError where a file's MD5, compared before anything is unpickled, is not known."""
    from torchvision.datasets import CIFAR10

    return read_with(CIFAR10, "cifar10", root, split)


def files_of(reader: Any) -> Files:
    """Return the files that a torchvision reader lists."""
    train, test = (tuple(name for name, _ in listed) for listed in (reader.train_list, reader.test_list))
    meta = (reader.meta["filename"],)
    archive = Download((reader.url,), reader.tgz_md5, train + test + meta)
    return Files(reader.base_folder, reader.url, {"train": train + meta, "test": test + meta}, (archive,))


def read_with(reader: Any, name: str, root: Path, split: Split) -> ImageSet:
    """Return one split as a torchvision reader reads it; errors as in `read`."""
    others = "test_list" if split == "train" else "train_list"
    alone = type(reader.__name__, (reader,), {others: []})  # so that one split can be read without the other's files
    try:
        found = alone(root, train=split == "train")
    except RuntimeError as error:
        raise not_original(name, root, f"{split} files whose MD5 is not the published one") from error
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(found.targets, dtype=torch.int64, device="cpu")
    return ImageSet(images, labels, torch.arange(len(images), device="cpu"))


SOURCE = Source(
    name="cifar10",
    counts={"train": 50_000, "test": 10_000},
    fingerprints={
        "train": "3e99622ec653c8e6df86fcc9dde903a474ade599350136baf2a0b34e99ffd7bf",
        "test": "1f2ca59df8d7c4445629d4ce28d5950a5e4cd67e47c1450f323c7458f961ed64",
    },
    read=read,
    hold_out=shuffled,
    files=files,
)
