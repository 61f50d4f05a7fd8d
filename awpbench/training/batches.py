"""What the batches of an epoch hold: labelled training images, and pseudo-labelled ones beside them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from awpbench.config import TrainConfig
from awpbench.data.images import DataSet, ImageSet
from awpbench.defenses.rst import image_weights
from awpbench.randomness import generator


def all_images(data: DataSet) -> ImageSet:
    """Return all images that a run trains on: those with labels first, those with pseudo-labels behind them."""
    if data.unlabelled is None:
        return data.train
    parts = (data.train, data.unlabelled)
    return ImageSet(*(torch.cat([getattr(p, name) for p in parts]) for name in ("images", "labels", "indices")))


def epoch_batches(config: TrainConfig, data: DataSet, epoch: int) -> tuple[Tensor, ...]:
    """Return the batches of an epoch (from 0) as positions in `all_images`, on the CPU, drawn from (seed, epoch).

    There are ceil(labelled images / batch size) of them. Without pseudo-labels they hold every image once. With them
    (Carmon et al. 2019), each batch holds its share of either kind in random order, so an epoch sees a labelled image
    with the probability of the labelled share, and at most once; pseudo-labelled images are drawn without
    replacement too, all of them before one comes again.
    """
    labelled = _shuffled(config, "order", epoch, len(data.train))
    if data.unlabelled is None:
        return torch.split(labelled, config.batch_size)
    others, n = config.pseudo_labelled(), len(data.unlabelled)
    batches = math.ceil(len(labelled) / config.batch_size)
    rounds = range(math.ceil(batches * others / n))
    pseudo = torch.cat([_shuffled(config, f"unlabelled/{i}", epoch, n) for i in rounds]) + len(labelled)
    parts = zip(
        torch.split(labelled, config.batch_size - others)[:batches], torch.split(pseudo, others)[:batches], strict=True
    )
    return tuple(_mixed(config, torch.cat(part), epoch, step) for step, part in enumerate(parts))


def batch_weights(config: TrainConfig, data: DataSet, batch: Tensor) -> Tensor | None:
    """Return how much each image of a batch `(N,)` counts in the loss; None where all count the same."""
    if data.unlabelled is None:
        return None
    return image_weights(batch >= len(data.train), config.unlabelled_weight)


def _shuffled(config: TrainConfig, purpose: str, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=generator("cpu", config.seed, purpose, epoch), device="cpu")


def _mixed(config: TrainConfig, batch: Tensor, epoch: int, step: int) -> Tensor:
    """Shuffle a batch, so that a part of it (on another device) holds both kinds of images."""
    return batch[torch.randperm(len(batch), generator=generator("cpu", config.seed, "mix", epoch, step), device="cpu")]
