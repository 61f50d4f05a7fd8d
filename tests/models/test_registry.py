from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from awpbench import models
from awpbench.errors import UsageError
from awpbench.models.layers import layout


@pytest.mark.parametrize(
    ("name", "canonical", "published"),
    [
        ("prn18", "prn18", "PreActResNet-18"),
        ("PreActResNet-18", "prn18", "PreActResNet-18"),
        ("wrn34", "wrn-34-10", "WideResNet-34-10"),
        ("WRN28", "wrn-28-10", "WideResNet-28-10"),
        ("wrn-34-20", "wrn-34-20", "WideResNet-34-20"),
        ("wrn-10-1", "wrn-10-1", "WideResNet-10-1"),
        ("ResNet-18", "resnet18", "ResNet-18"),
        ("VGG-19", "vgg19", "VGG-19"),
        ("small-cnn", "small-cnn", "SmallCNN"),
        ("small-cnn-nobn", "small-cnn-nobn", "SmallCNN without batch norm"),
    ],
)
def test_a_model_has_one_stored_and_one_published_name(name: str, canonical: str, published: str) -> None:
    assert models.canonical(name) == canonical
    assert models.published_name(name) == published
    assert models.published_name(name, 24) == f"{published} (width 24)"


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("prn-18", "there is no model called 'prn-18'", "Did you mean 'prn18'? Known: prn18, wrn-34-10"),
        ("wrn-D-W", "there is no model called 'wrn-d-w'", "Did you mean"),
        ("wrn-29-10", "wrn-29-10 is no wide residual network", "The depth is 6n + 4 (10, 16, 22, 28, 34, ...)"),
        ("wrn-4-10", "wrn-4-10 is no wide residual network", "The depth is 6n + 4 (10, 16, 22, 28, 34, ...)"),
        ("wrn-28-0", "wrn-28-0 is no wide residual network", "The depth is 6n + 4 (10, 16, 22, 28, 34, ...)"),
    ],
)
def test_an_unknown_model_is_answered_with_what_there_is(name: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        models.canonical(name)
    assert caught.value.what == what
    assert caught.value.mend.startswith(hint)


def test_a_model_of_no_width_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        models.build("prn18", classes=10, shape=(3, 32, 32), width=0)
    assert caught.value.what == "a model cannot be 0 channels wide"
    assert caught.value.mend == "Give a width of at least 1, such as 16."


def test_names_resolve_without_torch() -> None:
    code = "import sys; from awpbench import models; models.canonical('wrn34'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["prn18", "wrn-10-1", "wrn-16-2", "resnet18", "small-cnn", "small-cnn-nobn"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)])
@pytest.mark.parametrize("width", [1, 6])
def test_every_model_takes_every_image_and_width(name: str, shape: tuple[int, int, int], width: int) -> None:
    net = models.build(name, classes=7, shape=shape, width=width)
    assert net(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["prn18", "wrn-10-1", "resnet18", "small-cnn", "small-cnn-nobn"])
def test_every_model_runs_on_the_meta_device(name: str) -> None:
    net = models.build(name, classes=10, shape=(3, 32, 32), width=4, mean=[0.5] * 3, std=[0.2] * 3).to("meta")
    assert net(torch.zeros(2, 3, 32, 32, device="meta")).device.type == "meta"


@pytest.mark.parametrize("name", ["prn18", "wrn-10-1", "resnet18", "small-cnn", "small-cnn-nobn"])
def test_the_seed_of_the_caller_decides_the_fresh_weights(name: str) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(models.build(name, classes=10, shape=(3, 32, 32), width=4).state_dict()["conv1.weight"])
    assert states[0].equal(states[1])
    assert not states[0].equal(states[2])


@pytest.mark.parametrize("width", [4, 8])
def test_a_very_narrow_net_trains_without_crashing_the_process(width: int) -> None:
    net = models.build("prn18", classes=10, shape=(1, 8, 8), width=width)
    net = net.to(memory_format=layout(net))  # type: ignore[call-overload]
    x = torch.rand(16, 1, 8, 8).contiguous(memory_format=layout(net))
    for _ in range(3):
        net(x).sum().backward()
    assert layout(net) == (torch.contiguous_format if width < 8 else torch.channels_last)
