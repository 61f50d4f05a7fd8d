"""A part of a data set by class and by position."""

from __future__ import annotations

import pytest
import torch

from awpbench import data
from awpbench.data.images import DataSet
from awpbench.data.subset import subset
from awpbench.errors import UsageError


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data.load("digits")


def test_examples_go_on_where_train_examples_stops(digits: DataSet) -> None:
    rest, test = subset(digits, examples=(500, 1197))
    assert torch.equal(
        torch.cat([data.load("digits", train_examples=500).train.indices, rest.indices]), digits.train.indices
    )
    assert torch.equal(test.indices, digits.test.indices)


def test_images_set_aside_for_validation_are_in_no_subset(digits: DataSet) -> None:
    train, _ = subset(digits, classes=tuple(range(10)))
    assert not set(train.indices.tolist()) & set(digits.validation.indices.tolist())


def test_classes_are_kept_in_file_order_and_numbered_from_0(digits: DataSet) -> None:
    train, test = subset(digits, classes=(7, 2))
    for part, whole in ((train, digits.train), (test, digits.test)):
        kept = torch.isin(whole.labels, torch.tensor([7, 2]))
        assert torch.equal(part.indices, whole.indices[kept])
        assert torch.equal(part.images, whole.images[kept])
        assert torch.equal(part.labels, (whole.labels[kept] == 2).long())


@pytest.mark.parametrize("classes", [(1,), (1, 1), (1, 10)])
def test_classes_that_make_no_data_set_are_refused(classes: tuple[int, ...], digits: DataSet) -> None:
    with pytest.raises(UsageError) as refused:
        subset(digits, classes=classes)
    assert refused.value.what == f"digits cannot be cut down to the classes {', '.join(map(str, classes))}"
    assert refused.value.mend == "Give at least two different ones from 0 to 9, such as 0-4."


@pytest.mark.parametrize("examples", [(0, 1198), (5, 5), (6, 5)])
def test_examples_that_are_not_there_are_refused(examples: tuple[int, int], digits: DataSet) -> None:
    with pytest.raises(UsageError) as refused:
        subset(digits, examples=examples)
    what = f"there are no examples {examples[0]}:{examples[1]} among the 1197 training images of digits"
    assert refused.value.what == what
