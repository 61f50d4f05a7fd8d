"""One training step: on the meta device, its batch-norm statistics, and its guard."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from awpbench import defenses, models
from awpbench.attack_model import AttackModel
from awpbench.defenses.base import Defense
from awpbench.errors import CheckError
from awpbench.randomness import BatchDraws, generator
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


@pytest.mark.parametrize("alternations", [1, 2])
@pytest.mark.parametrize("method", ["trades", "mart"])
def test_attacking_the_folded_copy_gives_the_step_that_attacking_the_net_gives(method: str, alternations: int) -> None:
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
                alternations=alternations,
                attack_model=attack_model,
            )
    for one, other in zip(plain.state_dict().values(), folded.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


class Watched:
    """A defense on a linear model that notes the weights at every attack and loss, and the image of every loss."""

    def __init__(self, model: nn.Linear) -> None:
        self.attacked: list[list[float]] = []
        self.losses: list[tuple[list[float], float]] = []
        self.starts: list[torch.Tensor] = []

        def attack(net: Any, x: torch.Tensor, y: torch.Tensor, **settings: object) -> torch.Tensor:
            self.attacked.append(model.weight[0].tolist())
            self.starts.append(x)
            return x + len(self.attacked)

        def loss(net: Any, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.losses.append((model.weight[0].tolist(), x_adv[0, 0].item()))
            value: torch.Tensor = net(x_adv)[:, 0].sum()
            return value

        self.defense = Defense(attack, loss, "train")


def watched_step(
    gamma: float, penalty: Callable[[nn.Linear], torch.Tensor] | None = None, **more: Any
) -> tuple[Watched, nn.Linear]:
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    watched = Watched(model)
    x = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    training_step(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        watched.defense,
        x,
        torch.zeros(1, dtype=torch.int64),
        threat=ThreatModel("Linf", 0.1),
        steps=1,
        step_size=0.1,
        gamma=gamma,
        generator=GivenDraws(),
        hyper={},
        penalty=None if penalty is None else partial(penalty, model),
        **more,
    )
    assert all(start is x for start in watched.starts)
    return watched, model


def test_alternations_attack_the_perturbed_weights_from_the_clean_images_and_ascend_again() -> None:
    watched, model = watched_step(0.1, alternations=2, ascent_steps=2)  # the gradient is x_adv: (1, 1), then (2, 2)
    there = 0.5 / 2**0.5  # |v| = 0.1 * 5; the second round wants twice as far and is projected
    assert watched.attacked[0] == [3.0, 4.0]
    assert watched.attacked[1] == pytest.approx([3 + there, 4 + there])
    assert [image for _, image in watched.losses] == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert watched.losses[4][0] == pytest.approx([3 + there, 4 + there])
    assert model.weight[0].tolist() == pytest.approx([3 - 0.1 * 2, 4 - 0.1 * 2])


def test_without_perturbation_there_is_one_attack_whatever_the_alternations() -> None:
    watched, _ = watched_step(0.0, alternations=3)
    assert (len(watched.attacked), len(watched.losses)) == (1, 1)


def test_a_random_perturbation_is_drawn_once_after_the_attack_on_the_weights_themselves() -> None:
    watched, model = watched_step(0.1, random=BatchDraws(generator("cpu", 1)))
    d = BatchDraws(generator("cpu", 1)).normal(torch.empty(1, 2, dtype=torch.float64))
    assert watched.attacked == [[3.0, 4.0]]
    assert len(watched.losses) == 1
    expected = torch.tensor([[3.0, 4.0]], dtype=torch.float64) + 0.5 * d / d.norm()
    assert watched.losses[0][0] == pytest.approx(expected[0].tolist())
    assert model.weight[0].tolist() == pytest.approx([2.9, 3.9])


def test_a_penalty_is_part_of_the_update_at_w_plus_v_but_not_of_the_ascent() -> None:
    watched, model = watched_step(0.1, penalty=lambda net: 0.5 * net.weight.square().sum())
    there = 0.5 / 2**0.5  # along the gradient (1, 1) of the loss alone
    assert watched.losses[1][0] == pytest.approx([3 + there, 4 + there])
    assert model.weight[0].tolist() == pytest.approx([3 - 0.1 * (1 + 3 + there), 4 - 0.1 * (1 + 4 + there)])


@pytest.mark.parametrize("method", ["at", "trades"])
def test_each_alternation_of_an_attack_in_train_mode_moves_batch_norm_statistics(method: str) -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
    step(model, method, "cpu", alternations=2, ascent_steps=3)
    updates = {"at": 2 * 2 + 1, "trades": 2}[method]  # attacks of two steps, then the forwards of the loss
    assert int(model.get_buffer("bn1.num_batches_tracked")) == updates


def test_a_label_that_is_shared_out_counts_by_the_share_of_the_predicted_class() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    outcome = training_step(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        defenses.get("standard"),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([[0.75, 0.25], [0.6, 0.4]]),
        threat=ThreatModel("Linf", 0.1),
        steps=0,
        step_size=0.1,
        gamma=0.0,
        generator=GivenDraws(),
        hyper={},
    )
    assert outcome.correct.item() == pytest.approx(0.75 + 0.4)
