from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awpbench import models
from awpbench.attacks.fgsm import fgsm
from awpbench.attacks.pgd import cross_entropy, input_gradient, pgd, pgd_iterates
from awpbench.defenses.trades import divergence_from
from awpbench.randomness import ImageDraws
from awpbench.threat import Norm, ThreatModel
from tests import rules
from tests.draws import GivenDraws

TRAJECTORIES = {
    "pgd linf ce: start eps*s, eps 8/255, step 2/255": (ThreatModel("Linf", 8 / 255), 2 / 255),
    "pgd linf ce: start eps*s, eps 0.031, step 0.003": (ThreatModel("Linf", 0.031), 0.003),
    "pgd l2 ce: start 0.5*eps*s/|s|, eps 128/255, step 15/255": (ThreatModel("L2", 128 / 255), 15 / 255),
}


def start_of(threat: ThreatModel, x: Tensor, s: Tensor) -> Tensor:
    if threat.norm == "L2":
        s = 0.5 * s / s.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return (x + threat.eps * s).clamp(0, 1)


def mean_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The public code's objective: 1e-10 beside a gradient an eighth as large is felt at the ninth digit in L2."""
    return nn.functional.cross_entropy(logits, y)


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_the_trajectory_is_the_reference_one(
    name: str, golden: dict[str, Any], reference_net: nn.Module, reference_start: Tensor, device: str
) -> None:
    threat, step_size = TRAJECTORIES[name]
    x, y = rules.images(8).to(device), torch.arange(8, device=device)
    expected = {entry[0]: entry[1:] for entry in golden["attacks"][name] if entry[0] <= 20}
    start = start_of(threat, x, reference_start)
    found = pgd_iterates(
        reference_net, x, y, at=set(expected), threat=threat, step_size=step_size, start=start, objective=mean_loss
    )
    for step, (summary, losses, *predictions) in expected.items():
        logits = reference_net(found[step])
        own = rules.summary(found[step] - x)
        assert own["shape"] == summary["shape"]
        for key in ("sum", "l2", "head"):
            assert own[key] == pytest.approx(summary[key], rel=1e-9, abs=1e-9)
        ce = nn.functional.cross_entropy(logits, y, reduction="none")
        assert ce.tolist() == pytest.approx(losses, rel=1e-9)
        assert [logits.argmax(1).tolist()] == predictions or predictions == []


def test_the_inner_attack_of_trades_is_the_reference_one_from_its_start_in_the_box(
    golden: dict[str, Any], reference_net: nn.Module, reference_start: Tensor, device: str
) -> None:
    x, y = rules.images(8).to(device), torch.arange(8, device=device)
    entries = golden["attacks"]["trades inner: start 0.001*s, eps 8/255, step 2/255, KL to clean"]
    found = pgd_iterates(
        reference_net,
        x,
        y,
        at={entry[0] for entry in entries},
        threat=ThreatModel("Linf", 8 / 255),
        step_size=2 / 255,
        start=(x + 0.001 * reference_start).clamp(0, 1),
        objective=divergence_from(reference_net, x),
    )
    for step, summary, losses, *predictions in entries:
        logits = reference_net(found[step])
        own = rules.summary(found[step] - x)
        for key in ("sum", "l2", "head"):
            assert own[key] == pytest.approx(summary[key], rel=1e-9, abs=1e-9)
        assert nn.functional.cross_entropy(logits, y, reduction="none").tolist() == pytest.approx(losses, rel=1e-9)
        assert [logits.argmax(1).tolist()] == predictions or predictions == []


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRAJECTORIES)[:2])
def test_a_hundred_steps_end_where_the_reference_does(
    name: str, golden: dict[str, Any], reference_net: nn.Module, reference_start: Tensor, device: str
) -> None:
    threat, step_size = TRAJECTORIES[name]
    x, y = rules.images(8).to(device), torch.arange(8, device=device)
    (step, summary, losses, predictions) = golden["attacks"][name][-1]
    start = start_of(threat, x, reference_start)
    found = pgd(reference_net, x, y, threat=threat, steps=step, step_size=step_size, start=start)
    logits = reference_net(found)
    assert rules.summary(found - x)["sum"] == pytest.approx(summary["sum"], rel=1e-9)
    assert nn.functional.cross_entropy(logits, y, reduction="none").tolist() == pytest.approx(losses, rel=1e-9)
    assert logits.argmax(1).tolist() == predictions


def test_a_gradient_that_is_one_value_for_all_pixels_is_taken() -> None:
    """Autograd gives it as one number that every pixel shares, which cannot be written to."""
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
    grad = input_gradient(lambda x: torch.stack([x.flatten(1).sum(1), torch.zeros(2)], 1), x, y, cross_entropy)
    assert grad.shape == x.shape
    assert (grad[0] < 0).all()
    assert (grad[1] > 0).all()


