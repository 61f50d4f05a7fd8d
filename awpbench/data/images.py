"""Images held as uint8 tensors, moved to the device once and turned into floats a batch at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from awpbench.errors import InputError, UsageError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Hold images (N, C, H, W) as uint8, their classes (N,) as int64 and their places (N,) in the data set's file."""

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __post_init__(self) -> None:
        """Raise InputError where a shape or a dtype is another."""
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise InputError(f"images are {_form(self.images)}", "Give them as uint8 of shape (N, C, H, W).")
        for what, values in (("labels", self.labels), ("indices", self.indices)):
            if values.dtype != torch.int64 or values.shape != self.images.shape[:1]:
                raise InputError(f"{what} are {_form(values)}", f"Give one int64 for each of the {len(self)} images.")

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> ImageSet:
        """Return the first `n` images; raises UsageError where there are fewer."""
        if not 1 <= n <= len(self):
            raise UsageError(f"the first {n} of {len(self)} images were asked for", f"Ask for 1 to {len(self)}.")
        return ImageSet(self.images[:n], self.labels[:n], self.indices[:n])

    def select(self, positions: Tensor) -> ImageSet:
        """Return the images at `positions` (M,) of this set, in that order."""
        return ImageSet(self.images[positions], self.labels[positions], self.indices[positions])

    def batch(self, index_tensor: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Return the images at positions `index_tensor` (B,) of the set, float32 in [0, 1], and labels on `device`."""
        positions = index_tensor.to(self.images.device)
        x = self.images[positions].to(device).to(torch.float32) / 255
        return x, self.labels[positions].to(device)

    def to(self, device: torch.device | str) -> ImageSet:
        """Return the set with its tensors on `device`."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.indices.to(device))

    def fingerprint(self) -> str:
        """Return the SHA-256 of images, then labels: of each a line `dtype shape`, then its bytes, little-endian."""
        digest = hashlib.sha256()
        for values in (self.images, self.labels):
            array = values.cpu().numpy()
            digest.update(f"{array.dtype.name} {array.shape}\n".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class DataSet:
    """Hold a data set's three splits; `shape` is (C, H, W), and `validation` is empty where none was set aside.

    `normalization` is mean and standard deviation per channel of a user's own training images, else None.
    `unlabelled` are images with pseudo-labels, for a defense that trains on some.
    """

    name: str
    classes: int
    shape: tuple[int, int, int]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    unlabelled: ImageSet | None = None


def _form(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"
