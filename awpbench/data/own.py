"""A user's own data set as a source: an `.npz` file or a folder of images."""

from __future__ import annotations

from pathlib import Path

import torch

from awpbench import own_data
from awpbench.data.digits import stratified
from awpbench.data.images import ImageSet
from awpbench.data.sources import Source, Split


def source(name: str) -> Source:
    """Return the source of the data set at the path `name`."""

    def read(root: Path, split: Split) -> ImageSet:
        images, labels = own_data.read(name, split)
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), torch.arange(len(labels), device="cpu"))

    return Source(name=name, counts={}, fingerprints={}, read=read, hold_out=stratified)
