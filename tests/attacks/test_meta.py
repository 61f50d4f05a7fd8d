"""Attacks on the meta device, with the noise given: a tensor born on the CPU would raise there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from awpbench import models
from awpbench.attacks.cw import cw
from awpbench.attacks.fgsm import fgsm
from awpbench.attacks.pgd import pgd
from awpbench.threat import Norm, ThreatModel
from tests.draws import GivenDraws

ATTACKS: dict[str, Callable[..., Tensor]] = {
    "fgsm": fgsm,
    "pgd": lambda *args, **more: pgd(*args, steps=1, step_size=0.05, generator=GivenDraws(), **more),
    "cw-inf": lambda *args, **more: cw(*args, steps=1, step_size=0.05, generator=GivenDraws(), **more),
}


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_step_of_an_attack_runs_on_the_meta_device(attack: str, norm: Norm) -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4).to("meta").eval()
    x = torch.empty(3, 1, 8, 8, device="meta")
    y = torch.empty(3, dtype=torch.int64, device="meta")
    x_adv = ATTACKS[attack](model, x, y, threat=ThreatModel(norm, 0.1))
    assert (x_adv.device.type, x_adv.shape) == ("meta", x.shape)
