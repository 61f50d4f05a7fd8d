"""The extra computations of the audit, on a few images: what the attacks alone do not show about a net."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from awpbench.attacks.cw import margin
from awpbench.attacks.pgd import Model, Objective, cross_entropy, input_gradient, pgd
from awpbench.evaluation.audit import CELLS, ITERATIONS, QUERIES, REPEATS, RUNGS, STARTS
from awpbench.evaluation.shards import Arrays
from awpbench.randomness import ImageDraws
from awpbench.threat import TINY_GRADIENT, ThreatModel

DISTRIBUTION = 1e-5  # how far from a probability distribution: AutoAttack's check
TINY_STEP = 0.1  # of eps


def attached(model: Model) -> Model:
    """Make a model whose logits always have a gradient: zero where the model's own do not depend on x for autograd.

    Attacks then leave the images of such a model where they are, and the audit says so; without it they fail.
    """

    def call(x: Tensor) -> Tensor:
        logits = model(x)
        if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            logits = logits + (0 * x).flatten(1).sum(1, keepdim=True)
        return logits

    return call


@torch.no_grad()
def probe(
    model: Model,
    verify: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    step_size: float,
    seed: int,
    indices: Sequence[int],
) -> Arrays:
    """Compute what the audit needs to know of images `(N, C, H, W)`, at most 128; return arrays with a row for each.

    `model` is what the attacks call, differentiable in x; `verify` is the net that scores. `step_size` is PGD's at the
    evaluation's eps and grows with the budget. Draws are keyed by the seed and the images' `indices`. Only images that
    are right when clean are attacked. Whether an image depends on its neighbours is seen with two images or more.
    """
    first = _logits(verify, x, REPEATS - 1)
    correct = ~_fooled(first[0], y)
    attacks = _Attacks(attached(model), verify, threat, step_size, seed)
    found = {
        "index": torch.as_tensor(indices, dtype=torch.int64, device="cpu"),
        "prediction": first[0].argmax(1),
        "correct": correct,
        "distribution": _is_distribution(first[0]),
        "neighbours": _distance(first[0], _beside_others(verify, x)),
        **_watched(attacks.model, verify, x),
        "eps_zero": attacks.eps_zero(x, y, indices),
        **attacks.on_correct(x, y, indices, correct),
    }
    scores = [*first, *_logits(verify, x, 1)]  # the last one after all attacks: a state may have changed by then
    found["spread"] = torch.stack([_distance(one, other) for one in scores for other in scores]).amax(0)
    return {name: values.cpu().numpy() for name, values in found.items()}


@dataclass(frozen=True)
class _Attacks:
    model: Model
    verify: Model
    threat: ThreatModel
    step_size: float
    seed: int

    def eps_zero(self, x: Tensor, y: Tensor, indices: Sequence[int]) -> Tensor:
        """Return the predictions after PGD that may not move."""
        nothing, draws = ThreatModel(self.threat.norm, 0.0), self._draws("start-0", indices)
        x_adv = pgd(self.model, x, y, threat=nothing, steps=2, step_size=self.step_size, generator=draws)
        return self.verify(x_adv).argmax(1)

    def on_correct(self, x: Tensor, y: Tensor, indices: Sequence[int], correct: Tensor) -> dict[str, Tensor]:
        """Attack the images that are right when clean; the others count as fooled, and none has a bad gradient."""
        found = {
            "zero_gradient": torch.zeros_like(correct),
            "misled": torch.zeros_like(correct),
            "ladder": torch.ones_like(correct)[:, None].repeat(1, len(RUNGS) + 1),
            "restarts": torch.ones_like(correct)[:, None].repeat(1, STARTS),
            "margin_attack": torch.ones_like(correct),
            "search": torch.ones_like(correct),
        }
        if not bool(correct.any()):
            return found
        kept = [int(i) for i, right in zip(indices, correct.tolist(), strict=True) if right]
        x, y = x[correct], y[correct]
        found["zero_gradient"][correct], found["misled"][correct] = self._gradients(x, y, kept)
        found["ladder"][correct] = ladder = self._ladder(x, y, kept)
        found["restarts"][correct] = self._restarts(x, y, kept, ladder[:, RUNGS.index(1.0)])
        found["margin_attack"][correct] = self._run(x, y, self._draws("margin", kept), objective=_closeness)
        x_adv = search(self.model, x, y, threat=self.threat, generator=self._draws("search", kept))
        found["search"][correct] = _fooled(self.verify(x_adv), y)
        return found

    def _gradients(self, x: Tensor, y: Tensor, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tell where the cross-entropy has no gradient, and where a small step along the margin's leads nowhere."""
        start = self.threat.random_start(x, self._draws("start-0", indices))
        missing = [self._is_zero(input_gradient(self.model, each, y, cross_entropy)) for each in (x, start)]
        grad = input_gradient(self.model, x, y, _closeness)
        length = TINY_STEP * (self.threat.eps or 1 / 255)
        ahead = self.threat.step(x, grad, length).clamp(0, 1)
        closer = margin(self.model(ahead), y) < margin(self.model(x), y)
        return missing[0] | missing[1], ~closer & ~self._is_zero(grad)

    def _is_zero(self, grad: Tensor) -> Tensor:
        """Tell which images an attack cannot move: no sign in L-inf; in L2 no length beside what a step adds to it."""
        grad = grad.flatten(1)
        return (grad == 0).all(1) if self.threat.norm == "Linf" else grad.norm(dim=1) < TINY_GRADIENT

    def _ladder(self, x: Tensor, y: Tensor, indices: Sequence[int]) -> Tensor:
        cube = 1.0 if self.threat.norm == "Linf" else math.sqrt(x[0].numel())
        budgets = [*(min(rung * self.threat.eps, cube) for rung in RUNGS), cube]
        return torch.stack([self._run(x, y, self._draws("start-0", indices), eps=eps) for eps in budgets], dim=1)

    def _restarts(self, x: Tensor, y: Tensor, indices: Sequence[int], first: Tensor) -> Tensor:
        """Attack what still stands from other random starts; what is fooled stays so."""
        found = [first]
        for start in range(1, STARTS):
            fooled = found[-1].clone()
            standing = (~fooled).nonzero().squeeze(1)
            if len(standing):
                draws = self._draws(f"start-{start}", [indices[i] for i in standing.tolist()])
                fooled[standing] = self._run(x[standing], y[standing], draws)
            found.append(fooled)
        return torch.stack(found, dim=1)

    def _run(
        self, x: Tensor, y: Tensor, draws: ImageDraws, *, eps: float | None = None, objective: Objective = cross_entropy
    ) -> Tensor:
        """Tell which images PGD fools; the step keeps its ratio to the budget."""
        eps = self.threat.eps if eps is None else eps
        step_size = self.step_size * eps / self.threat.eps if self.threat.eps else eps / 4
        settings: dict[str, Any] = {"threat": ThreatModel(self.threat.norm, eps), "step_size": step_size}
        x_adv = pgd(self.model, x, y, steps=ITERATIONS, generator=draws, objective=objective, **settings)
        return _fooled(self.verify(x_adv), y)

    def _draws(self, purpose: str, indices: Sequence[int]) -> ImageDraws:
        return ImageDraws(self.seed, f"audit-{purpose}", indices)


