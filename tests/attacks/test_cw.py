from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from awpbench.attacks.cw import cw, margin, margin_objective
from awpbench.attacks.pgd import pgd_iterates
from awpbench.threat import ThreatModel
from tests import rules
from tests.draws import GivenDraws


def test_the_margin_of_given_logits_is_the_reference_one(golden: dict[str, Any]) -> None:
    expected = golden["losses"]["cw margin (confidence 50, sum over the batch, to be maximised)"]
    j = torch.arange(80, dtype=torch.float64)
    logits = (3 * torch.sin(0.37 * j * (1 + 1.1) + 1.1)).view(8, 10).requires_grad_()
    value = margin_objective(50.0)(logits, torch.arange(8))
    (grad,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(expected["total"], rel=1e-9)
    assert torch.allclose(grad, torch.tensor(expected["grad_adv"], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [[1, 10, 20], pytest.param([100], marks=pytest.mark.slow)])
def test_the_trajectory_is_the_reference_one(
    steps: list[int], golden: dict[str, Any], reference_net: nn.Module, reference_start: Tensor, device: str
) -> None:
    x, y = rules.images(8).to(device), torch.arange(8, device=device)
    entries = [e for e in golden["attacks"]["cw linf margin: start eps*s, eps 0.031, step 0.003"] if e[0] in steps]
    start = (x + 0.031 * reference_start).clamp(0, 1)
    found = pgd_iterates(
        reference_net,
        x,
        y,
        at={entry[0] for entry in entries},
        threat=ThreatModel("Linf", 0.031),
        step_size=0.003,
        start=start,
        objective=margin_objective(50.0),
    )
    for step, summary, losses, predictions in entries:
        logits = reference_net(found[step])
        own = rules.summary(found[step] - x)
        for key in ("sum", "l2", "head"):
            assert own[key] == pytest.approx(summary[key], rel=1e-9, abs=1e-9)
        assert nn.functional.cross_entropy(logits, y, reduction="none").tolist() == pytest.approx(losses, rel=1e-9)
        assert logits.argmax(1).tolist() == predictions


def test_the_true_class_is_masked_even_where_all_other_logits_are_negative() -> None:
    logits = torch.tensor([[-1.0, -3.0, -2.0], [4.0, -3.0, 1.0]])
    assert margin(logits, torch.tensor([0, 2])).tolist() == [1.0, -3.0]


@given(st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=5), st.integers(0, 3))
def test_the_margin_is_negative_exactly_where_another_class_is_larger(rows: list[list[float]], label: int) -> None:
    logits, y = torch.tensor(rows, dtype=torch.float64), torch.full((len(rows),), label)
    expected = [row[label] - max(row[:label] + row[label + 1 :]) for row in rows]
    assert margin(logits, y).tolist() == expected


def test_with_kappa_0_a_fooled_image_stays_where_it_was_fooled(
    smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]
) -> None:
    x, _ = few_images
    y = smooth_net(x).argmax(1)
    threat = ThreatModel("Linf", 0.3)
    walked = pgd_iterates(
        smooth_net, x, y, at=range(41), threat=threat, step_size=0.02, objective=margin_objective(0.0)
    )
    fooled = [margin(smooth_net(walked[step]), y) < 0 for step in range(41)]
    assert bool(fooled[40].any()), "the budget must be large enough for this test"
    for step in range(40):
        assert torch.equal(walked[step][fooled[step]], walked[step + 1][fooled[step]])
        assert bool((fooled[step] <= fooled[step + 1]).all())
    last = cw(smooth_net, x, y, threat=threat, steps=40, step_size=0.02)
    assert torch.equal(last, walked[40])


def test_with_kappa_50_a_fooled_image_goes_on(smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]) -> None:
    x, _ = few_images
    y = smooth_net(x).argmax(1)
    near, far = (
        cw(smooth_net, x, y, threat=ThreatModel("Linf", 0.3), steps=40, step_size=0.02, kappa=kappa)
        for kappa in (0.0, 50.0)
    )
    fooled = margin(smooth_net(near), y) < 0
    assert bool((margin(smooth_net(far), y) < margin(smooth_net(near), y))[fooled].all())


def test_one_step_runs_on_the_meta_device_with_noise_passed_in() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        x, y = torch.empty(2, 1, 2, 2), torch.empty(2, dtype=torch.int64)
    found = cw(net, x, y, threat=ThreatModel("Linf", 0.1), steps=1, step_size=0.05, generator=GivenDraws())
    assert found.device.type == "meta"
