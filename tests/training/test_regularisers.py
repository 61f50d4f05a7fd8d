"""Regularisers by hand: penalty, groups of weights, labels, pictures, averages, patience."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from awpbench import data, defenses, models
from awpbench.config import TrainConfig
from awpbench.defaults import resolve_training
from awpbench.randomness import generator
from awpbench.training import loop
from awpbench.training.regularisers import (
    average,
    averaged_copy,
    cutout,
    cutout_at,
    l1_penalty,
    mixup,
    out_of_patience,
    parameter_groups,
    regularised_batch,
    shares,
    smoothed,
)


def config(**flags: Any) -> TrainConfig:
    small = {"dataset": "digits", "architecture": "small-cnn", "width": 4, "batch_size": 10, "steps": 1}
    return resolve_training({**small, **flags})[0]


def net() -> nn.Sequential:
    """A convolution with bias, a batch norm, a linear layer with bias, all weights 1."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1.0)
    return model


def test_the_l1_penalty_sums_the_weights_of_convolutions_and_linear_layers() -> None:
    model = net()
    assert l1_penalty(model, 0.5).item() == 0.5 * (18 + 4)
    l1_penalty(model, 0.5).backward()
    gradients = {name: None if p.grad is None else p.grad.unique().tolist() for name, p in model.named_parameters()}
    alone = {name: value for name, value in gradients.items() if value is not None}
    assert alone == {"0.weight": [-0.5], "3.weight": [-0.5]}


def test_with_l2_only_weights_of_convolutions_and_linear_layers_decay() -> None:
    model = net()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.0, l2=0.005)
    assert [([names[id(p)] for p in group["params"]], group["weight_decay"]) for group in groups] == [
        (["0.weight", "3.weight"], 0.005),
        (["0.bias", "1.weight", "1.bias", "3.bias"], 0.0),
    ]
    for group in parameter_groups(model, weight_decay=5e-4, l2=0.0):
        assert ([names[id(p)] for p in group["params"]], group["weight_decay"]) == (list(names.values()), 5e-4)


def test_a_step_with_l2_shrinks_weights_by_lr_times_l2_and_leaves_the_rest() -> None:
    model = net()
    optimizer = torch.optim.SGD(parameter_groups(model, weight_decay=0.0, l2=0.1), lr=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    values = {name: p.unique().tolist() for name, p in model.named_parameters()}
    assert values == {
        "0.weight": [pytest.approx(-0.95)], "0.bias": [-1.0], "1.weight": [-1.0], "1.bias": [-1.0],
        "3.weight": [pytest.approx(-0.95)], "3.bias": [-1.0],
    }  # fmt: skip


def test_both_groups_follow_the_schedule() -> None:
    cfg = config(l2=0.005, epochs=2, schedule="one-drop", lr=0.1)
    digits = data.load("digits", validation=200, train_examples=10)
    state = loop.fresh(cfg, digits, torch.device("cpu"))
    state.epoch = 1
    loop.one_step(state, cfg, digits.train, torch.arange(10), None, steps_per_epoch=1)
    assert [group["lr"] for group in state.optimizer.param_groups] == [pytest.approx(0.01)] * 2


def test_smoothed_labels_give_the_smoothed_cross_entropy() -> None:
    logits, y = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
    defense = smoothed(defenses.get("at"), 0.3, 3)
    found = defense.loss(lambda x: x, logits, logits, y)
    assert found.item() == pytest.approx(F.cross_entropy(logits, y, label_smoothing=0.3).item(), rel=1e-6)
    assert found.item() != pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-2)
    assert (defense.attack, defense.attack_mode) == (defenses.get("at").attack, "train")


def test_trades_smooths_its_clean_cross_entropy_only() -> None:
    x, x_adv, y = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0])
    plain = defenses.get("trades").loss(lambda x: x, x, x_adv, y, beta=6.0)
    found = smoothed(defenses.get("trades"), 0.3, 3).loss(lambda x: x, x, x_adv, y, beta=6.0)
    change = F.cross_entropy(x, y, label_smoothing=0.3) - F.cross_entropy(x, y)
    assert (found - plain).item() == pytest.approx(change.item(), rel=1e-5)


def test_mixup_mixes_images_and_labels_by_hand() -> None:
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    mixed, labels = mixup(x, torch.tensor([2, 0]), torch.tensor([1, 0]), 0.75, 3)
    assert mixed.flatten().tolist() == [0.25, 0.75]
    assert labels.tolist() == [[0.25, 0.0, 0.75], [0.75, 0.0, 0.25]]