@torch.no_grad()
def search(model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, generator: ImageDraws) -> Tensor:
    """Lower the margin without gradients in some 200 queries; return the best `(N, C, H, W)` in [0, 1].

    One step of eps along a gradient estimated from differences over the cells of a 4x4 grid (random grouping of Bhagoji
    et al. 2018), as wide as eps so that steps in the net are crossed; from there a random search over windows that
    shrink (Square, Andriushchenko et al. 2020).
    """
    found, lowest = x, margin(model(x), y)
    estimate = _estimate_on_grid(model, x, y, threat)
    corners = generator.uniform(x.new_empty(len(x), QUERIES, 2))
    signs = generator.uniform(x.new_empty(len(x), QUERIES, x.shape[1])).sign()
    for query in range(QUERIES + 1):
        if not bool((lowest >= 0).any()):
            break
        if query == 0:
            candidate = threat.step(x, estimate, threat.eps)
        else:
            window = _window(x, corners[:, query - 1], share=0.8 / 2 ** (6 * query // QUERIES))
            length = 2 * threat.eps if threat.norm == "Linf" else threat.eps / 2
            candidate = threat.step(found, window * signs[:, query - 1, :, None, None], length)
        candidate = threat.project(candidate, x)
        reached = margin(model(candidate), y)
        better = ~(reached >= lowest)  # NaN, too
        found = torch.where(better.view(-1, 1, 1, 1), candidate, found)
        lowest = torch.where(better, reached, lowest)
    return found


def _estimate_on_grid(model: Model, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """Estimate the gradient of minus the margin, equal over each cell and channel."""
    estimate = torch.zeros_like(x)
    rows, columns = (torch.tensor_split(torch.arange(size, device=x.device), min(CELLS, size)) for size in x.shape[2:])
    for channel in range(x.shape[1]):
        for row in rows:
            for column in columns:
                cell = torch.zeros_like(x[:1])
                cell[:, channel, row[:, None], column] = 1
                move = cell * (threat.eps if threat.norm == "Linf" else threat.eps / cell.norm())
                behind, ahead = (margin(model((x + way * move).clamp(0, 1)), y) for way in (-1, 1))
                estimate += (behind - ahead).nan_to_num(0.0).view(-1, 1, 1, 1) * cell / cell.sum()
    return estimate


def _window(x: Tensor, corners: Tensor, share: float) -> Tensor:
    """Return masks `(N, 1, H, W)` of windows that cover a share of each image; corners are in [-1, 1)."""
    masks: list[Tensor] = []
    for size, corner in zip(x.shape[2:], corners.unbind(1), strict=True):
        side = max(1, round(math.sqrt(share) * size))
        first = ((corner + 1) / 2 * (size - side + 1)).floor()[:, None]
        place = torch.arange(size, device=x.device)
        masks.append(((place >= first) & (place < first + side)).to(x.dtype))
    rows, columns = masks
    return rows[:, None, :, None] * columns[:, None, None, :]


def _closeness(logits: Tensor, y: Tensor) -> Tensor:
    return -margin(logits, y).sum()


def _fooled(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)


def _logits(net: Model, x: Tensor, times: int) -> list[Tensor]:
    return [net(x) for _ in range(times)]


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Return how far two answers `(N, classes)`, scaled to length 1, are apart; 2 where one of them is not finite."""
    difference = one / (one.norm(dim=1, keepdim=True) + 1e-10) - other / (other.norm(dim=1, keepdim=True) + 1e-10)
    broken = one.isfinite().all(1) != other.isfinite().all(1)
    distance: Tensor = difference.norm(dim=1).nan_to_num(0.0).masked_fill(broken, 2.0)
    return distance


def _is_distribution(logits: Tensor) -> Tensor:
    inside = (logits > -DISTRIBUTION).all(1) & (logits < 1 + DISTRIBUTION).all(1)
    return inside & ((logits.sum(1) - 1).abs() < DISTRIBUTION)


def _beside_others(verify: Model, x: Tensor) -> Tensor:
    """Return the logits of every image in a batch where each second one is another image, its negative."""
    even = (torch.arange(len(x), device=x.device) % 2 == 0).view(-1, 1, 1, 1)
    one, other = (verify(torch.where(even == kept, x, 1 - x)) for kept in (True, False))
    return torch.where(even.view(-1, 1), one, other)


def _watched(model: Model, verify: Model, x: Tensor) -> dict[str, Tensor]:
    """Return the classes that the attacked net gives, with gradients on, and the backward passes in both forwards."""
    with _backward_passes() as calls:
        verify(x)
        with torch.enable_grad():
            attacked = model(x.detach().requires_grad_()).argmax(1)
    return {"attacked": attacked, "backward_in_forward": torch.full_like(attacked, len(calls))}


@contextmanager
def _backward_passes() -> Iterator[list[str]]:
    """Collect the calls of autograd's engine, under whatever name a forward calls it; a profiler keeps its place."""
    calls: list[str] = []

    def watch(frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and getattr(arg, "__name__", "") == "run_backward":
            calls.append(frame.f_code.co_name)

    if sys.getprofile() is not None:
        yield calls
        return
    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(None)
