"""What an epoch's batches hold, with pseudo-labelled images and without."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from awpbench import data
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.defaults import resolve_training
from awpbench.randomness import generator
from awpbench.training.batches import all_images, batch_weights, epoch_batches

LABELLED = 500


@pytest.fixture(scope="module")
def withheld() -> DataSet:
    """The digits, half of whose training images lost their labels."""
    digits = data.load("digits", train_examples=LABELLED)
    rest = data.load("digits").train.select(torch.arange(LABELLED, 1000))
    return replace(digits, unlabelled=rest)


def config(**changed: Any) -> TrainConfig:
    flags = {"dataset": "digits", "defense": "rst", "unlabelled": "x.npz", "batch_size": 100, "epochs": 4}
    return resolve_training(flags | changed)[0]


def halves(batch: Tensor) -> tuple[Tensor, Tensor]:
    return batch[batch < LABELLED], batch[batch >= LABELLED]


def test_without_pseudo_labels_an_epoch_is_a_permutation_of_the_training_images(withheld: DataSet) -> None:
    cfg = resolve_training({"dataset": "digits", "batch_size": 128})[0]
    batches = epoch_batches(cfg, replace(withheld, unlabelled=None), 3)
    expected = torch.randperm(LABELLED, generator=generator("cpu", 0, "order", 3))
    assert torch.equal(torch.cat(batches), expected)
    assert [len(batch) for batch in batches] == [128, 128, 128, 116]
    assert batch_weights(cfg, replace(withheld, unlabelled=None), batches[0]) is None


def test_every_batch_holds_both_kinds_and_there_are_as_many_as_the_labelled_images_fill(withheld: DataSet) -> None:
    batches = epoch_batches(config(), withheld, 0)
    assert len(batches) == math.ceil(LABELLED / 100)
    assert [tuple(map(len, halves(batch))) for batch in batches] == [(50, 50)] * 5
    labelled, pseudo = halves(torch.cat(batches))
    assert len(set(labelled.tolist())) == len(set(pseudo.tolist())) == 250


@pytest.mark.parametrize(("fraction", "labelled", "pseudo"), [(0.2, 80, 20), (0.75, 25, 75)])
def test_the_fraction_says_how_many_of_a_batch_have_pseudo_labels(
    fraction: float, labelled: int, pseudo: int, withheld: DataSet
) -> None:
    for batch in epoch_batches(config(unlabelled_fraction=fraction), withheld, 0):
        assert tuple(map(len, halves(batch))) == (labelled, pseudo)


def test_the_two_kinds_are_mixed_within_a_batch(withheld: DataSet) -> None:
    first_half = epoch_batches(config(), withheld, 0)[0][:50]
    assert 10 < len(halves(first_half)[0]) < 40


def test_epochs_differ_and_a_seed_decides_them(withheld: DataSet) -> None:
    one, again, other, seed = (
        torch.cat(epoch_batches(config(seed=s), withheld, epoch)) for s, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, seed)
    assert set(halves(one)[0].tolist()) != set(halves(other)[0].tolist())


def test_few_pseudo_labelled_images_come_again_once_all_have_come(withheld: DataSet) -> None:
    assert withheld.unlabelled is not None
    few = replace(withheld, unlabelled=withheld.unlabelled.first(100))
    counts = halves(torch.cat(epoch_batches(config(), few, 0)))[1].bincount(minlength=LABELLED + 100)[LABELLED:]
    assert counts.sum() == 250
    assert set(counts.tolist()) == {2, 3}


def test_fewer_labelled_images_than_their_share_still_make_a_batch(withheld: DataSet) -> None:
    few = replace(withheld, train=withheld.train.first(30))
    (batch,) = epoch_batches(config(), few, 0)
    assert ((batch < 30).sum(), (batch >= 30).sum()) == (30, 50)
    weights = batch_weights(config(), few, batch)
    assert weights is not None
    assert weights[batch < 30].sum() == pytest.approx(40)  # each kind counts half
    assert weights[batch >= 30].sum() == pytest.approx(40)


def test_the_pseudo_labelled_images_stand_behind_the_others(withheld: DataSet) -> None:
    assert withheld.unlabelled is not None
    both = all_images(withheld)
    assert torch.equal(both.images[LABELLED:], withheld.unlabelled.images)
    assert torch.equal(both.labels[:LABELLED], withheld.train.labels)
    weights = batch_weights(config(unlabelled_weight=0.0), withheld, torch.tensor([0, LABELLED]))
    assert weights is not None
    assert weights.tolist() == [2.0, 0.0]
