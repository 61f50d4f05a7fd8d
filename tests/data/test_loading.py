from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from awpbench import data
from awpbench.errors import InputError, UsageError
from tests.data.publisher import little_mnist, write


@pytest.fixture
def mnist_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = little_mnist(monkeypatch)
    write(tmp_path / "MNIST" / "raw", files)
    return tmp_path


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    for load in (data.load, data.load_test, data.fetch, data.check):
        with pytest.raises(UsageError) as caught:
            load("cifar-10")  # type: ignore[operator]
        assert caught.value.what == "there is no data set called 'cifar-10'"
        assert (
            caught.value.mend == "Did you mean 'cifar10'? Known: cifar10, cifar100, svhn, mnist, fashion-mnist, digits."
        )


def test_training_images_keep_file_order_without_those_held_out(mnist_folder: Path) -> None:
    found = data.load("mnist", data_dir=mnist_folder, validation=5)
    held_out = found.validation.indices.tolist()
    assert held_out == [5, 2, 19, 16, 11]  # RandomState(0).permutation(25)[:5]
    assert found.train.indices.tolist() == [k for k in range(25) if k not in held_out]
    whole = data.check("mnist", data_dir=mnist_folder)["train"]
    for split in (found.train, found.validation):
        assert torch.equal(split.images, whole.images[split.indices])
        assert torch.equal(split.labels, whole.labels[split.indices])


def test_no_validation_images_leaves_all_for_training(mnist_folder: Path) -> None:
    found = data.load("mnist", data_dir=mnist_folder, validation=0)
    assert found.train.indices.tolist() == list(range(25))
    assert len(found.validation) == 0


def test_train_examples_keeps_the_first_of_the_images_left_for_training(mnist_folder: Path) -> None:
    found = data.load("mnist", data_dir=mnist_folder, validation=5, train_examples=4)
    assert found.train.indices.tolist() == [0, 1, 3, 4]
    assert len(found.validation) == 5


@pytest.mark.parametrize("validation", [-1, 25])
def test_as_many_validation_images_as_training_images_are_refused(mnist_folder: Path, validation: int) -> None:
    with pytest.raises(UsageError) as caught:
        data.load("mnist", data_dir=mnist_folder, validation=validation)
    assert caught.value.what == f"{validation} of mnist's 25 training images cannot be set aside for validation"
    assert caught.value.mend == "Set aside 0 to 24."


def test_more_training_examples_than_are_left_are_refused(mnist_folder: Path) -> None:
    with pytest.raises(UsageError, match="the first 21 of 20 images were asked for"):
        data.load("mnist", data_dir=mnist_folder, validation=5, train_examples=21)


def test_the_folder_of_the_environment_is_used(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWPBENCH_DATA", str(mnist_folder))
    assert len(data.load_test("mnist", offline=True)) == 4


def test_only_the_test_files_are_read_for_the_test_images(mnist_folder: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (mnist_folder / "MNIST" / "raw" / name).unlink()
    assert len(data.load_test("mnist", data_dir=mnist_folder, offline=True)) == 4


def test_an_unreadable_file_is_named(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mnist_folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte"

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError) as caught:
        data.load_test("mnist", data_dir=mnist_folder)
    assert caught.value.what == f"mnist: {path} cannot be read (Permission denied)"
    assert caught.value.mend == "Make it readable, or name another folder with --data-dir or AWPBENCH_DATA."


def test_the_facts_of_every_data_set_are_known() -> None:
    from awpbench.defaults import DATASETS

    assert set(DATASETS) == set(data.DATASETS)
