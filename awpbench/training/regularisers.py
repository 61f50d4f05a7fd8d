"""Regularisers: what a run adds to its loss, does to its batches and labels, decays, and averages.

None of them touches a defense's attack, except that mixup's labels are those of the mixed images.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awpbench.attacks.pgd import Model
from awpbench.config import TrainConfig
from awpbench.defenses.base import Defense
from awpbench.randomness import generator
from awpbench.weight_perturbation import perturbable


def parameter_groups(model: nn.Module, *, weight_decay: float, l2: float) -> list[dict[str, Any]]:
    """Return SGD's groups: with `l2`, weights of convolutions and linear layers decay by it and all else not at all.

    Without, everything decays by `weight_decay`.
    """
    if l2 == 0:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    decaying = perturbable(model)
    others = [parameter for name, parameter in model.named_parameters() if name not in decaying]
    return [{"params": list(decaying.values()), "weight_decay": l2}, {"params": others, "weight_decay": 0.0}]


def l1_penalty(model: nn.Module, weight: float) -> Tensor:
    """Return `weight` times the sum of |w| over the weights of convolutions and linear layers."""
    return weight * torch.stack([parameter.abs().sum() for parameter in perturbable(model).values()]).sum()


def smoothed(defense: Defense, amount: float, classes: int) -> Defense:
    """Return the defense with a loss in which `amount` of every label is spread evenly over all classes.

    (Szegedy et al. 2016, section 7.) The loss must take `(N, classes)` shares for y; the attack sees the labels as they
    are.
    """

    def loss(model: Model, x: Tensor, x_adv: Tensor, y: Tensor, **hyper: Any) -> Tensor:
        labels = shares(y, classes, x.dtype) * (1 - amount) + amount / classes
        value: Tensor = defense.loss(model, x, x_adv, labels, **hyper)
        return value

    return dataclasses.replace(defense, loss=loss)


def shares(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return labels as `(N, classes)` shares that sum to 1; those that are shares already come back as they are."""
    return F.one_hot(y, classes).to(dtype) if y.dim() == 1 else y


def regularised_batch(
    x: Tensor, y: Tensor, config: TrainConfig, classes: int, *, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Cut out and mix the images of a batch as the config says, with draws keyed by (seed, epoch, step)."""
    if config.cutout:
        x = cutout(x, config.cutout, generator=generator("cpu", config.seed, "cutout", epoch, step))
    if config.mixup:
        draws = generator("cpu", config.seed, "mixup", epoch, step)
        partners = torch.randperm(len(x), generator=draws, device="cpu").to(x.device)
        share = random.Random(draws.initial_seed()).betavariate(config.mixup, config.mixup)
        x, y = mixup(x, y, partners, share, classes)
    return x, y


def cutout(images: Tensor, side: int, *, generator: torch.Generator) -> Tensor:
    """Return images `(N, C, H, W)`, each with a square of `side` pixels around a random pixel of its own set to 0.

    Every pixel is as likely as another, so a square may reach over the border, where it is clipped (DeVries and Taylor
    2017). The numbers are drawn on the generator's device.
    """
    n, _, height, width = images.shape
    rows, columns = (
        torch.randint(0, size, (n,), generator=generator, device=generator.device).to(images.device)
        for size in (height, width)
    )
    return cutout_at(images, rows, columns, side)


def cutout_at(images: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Black out the rows from `rows` - side // 2 on, `side` of them, of those columns; both are `(N,)`."""
    inside = [
        (at >= centre[:, None] - side // 2) & (at < centre[:, None] - side // 2 + side)
        for centre, size in ((rows, images.shape[2]), (columns, images.shape[3]))
        for at in (torch.arange(size, device=images.device),)
    ]
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)


def mixup(x: Tensor, y: Tensor, partners: Tensor, share: float, classes: int) -> tuple[Tensor, Tensor]:
    """Return `share` of every image and label plus 1 - `share` of its partner's (Zhang et al. 2018).

    The cross-entropy of labels mixed as `(N, classes)` shares is the mixed cross-entropy.
    """
    labels = shares(y, classes, x.dtype)
    return share * x + (1 - share) * x[partners], share * labels + (1 - share) * labels[partners]


def averaged_copy(model: nn.Module) -> nn.Module:
    """Return a frozen copy that is to become a net of averaged weights."""
    return copy.deepcopy(model).requires_grad_(False)


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move every averaged weight and batch-norm statistic to decay * average + (1 - decay) * present value.

    Counts of batches are taken over as they are.
    """
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mean for mean, _ in floating], [value for _, value in floating], 1 - decay)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)


def out_of_patience(metrics: list[dict[str, Any]], best: dict[str, Any], config: TrainConfig) -> bool:
    """Tell whether so many measurements in a row were no better than the best one that training ends (AT-ES)."""
    since = [line for line in metrics if config.select_on in line and line["epoch"] > best.get("epoch", 0)]
    return config.patience is not None and len(since) >= config.patience
