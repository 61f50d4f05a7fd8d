"""The threat model against closed forms and by properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from awpbench.errors import UsageError
from awpbench.randomness import BatchDraws, ImageDraws, generator
from awpbench.threat import Norm, ThreatModel

NORMS: list[Norm] = ["Linf", "L2"]


def images(seed: int, n: int = 3) -> Tensor:
    return torch.rand(n, 2, 3, 3, generator=generator("cpu", seed), dtype=torch.float64)


def test_linf_step_and_projection_of_a_case_worked_by_hand() -> None:
    x = torch.tensor([[[[0.5, 0.05, 0.9]]]])
    threat = ThreatModel("Linf", 0.1)
    moved = threat.step(x, torch.tensor([[[[2.0, -1.0, 0.0]]]]), 0.3)
    assert moved.flatten().tolist() == pytest.approx([0.8, -0.25, 0.9])
    assert threat.project(moved, x).flatten().tolist() == pytest.approx([0.6, 0.0, 0.9])


def test_l2_step_and_projection_of_a_case_worked_by_hand() -> None:
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64) + 0.5
    threat = ThreatModel("L2", 0.1)
    moved = threat.step(x, torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64), 0.2)
    assert (moved - x).flatten().tolist() == pytest.approx([0.12, 0.16])
    assert (threat.project(moved, x) - x).flatten().tolist() == pytest.approx([0.06, 0.08])


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6), eps=st.floats(0, 1), reach=st.floats(0, 3))
def test_a_projected_point_is_allowed_and_projecting_again_changes_nothing(
    norm: Norm, seed: int, eps: float, reach: float
) -> None:
    x, threat = images(seed), ThreatModel(norm, eps)
    once = threat.project(x + reach * (images(seed + 1) - 0.5), x)
    assert threat.violation(once, x) is None
    assert torch.allclose(threat.project(once, x), once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6), eps=st.floats(0, 1))
def test_a_random_start_is_allowed(norm: Norm, seed: int, eps: float) -> None:
    x, threat = images(seed), ThreatModel(norm, eps)
    assert threat.violation(threat.random_start(x, BatchDraws(generator("cpu", seed))), x) is None


def test_a_start_that_is_not_clamped_may_leave_the_box_but_not_the_ball() -> None:
    x, threat = torch.ones(4, 1, 5, 5), ThreatModel("Linf", 0.1)
    start = threat.random_start(x, BatchDraws(generator("cpu", 0)), clamp=False)
    assert start.max() > 1
    assert threat.distance(start, x).max() <= 0.1 + 1e-6


def test_the_draws_of_an_image_do_not_depend_on_its_neighbours() -> None:
    like = torch.zeros(3, 1, 4, 4)
    together = ImageDraws(0, "pgd", [5, 9, 2])
    alone = ImageDraws(0, "pgd", [9])
    for method in ("uniform", "normal", "radius"):
        assert torch.equal(getattr(together, method)(like)[1], getattr(alone, method)(like[:1])[0])
    assert torch.equal(together.signs(like, 6)[1], alone.signs(like[:1], 6)[0])


def test_another_seed_attack_or_image_draws_something_else() -> None:
    like = torch.zeros(1, 1, 4, 4)
    keys = [(0, "pgd", 1), (1, "pgd", 1), (0, "spsa", 1), (0, "pgd", 2)]
    drawn = [ImageDraws(seed, attack, [index]).uniform(like) for seed, attack, index in keys]
    assert len({tuple(t.flatten().tolist()) for t in drawn}) == len(keys)


def test_streams_that_are_kept_go_on_where_they_were() -> None:
    like = torch.zeros(2, 1, 2, 2)
    whole, part = ImageDraws(0, "spsa", [3, 4]), ImageDraws(0, "spsa", [3, 4])
    whole.uniform(like)
    part.uniform(like)
    assert torch.equal(whole.uniform(like)[1:], part.keep([1]).uniform(like[:1]))


@pytest.mark.parametrize(
    ("x_adv", "said"),
    [
        (torch.tensor([[[[math.nan]]]]), "an adversarial image holds NaN or infinity"),
        (torch.tensor([[[[1.01]]]]), "an adversarial image has pixels in [1.01, 1.01], outside [0, 1]"),
        (torch.tensor([[[[0.75]]]]), "an adversarial image is 0.25 away from the clean one, more than eps = 0.1"),
    ],
)
def test_what_is_wrong_with_an_adversarial_image_is_said(x_adv: Tensor, said: str) -> None:
    assert ThreatModel("Linf", 0.1).violation(x_adv, torch.full((1, 1, 1, 1), 0.5)) == said


@pytest.mark.parametrize("eps", [8.0, -0.1, math.nan])
def test_a_budget_that_is_none_is_refused(eps: float) -> None:
    with pytest.raises(UsageError):
        ThreatModel("Linf", eps)


def test_a_budget_of_8_is_answered_with_8_over_255() -> None:
    with pytest.raises(UsageError) as refused:
        ThreatModel("Linf", 8.0)
    assert refused.value.what == "eps is 8, but pixels are in [0, 1]"
    assert refused.value.mend == "Write it as a fraction of 255: 8/255."


@pytest.mark.parametrize("norm", NORMS)
def test_every_method_runs_on_the_meta_device(norm: Norm) -> None:
    threat = ThreatModel(norm, 0.1)
    x, grad = (torch.empty(2, 3, 4, 4, device="meta") for _ in range(2))
    assert threat.project(threat.step(x, grad, 0.1), x).device.type == "meta"
    assert threat.distance(x, grad).shape == (2,)
