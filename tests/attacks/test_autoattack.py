from __future__ import annotations

import logging
import random
import sys
import types

import numpy as np
import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from awpbench.attacks import AUTOATTACK_PARTS
from awpbench.attacks.autoattack import autoattack, autoattack_part
from awpbench.threat import Norm, ThreatModel


def small_net(classes: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, classes)).eval()


def images(net: nn.Module, n: int = 12) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        x = torch.rand(n, 1, 6, 6)
    y = net(x).argmax(1)
    y[-1] = (y[-1] + 1) % 3  # one image is misclassified from the start
    return x, y


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.02), pytest.param("L2", 0.05, marks=pytest.mark.slow)])
def test_it_equals_the_official_package_with_the_same_seed(norm: Norm, eps: float) -> None:
    net = small_net(10)
    x, y = images(net)
    with torch.random.fork_rng():
        official = pyautoattack.AutoAttack(net, norm=norm, eps=eps, seed=7, device="cpu", version="standard")
        expected, _ = official.run_standard_evaluation(x, y, batch_size=len(x))
    found = autoattack(net, x, y, threat=ThreatModel(norm, eps), classes=10, seed=7)
    assert torch.equal(found, expected)
    fooled = net(found).argmax(1) != y
    assert 1 < int(fooled.sum()) < len(x), "the budget must leave some images standing"


def test_it_leaves_every_global_generator_untouched() -> None:
    net = small_net(10)
    x, y = images(net)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    autoattack_part("fab-t", net, x[:2], y[:2], threat=ThreatModel("Linf", 0.01), classes=10)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[2], strict=True))


def test_it_restores_the_generators_after_an_error_too() -> None:
    def breaks(x: Tensor) -> Tensor:
        torch.rand(3)
        raise RuntimeError("no model")

    state, tracer = torch.get_rng_state(), sys.gettrace()
    x = torch.rand(2, 1, 6, 6)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no model"):
        autoattack_part("apgd-ce", breaks, x, torch.tensor([0, 1]), threat=ThreatModel("Linf", 0.01), classes=10)
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.gettrace() is tracer


def test_it_leaves_a_tracer_of_coverage_in_place_all_the_time() -> None:
    seen: list[object] = []
    net = small_net(10)
    x, y = images(net)

    def tracer(frame: types.FrameType, event: str, argument: object) -> None:
        return None

    def watched(z: Tensor) -> Tensor:
        seen.append(sys.gettrace())
        out: Tensor = net(z)
        return out

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        autoattack_part("apgd-ce", watched, x[:2], y[:2], threat=ThreatModel("Linf", 0.01), classes=10)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is tracer
    assert set(seen) == {tracer}


def test_it_prints_nothing_and_hands_over_what_the_package_warns_of(capfd: pytest.CaptureFixture[str]) -> None:
    net = small_net(10)
    x, y = images(net)
    softmax = nn.Sequential(net, nn.Softmax(1))
    _, warnings = autoattack_part("apgd-ce", softmax, x[:3], y[:3], threat=ThreatModel("Linf", 0.01), classes=10)
    assert [warning[:68] for warning in warnings] == [
        "it seems that the output is a probability distribution, please be su"
    ]
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
    logger = logging.getLogger("auto-attack")
    assert logger.handlers == []
    assert logger.propagate


def test_it_takes_images_that_are_not_contiguous() -> None:
    net = small_net(10)
    x, y = images(net)
    last = x.to(memory_format=torch.channels_last).permute(0, 1, 3, 2)
    assert not last.is_contiguous()
    found, _ = autoattack_part("apgd-ce", net, last, y, threat=ThreatModel("L2", 0.05), classes=10)
    assert found.shape == x.shape


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
def test_with_few_classes_there_are_fewer_targets(classes: int) -> None:
    net = small_net(classes)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        x = torch.rand(6, 1, 6, 6)
    y = net(x).argmax(1)
    threat = ThreatModel("Linf", 0.02)
    for part in AUTOATTACK_PARTS[:-1]:  # the last one, square, knows no targets
        found, warnings = autoattack_part(part, net, x, y, threat=threat, classes=classes)
        assert threat.violation(found, x) is None
        assert [warning for warning in warnings if "target class" in warning] == []
        assert part != "apgd-t" or classes >= 4 or torch.equal(found, x)


def test_no_image_is_no_error() -> None:
    net = small_net(10)
    x, y = images(net)
    found = autoattack(net, x[:0], y[:0], threat=ThreatModel("Linf", 0.02), classes=10)
    assert found.shape == (0, 1, 6, 6)


@pytest.mark.parametrize("shape", [(3, 12, 8), (3, 8, 6), (1, 4, 4), (1, 12, 12), (1, 24, 20)], ids=str)
def test_square_in_l2_takes_images_of_any_shape(shape: tuple[int, int, int]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 10)).eval()
        x = torch.rand(3, *shape)
    y, threat = net(x).argmax(1), ThreatModel("L2", 1.0)
    x_adv, _ = autoattack_part("square", net, x, y, threat=threat, classes=10, seed=0)
    assert x_adv.shape == x.shape
    assert threat.violation(x_adv, x) is None
    assert bool((net(x_adv).argmax(1) != y).any())
