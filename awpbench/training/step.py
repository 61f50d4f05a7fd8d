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
from awpbench.training.precision import Views, compilation_explained
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


@compilation_explained()
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
    views: Views | None = None,
    guard: Callable[[Tensor], None] = lambda loss: None,
    pulse: Callable[[], None] = lambda: None,
) -> StepOutcome:
    """Attack the batch, ascend in the weights (gamma 0: not), and take one optimiser step at the perturbed weights.

    `x` is `(N, C, H, W)` in [0, 1]. A defense whose attack runs in eval mode attacks `attack_model`, a folded copy of
    the net that is refreshed first, when one is given. `views` are called in place of the net, of which they share the
    weights. `guard` sees the loss before the weights change and may raise;
    `pulse` is called at every forward pass before that and may raise as well: then the weights are those from before
    the step. Batch-norm running statistics see the attack's forwards (in train mode) and the update's, not the
    ascent's.
    """

    def watched(target: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            pulse()
            return target(x)

        return forward

    views = views or Views(model, model)
    settings = {"threat": threat, "steps": steps, "step_size": step_size, "generator": generator}
    with _target(model, views, attack_model, defense) as target:
        x_adv = defense.attack(watched(target), x, y, **settings).detach()
    model.train()
    views.update.train()
    with perturbed(model, gamma) as perturbation:
        perturbation.ascend(lambda: defense.loss(watched(views.update), x, x_adv, y, **hyper))
        listener = _Listener(views.update, x_adv)
        loss = defense.loss(listener, x, x_adv, y, **hyper)
        guard(loss.detach())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    assert listener.logits is not None  # every loss forwards the adversarial images
    return StepOutcome(loss.detach(), (listener.logits.argmax(1) == y).sum())


@contextmanager
def _target(
    model: nn.Module, views: Views, attack_model: AttackModel | None, defense: Defense
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Hand out what the defense attacks: the folded copy where it has one, else a view of the net itself, frozen."""
    if defense.attack_mode == "eval" and attack_model is not None:
        attack_model.refresh()
        yield attack_model
        return
    model.train(defense.attack_mode == "train")
    with frozen(model):
        yield views.attacked(defense.attack_mode == "train")


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
