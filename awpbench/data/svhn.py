"""SVHN (Netzer et al. 2011), cropped digits, read and checked by torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from awpbench.data.images import ImageSet
from awpbench.data.sources import Download, Files, Source, Split, not_original, shuffled

SPLITS: tuple[Split, ...] = ("train", "test")


def files() -> Files:
    """Return the two Matlab files, which lie in the data folder itself; the extra images are not used."""
    from torchvision.datasets import SVHN

    listed = {split: SVHN.split_list[split] for split in SPLITS}
    downloads = tuple(Download((url,), md5, (name,)) for url, name, md5 in listed.values())
    origin = listed["train"][0].rpartition("/")[0]
    return Files(".", origin, {split: (name,) for split, (_, name, _) in listed.items()}, downloads)


def read(root: Path, split: Split) -> ImageSet:
    """Return one split, the digit 0 as class 0 (10 in the file); raises InputError where the MD5 is not known."""
    from torchvision.datasets import SVHN

    try:
        found = SVHN(root, split=split)
    except RuntimeError as error:
        raise not_original("svhn", root, f"a {split} file whose MD5 is not the published one") from error
    images = torch.from_numpy(np.ascontiguousarray(found.data))
    return ImageSet(images, torch.from_numpy(found.labels), torch.arange(len(images), device="cpu"))


SOURCE = Source(
    name="svhn",
    counts={"train": 73_257, "test": 26_032},
    fingerprints={},  # not told; the MD5 of each file is compared
    read=read,
    hold_out=shuffled,
    files=files,
)
