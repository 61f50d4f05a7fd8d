from __future__ import annotations

from pathlib import Path

import pytest
import scipy.io
import torch

from awpbench import data
from awpbench.data import svhn
from awpbench.errors import InputError
from tests.data.publisher import little_svhn, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = little_svhn(monkeypatch)
    write(tmp_path, files)
    return tmp_path


def test_what_is_expected_of_the_original_is_what_is_published() -> None:
    files = svhn.files()
    assert files.needed == {"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)}
    sums = [one.md5 for one in files.downloads]
    assert sums == ["e26dedcc434d2e4c54c9b2d4a06d8373", "eb5a983be6a315427106f1b164d9cef3"]
    assert svhn.SOURCE.counts == {"train": 73_257, "test": 26_032}


def test_small_files_in_the_official_format_are_read(folder: Path) -> None:
    found = data.load("svhn", data_dir=folder, validation=5)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [20, 5, 4]
    assert (found.classes, found.shape) == (10, (3, 32, 32))


def test_the_label_10_is_the_digit_0_and_images_are_channels_first(folder: Path) -> None:
    train = data.check("svhn", data_dir=folder)["train"]
    assert train.labels.tolist() == [*range(1, 10), 0] * 2 + [1, 2, 3, 4, 5]
    pixels = scipy.io.loadmat(folder / "train_32x32.mat")["X"]
    assert torch.equal(train.images[7, 2], torch.from_numpy(pixels[:, :, 2, 7]))
    assert train.images.is_contiguous()


def test_the_test_images_need_no_training_file(folder: Path) -> None:
    (folder / "train_32x32.mat").unlink()
    assert len(data.load_test("svhn", data_dir=folder, offline=True)) == 4


def test_a_damaged_file_is_refused(folder: Path) -> None:
    path = folder / "test_32x32.mat"
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        data.load_test("svhn", data_dir=folder)
    assert caught.value.what == f"svhn: found a test file whose MD5 is not the published one (in {folder})"
    assert caught.value.mend == f"Run 'awpbench data fetch svhn --data-dir {folder}' to replace the files."


def test_another_number_of_images_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(svhn.SOURCE.counts, "test", 5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="svhn: found 4 test images, not 5"):
        data.load_test("svhn", data_dir=folder)


def test_missing_files_are_named_with_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        data.load("svhn", data_dir=tmp_path, offline=True)
    assert caught.value.what == f"svhn: train_32x32.mat, test_32x32.mat missing in {tmp_path}"
    assert caught.value.mend == (
        "Put train_32x32.mat and test_32x32.mat (from http://ufldl.stanford.edu/housenumbers) into "
        f"{tmp_path}, or run 'awpbench data fetch svhn --data-dir {tmp_path}' with a network."
    )
