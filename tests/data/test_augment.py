from __future__ import annotations

import pytest
import torch
import torchvision.transforms.functional as tvf
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from awpbench.data.augment import Padding, augment, crop_flip, crop_flip_at, rotate, rotate_by
from awpbench.errors import UsageError

NINE = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)

HAND_WORKED = [
    ("zero", (0, 0), False, [[0, 0, 0], [0, 1, 2], [0, 4, 5]]),
    ("zero", (0, 0), True, [[0, 0, 0], [2, 1, 0], [5, 4, 0]]),
    ("zero", (2, 1), False, [[4, 5, 6], [7, 8, 9], [0, 0, 0]]),
    ("zero", (1, 2), True, [[0, 3, 2], [0, 6, 5], [0, 9, 8]]),
    ("reflect", (0, 0), False, [[5, 4, 5], [2, 1, 2], [5, 4, 5]]),
    ("reflect", (2, 2), False, [[5, 6, 5], [8, 9, 8], [5, 6, 5]]),
    ("reflect", (1, 2), True, [[2, 3, 2], [5, 6, 5], [8, 9, 8]]),
    ("reflect", (1, 1), True, [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
]


def at(images: Tensor, corners: list[tuple[int, int]], flips: list[bool], padding: Padding, pad: int) -> Tensor:
    rows, columns = torch.tensor(corners).T
    return crop_flip_at(images, rows, columns, torch.tensor(flips), padding=padding, pad=pad)


def by_torchvision(image: Tensor, corner: tuple[int, int], flip: bool, padding: Padding, pad: int) -> Tensor:
    padded = tvf.pad(image, [pad], padding_mode="reflect" if padding == "reflect" else "constant")
    cropped = tvf.crop(padded, *corner, *image.shape[1:])
    return tvf.hflip(cropped) if flip else cropped


@pytest.mark.parametrize(("padding", "corner", "flip", "expected"), HAND_WORKED)
def test_a_shift_and_flip_worked_out_by_hand(
    padding: Padding, corner: tuple[int, int], flip: bool, expected: list[list[int]]
) -> None:
    assert at(NINE, [corner], [flip], padding, 1)[0, 0].tolist() == expected


@given(st.data())
def test_every_shift_and_flip_is_that_of_torchvision(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(2, 7)), data.draw(st.integers(2, 7))
    n, channels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    pad = data.draw(st.integers(0, min(height, width) - 1))
    padding = data.draw(st.sampled_from(["zero", "reflect"]))
    place = st.integers(0, 2 * pad)
    corners = data.draw(st.lists(st.tuples(place, place), min_size=n, max_size=n))
    flips = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    dtype = data.draw(st.sampled_from([torch.uint8, torch.float32, torch.float64]))
    images = torch.arange(n * channels * height * width).view(n, channels, height, width).to(dtype)
    ours = at(images, corners, flips, padding, pad)
    theirs = [by_torchvision(*each, padding, pad) for each in zip(images, corners, flips, strict=True)]
    assert ours.dtype == dtype
    assert torch.equal(ours, torch.stack(theirs))


@given(st.integers(3, 9), st.sampled_from(["zero", "reflect"]))
def test_the_middle_corner_unflipped_is_the_image_itself(size: int, padding: Padding) -> None:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    assert torch.equal(at(images, [(2, 2)] * 2, [False] * 2, padding, 2), images)


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_random_augmentation_is_one_draw_of_place_and_flip_for_each_image(padding: Padding) -> None:
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    padded = tvf.pad(images, [4], padding_mode="reflect" if padding == "reflect" else "constant")
    ours = crop_flip(images, padding=padding, generator=torch.Generator().manual_seed(2))
    for image, result in zip(padded, ours, strict=True):
        places = [image[:, row : row + 32, column : column + 32] for row in range(9) for column in range(9)]
        assert sum(torch.equal(result, place) + torch.equal(result, place.flip(2)) for place in places) == 1


def test_all_places_and_flips_are_drawn_equally_often() -> None:
    n = 16_200  # 100 of each of the 9 * 9 * 2
    marked = torch.zeros(n, 1, 17, 17, dtype=torch.uint8)
    marked[:, 0, 8, 8] = 1  # where these two pixels come to lie tells shift and flip
    marked[:, 0, 8, 9] = 2
    moved = crop_flip(marked, padding="zero", generator=torch.Generator().manual_seed(0)).flatten(1)
    first, second = (moved == 1).int().argmax(1), (moved == 2).int().argmax(1)
    flipped = second < first
    kinds = first * 2 + flipped.int()
    counts = kinds.bincount()
    counts = counts[counts > 0]
    assert len(counts) == 162
    assert ((counts - 100).double() ** 2 / 100).sum() < 220  # chi-squared with 161 degrees: 220 has p = 0.0014


def test_the_same_generator_state_gives_the_same_batch() -> None:
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    one, two = (crop_flip(images, padding="reflect", generator=torch.Generator().manual_seed(5)) for _ in range(2))
    other = crop_flip(images, padding="reflect", generator=torch.Generator().manual_seed(6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    crop_flip(NINE, padding="zero", pad=1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_augmentation_runs_on_the_meta_device(padding: Padding) -> None:
    images = torch.empty(5, 3, 32, 32, dtype=torch.uint8, device="meta")
    rows, columns = torch.zeros(2, 5, dtype=torch.int64, device="meta")
    flips = torch.zeros(5, dtype=torch.bool, device="meta")
    moved = crop_flip_at(images, rows, columns, flips, padding=padding)
    assert (moved.device.type, moved.shape, moved.dtype) == ("meta", images.shape, torch.uint8)


def test_reflection_beyond_the_image_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        crop_flip(NINE, padding="reflect", pad=3, generator=torch.Generator().manual_seed(0))
    assert caught.value.what == "images of 3x3 cannot be padded by 3 reflected pixels"
    assert caught.value.mend == "Pad by less than 3, or use padding 'zero'."


def test_a_quarter_turn_worked_out_by_hand() -> None:
    turned = rotate_by(NINE, torch.tensor([90.0]))
    assert turned[0, 0].tolist() == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]
    assert rotate_by(NINE, torch.tensor([45.0]))[0, 0].tolist() == [[2, 3, 6], [1, 5, 9], [4, 7, 8]]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 14), (1, 5)])
def test_every_rotation_is_that_of_torchvision(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 3, height, width, generator=generator)
    angles = (torch.rand(60, generator=generator) * 2 - 1) * 15
    angles[:3] = torch.tensor([0.0, 15.0, -15.0])
    ours = rotate_by(images, angles)
    for image, angle, turned in zip(images, angles.tolist(), ours, strict=True):
        assert torch.equal(turned, tvf.rotate(image, angle))


def test_every_image_has_its_own_angle_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr("awpbench.data.augment.rotate_by", lambda images, angles: seen.append(angles))
    rotate(torch.zeros(4000, 1, 2, 2), degrees=15.0, generator=torch.Generator().manual_seed(0))
    angles = seen[0]
    assert angles.abs().max() <= 15
    assert angles.min() < -14.9
    assert angles.max() > 14.9
    assert abs(float(angles.mean())) < 0.5
    assert len(angles.unique()) == 4000


def test_the_named_augmentations_are_none_crop_and_flip_and_the_same_with_a_rotation_after_it() -> None:
    images = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))

    def drawn() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    plain = augment(images, "crop-flip", padding="zero", generator=drawn())
    assert augment(images, "none", padding="zero", generator=drawn()) is images
    assert torch.equal(plain, crop_flip(images, padding="zero", generator=drawn()))
    generator = drawn()
    by_hand = rotate(crop_flip(images, padding="zero", generator=generator), degrees=15.0, generator=generator)
    turned = augment(images, "crop-flip-rotate", padding="zero", generator=drawn())
    assert torch.equal(turned, by_hand)
    assert not torch.equal(turned, plain)