def test_the_cross_entropy_of_mixed_labels_is_the_mixed_cross_entropy() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    y, partners = torch.tensor([0, 1, 2, 0]), torch.tensor([3, 2, 0, 1])
    _, labels = mixup(logits, y, partners, 0.3, 3)
    expected = 0.3 * F.cross_entropy(logits, y) + 0.7 * F.cross_entropy(logits, y[partners])
    assert F.cross_entropy(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_share_of_mixup_is_one_number_per_batch_from_a_beta_distribution_keyed_by_the_step() -> None:
    x, y = torch.eye(2).repeat(4, 1).view(8, 2, 1, 1), torch.tensor([0, 1] * 4)

    def mix(step: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        return regularised_batch(x, y, config(mixup=1.4, seed=seed), 10, epoch=0, step=step)

    assert all(torch.equal(one, again) for one, again in zip(mix(0), mix(0), strict=True))
    tops = [mix(step)[1] for step in range(300)]
    found = []
    for labels in tops:
        values = {round(value, 5) for row in labels.tolist() for value in row} - {0.0, 1.0}
        assert len(values) in (0, 2)  # a share and its complement, for all images
        found += values
    squared = sum((share - 0.5) ** 2 for share in found) / len(found)
    assert squared == pytest.approx(1 / (4 * (2 * 1.4 + 1)), rel=0.25)  # the variance of Beta(1.4, 1.4)
    assert not torch.equal(mix(0)[1], mix(0, seed=1)[1])


def test_the_attack_and_the_loss_see_the_mixed_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(mixup=1.4, defense="at")
    digits = data.load("digits", validation=200, train_examples=10)
    state = loop.fresh(cfg, digits, torch.device("cpu"))
    seen: list[torch.Tensor] = []
    original = loop.training_step

    def watched(model: Any, optimizer: Any, defense: Any, x: Any, y: torch.Tensor, **more: Any) -> Any:
        seen.append(y)
        return original(model, optimizer, defense, x, y, **more)

    monkeypatch.setattr(loop, "training_step", watched)
    outcome = loop.one_step(state, cfg, digits.train, torch.arange(10), None, steps_per_epoch=1)
    assert seen[0].shape == (10, 10)
    assert torch.allclose(seen[0].sum(1), torch.ones(10))
    assert 0 <= outcome.correct.item() <= 10


@pytest.mark.parametrize(
    ("row", "column", "side", "black"),
    [
        (0, 0, 2, ["#...", "....", "....", "...."]),
        (2, 1, 2, ["....", "##..", "##..", "...."]),
        (3, 3, 3, ["....", "....", "..##", "..##"]),
        (1, 1, 1, ["....", ".#..", "....", "...."]),
        (1, 2, 0, ["....", "....", "....", "...."]),
    ],
)
def test_cutout_blacks_out_a_square_around_a_pixel_clipped_at_the_border(
    row: int, column: int, side: int, black: list[str]
) -> None:
    images = torch.ones(1, 2, 4, 4)
    cut = cutout_at(images, torch.tensor([row]), torch.tensor([column]), side)
    for channel in cut[0].tolist():
        assert ["".join("#" if value == 0 else "." for value in line) for line in channel] == black
    assert bool((images == 1).all())


@given(side=st.integers(0, 8), seed=st.integers(0, 99))
def test_cutout_never_takes_more_than_its_square_and_every_image_has_a_place_of_its_own(side: int, seed: int) -> None:
    cut = cutout(torch.ones(64, 1, 8, 8), side, generator=generator("cpu", seed))
    taken = (cut == 0).flatten(1).sum(1)
    assert int(taken.max()) <= side**2
    assert int(taken.min()) >= ((side + 1) // 2) ** 2  # around a corner
    assert side in (0, 8) or len(cut.unique(dim=0)) > 8


def test_the_places_of_cutout_are_keyed_by_seed_epoch_and_step() -> None:
    x, y = torch.ones(10, 1, 8, 8), torch.zeros(10, dtype=torch.int64)

    def cut(epoch: int, step: int, seed: int = 0) -> torch.Tensor:
        return regularised_batch(x, y, config(cutout=3, seed=seed), 10, epoch=epoch, step=step)[0]

    assert torch.equal(cut(1, 2), cut(1, 2))
    assert not any(torch.equal(cut(1, 2), other) for other in (cut(2, 1), cut(1, 3), cut(1, 2, seed=1)))


def test_without_regularisers_a_batch_is_what_it_was() -> None:
    x, y = torch.ones(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    found = regularised_batch(x, y, config(), 10, epoch=0, step=0)
    assert (found[0] is x, found[1] is y) == (True, True)


def test_shares_of_labels_stay_what_they_are() -> None:
    y = torch.tensor([[0.5, 0.5]])
    assert shares(y, 2, torch.float32) is y


def test_averaged_weights_and_batch_norm_statistics_follow_with_the_decay_and_counts_are_taken_over() -> None:
    live = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
    averaged = averaged_copy(live)
    before = {key: value.clone() for key, value in averaged.state_dict().items()}
    with torch.no_grad():
        for value in live.state_dict().values():
            value.add_(3)
    average(averaged, live, 0.75)
    for key, value in averaged.state_dict().items():
        expected = before[key] + (3 if key.endswith("num_batches_tracked") else 0.75)
        assert torch.allclose(value, expected, atol=1e-6), key
    assert not any(p.requires_grad for p in averaged.parameters())


def test_the_average_takes_the_weights_after_v_came_off() -> None:
    cfg = config(defense="at", awp=True, awp_gamma=0.5, ema=0.9)
    digits = data.load("digits", validation=200, train_examples=10)
    state = loop.fresh(cfg, digits, torch.device("cpu"))
    assert state.averaged is not None
    before = {key: value.clone() for key, value in state.averaged.named_parameters()}
    loop.one_step(state, cfg, digits.train, torch.arange(10), None, steps_per_epoch=1)
    live = dict(state.model.named_parameters())
    for key, value in state.averaged.named_parameters():
        assert torch.allclose(value, 0.9 * before[key] + 0.1 * live[key], atol=1e-6), key


@pytest.mark.parametrize(
    ("robust", "ended"),
    [([0.5, 0.4], False), ([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6, 0.1], False), ([0.5, None, 0.4, None], False)],
)  # None: an epoch without a measurement
def test_patience_counts_measurements_since_the_best_one(robust: list[float | None], ended: bool) -> None:
    metrics = [
        {"epoch": i + 1, **({} if value is None else {"validation": {"robust": value}})}
        for i, value in enumerate(robust)
    ]
    top = max(value for value in robust if value is not None)
    best = {"epoch": robust.index(top) + 1, "robust": top}
    assert out_of_patience(metrics, best, config(patience=2)) is ended
    assert not out_of_patience(metrics, best, config())
