"""One training step: on the meta device, its batch-norm statistics, and its guard."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from awpbench import defenses, models
from awpbench.attack_model import AttackModel
from awpbench.errors import CheckError
from awpbench.threat import Norm, ThreatModel
from awpbench.training.step import frozen, training_step
from tests.draws import GivenDraws

METHODS = ["standard", "at", "trades", "mart"]


def step(
    model: nn.Module, method: str, device: str, *, norm: Norm = "Linf", gamma: float = 0.01, **more: object
) -> None:
    x = torch.full((6, 1, 8, 8), 0.5, device=device)
    y = torch.zeros(6, dtype=torch.int64, device=device)
    training_step(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        defenses.get(method),
        x,
        y,
        threat=ThreatModel(norm, 0.1),
        steps=0 if method == "standard" else 2,
        step_size=0.05,
        gamma=gamma,
        generator=GivenDraws(),
        hyper={},
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_training_runs_on_the_meta_device(method: str, norm: Norm, folded: bool) -> None:
    with torch.device("meta"):
        model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4).to("meta")
    step(model, method, "meta", norm=norm, attack_model=AttackModel(model) if folded else None)
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("method", "updates"),
    [("standard", 1), ("at", 2 + 1), ("trades", 2), ("mart", 2)],  # attack in train mode, then the forwards of the loss
)
@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_batch_norm_statistics_see_the_attack_in_train_mode_and_the_update_but_not_the_ascent(
    method: str, updates: int, gamma: float
) -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
    step(model, method, "cpu", gamma=gamma)
    assert int(model.get_buffer("bn1.num_batches_tracked")) == updates


def test_the_guard_sees_the_loss_before_the_weights_change() -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
    before = {key: value.clone() for key, value in model.named_parameters()}

    def refuse(loss: torch.Tensor) -> None:
        raise CheckError(f"{float(loss):.0f}")

    with pytest.raises(CheckError):
        step(model, "at", "cpu", guard=refuse)
    assert all(torch.allclose(value, before[key], atol=1e-7) for key, value in model.named_parameters())


def test_frozen_parameters_are_thawed_even_after_an_error_and_others_stay_frozen() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    with contextlib.suppress(KeyboardInterrupt), frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        raise KeyboardInterrupt
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]


@pytest.mark.parametrize("method", ["trades", "mart"])
def test_attacking_the_folded_copy_gives_the_step_that_attacking_the_net_gives(method: str) -> None:
    torch.manual_seed(0)
    plain = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4).double()
    folded = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4).double()
    folded.load_state_dict(plain.state_dict())
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    for model, attack_model in ((plain, None), (folded, AttackModel(folded))):
        for _ in range(3):
            training_step(
                model,
                torch.optim.SGD(model.parameters(), lr=0.1),
                defenses.get(method),
                x,
                torch.arange(6),
                threat=ThreatModel("Linf", 0.1),
                steps=3,
                step_size=0.05,
                gamma=0.01,
                generator=GivenDraws(),
                hyper={},
                attack_model=attack_model,
            )
    for one, other in zip(plain.state_dict().values(), folded.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
