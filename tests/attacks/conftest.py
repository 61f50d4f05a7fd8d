"""Nets and images for the tests of attacks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from awpbench import models
from tests import rules


@pytest.fixture(scope="session")
def reference_net(device: str) -> nn.Module:
    """The net of the reference vectors, in float64 and eval mode."""
    net = models.build("wrn-10-1", classes=10, shape=(3, 32, 32)).double()
    net.load_state_dict(rules.fill(net.state_dict()))
    return net.eval().requires_grad_(False).to(device)


@pytest.fixture(scope="session")
def reference_start(device: str) -> Tensor:
    """The start of every reference trajectory, in [-1, 1]."""
    return torch.from_numpy(rules.noise(8 * 3 * 32 * 32, 1000)).view(8, 3, 32, 32).tanh().to(device)


@pytest.fixture
def smooth_net() -> nn.Module:
    """A small net without kinks, so that differences approach its gradient; float64, eval mode, four classes."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)).double().eval()


@pytest.fixture
def few_images() -> tuple[Tensor, Tensor]:
    """Five images `(5, 3, 2, 2)` in float64 away from the walls of the box, and classes for them."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return torch.rand(5, 3, 2, 2, dtype=torch.float64) * 0.6 + 0.2, torch.arange(5) % 4
