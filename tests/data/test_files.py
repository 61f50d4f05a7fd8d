"""Files of images: the public pickle, `.npz` in both namings, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from awpbench.data.files import load_unlabelled, read_images, write_npz
from awpbench.errors import InputError

PIXELS = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)  # (N, H, W, C)
LABELS = np.array([2, 0, 1])
SHAPE = (3, 4, 5)


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_the_public_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ti_500K_pseudo_labeled.pickle"
    path.write_bytes(pickle.dumps({"data": PIXELS, "extrapolated_targets": LABELS}))
    found = load_unlabelled(path, shape=SHAPE, classes=3)
    assert np.array_equal(found.images.numpy().transpose(0, 2, 3, 1), PIXELS)
    assert found.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("names", [("images", "labels"), ("x_train", "y_train")])
def test_an_npz_is_read_in_both_namings(names: tuple[str, str], tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", **{names[0]: PIXELS, names[1]: LABELS[:, None], "other": np.zeros(1)})
    found = load_unlabelled(path, shape=SHAPE, classes=3)
    assert np.array_equal(found.images.numpy().transpose(0, 2, 3, 1), PIXELS)
    assert found.labels.tolist() == [2, 0, 1]


def test_grey_images_need_no_channel(tmp_path: Path) -> None:
    images, labels = read_images(npz(tmp_path / "x.npz", images=PIXELS[..., 0]))
    assert (tuple(images.shape), labels) == ((3, 1, 4, 5), None)


def test_what_is_written_is_read_again_and_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    images, labels = torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.from_numpy(LABELS)
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, {"images": images, "labels": labels})
    found = read_images(tmp_path / "a.npz")
    assert torch.equal(found[0], images)
    assert found[1] is not None
    assert torch.equal(found[1], labels)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["images"], PIXELS)


@pytest.mark.parametrize(
    ("arrays", "what", "mend"),
    [
        (
            {"images": PIXELS},
            "holds images without labels",
            "Make them: awpbench data pseudolabel --ckpt CHECKPOINT --images {path} --out FILE.npz",
        ),
        (
            {"images": PIXELS[:, :3], "labels": LABELS},
            "holds images of shape (3, 3, 5), and the data set's are (3, 4, 5)",
            "Give images of the same size and channels.",
        ),
        (
            {"images": PIXELS, "labels": LABELS + 1},
            "holds labels from 1 to 3, and the data set has 3 classes",
            "Give labels from 0 to 2.",
        ),
        (
            {"images": PIXELS, "labels": LABELS - 1},
            "holds labels from -1 to 1, and the data set has 3 classes",
            "Give labels from 0 to 2.",
        ),
        (
            {"images": PIXELS, "labels": LABELS[:2]},
            "holds labels that are int64 of shape (2,) for 3 images",
            "Give one whole number for each image.",
        ),
        (
            {"images": PIXELS.astype(np.float32), "labels": LABELS},
            "holds images that are float32 of shape (3, 4, 5, 3)",
            "Give uint8 images (N, H, W, C), or (N, H, W) of grey levels, as `images` or `x_train`.",
        ),
        (
            {"pictures": PIXELS, "labels": LABELS},
            "holds no images, only: labels",
            "Give uint8 images (N, H, W, C), or (N, H, W) of grey levels, as `images` or `x_train`.",
        ),
        (
            {"images": np.array([object()]), "labels": LABELS},
            "is no .npz of plain arrays, or damaged",
            "Make or copy the file again.",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(arrays: dict[str, Any], what: str, mend: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError) as refused:
        load_unlabelled(path, shape=SHAPE, classes=3)
    assert (refused.value.what, refused.value.mend) == (f"{path} {what}", mend.format(path=path))


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_images(tmp_path / "x.npz")
    assert refused.value.what == f"there is no file {tmp_path / 'x.npz'}"
    whole = npz(tmp_path / "whole.npz", images=PIXELS).read_bytes()
    for damaged in (whole[:-30], b"garbage", whole.replace(PIXELS.tobytes()[:20], bytes(20))):
        (tmp_path / "x.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"is no \.npz of plain arrays, or damaged"):
            read_images(tmp_path / "x.npz")
