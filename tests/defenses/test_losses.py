"""TRADES and MART against the authors' code (reference vectors) and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from awpbench.defenses import mart, trades


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
