"""One step of training: attack, perturb the weights, update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from awpbench.attack_model import AttackModel
from awpbench.defenses.base import Defense
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel
from awpbench.training.distributed import WHOLE, Part
from awpbench.weight_perturbation import perturbed


@dataclass(frozen=True)
class StepOutcome:
    """The loss at the perturbed weights and the number of adversarial images right there, scalars on the device."""

    loss: Tensor
    correct: Tensor


class _Listener:
    """Keeps the logits of the adversarial images that pass through, so that progress costs no forward of its own."""

    def __init__(self, model: nn.Module, x_adv: Tensor) -> None:
        self._model, self._x_adv = model, x_adv
        self.logits: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self._model(x)
        if x is self._x_adv:
            self.logits = logits.detach()
        return logits

    def correct(self, y: Tensor) -> Tensor:
        """Count the images that were classified right."""
        if not len(y):
            return torch.zeros((), dtype=torch.int64, device=y.device)
        assert self.logits is not None  # every loss forwards the adversarial images
        return (self.logits.argmax(1) == y).sum()


def training_step(
    model: nn.Module,
    optimizer: Optimizer,
    defense: Defense,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    steps: int,
    step_size: float,
    gamma: float,
    generator: Draws,
    hyper: Mapping[str, float],
    attack_model: AttackModel | None = None,
    guard: Callable[[Tensor], None] = lambda loss: None,
    pulse: Callable[[], None] = lambda: None,
    part: Part = WHOLE,
) -> StepOutcome:
    """Attack the batch, ascend in the weights (gamma 0: not), and take one optimiser step at the perturbed weights.

    `x` is `(N, C, H, W)` in [0, 1]. A defense whose attack runs in eval mode attacks `attack_model`, a folded copy of
    the net that is refreshed first, when one is given. `guard` sees the loss before the weights change and may raise;
    `pulse` is called at every forward pass before that and may raise as well: then the weights are those from before
    the step. `x` and `y` may be the share `part` of a batch that other processes hold the rest of, perhaps no images at
    all: gradients, the ascent's too, and the outcome are those of the whole batch. Batch-norm running statistics see
    the attack's forwards (in train mode) and the update's, not the ascent's.
    """

    def watched(target: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            pulse()
            return target(x)

        return forward

    settings = {"threat": threat, "steps": steps, "step_size": step_size, "generator": generator}
    with _target(model, attack_model, defense) as target:
        x_adv = defense.attack(watched(target), x, y, **settings).detach() if len(x) else x
    model.train()

    def mean_loss(target: Callable[[Tensor], Tensor]) -> Tensor:
        return part.mean(lambda: defense.loss(target, x, x_adv, y, **hyper), model)

    with perturbed(model, gamma, reduce=part.group.sum) as perturbation:
        perturbation.ascend(lambda: mean_loss(watched(model)))
        listener = _Listener(model, x_adv)
        loss = mean_loss(listener)
        (total,) = part.group.sum([loss.detach()])
        guard(total)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        part.sum_gradients(model)
        optimizer.step()
    (correct,) = part.group.sum([listener.correct(y)])
    return StepOutcome(total, correct)


@contextmanager
def _target(
    model: nn.Module, attack_model: AttackModel | None, defense: Defense
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Hand out what the defense attacks: the folded copy where it has one, else the net itself, frozen."""
    if defense.attack_mode == "eval" and attack_model is not None:
        attack_model.refresh()
        yield attack_model
        return
    model.train(defense.attack_mode == "train")
    with frozen(model):
        yield model


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no gradient reach the parameters, so that an attack's backward passes go to the images only."""
    live = [p for p in model.parameters() if p.requires_grad]
    for parameter in live:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in live:
            parameter.requires_grad_(True)
