"""Loads the AWP authors' public code from a checkout, as it is, and drives one training step of it.

Nothing of that code is copied: the modules are imported from the checkout, and what stands in their way is put aside
while they load (arguments parsed and data downloaded at import, progress bars) or run (moves to CUDA on a machine
without it, one function that today's torch refuses).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import datasets

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10
THEIR_WIDTH = 64  # channels of the first stage of their PreActResNet-18
AWP_EPOCH = 200  # an epoch after the warm-up


class AuthorsAT:
    """Their AT-AWP: `attack_pgd` and `AdvWeightPerturb`, called in the order of the loop in AT_AWP/train_cifar10.py."""

    gamma = 0.01

    def __init__(self, checkout: Path, width: int, device: torch.device) -> None:
        self.code = load(checkout / "AT_AWP", "train_cifar10")
        self.model, self.optimizer, self.proxy = _nets(checkout, width, device)
        proxy_optimizer = torch.optim.SGD(self.proxy.parameters(), lr=0.01)
        self.adversary = self.code.AdvWeightPerturb(self.model, self.proxy, proxy_optimizer, self.gamma)

    def step(self, x: Tensor, y: Tensor, noise: Tensor) -> None:
        with given_noise(noise), cuda_is_optional():
            delta = self.code.attack_pgd(self.model, x, y, EPS, STEP_SIZE, STEPS, 1, "l_inf").detach()
        x_adv = self.code.normalize(torch.clamp(x + delta, 0, 1))
        self.model.train()
        perturbation = self.adversary.calc_awp(inputs_adv=x_adv, targets=y)
        self.adversary.perturb(perturbation)
        logits = self.model(x_adv)
        loss = F.cross_entropy(logits, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.adversary.restore(perturbation)
        clean_logits = self.model(self.code.normalize(x))  # for their log
        clean_loss = F.cross_entropy(clean_logits, y)
        for value in (loss, (logits.argmax(1) == y).sum(), clean_loss, (clean_logits.argmax(1) == y).sum()):
            value.item()


class AuthorsTrades:
    """Their TRADES-AWP: the function `train` of trades_AWP/train_trades_cifar.py itself, on one batch."""

    gamma = 0.005

    def __init__(self, checkout: Path, width: int, device: torch.device) -> None:
        with _trades_stands_alone():
            self.code = load(checkout / "trades_AWP", "train_trades_cifar")
        self.code.accuracy = (
            _accuracy  # theirs calls .view on a tensor that is not contiguous: an error since torch 1.5
        )
        self.model, self.optimizer, self.proxy = _nets(checkout, width, device)
        proxy_optimizer = torch.optim.SGD(self.proxy.parameters(), lr=0.1)
        self.adversary = self.code.TradesAWP(self.model, self.proxy, proxy_optimizer, self.gamma)

    def step(self, x: Tensor, y: Tensor, noise: Tensor) -> None:
        with given_noise(noise), contextlib.redirect_stdout(io.StringIO()):
            self.code.train(self.model, [(x, y)], self.optimizer, AWP_EPOCH, self.adversary)


def load(folder: Path, name: str) -> ModuleType:
    """Import one of their scripts; its siblings (`utils`, `models`, ...) do not keep their general names occupied."""
    if not (folder / f"{name}.py").is_file():
        sys.exit(f"error: {folder} holds no {name}.py\nGive --authors a checkout of github.com/csdongxian/AWP.")
    with mock.patch.object(sys, "path", [str(folder), *sys.path]), cuda_is_optional():
        found = importlib.import_module(name)
    for known, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[known]
    return found


@contextlib.contextmanager
def cuda_is_optional() -> Iterator[None]:
    """Let their moves to CUDA do nothing where there is none."""
    if torch.cuda.is_available():
        yield
        return
    with mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor):
        yield


@contextlib.contextmanager
def given_noise(noise: Tensor) -> Iterator[None]:
    """Start their attacks from `noise` instead of torch's global generator: U[-1, 1) for AT, N(0, 1) for TRADES."""

    def uniform(tensor: Tensor, low: float, high: float) -> Tensor:
        return tensor.copy_(noise * ((high - low) / 2) + (high + low) / 2)

    with mock.patch.object(torch.Tensor, "uniform_", uniform), mock.patch.object(torch, "randn", return_value=noise):
        yield


def _nets(checkout: Path, width: int, device: torch.device) -> tuple[nn.Module, torch.optim.SGD, nn.Module]:
    code = load(checkout / "AT_AWP", "preactresnet")
    model, proxy = (_narrowed(code, width).to(device) for _ in range(2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4), proxy


def _narrowed(code: ModuleType, width: int) -> nn.Module:
    """Build their PreActResNet-18 with every stage scaled: the layers they ask for are made with fewer channels."""

    def scaled(channels: int) -> int:
        return (
            channels * width // THEIR_WIDTH if channels >= THEIR_WIDTH else channels
        )  # not the 3 colours, nor the 10 classes

    layers: dict[str, Any] = {
        "Sequential": nn.Sequential,
        "Conv2d": lambda inputs, outputs, **more: nn.Conv2d(scaled(inputs), scaled(outputs), **more),
        "BatchNorm2d": lambda channels: nn.BatchNorm2d(scaled(channels)),
        "Linear": lambda inputs, outputs: nn.Linear(scaled(inputs), outputs),
    }
    with mock.patch.object(code, "nn", SimpleNamespace(**layers)):
        model: nn.Module = code.PreActResNet18()
    return model


def _accuracy(logits: Tensor, y: Tensor, topk: tuple[int, ...]) -> list[Tensor]:
    hits = logits.topk(max(topk), dim=1).indices == y.unsqueeze(1)
    return [hits[:, :k].any(1).float().mean() * 100 for k in topk]


@contextlib.contextmanager
def _trades_stands_alone() -> Iterator[None]:
    """Keep their script from reading our arguments, downloading data, and needing packages for bars and plots."""
    stubs = {name: mock.MagicMock() for name in ("progress", "progress.bar", "matplotlib", "matplotlib.pyplot")}
    hidden = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    argv = ["train_trades_cifar.py", "--model-dir", tempfile.mkdtemp()]
    try:
        with mock.patch.object(datasets, "CIFAR10", return_value=[0]), mock.patch.object(sys, "argv", argv):
            yield
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        Path(argv[-1]).rmdir()
