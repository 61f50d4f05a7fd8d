from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.datasets.mnist import read_image_file, read_label_file

from awpbench import data
from awpbench.data import fashion_mnist, mnist
from awpbench.data.sources import VARIABLE
from awpbench.errors import InputError
from tests.data.publisher import little_fashion_mnist, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = little_fashion_mnist(monkeypatch)
    write(tmp_path / "FashionMNIST" / "raw", files)
    return tmp_path


@pytest.fixture
def original(shared: Path, tmp_path: Path) -> Path:
    """The original test set, which is part of the shared material."""
    target = tmp_path / fashion_mnist.FOLDER
    target.mkdir(parents=True)
    for name in mnist.NAMES["test"]:
        with gzip.open(shared / "data" / "fashion_mnist" / f"{name}.gz") as packed, (target / name).open("wb") as file:
            shutil.copyfileobj(packed, file)
    return tmp_path


def test_the_original_test_set_is_recognised_and_read_as_by_torchvision(original: Path) -> None:
    found = data.load_test("fashion-mnist", data_dir=original, offline=True)
    assert found.fingerprint() == fashion_mnist.SOURCE.fingerprints["test"]
    assert found.labels.bincount().tolist() == [1000] * 10
    images, labels = (str(original / fashion_mnist.FOLDER / name) for name in mnist.NAMES["test"])
    assert torch.equal(found.images[:, 0], read_image_file(images))
    assert torch.equal(found.labels, read_label_file(labels))


def test_the_original_training_set_is_recognised() -> None:
    root = Path(os.environ.get(VARIABLE, ""))
    if not os.environ.get(VARIABLE) or not (root / fashion_mnist.FOLDER / mnist.NAMES["train"][0]).exists():
        pytest.skip(f"{VARIABLE} names no folder with Fashion-MNIST's training images")
    found = data.check("fashion-mnist", data_dir=root)["train"]
    assert found.labels.bincount().tolist() == [6000] * 10


def test_small_files_in_the_official_format_are_read(folder: Path) -> None:
    found = data.load("fashion-mnist", data_dir=folder, validation=5)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [20, 5, 4]
    assert (found.classes, found.shape) == (10, (1, 28, 28))


def test_mnist_is_not_taken_for_fashion_mnist(folder: Path) -> None:
    path = folder / fashion_mnist.FOLDER / mnist.NAMES["test"][0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        data.load_test("fashion-mnist", data_dir=folder)
    what = f"fashion-mnist: found test images or labels that differ from the published ones (in {folder})"
    assert caught.value.what == what
    assert caught.value.mend == f"Run 'awpbench data fetch fashion-mnist --data-dir {folder}' to replace the files."
