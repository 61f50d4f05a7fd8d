from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as tvd

from awpbench import data
from awpbench.data import cifar10
from awpbench.errors import InputError
from tests.data.publisher import little_cifar10, md5, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = little_cifar10(monkeypatch)
    write(tmp_path / "cifar-10-batches-py", files)
    return tmp_path


def refusal(root: Path) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        data.load_test("cifar10", data_dir=root)
    return caught.value.what, caught.value.mend


def test_the_original_is_read_split_and_recognised(cifar_root: Path) -> None:
    found = data.load("cifar10", data_dir=cifar_root, offline=True)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [49_000, 1000, 10_000]
    assert (found.classes, found.shape) == (10, (3, 32, 32))
    expected = np.random.RandomState(0).permutation(50_000)[:1000]
    assert found.validation.indices.tolist() == expected.tolist()
    assert found.test.fingerprint() == cifar10.SOURCE.fingerprints["test"]
    assert found.train.fingerprint().startswith("125441fdd3d4")
    assert found.validation.fingerprint().startswith("34447945818a")


def test_pixels_and_labels_are_those_of_torchvision(cifar_root: Path) -> None:
    theirs = tvd.CIFAR10(str(cifar_root), train=False)
    ours = data.load_test("cifar10", data_dir=cifar_root, offline=True)
    assert ours.images.permute(0, 2, 3, 1).numpy().tobytes() == theirs.data.tobytes()
    assert ours.images.is_contiguous()
    assert ours.labels.tolist() == theirs.targets
    assert ours.indices.tolist() == list(range(10_000))


def test_small_files_in_the_official_format_are_read(folder: Path) -> None:
    found = data.load("cifar10", data_dir=folder, validation=5)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [20, 5, 4]


def test_the_test_images_need_no_training_files(folder: Path) -> None:
    for k in range(1, 6):
        (folder / "cifar-10-batches-py" / f"data_batch_{k}").unlink()
    assert len(data.load_test("cifar10", data_dir=folder, offline=True)) == 4


def test_a_damaged_batch_is_refused(folder: Path) -> None:
    path = folder / "cifar-10-batches-py" / "test_batch"
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)
    assert refusal(folder) == (
        f"cifar10: found test files whose MD5 is not the published one (in {folder})",
        f"Run 'awpbench data fetch cifar10 --data-dir {folder}' to replace the files.",
    )


class Executed:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_foreign_pickle_is_not_executed(folder: Path, tmp_path: Path) -> None:
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Executed(tmp_path / "executed")))
    assert refusal(folder)[0] == f"cifar10: found test files whose MD5 is not the published one (in {folder})"
    assert not (tmp_path / "executed").exists()


def publish_test_batch(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    labels: list[int],
) -> None:
    content = pickle.dumps({"data": images, "labels": labels}, protocol=2)
    write(folder / "cifar-10-batches-py", {"test_batch": content})
    monkeypatch.setattr(tvd.CIFAR10, "test_list", [("test_batch", md5(content))])


@pytest.mark.parametrize(
    ("n", "labels", "fault"),
    [
        (3, [0, 1, 2], "3 test images, not 4"),
        (4, [0, 1, 2, 10], "test labels from 0 to 10, not 0 to 9"),
        (4, [-1, 1, 2, 9], "test labels from -1 to 9, not 0 to 9"),
        (4, [0, 1, 2, 3], "test images or labels that differ from the published ones"),
    ],
)
def test_other_images_or_labels_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, n: int, labels: list[int], fault: str
) -> None:
    publish_test_batch(folder, monkeypatch, np.zeros((n, 3072), dtype=np.uint8), labels)
    assert refusal(folder)[0] == f"cifar10: found {fault} (in {folder})"


def test_fewer_labels_than_images_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_test_batch(folder, monkeypatch, np.zeros((4, 3072), dtype=np.uint8), [0, 1])
    assert refusal(folder) == ("labels are int64 of shape (2,)", "Give one int64 for each of the 4 images.")


def test_images_are_channels_first(folder: Path) -> None:
    batch = pickle.loads((folder / "cifar-10-batches-py" / "test_batch").read_bytes())
    images = data.load_test("cifar10", data_dir=folder).images
    assert torch.equal(images[1, 2], torch.from_numpy(batch["data"][1, 2048:]).view(32, 32))
