from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as tvd

from awpbench import data
from awpbench.data import cifar100
from awpbench.errors import InputError
from tests.data.publisher import little_cifar100, md5, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = little_cifar100(monkeypatch)
    write(tmp_path / "cifar-100-python", files)
    return tmp_path


def refusal(root: Path) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        data.load_test("cifar100", data_dir=root)
    return caught.value.what, caught.value.mend


def test_what_is_expected_of_the_original_is_what_is_published() -> None:
    files = cifar100.files()
    assert files.needed == {"train": ("train", "meta"), "test": ("test", "meta")}
    assert (files.folder, files.downloads[0].md5) == ("cifar-100-python", "eb9058c3a382ffc7106e4002c42a8d85")
    assert cifar100.SOURCE.counts == {"train": 50_000, "test": 10_000}


def test_small_files_in_the_official_format_are_read(folder: Path) -> None:
    found = data.load("cifar100", data_dir=folder, validation=5)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [20, 5, 4]
    assert (found.classes, found.shape) == (100, (3, 32, 32))


def test_labels_are_the_fine_ones_and_images_channels_first(folder: Path) -> None:
    batch = pickle.loads((folder / "cifar-100-python" / "test").read_bytes())
    found = data.load_test("cifar100", data_dir=folder, offline=True)
    assert found.labels.tolist() == [0, 37, 74, 11]
    assert torch.equal(found.images[1, 2], torch.from_numpy(batch["data"][1, 2048:]).view(32, 32))


def test_the_test_images_need_no_training_file(folder: Path) -> None:
    (folder / "cifar-100-python" / "train").unlink()
    assert len(data.load_test("cifar100", data_dir=folder, offline=True)) == 4


def test_a_damaged_file_is_refused_before_it_is_unpickled(folder: Path) -> None:
    path = folder / "cifar-100-python" / "test"
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)
    assert refusal(folder) == (
        f"cifar100: found test files whose MD5 is not the published one (in {folder})",
        f"Run 'awpbench data fetch cifar100 --data-dir {folder}' to replace the files.",
    )


@pytest.mark.parametrize(
    ("n", "labels", "fault"),
    [(3, [0, 1, 2], "3 test images, not 4"), (4, [0, 1, 2, 100], "test labels from 0 to 100, not 0 to 99")],
)
def test_other_counts_or_labels_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, n: int, labels: list[int], fault: str
) -> None:
    content = pickle.dumps({"data": np.zeros((n, 3072), dtype=np.uint8), "fine_labels": labels}, protocol=2)
    write(folder / "cifar-100-python", {"test": content})
    monkeypatch.setattr(tvd.CIFAR100, "test_list", [("test", md5(content))])
    assert refusal(folder)[0] == f"cifar100: found {fault} (in {folder})"
