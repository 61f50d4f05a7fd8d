from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from awpbench.evaluation import evidence
from awpbench.evaluation.evidence import EXACT, GRID, NONE
from awpbench.evaluation.shards import Arrays
from awpbench.threat import ThreatModel

PIXELS = torch.tensor([10, 100, 200, 250], dtype=torch.uint8).view(4, 1, 1, 1)
LABELS = torch.zeros(4, dtype=torch.int64)


def above(threshold: float) -> object:
    """Make a net that answers 1 where the only pixel is above a threshold, else 0."""

    def net(x: Tensor) -> Tensor:
        bright = (x.flatten(1)[:, :1] > threshold).float()
        return torch.cat([1 - bright, bright], 1)

    return net


def encode(x_adv: Tensor, fooled: list[bool], eps: float, threshold: float) -> Arrays:
    threat = ThreatModel("Linf", eps)
    return evidence.encode(x_adv, PIXELS, LABELS, torch.tensor(fooled), threat=threat, verify=above(threshold))  # type: ignore[arg-type]


def test_an_image_is_kept_on_the_grid_where_it_stays_adversarial_there_and_exactly_elsewhere() -> None:
    """201.4/255 rounds to 201/255, which the second net no longer holds for bright."""
    x_adv = PIXELS.float() / 255 + 1.4 / 255
    found = encode(x_adv, [False, False, True, True], eps=2 / 255, threshold=200.5 / 255)
    assert found["kept"].tolist() == [NONE, NONE, GRID, GRID]
    assert found["delta"].flatten().tolist() == [1, 1]
    found = encode(x_adv, [False, False, True, True], eps=2 / 255, threshold=201.2 / 255)
    assert found["kept"].tolist() == [NONE, NONE, EXACT, GRID]
    assert found["exact"].flatten().tolist() == x_adv[2].flatten().tolist()


def test_a_budget_between_two_levels_is_not_exceeded_by_rounding() -> None:
    x_adv = (PIXELS.float() / 255 + 0.031).clamp(max=1)  # 7.9 levels: 8 would leave the ball
    found = encode(x_adv, [True] * 4, eps=0.031, threshold=0.0)
    assert found["delta"].flatten().tolist() == [7, 7, 7, 5]


@given(st.lists(st.sampled_from([NONE, GRID, EXACT]), min_size=4, max_size=4), st.integers(0, 3))
def test_what_is_decoded_is_what_was_encoded(kinds: list[int], seed: int) -> None:
    draws = np.random.RandomState(seed)
    kept = np.array(kinds, dtype=np.int8)
    delta = draws.randint(-3, 4, ((kept == GRID).sum(), 1, 1, 1)).astype(np.int8)
    exact = draws.rand((kept == EXACT).sum(), 1, 1, 1).astype(np.float32)
    images = evidence.decode({"kept": kept, "delta": delta, "exact": exact}, PIXELS)
    expected = PIXELS.float() / 255
    expected[kept == GRID] = (PIXELS[kept == GRID].float() + torch.from_numpy(delta).float()).clamp(0, 255) / 255
    expected[kept == EXACT] = torch.from_numpy(exact)
    assert torch.equal(images, expected)


@given(st.lists(st.sampled_from([NONE, GRID, EXACT]), min_size=6, max_size=6), st.sets(st.integers(0, 5)))
def test_two_encodings_of_different_images_merge_into_one(kinds: list[int], rows: set[int]) -> None:
    pixels = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    kept = np.array(kinds, dtype=np.int8)
    where = {form: np.flatnonzero(kept == form).reshape(-1, 1, 1, 1) for form in (GRID, EXACT)}
    whole = {"kept": kept, "delta": where[GRID].astype(np.int8), "exact": where[EXACT].astype(np.float32) / 6}
    second = np.array(sorted(rows), dtype=np.int64)
    mine = np.isin(np.arange(6), second)
    first = evidence.dropped(whole, mine)
    other = evidence.dropped(whole, ~mine)
    other["kept"] = other["kept"][second]
    merged = evidence.merged(first, other, second)
    for name in evidence.NAMES:
        assert merged[name].tolist() == whole[name].tolist()
    assert torch.equal(evidence.decode(merged, pixels), evidence.decode(whole, pixels))
