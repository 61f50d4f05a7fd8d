from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from awpbench.data.images import ImageSet
from awpbench.errors import InputError, UsageError
from tests.data.publisher import image_set


def test_a_batch_is_float_in_zero_to_one_with_its_labels() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    x, y = ImageSet(images, torch.tensor([3, 4, 5]), torch.arange(3)).batch(torch.tensor([2, 1, 0]), "cpu")
    assert x.dtype == torch.float32
    assert x.flatten().tolist() == [1.0, pytest.approx(0.2), 0.0]
    assert y.tolist() == [5, 4, 3]


def test_every_grey_level_becomes_the_float_that_torchvision_makes_of_it() -> None:
    from torchvision.transforms.functional import to_tensor

    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    ours, _ = ImageSet(
        torch.from_numpy(levels).permute(2, 0, 1)[None], torch.zeros(1, dtype=torch.int64), torch.arange(1)
    ).batch(torch.arange(1), "cpu")
    assert torch.equal(ours[0], to_tensor(levels))


def test_a_batch_is_made_on_the_device_asked_for() -> None:
    x, y = image_set(3, (1, 2, 2), seed=0).to("meta").batch(torch.arange(2), "meta")
    assert (x.device.type, y.device.type, x.shape, x.dtype) == ("meta", "meta", (2, 1, 2, 2), torch.float32)


def test_the_first_images_keep_their_labels_and_indices() -> None:
    images = image_set(9, (1, 2, 2), seed=0)
    first = images.first(4)
    assert len(first) == 4
    assert torch.equal(first.images, images.images[:4])
    assert torch.equal(first.labels, images.labels[:4])
    assert first.indices.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [0, -1, 10])
def test_more_images_than_there_are_cannot_be_asked_for(n: int) -> None:
    with pytest.raises(UsageError) as caught:
        image_set(9, (1, 2, 2), seed=0).first(n)
    assert (caught.value.what, caught.value.mend) == (f"the first {n} of 9 images were asked for", "Ask for 1 to 9.")


def test_an_image_set_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        image_set(1, (1, 2, 2), seed=0).labels = torch.zeros(1)  # type: ignore[misc]


WRONG = [
    (
        {"images": torch.zeros(2, 1, 2, 2)},
        "images are float32 of shape (2, 1, 2, 2)",
        "Give them as uint8 of shape (N, C, H, W).",
    ),
    (
        {"images": torch.zeros(2, 2, 2, dtype=torch.uint8)},
        "images are uint8 of shape (2, 2, 2)",
        "Give them as uint8 of shape (N, C, H, W).",
    ),
    (
        {"labels": torch.zeros(3, dtype=torch.int64)},
        "labels are int64 of shape (3,)",
        "Give one int64 for each of the 2 images.",
    ),
    ({"labels": torch.zeros(2)}, "labels are float32 of shape (2,)", "Give one int64 for each of the 2 images."),
    (
        {"indices": torch.zeros(2, 1, dtype=torch.int64)},
        "indices are int64 of shape (2, 1)",
        "Give one int64 for each of the 2 images.",
    ),
]


@pytest.mark.parametrize(("wrong", "what", "mend"), WRONG)
def test_a_wrong_shape_or_dtype_is_refused(wrong: dict[str, torch.Tensor], what: str, mend: str) -> None:
    right = image_set(2, (1, 2, 2), seed=0)
    with pytest.raises(InputError) as caught:
        dataclasses.replace(right, **wrong)
    assert (caught.value.what, caught.value.mend) == (what, mend)


def test_the_fingerprint_is_the_documented_hash() -> None:
    images = ImageSet(torch.tensor([[[[7, 8]]]], dtype=torch.uint8), torch.tensor([258]), torch.tensor([99]))
    content = b"uint8 (1, 1, 1, 2)\n" + bytes((7, 8)) + b"int64 (1,)\n" + bytes((2, 1, 0, 0, 0, 0, 0, 0))
    assert images.fingerprint() == hashlib.sha256(content).hexdigest()


def test_the_fingerprint_does_not_depend_on_indices_or_memory_layout() -> None:
    images = image_set(3, (3, 4, 4), seed=0)
    other = ImageSet(images.images.contiguous(memory_format=torch.channels_last), images.labels, images.indices + 5)
    assert other.fingerprint() == images.fingerprint()


@given(st.integers(0, 3 * 3 * 4 * 4 - 1), st.integers(0, 7))
def test_one_changed_bit_of_one_pixel_changes_the_fingerprint(place: int, bit: int) -> None:
    images = image_set(3, (3, 4, 4), seed=0)
    changed = images.images.clone()
    changed.view(-1)[place] ^= 1 << bit
    assert dataclasses.replace(images, images=changed).fingerprint() != images.fingerprint()


@pytest.mark.parametrize("change", ["label", "order", "shape"])
def test_a_changed_label_order_or_shape_changes_the_fingerprint(change: str) -> None:
    images = image_set(4, (1, 4, 4), seed=0)
    labels = images.labels.clone()
    labels[0] += 1
    others = {
        "label": dataclasses.replace(images, labels=labels),
        "order": images.select(torch.tensor([1, 0, 2, 3])),
        "shape": dataclasses.replace(images, images=images.images.view(4, 1, 2, 8)),
    }
    assert others[change].fingerprint() != images.fingerprint()


def test_a_jpeg_copy_has_another_fingerprint() -> None:
    images = image_set(2, (3, 32, 32), seed=0)
    copies = []
    for image in images.images.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=100)
        copies.append(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1))
    assert dataclasses.replace(images, images=torch.stack(copies)).fingerprint() != images.fingerprint()
