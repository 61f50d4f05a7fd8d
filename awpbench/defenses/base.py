"""What a defense is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Defense:
    """Two functions; weight perturbation wraps the second.

    `attack(model, x, y, *, threat, steps, step_size, generator) -> x_adv` solves the inner maximisation, `loss(model,
    x, x_adv, y, weights=None, **hyper) -> scalar` is minimised, `y` being `(N,)` classes or, where the loss allows it,
    `(N, C)` probabilities. `weights` `(N,)` let images count differently: the mean over the batch becomes the sum of
    weight times loss, divided by N. `attack_mode` is the model's mode during the attack (batch-norm statistics of the
    batch, or the running ones) and `hyper` names the loss's own hyperparameters.
    """

    attack: Callable[..., Tensor]
    loss: Callable[..., Tensor]
    attack_mode: Literal["train", "eval"]
    hyper: tuple[str, ...] = ()


def mean(per_image: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of losses `(N,)`; with `weights` `(N,)`, the sum of weight times loss divided by N."""
    if weights is None:
        return per_image.mean()
    return (weights.to(per_image) * per_image).sum() / len(per_image)


def cross_entropy(logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over the batch, weighted as in `mean`."""
    if weights is None:
        return F.cross_entropy(logits, y)
    return mean(F.cross_entropy(logits, y, reduction="none"), weights)
