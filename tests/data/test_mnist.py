from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as tvd

from awpbench import data
from awpbench.data import mnist
from awpbench.errors import InputError
from tests.data.publisher import idx, little_mnist, write

IMAGES, LABELS = mnist.NAMES["test"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = little_mnist(monkeypatch)
    write(tmp_path / "MNIST" / "raw", files)
    return tmp_path


def test_the_original_is_read_split_and_recognised(cifar_root: Path) -> None:
    found = data.load("mnist", data_dir=cifar_root, offline=True)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [59_000, 1000, 10_000]
    assert (found.classes, found.shape) == (10, (1, 28, 28))
    assert found.validation.indices.tolist() == np.random.RandomState(0).permutation(60_000)[:1000].tolist()
    assert found.test.fingerprint() == mnist.SOURCE.fingerprints["test"]
    assert found.train.fingerprint().startswith("79f4b58ab0b6")
    assert found.validation.fingerprint().startswith("fb3020c3339a")


def test_pixels_and_labels_are_those_of_torchvision(cifar_root: Path) -> None:
    theirs = tvd.MNIST(str(cifar_root), train=False)
    ours = data.load_test("mnist", data_dir=cifar_root, offline=True)
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)
    assert ours.indices.tolist() == list(range(10_000))


def test_small_files_in_the_official_format_are_read(folder: Path) -> None:
    found = data.load("mnist", data_dir=folder, validation=5)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [20, 5, 4]


def pixels(*shape: int) -> bytes:
    return idx(np.zeros(shape, dtype=np.uint8))


FOUR = idx(np.array([0, 1, 2, 3]))
FAULTS = [
    (b"", FOUR, f"a {IMAGES} that does not begin as an idx file"),
    (b"\x1f\x8b\x08\x00" + bytes(100), FOUR, f"a {IMAGES} that does not begin as an idx file"),
    (pixels(4, 784), FOUR, f"a {IMAGES} that does not begin as an idx file"),
    (b"\x00\x00\x0d\x03" + pixels(4, 28, 28)[4:], FOUR, f"a {IMAGES} that does not begin as an idx file"),
    (pixels(4, 28, 28)[:-1], FOUR, f"a {IMAGES} of 3151 bytes, not 3152"),
    (pixels(4, 28, 28) + b"\x00", FOUR, f"a {IMAGES} of 3153 bytes, not 3152"),
    (pixels(4, 28, 28), pixels(4, 1), f"a {LABELS} that does not begin as an idx file"),
    (pixels(4, 28, 28), idx(np.zeros(3)), "4 test images and 3 labels"),
    (pixels(3, 28, 28), idx(np.zeros(3)), "3 test images, not 4"),
    (pixels(4, 27, 28), FOUR, "test images of shape (1, 27, 28), not (1, 28, 28)"),
    (pixels(4, 28, 28), idx(np.array([0, 1, 2, 10])), "test labels from 0 to 10, not 0 to 9"),
    (pixels(4, 28, 28), FOUR, "test images or labels that differ from the published ones"),
]


@pytest.mark.parametrize(("images", "labels", "fault"), FAULTS)
def test_a_damaged_or_foreign_file_is_refused(folder: Path, images: bytes, labels: bytes, fault: str) -> None:
    write(folder / "MNIST" / "raw", {IMAGES: images, LABELS: labels})
    with pytest.raises(InputError) as caught:
        data.load_test("mnist", data_dir=folder)
    assert caught.value.what == f"mnist: found {fault} (in {folder})"
    assert caught.value.mend == f"Run 'awpbench data fetch mnist --data-dir {folder}' to replace the files."
