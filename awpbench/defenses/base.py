"""What a defense is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Defense:
    """Two functions; weight perturbation wraps the second.

    `attack(model, x, y, *, threat, steps, step_size, generator) -> x_adv` solves the inner maximisation, `loss(model,
    x, x_adv, y, **hyper) -> scalar` is minimised, `y` being `(N,)` classes or, where the loss allows it, `(N, C)`
    probabilities. `attack_mode` is the model's mode during the attack (batch-norm statistics of the batch, or the
    running ones) and `hyper` names the loss's own hyperparameters.
    """

    attack: Callable[..., Tensor]
    loss: Callable[..., Tensor]
    attack_mode: Literal["train", "eval"]
    hyper: tuple[str, ...] = ()
