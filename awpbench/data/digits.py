"""The digits of scikit-learn (Alpaydin and Kaynak 1998): 1,797 images of 8x8, embedded in that package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from awpbench.data.images import ImageSet
from awpbench.data.sources import Source, Split

TEST = 400
WHITE = 16  # the brightest value in the package's file


def read(root: Path, split: Split) -> ImageSet:
    """Return the 400 test images, chosen stratified, or the other 1,397, in file order; nothing is read from `root`."""
    from sklearn.datasets import load_digits

    content = load_digits()
    images = torch.from_numpy(np.rint(content.images * 255 / WHITE).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(content.target.astype(np.int64))
    indices = torch.arange(len(labels), device="cpu")
    test = torch.isin(indices, stratified(labels, TEST))
    return ImageSet(images, labels, indices).select(indices[test if split == "test" else ~test])


def stratified(labels: Tensor, n: int) -> Tensor:
    """Return `n` positions in ascending order, every class in its share.

    Of a class with k of the N images, floor(n * k / N) are taken, and one more of those classes whose remainder is
    largest (the lower class first) until there are n: the first ones in a permutation of all N from RandomState(0).
    """
    order = np.random.RandomState(0).permutation(len(labels))
    quotas, remainders = np.divmod(n * np.bincount(labels.numpy()), len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: n - quotas.sum()]] += 1
    drawn = labels.numpy()[order]
    chosen = np.concatenate([order[drawn == label][:quota] for label, quota in enumerate(quotas)])
    return torch.from_numpy(np.sort(chosen))


SOURCE = Source(
    name="digits",
    counts={"train": 1397, "test": TEST},
    fingerprints={
        "train": "0abdb2c10294ae9718809908c6469bd743babd2442c46db6389f67820ee6628f",
        "test": "e974a568e2566b9fb8056be6c5f96c23d03a0b0b3182139e0ce9949c3ec6db09",
    },
    read=read,
    hold_out=stratified,
)
