from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from awpbench import data
from awpbench.data.digits import stratified


def test_digits_are_split_into_1197_200_and_400_without_overlap() -> None:
    digits = data.load("digits")
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [1197, 200, 400]
    assert torch.cat([split.indices for split in splits]).sort().values.tolist() == list(range(1797))
    assert (digits.name, digits.classes, digits.shape) == ("digits", 10, (1, 8, 8))


def test_every_class_has_its_share_in_every_split() -> None:
    digits = data.load("digits")
    sizes = np.bincount(load_digits().target)
    for split in (digits.train, digits.validation, digits.test):
        shares = len(split) * sizes / 1797
        assert np.abs(np.bincount(split.labels) - shares).max() < 1.5


def test_the_splits_are_in_file_order() -> None:
    digits = data.load("digits")
    for split in (digits.train, digits.validation, digits.test):
        assert split.indices.tolist() == sorted(split.indices.tolist())


def test_grey_levels_are_scaled_exactly() -> None:
    digits = data.load("digits", validation=0)
    content = load_digits()
    scaled = [round(level * 255 / 16) for level in range(17)]
    for split in (digits.train, digits.test):
        original = content.images[split.indices].astype(int)
        assert split.images[:, 0].tolist() == np.array(scaled)[original].tolist()
        assert split.labels.tolist() == content.target[split.indices].tolist()


def test_the_test_images_do_not_depend_on_the_validation_images() -> None:
    without = data.load("digits", validation=0)
    assert (len(without.train), len(without.validation)) == (1397, 0)
    assert without.test.fingerprint() == data.load("digits").test.fingerprint()


def test_digits_need_no_folder_and_no_network(tmp_path: Path) -> None:
    images = data.load_test("digits", data_dir=tmp_path / "nothing", offline=True)
    assert len(images) == 400
    assert not (tmp_path / "nothing").exists()


FINGERPRINTS = {
    "train": "8e6daf6d54bd",
    "validation": "4f4f9acbf230",
    "test": "e974a568e256",
}


def test_the_splits_are_the_published_ones() -> None:
    digits = data.load("digits")
    assert {name: getattr(digits, name).fingerprint()[:12] for name in FINGERPRINTS} == FINGERPRINTS


def test_shares_and_remainders_worked_out_by_hand() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)  # 4 of 10: shares 2.0, 1.2, 0.8
    chosen = stratified(labels, 4)
    assert labels[chosen].bincount().tolist() == [2, 1, 1]
    order = np.random.RandomState(0).permutation(10)
    assert order.tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert chosen.tolist() == [2, 4, 6, 8]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_a_stratified_draw_has_the_size_asked_for_and_nothing_twice(classes: list[int], drawn: st.DataObject) -> None:
    labels = torch.tensor(classes)
    n = drawn.draw(st.integers(0, len(classes)))
    chosen = stratified(labels, n)
    assert len(chosen) == len(set(chosen.tolist())) == n
    shares = n * labels.bincount().double() / len(labels)
    assert ((labels[chosen].bincount(minlength=len(shares)) - shares).abs() < 1).all()


@pytest.mark.parametrize("n", [1, 600])
def test_the_first_training_images_can_be_kept_alone(n: int) -> None:
    few, all_of_them = data.load("digits", train_examples=n), data.load("digits")
    assert few.train.indices.tolist() == all_of_them.train.indices[:n].tolist()
    assert few.validation.fingerprint() == all_of_them.validation.fingerprint()
