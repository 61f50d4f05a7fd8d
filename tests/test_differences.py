from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awpbench import differences, models
from awpbench.attack_model import AttackModel
from awpbench.attacks.spsa import estimate_gradient, spsa
from awpbench.randomness import ImageDraws
from awpbench.threat import ThreatModel
from tests.rules import fill, images

ARCHITECTURES = ("prn18", "wrn-10-1", "small-cnn")
Make = Callable[[], nn.Module]


def trained(name: str = "prn18") -> nn.Module:
    """A net whose batch norms are far from the identity."""
    net = models.build(name, classes=10, shape=(3, 32, 32), width=8, mean=(0.49, 0.48, 0.44), std=(0.2, 0.25, 0.3))
    net.load_state_dict(fill(net.state_dict()))
    return net.float().eval()


def one_image() -> Tensor:
    return images(1).float()


def small_differences(n: int, size: float = 0.001) -> Tensor:
    return size * ImageDraws(0, "differences", [0]).signs(one_image(), n)[0]


def off_by(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", [0.001, 0.1])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_differences_of_the_logits_keep_the_precision_of_bfloat16(name: str, size: float) -> None:
    net, x, d = trained(name), one_image(), small_differences(16, size)
    attacked = AttackModel(net, "bf16-attack")
    exact = net.double()
    with torch.no_grad():
        expected = exact((x + d).double()) - exact(x.double())
        lowered = attacked(x + d) - attacked(x)
    near = attacked.near(x)
    assert off_by(near(d) - near(0 * d), expected) < 0.02
    if size == 0.001:
        assert off_by(lowered, expected) > 0.1  # what a net in bfloat16 makes of them


def test_without_a_difference_the_logits_are_those_of_the_net() -> None:
    net, x = trained(), one_image()
    near = AttackModel(net, "bf16-attack").near(x)
    with torch.no_grad():
        assert torch.allclose(near(torch.zeros_like(x)), net(x), rtol=0, atol=1e-5)


def test_in_bf16_spsa_estimates_the_gradient_that_it_estimates_in_fp32() -> None:
    net, x, y = trained(), one_image(), torch.tensor([3])
    lowered, full = AttackModel(net, "bf16-attack"), AttackModel(net)
    directions = small_differences(64, 1.0)
    with torch.no_grad():
        expected, naive = (estimate_gradient(model, x, y, directions, delta=0.001) for model in (full, lowered))
        found = estimate_gradient(lowered, x, y, directions, delta=0.001, near=lowered.near)
    cosine = [float(F.cosine_similarity(each.flatten(), expected.flatten(), 0)) for each in (found, naive)]
    assert cosine[0] > 0.999
    assert cosine[1] < 0.95


def test_in_fp32_spsa_gives_the_same_bits_with_and_without_near() -> None:
    attacked, x = AttackModel(trained()), one_image()
    y = attacked.verify(x).argmax(1)
    plain, near = (
        spsa(
            attacked,
            x,
            y,
            threat=ThreatModel("Linf", 8 / 255),
            generator=ImageDraws(0, "spsa", [0]),
            steps=3,
            samples=8,
            near=how,
        )
        for how in (None, attacked.near)
    )
    assert torch.equal(plain, near)
    assert not torch.equal(plain, x)


def test_the_rectified_difference_is_exact_on_both_sides_of_the_kink() -> None:
    a = torch.tensor([2.0, 2.0, -2.0, -2.0, 0.0, 0.0, -(2.0**-9)])
    d = torch.tensor([0.5, -3.0, 3.0, -0.5, 1.0, -1.0, 2.0**-8])
    exact = torch.tensor([0.5, -2.0, 1.0, 0.0, 1.0, 0.0, 2.0**-9])
    low, high = differences._low(a), differences._high(a)
    assert torch.equal(differences._relu(d, low.float(), high.float()), exact)
    scaled = differences._scaled_relu(d / 2, torch.tensor(2.0), low.float(), high.float())
    assert torch.equal(scaled, exact)


def smooth() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))


class Reused(nn.Module):
    """A ReLU that works in place on what is needed again: what fx writes down is not what happens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        activated = F.relu(out, inplace=True)
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(activated + out, 1).flatten(1))
        return logits


@pytest.mark.parametrize("make", [smooth, Reused])
def test_a_net_that_cannot_be_taken_apart_is_asked_itself_in_fp32(make: Make) -> None:
    net, x, d = make().eval(), one_image(), small_differences(4)
    with torch.no_grad():
        expected = net(x + d)
    assert torch.equal(AttackModel(net, "bf16-attack").near(x)(d), expected)


class Everything(nn.Module):
    """Biases, a batch norm first, ReLUs as layers, functions and methods, sums and a difference of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.AvgPool2d(4)
        self.fc1, self.fc2 = nn.Linear(8 * 8 * 8, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.bn1((x - 0.5) / 0.25 * 1.5))
        out = self.conv2(self.bn2(x).relu())
        out = self.pool(self.relu(out + x - torch.relu(x) + 0.1))
        out = self.fc1(out.reshape(out.size(0), -1)).add(0.2)
        logits: Tensor = self.fc2(F.relu(out))
        return logits


def test_layers_in_every_order_are_followed() -> None:
    net, x, d = Everything(), one_image(), small_differences(16)
    net.load_state_dict(fill(net.state_dict()))
    attacked = AttackModel(net.float().eval(), "bf16-attack")
    near = attacked.near(x)
    assert attacked._differences is not None
    exact = net.double()
    with torch.no_grad():
        expected = exact((x + d).double()) - exact(x.double())
    assert off_by(near(d) - near(0 * d), expected) < 0.02


def test_it_follows_the_weights_on_refresh_and_leaves_the_net_as_it_is() -> None:
    net, x, d = trained(), one_image(), small_differences(4)
    attacked = AttackModel(net, "bf16-attack")
    attacked.near(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    attacked.refresh()
    with torch.no_grad():
        assert torch.allclose(attacked.near(x)(0 * d), net(x), rtol=0, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_it_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        net = models.build("small-cnn", classes=10, shape=(3, 32, 32), width=8).eval()
        x, d = torch.empty(1, 3, 32, 32), torch.empty(5, 3, 32, 32)
    assert AttackModel(net, "bf16-attack").near(x)(d).shape == (5, 10)
