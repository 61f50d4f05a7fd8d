from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from awpbench import models
from tests.rules import fill, images
from tests.test_foreign import REFERENCES

DIALECT = ("sub_block1.", "mu", "sigma")  # what RobustBench's classes hold besides


def published(entry: dict[str, Any]) -> list[tuple[str, list[int]]]:
    return [(key, shape) for key, shape in entry["state_dict"] if not key.startswith(DIALECT)]


def fresh(name: str, entry: dict[str, Any], device: str, **options: Any) -> nn.Module:
    with torch.device(device):
        return models.build(name, classes=len(entry["logits_eval"][0]), shape=(3, 32, 32), **options)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_fresh_model_has_the_published_keys_shapes_and_size(golden: dict[str, Any], name: str) -> None:
    entry = golden["architectures"][name]
    model = fresh(REFERENCES[name][0], entry, "meta")
    assert [(key, list(tensor.shape)) for key, tensor in model.state_dict().items()] == published(entry)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    unused = sum(
        math.prod(s) for k, s in entry["state_dict"] if k.startswith("sub_block1.") and not k.endswith(statistics)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == entry["parameters"] - unused


@pytest.mark.parametrize("name", [name for name, (*_, slow) in REFERENCES.items() if not slow])
def test_a_filled_model_gives_the_published_logits(golden: dict[str, Any], name: str, device: str) -> None:
    entry = golden["architectures"][name]
    keys = {key: torch.empty(shape, device="meta") for key, shape in entry["state_dict"]}
    state = fill({k: v.long() if k.endswith("num_batches_tracked") else v for k, v in keys.items()})
    model = fresh(REFERENCES[name][0], entry, "cpu").double().eval()
    x = images(2)
    if "mu" in state:
        x = (x - state.pop("mu")) / state.pop("sigma")
    model.load_state_dict(state)
    logits = torch.tensor(entry["logits_eval"], dtype=torch.float64, device=device)
    with torch.no_grad():
        assert (model.to(device)(x.to(device)) - logits).abs().max() <= 1e-9 * logits.abs().max()


@pytest.mark.parametrize(("name", "own"), [("prn18", 64), ("wrn-10-3", 48), ("resnet18", 64), ("small-cnn", 32)])
def test_the_width_is_that_of_the_first_stage_and_scales_all(name: str, own: int) -> None:
    with torch.device("meta"):
        widths = {
            width: models.build(name, classes=10, shape=(3, 32, 32), width=width).state_dict()
            for width in (None, own, 5, 10)
        }
    shapes = {width: {key: tuple(t.shape) for key, t in state.items()} for width, state in widths.items()}
    assert shapes[None] == shapes[own]
    first = {"wrn-10-3": "block1.layer.0.conv1.weight", "small-cnn": "conv1.weight"}
    assert shapes[5][first.get(name, "layer1.0.conv1.weight")][0] == 5
    last = {"prn18": "linear.weight", "resnet18": "linear.weight", "wrn-10-3": "fc.weight", "small-cnn": "fc.weight"}
    assert shapes[10][last[name]][1] == 2 * shapes[5][last[name]][1]


@pytest.mark.parametrize("name", ["prn18", "wrn-10-1", "resnet18", "small-cnn", "small-cnn-nobn"])
def test_the_normalisation_is_the_first_layer_and_leaves_the_keys_alone(name: str) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    plain = models.build(name, classes=10, shape=(3, 32, 32), width=4).eval()
    normalising = models.build(name, classes=10, shape=(3, 32, 32), width=4, mean=mean, std=std).eval()
    assert list(normalising.state_dict()) == list(plain.state_dict())
    assert next(iter(dict(normalising.named_children()))) == "normalize"
    normalising.load_state_dict(plain.state_dict())
    x = images(2).float()
    by_hand = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert normalising(x).equal(plain(by_hand))
    assert not normalising(x).equal(plain(x))


def test_fresh_wide_networks_start_as_the_public_code_does() -> None:
    torch.manual_seed(0)
    model = models.build("wrn-10-4", classes=10, shape=(3, 32, 32))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.15), name
        elif isinstance(module, nn.Linear):
            assert module.bias.eq(0).all()
