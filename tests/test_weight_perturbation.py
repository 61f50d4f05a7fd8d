"""AWP against the authors' code (reference vectors), a case worked by hand, and what must not change."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from awpbench import defenses, models
from awpbench.config import SizeNorm
from awpbench.randomness import BatchDraws, generator
from awpbench.threat import ThreatModel
from awpbench.training.step import training_step
from awpbench.weight_perturbation import perturbable, perturbed
from tests import rules

CASES = [(method, gamma) for method in ("at", "trades") for gamma in (0.0, 0.005, 0.01)]


def golden_inputs(device: str = "cpu") -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    model = models.build("wrn-10-1", classes=10, shape=(3, 32, 32)).double()
    model.load_state_dict(rules.fill(model.state_dict()))
    x = rules.images(8)
    x_adv = torch.clamp(
        x + 8 / 255 * torch.sign(torch.from_numpy(rules.noise(8 * 3 * 32 * 32, 2000)).reshape(x.shape)), 0, 1
    )
    return model.train().to(device), x.to(device), x_adv.to(device), torch.arange(8, device=device)


def assert_summary(tensor: Tensor, expected: dict[str, Any], what: str) -> None:
    found = rules.summary(tensor)
    assert list(found["shape"]) == expected["shape"], what
    for key in ("sum", "l2"):
        assert found[key] == pytest.approx(expected[key], rel=1e-9, abs=1e-9), f"{what}: {key}"
    assert found["head"] == pytest.approx(expected["head"], rel=1e-9, abs=1e-11), f"{what}: head"


@pytest.mark.parametrize(("method", "gamma"), CASES)
def test_one_step_equals_the_authors_code_in_float64(
    method: str, gamma: float, golden: dict[str, Any], device: str
) -> None:
    name = f"{method}_awp gamma={gamma}" + (" beta=6" if method == "trades" else "")
    expected = golden["weight_perturbation_steps"][name]
    model, x, x_adv, y = golden_inputs(device)
    defense = defenses.get(method)
    hyper = {"beta": 6.0} if method == "trades" else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    with perturbed(model, gamma) as perturbation:
        perturbation.ascend(lambda: defense.loss(model, x, x_adv, y, **hyper))
        v = perturbation.v or {key: torch.zeros_like(p) for key, p in perturbable(model).items()}
        loss = defense.loss(model, x, x_adv, y, **hyper)
        if method == "trades":
            model(x)  # the public code forwards the clean batch twice, which moves batch-norm statistics only
        loss.backward()
        optimizer.step()

    assert loss.item() == pytest.approx(expected["loss_at_perturbed_weights"], rel=1e-9)
    assert set(v) == set(expected["perturbation"])
    for key, summary in expected["perturbation"].items():
        assert_summary(v[key], summary, f"v of {key}")
    state = model.state_dict()
    assert set(state) == set(expected["state_after_step"])
    for key, summary in expected["state_after_step"].items():
        assert_summary(state[key].double(), summary, key)


def test_v_of_a_linear_model_is_the_gradient_at_the_length_gamma_times_w() -> None:
    model = nn.Linear(2, 1, bias=True).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    x = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    with perturbed(model, 0.1) as perturbation:
        perturbation.ascend(lambda: model(x).sum())  # gradient (0, 2), |w| = 5
        assert perturbation.v["weight"].tolist() == [[0.0, pytest.approx(0.5)]]
        assert model.weight.tolist() == [[3.0, pytest.approx(4.5)]]
        assert list(perturbation.v) == ["weight"]
    assert model.weight.tolist() == [[3.0, 4.0]]


@given(scale=st.floats(1e-6, 1e6), gamma=st.floats(1e-4, 1.0))
def test_v_does_not_depend_on_the_scale_of_the_loss(scale: float, gamma: float) -> None:
    model = nn.Linear(3, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 7.0).reshape(2, 3))
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)

    def v(factor: float) -> Tensor:
        with perturbed(model, gamma) as perturbation:
            perturbation.ascend(lambda: factor * model(x).square().sum())
            return perturbation.v["weight"].clone()

    assert torch.allclose(v(1.0), v(scale), rtol=1e-9, atol=0)
    assert v(1.0).norm().item() == pytest.approx(gamma * model.weight.norm().item(), rel=1e-9)


def test_a_weight_without_gradient_stays_where_it_is() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    before = model[0].weight.detach().clone()
    with perturbed(model, 0.5) as perturbation:
        perturbation.ascend(lambda: model[1](torch.ones(1, 2)).sum() + 0.0 * model[0].weight.sum())
        assert torch.equal(model[0].weight, before)
        assert bool(torch.isfinite(perturbation.v["0.weight"]).all())


def test_the_ascent_leaves_batch_norm_buffers_untouched() -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4).train()
    before = {key: value.clone() for key, value in model.named_buffers()}
    with perturbed(model, 0.01) as perturbation:
        perturbation.ascend(lambda: F.cross_entropy(model(torch.rand(6, 1, 8, 8)), torch.arange(6)))
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers())


def test_the_weights_come_back_when_the_block_raises() -> None:
    model = nn.Linear(4, 2).double()
    before = model.weight.detach().clone()

    def fail() -> None:
        with perturbed(model, 0.3) as perturbation:
            perturbation.ascend(lambda: model(torch.ones(1, 4, dtype=torch.float64)).sum())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.allclose(model.weight, before, rtol=0, atol=1e-15)


def of_one_weight(first: float, second: float) -> nn.Linear:
    """Make a linear model with these two weights, |w| = 5 for 3 and 4."""
    model = nn.Linear(2, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[first, second]]))
    return model


def test_two_steps_go_half_as_far_each_relative_to_the_weights_at_the_start() -> None:
    model = of_one_weight(3.0, 4.0)
    with perturbed(model, 0.1, steps=2) as perturbation:
        perturbation.ascend(lambda: model.weight.prod())  # gradient (w2, w1): (4, 3), then (4.15, 3.2)
        there = [0.2 + 0.25 * 4.15 / math.sqrt(27.4625), 0.15 + 0.25 * 3.2 / math.sqrt(27.4625)]
        assert perturbation.v["weight"].tolist() == [[pytest.approx(value, rel=1e-12) for value in there]]
        assert model.weight.tolist() == [[pytest.approx(3 + there[0]), pytest.approx(4 + there[1])]]
    assert model.weight.tolist() == [[pytest.approx(3.0, abs=1e-15), pytest.approx(4.0, abs=1e-15)]]


@pytest.mark.parametrize(
    ("size", "there"), [("l2", 0.5 / math.sqrt(2)), ("l1", 0.35)]
)  # |w| is 5 or 7: v is (0.5, 0.5) or (0.7, 0.7) before the projection
def test_a_second_ascent_goes_on_from_the_first_and_is_projected(size: SizeNorm, there: float) -> None:
    model = of_one_weight(3.0, 4.0)
    with perturbed(model, 0.1, size=size) as perturbation:
        perturbation.ascend(lambda: model.weight[0, 0])
        assert perturbation.v["weight"].tolist() == [[pytest.approx(0.5 if size == "l2" else 0.7), 0.0]]
        perturbation.ascend(lambda: model.weight[0, 1])
        assert perturbation.v["weight"].tolist() == [[pytest.approx(there), pytest.approx(there)]]


def test_a_step_back_inside_the_ball_is_not_stretched_to_its_edge() -> None:
    model = of_one_weight(3.0, 4.0)
    with perturbed(model, 0.1, steps=2) as perturbation:
        turns = iter([1.0, -1.0])
        perturbation.ascend(lambda: next(turns) * model.weight[0, 0])
        assert perturbation.v["weight"].tolist() == [[0.0, 0.0]]


def test_the_l1_size_measures_weights_and_gradient_by_the_sum_of_their_absolute_values() -> None:
    model = of_one_weight(3.0, -4.0)
    with perturbed(model, 0.1, size="l1") as perturbation:
        perturbation.ascend(lambda: model(torch.tensor([[1.0, 3.0]], dtype=torch.float64)).sum())  # |w| 7, |g| 4
        assert perturbation.v["weight"].tolist() == [[pytest.approx(0.175), pytest.approx(0.525)]]


@pytest.mark.parametrize("method", ["at", "trades"])
def test_several_steps_equal_descent_with_rescaled_gradients_from_a_copy(method: str) -> None:
    gamma, steps = 0.01, 3
    model, x, x_adv, y = golden_inputs()
    loss = defenses.get(method).loss
    copied = copy.deepcopy(model)
    start = {name: p.detach().clone() for name, p in copied.named_parameters()}
    optimizer = torch.optim.SGD(copied.parameters(), lr=gamma / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (-loss(copied, x, x_adv, y)).backward()
        for name, p in copied.named_parameters():
            assert p.grad is not None
            p.grad *= start[name].norm() / p.grad.norm() if p.dim() > 1 else 0.0
        optimizer.step()
    with perturbed(model, gamma, steps=steps) as perturbation:
        perturbation.ascend(lambda: loss(model, x, x_adv, y))
        for name, p in copied.named_parameters():
            v = perturbation.v.get(name, torch.zeros_like(p))
            assert torch.allclose(v, p - start[name], rtol=1e-9, atol=1e-12), name


def test_a_random_perturbation_has_the_drawn_direction_and_the_length_gamma_times_w() -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    draws = BatchDraws(generator("cpu", 3))
    with perturbed(model, 0.6) as perturbation:
        perturbation.draw(BatchDraws(generator("cpu", 3)))
        assert list(perturbation.v) == list(perturbable(model))
        for key, v in perturbation.v.items():
            d = draws.normal(torch.empty(before[key].shape))
            assert torch.allclose(v, 0.6 * before[key].norm() * d / d.norm(), rtol=1e-5), key
            assert torch.equal(model.state_dict()[key], before[key] + v)
        perturbation.draw(BatchDraws(generator("cpu", 4)))  # in place of the first, not on top of it
        for key, v in perturbation.v.items():
            assert v.norm().item() == pytest.approx(0.6 * before[key].norm().item(), rel=1e-5)
    assert all(torch.allclose(value, before[key], atol=1e-6) for key, value in model.state_dict().items())


def test_a_random_perturbation_does_not_depend_on_how_weights_lie_in_memory() -> None:
    drawn = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 5, 3).to(memory_format=memory_format)  # type: ignore[call-overload]
        with perturbed(model, 0.5) as perturbation:
            perturbation.draw(BatchDraws(generator("cpu", 3)))
            drawn.append(perturbation.v["weight"].clone())
    assert torch.allclose(*drawn, rtol=1e-6)


@given(
    gamma=st.floats(1e-4, 2.0),
    steps=st.integers(1, 4),
    rounds=st.integers(1, 3),
    size=st.sampled_from(["l1", "l2"]),
    seed=st.integers(0, 99),
)
def test_v_is_never_larger_than_gamma_times_w_and_taking_it_off_restores_the_weights(
    gamma: float, steps: int, rounds: int, size: SizeNorm, seed: int
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    draws = generator("cpu", seed)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(generator=draws)
    x, y = torch.randn(5, 3, generator=draws), torch.arange(5) % 2
    before = {key: value.clone() for key, value in perturbable(model).items()}
    order = 1 if size == "l1" else 2
    with perturbed(model, gamma, steps=steps, size=size) as perturbation:
        for _ in range(rounds):
            perturbation.ascend(lambda: F.cross_entropy(model(x), y))
        for key, v in perturbation.v.items():
            assert v.norm(order) <= gamma * before[key].norm(order) * (1 + 1e-5)
            assert torch.allclose(perturbable(model)[key], before[key] + v, rtol=1e-5, atol=1e-6)
    assert all(torch.allclose(p, before[key], rtol=1e-5, atol=1e-5) for key, p in perturbable(model).items())


def test_several_steps_leave_batch_norm_buffers_untouched() -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4).train()
    before = {key: value.clone() for key, value in model.named_buffers()}
    with perturbed(model, 0.01, steps=3) as perturbation:
        for _ in range(2):
            perturbation.ascend(lambda: F.cross_entropy(model(torch.rand(6, 1, 8, 8)), torch.arange(6)))
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers())


@pytest.mark.parametrize(
    "shape",
    [
        dict,
        lambda: {"ascent_steps": 3, "alternations": 2, "size": "l1"},
        lambda: {"random": BatchDraws(generator("cpu", 9))},
    ],
    ids=["plain", "steps", "random"],
)
@pytest.mark.parametrize("method", ["standard", "at", "trades", "mart"])
def test_gamma_zero_equals_training_without_awp_bit_for_bit(method: str, shape: Callable[[], dict[str, Any]]) -> None:
    torch.manual_seed(0)
    one = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
    other = copy.deepcopy(one)
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 10
    defense = defenses.get(method)

    optimizer = torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9)
    draws = BatchDraws(generator("cpu", 1))
    outcome = training_step(
        one,
        optimizer,
        defense,
        x,
        y,
        threat=ThreatModel("Linf", 0.1),
        steps=2,
        step_size=0.05,
        gamma=0.0,
        generator=draws,
        hyper={},
        **shape(),
    )

    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other.train(defense.attack_mode == "train")
    x_adv = defense.attack(
        other, x, y, threat=ThreatModel("Linf", 0.1), steps=2, step_size=0.05, generator=BatchDraws(generator("cpu", 1))
    )
    other.train()
    optimizer.zero_grad()
    loss = defense.loss(other, x, x_adv, y)
    loss.backward()
    optimizer.step()
    assert torch.equal(outcome.loss, loss.detach())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
