"""CIFAR-10 (Krizhevsky 2009), read and checked by torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

from awpbench.data.images import ImageSet
from awpbench.data.sources import Download, Files, Source, Split, not_original, shuffled


def files() -> Files:
    """Return the seven files of the Python version, all in one archive."""
    from torchvision.datasets import CIFAR10

    train, test = (tuple(name for name, _ in listed) for listed in (CIFAR10.train_list, CIFAR10.test_list))
    meta = (CIFAR10.meta["filename"],)
    archive = Download((CIFAR10.url,), CIFAR10.tgz_md5, train + test + meta)
    return Files(CIFAR10.base_folder, CIFAR10.url, {"train": train + meta, "test": test + meta}, (archive,))


def read(root: Path, split: Split) -> ImageSet:
    """Return one split; raises InputError where a file's MD5, compared before anything is unpickled, is not known."""
    from torchvision.datasets import CIFAR10

    others = "test_list" if split == "train" else "train_list"
    reader = type("CIFAR10", (CIFAR10,), {others: []})  # so that one split can be read without the other's files
    try:
        found = reader(root, train=split == "train")
    except RuntimeError as error:
        raise not_original("cifar10", root, f"{split} files whose MD5 is not the published one") from error
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
