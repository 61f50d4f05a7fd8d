"""TRADES and MART against the authors' code (reference vectors) and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from awpbench import defenses
from awpbench.defenses import at, mart, rst, standard, trades


def golden_logits(device: str) -> tuple[Tensor, Tensor, Tensor]:
    j = torch.arange(80, dtype=torch.float64, device=device).reshape(8, 10)
    clean = 3 * torch.sin(0.37 * j * (1 + 0.2) + 0.2)
    adversarial = 3 * torch.sin(0.37 * j * (1 + 1.1) + 1.1)
    return clean.requires_grad_(), adversarial.requires_grad_(), torch.arange(8, device=device)


@pytest.mark.parametrize(
    ("name", "loss", "beta"), [("mart beta=5", mart.from_logits, 5.0), ("trades beta=6", trades.from_logits, 6.0)]
)
def test_values_and_gradients_equal_the_authors_code(
    name: str, loss: Any, beta: float, golden: dict[str, Any], device: str
) -> None:
    expected = golden["losses"][name]
    clean, adversarial, y = golden_logits(device)
    total = loss(clean, adversarial, y, beta=beta)
    total.backward()
    assert total.item() == pytest.approx(expected["total"], rel=1e-9)
    for logits, key in ((clean, "grad_nat"), (adversarial, "grad_adv")):
        assert logits.grad is not None
        assert torch.allclose(
            logits.grad.cpu(), torch.tensor(expected[key], dtype=torch.float64), rtol=1e-9, atol=1e-12
        )


def test_trades_on_equal_predictions_is_the_cross_entropy() -> None:
    logits = torch.zeros(3, 4, dtype=torch.float64)
    assert trades.from_logits(logits, logits, torch.tensor([0, 1, 2]), beta=6.0).item() == pytest.approx(math.log(4))


def test_mart_of_one_image_with_two_classes_equals_the_case_worked_by_hand() -> None:
    clean = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)  # p = (3/4, 1/4)
    adversarial = torch.zeros(1, 2, dtype=torch.float64)  # p' = (1/2, 1/2)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    by_hand = -math.log(0.5) - math.log(1.0001 - 0.5) + 5 * divergence * (1.0000001 - 0.75)
    assert mart.from_logits(clean, adversarial, torch.tensor([0]), beta=5.0).item() == pytest.approx(by_hand, rel=1e-9)


def test_losses_run_on_the_meta_device() -> None:
    clean, adversarial = (torch.empty(4, 10, device="meta", requires_grad=True) for _ in range(2))
    y = torch.empty(4, dtype=torch.int64, device="meta")
    for loss in (mart.from_logits, trades.from_logits):
        total = loss(clean, adversarial, y)
        total.backward()
        assert total.device.type == "meta"
        assert total.shape == ()


PARTS = torch.tensor([False, True, False, False, True, False, True, False])  # which images have pseudo-labels


def at_from_logits(clean: Tensor, adversarial: Tensor, y: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """AT's loss of a model that knows the adversarial logits."""
    return at.DEFENSE.loss(lambda x: adversarial, clean, adversarial, y, weights=weights)


@pytest.mark.parametrize("unlabelled_weight", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("loss", [at_from_logits, trades.from_logits, mart.from_logits], ids=["at", "trades", "mart"])
def test_one_weighted_pass_equals_the_losses_of_the_parts_worked_out_apart(loss: Any, unlabelled_weight: float) -> None:
    clean, adversarial, y = golden_logits("cpu")
    weighted = loss(clean, adversarial, y, weights=rst.image_weights(PARTS, unlabelled_weight))
    rho_l, rho_u = (loss(clean[part], adversarial[part], y[part]) for part in (~PARTS, PARTS))
    expected = (rho_l + unlabelled_weight * rho_u) / (1 + unlabelled_weight)
    assert weighted.item() == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(gradients(weighted, adversarial), gradients(expected, adversarial), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def gradients(loss: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, logits, retain_graph=True)


@pytest.mark.parametrize("loss", [at_from_logits, trades.from_logits, mart.from_logits], ids=["at", "trades", "mart"])
def test_the_weights_one_give_the_plain_mean(loss: Any) -> None:
    clean, adversarial, y = golden_logits("cpu")
    plain, weighted = loss(clean, adversarial, y), loss(clean, adversarial, y, weights=torch.ones(8))
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-14)


def test_lambda_one_and_two_halves_give_every_image_the_weight_one() -> None:
    halves = torch.tensor([True, False, False, True])
    assert rst.image_weights(halves, 1.0).tolist() == [1.0] * 4


def test_the_public_codes_mean_at_another_fraction_is_lambda_f_over_one_minus_f() -> None:
    three_of_eight = PARTS  # f = 3/8, so lambda = 3/5
    assert rst.image_weights(three_of_eight, 3 / 5).tolist() == pytest.approx([1.0] * 8)


def test_the_weights_of_two_images_equal_the_case_worked_by_hand() -> None:
    weights = rst.image_weights(torch.tensor([False, True]), 3.0)  # (rho_l + 3 rho_u) / 4, times 2 images
    assert weights.tolist() == [0.5, 1.5]


def test_lambda_zero_is_the_loss_of_the_labelled_images_alone() -> None:
    assert rst.image_weights(PARTS, 0.0)[PARTS].tolist() == [0.0] * 3


def test_a_defense_that_borrows_has_the_lenders_attack_and_loss() -> None:
    assert defenses.get("finetuning") is at.DEFENSE
    assert defenses.get("rst") is trades.DEFENSE
    assert defenses.get("rst", "mart") is mart.DEFENSE
    assert at.DEFENSE.loss is standard.DEFENSE.loss


def test_without_weights_the_losses_are_torchs_means_bit_for_bit() -> None:
    clean, adversarial, y = golden_logits("cpu")
    divergence = F.kl_div(adversarial.log_softmax(1), clean.softmax(1), reduction="batchmean")
    assert torch.equal(trades.from_logits(clean, adversarial, y), F.cross_entropy(clean, y) + 6.0 * divergence)
    assert torch.equal(at_from_logits(clean, adversarial, y), F.cross_entropy(adversarial, y))
