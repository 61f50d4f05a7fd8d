"""One step of training: attack, perturb the weights, update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from awpbench.attack_model import AttackModel
from awpbench.config import SizeNorm
from awpbench.defenses.base import Defense
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel
from awpbench.training.distributed import WHOLE, Part
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
    hyper: Mapping[str, Any],
    ascent_steps: int = 1,
    alternations: int = 1,
    size: SizeNorm = "l2",
    random: Draws | None = None,
    penalty: Callable[[], Tensor] | None = None,
    attack_model: AttackModel | None = None,
    views: Views | None = None,
    guard: Callable[[Tensor], None] = lambda loss: None,
    pulse: Callable[[], None] = lambda: None,
    lap: Callable[[str], None] = lambda name: None,
    part: Part = WHOLE,
) -> StepOutcome:
    """Attack the batch, ascend in the weights (gamma 0: not), and take one optimiser step at the perturbed weights.

    `x` is `(N, C, H, W)` in [0, 1], `y` `(N,)` classes or `(N, classes)` shares of them. `hyper` are the loss's own
    hyperparameters, and `weights` `(N,)` where images count differently. An attack on f_{w+v} from x and `ascent_steps`
    steps of v alternate `alternations` times (AWP paper, section 4.2); given `random`, v is drawn from it once instead.
    `penalty` is added to the loss of the update, at w + v, but not to the one that v climbs. A defense whose attack
    runs in eval mode attacks `attack_model`, a folded copy of the net that takes over its weights before each attack,
    when one is given; `views` are called in place of the net, whose weights they share. `guard` sees the loss before
    the weights change and may raise; `pulse` is called at every forward pass before that and may raise as well: then
    the weights are those from before the step, up to rounding where v had been in them. Batch-norm running statistics
    see the attacks' forwards (in train mode) and the update's, not the ascent's. `lap` hears at the end of each part of
    the step which it was: attack, ascent or update (`StepClock.lap`). `x` and `y` may be the share `part` of a batch
    that other processes hold the rest of, perhaps no images at all: gradients, the ascent's too, and the outcome are
    those of the whole batch.
    """

    def watched(target: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            pulse()
            return target(x)

        return forward

    def mean_loss(target: Callable[[Tensor], Tensor], x_adv: Tensor, *, penalised: bool) -> Tensor:
        def here() -> Tensor:
            loss: Tensor = defense.loss(target, x, x_adv, y, **hyper)
            return loss + penalty() if penalised and penalty is not None else loss

        return part.mean(here, model)

    views = views or Views(model, model)
    settings = {"threat": threat, "steps": steps, "step_size": step_size, "generator": generator}
    with perturbed(model, gamma, steps=ascent_steps, size=size, reduce=part.group.sum) as perturbation:
        for _ in range(alternations if gamma and random is None else 1):
            with _target(model, views, attack_model, defense) as target:
                x_adv = defense.attack(watched(target), x, y, **settings).detach() if len(x) else x
            lap("attack")
            model.train()
            views.update.train()
            if random is None:
                perturbation.ascend(partial(mean_loss, watched(views.update), x_adv, penalised=False))
            else:
                perturbation.draw(random)
            if gamma:
                lap("ascent")
        listener = _Listener(views.update, x_adv)
        loss = mean_loss(listener, x_adv, penalised=True)
        (total,) = part.group.sum([loss.detach()])
        guard(total)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        part.sum_gradients(model)
        optimizer.step()
        lap("update")
    if gamma:
        lap("ascent")  # v came off
    (correct,) = part.group.sum([_right(listener.logits, y)])
    return StepOutcome(total, correct)


def _right(logits: Tensor | None, y: Tensor) -> Tensor:
    """Count the images classified right; where a label is shared out over classes, its share of the one predicted."""
    if not len(y):
        return y.sum()  # 0, in the dtype of the other processes' counts
    assert logits is not None  # every loss forwards the adversarial images
    predicted = logits.argmax(1)
    return (predicted == y).sum() if y.dim() == 1 else y.gather(1, predicted[:, None]).sum()


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