class Linear(nn.Module):
    """Two classes on one pixel vector: logits (w . x + b, 0)."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1) @ self.w + self.b
        return torch.stack([z, torch.zeros_like(z)], 1)


W = torch.tensor([1.0, -2.0, 0.5, 0.25], dtype=torch.float64)
X = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
Y = torch.zeros(1, dtype=torch.int64)
DISTANCE = {"Linf": 0.3 / 3.75, "L2": 0.3 / float(W.norm())}  # |w . x + b| / dual norm of w, with w . x + b = 0.3
LINEAR = Linear(W, 0.3 + 0.125)  # w . x = -0.125


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_a_linear_model_falls_just_beyond_its_distance_to_the_boundary_and_not_before(attack: str, norm: Norm) -> None:
    def run(eps: float) -> int:
        threat = ThreatModel(norm, eps)
        if attack == "fgsm":
            x_adv = fgsm(LINEAR, X, Y, threat=threat)
        else:
            x_adv = pgd(LINEAR, X, Y, threat=threat, steps=10, step_size=eps / 4, generator=ImageDraws(0, "pgd", [0]))
        assert threat.violation(x_adv, X) is None
        return int(LINEAR(x_adv).argmax(1))

    assert run(DISTANCE[norm] * 1.001) == 1
    assert run(DISTANCE[norm] * 0.999) == 0


def test_fgsm_goes_exactly_to_the_corner_of_the_ball() -> None:
    x_adv = fgsm(LINEAR, X, Y, threat=ThreatModel("Linf", 0.1))
    assert (x_adv - X).flatten().tolist() == pytest.approx([-0.1, 0.1, -0.1, -0.1], abs=1e-15)


def test_fgsm_in_l2_goes_along_the_gradient() -> None:
    x_adv = fgsm(LINEAR, X, Y, threat=ThreatModel("L2", 0.1))
    assert (x_adv - X).flatten().tolist() == pytest.approx((-0.1 * W / W.norm()).tolist(), abs=1e-9)


def test_no_budget_leaves_the_images_as_they_are(smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]) -> None:
    x, y = few_images
    for norm in ("Linf", "L2"):
        threat = ThreatModel(norm, 0.0)  # type: ignore[arg-type]
        draws = ImageDraws(0, "pgd", range(5))
        assert torch.equal(pgd(smooth_net, x, y, threat=threat, steps=3, step_size=0.0, generator=draws), x)
        assert torch.equal(fgsm(smooth_net, x, y, threat=threat), x)


def test_pgd_20_lies_on_the_trajectory_of_pgd_100(smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]) -> None:
    x, y = few_images
    settings: dict[str, Any] = {"threat": ThreatModel("Linf", 0.1), "step_size": 0.025}
    shared = pgd_iterates(smooth_net, x, y, at={20, 100}, generator=ImageDraws(0, "pgd", range(5)), **settings)
    for steps in (20, 100):
        alone = pgd(smooth_net, x, y, steps=steps, generator=ImageDraws(0, "pgd", range(5)), **settings)
        assert torch.equal(shared[steps], alone)


def test_the_gradient_reaches_no_weight(smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]) -> None:
    x, y = few_images
    pgd(smooth_net, x, y, threat=ThreatModel("Linf", 0.1), steps=2, step_size=0.05)
    assert all(parameter.grad is None for parameter in smooth_net.parameters())
    assert not x.requires_grad


def test_an_image_whose_gradient_is_nan_stays_where_it_is(few_images: tuple[Tensor, Tensor]) -> None:
    x, y = few_images
    broken = torch.zeros(5, 1, dtype=x.dtype)
    broken[2] = float("nan")
    grad = input_gradient(lambda z: z.flatten(1)[:, :4] + broken, x, y, cross_entropy)
    assert torch.equal(grad[2], torch.zeros_like(grad[2]))
    assert bool((grad[[0, 1, 3, 4]] != 0).flatten(1).any(1).all())


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_one_step_runs_on_the_meta_device_with_noise_passed_in(norm: Norm) -> None:
    with torch.device("meta"):
        net = models.build("small-cnn", classes=10, shape=(1, 8, 8)).eval()
        x, y = torch.empty(2, 1, 8, 8), torch.empty(2, dtype=torch.int64)
    threat = ThreatModel(norm, 0.1)
    assert pgd(net, x, y, threat=threat, steps=1, step_size=0.05, generator=GivenDraws()).device.type == "meta"
    assert fgsm(net, x, y, threat=threat).device.type == "meta"
