"""A part of a data set, chosen by position or by class."""

from __future__ import annotations

import torch

from awpbench.data.images import DataSet, ImageSet
from awpbench.errors import UsageError


def subset(
    data: DataSet, *, classes: tuple[int, ...] | None = None, examples: tuple[int, int] | None = None
) -> tuple[ImageSet, ImageSet]:
    """Return some of a data set's training images, and the test images of the same classes.

    `examples` keeps the training images from the first to before the second position, in the order in which `train`
    counts them, images set aside for validation left out. `classes` keeps those classes and numbers them from 0 in
    the order given. Raises UsageError for positions or classes that the data set does not have.
    """
    train, test = data.train, data.test
    if examples is not None:
        first, end = examples
        if not 0 <= first < end <= len(train):
            what = f"there are no examples {first}:{end} among the {len(train)} training images of {data.name}"
            raise UsageError(what, f"Give two positions from 0 to {len(train)}, the smaller one first.")
        train = train.select(torch.arange(first, end, device="cpu"))
    if classes is not None:
        unknown = [each for each in classes if not 0 <= each < data.classes]
        if unknown or len(set(classes)) < max(2, len(classes)):
            what = f"{data.name} cannot be cut down to the classes {', '.join(map(str, classes))}"
            raise UsageError(what, f"Give at least two different ones from 0 to {data.classes - 1}, such as 0-4.")
        train, test = (_of_classes(each, classes, data.classes) for each in (train, test))
    return train, test


def _of_classes(images: ImageSet, classes: tuple[int, ...], known: int) -> ImageSet:
    number = torch.full((known,), -1, dtype=torch.int64, device="cpu")
    number[list(classes)] = torch.arange(len(classes), device="cpu")
    numbered = number[images.labels]
    kept = (numbered >= 0).nonzero().squeeze(1)
    return ImageSet(images.images[kept], numbered[kept], images.indices[kept])
