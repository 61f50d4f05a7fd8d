"""What the attacks are run on: a net with its threat and the first test images, and our side of a comparison."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from awpbench import checkpoints, data, models
from awpbench.attack_model import AttackModel
from awpbench.attacks import AUTOATTACK_PARTS
from awpbench.attacks.autoattack import autoattack_part
from awpbench.config import Ratio
from awpbench.defaults import DATASETS
from awpbench.threat import ThreatModel

STEPS = {"Linf": 1 / 4, "L2": 15 / 128}  # PGD's, as a share of eps: the AWP authors'
PEERS = {
    "resnet2b": ("cifar10", "Linf", "2/255"),
    "mnist_01": ("mnist", "Linf", "0.1"),
    "cifar_l2": ("cifar10", "L2", "36/255"),
}


@dataclass(frozen=True)
class Subject:
    """A net in fp32 and eval mode, the threat it stands for, and test images in file order."""

    name: str
    net: nn.Module
    dataset: str
    threat: ThreatModel
    eps: str
    x: Tensor
    y: Tensor
    indices: list[int]

    @property
    def step_size(self) -> float:
        """The step of PGD."""
        return self.threat.eps * STEPS[self.threat.norm]

    def first(self, n: int) -> Subject:
        """Return the same with the first n images."""
        return next(self.blocks(n))

    def blocks(self, n: int) -> Iterator[Subject]:
        """Cut the images into blocks of n."""
        for i in range(0, len(self.x), n):
            cut = slice(i, i + n)
            yield replace(self, x=self.x[cut], y=self.y[cut], indices=self.indices[cut])

    @torch.no_grad()
    def classified(self, n: int) -> Subject:
        """Return the first n images that the net gets right."""
        right = torch.cat([self.net(x).argmax(1) for x in self.x.split(128)]) == self.y
        kept = right.nonzero().flatten()[:n]
        return replace(self, x=self.x[kept], y=self.y[kept], indices=[self.indices[i] for i in kept.tolist()])


def of_checkpoint(path: Path, images: int, data_dir: Path | None, device: torch.device) -> Subject:
    """Take a checkpoint of ours, which brings its data set and threat."""
    loaded = checkpoints.load(path)
    name = f"{path.resolve().parent.name}/{path.stem}"
    return _subject(
        name, loaded.build(), loaded.dataset, loaded.threat_norm, loaded.threat_eps, images, data_dir, device
    )


def of_peer(factories: Path, name: str, images: int, data_dir: Path | None, device: torch.device) -> Subject:
    """Take one of the published nets that the shared factories build."""
    spec = importlib.util.spec_from_file_location("factories", factories)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return _subject(name, getattr(module, name)(), *PEERS[name], images, data_dir, device)


def untrained(width: int, images: int, data_dir: Path | None, device: torch.device, seed: int) -> Subject:
    """Take a fresh PreActResNet-18 and, for labels, its own predictions."""
    torch.manual_seed(seed)
    facts = DATASETS["cifar10"]
    net = models.build("prn18", classes=10, shape=facts.shape, width=width, mean=facts.mean, std=facts.std)
    found = _subject(f"untrained prn18, width {width}", net, "cifar10", "Linf", "8/255", images, data_dir, device)
    with torch.no_grad():
        found.y.copy_(found.net(found.x).argmax(1))
    return found


def _subject(
    name: str,
    net: nn.Module,
    dataset: str,
    norm: str,
    eps: str,
    images: int,
    data_dir: Path | None,
    device: torch.device,
) -> Subject:
    indices = list(range(images))
    x, y = data.load_test(dataset, data_dir=data_dir, offline=True).batch(torch.tensor(indices), device)
    return Subject(name, net.to(device).eval(), dataset, ThreatModel(norm, Ratio.parse(eps).value), eps, x, y, indices)


def autoattack_with_verification(attacked: AttackModel, subject: Subject, seed: int) -> Tensor:
    """Run AutoAttack's parts as `awpbench eval` does, all images one block.

    Each attacks what the net in fp32 still gets right, and what only the fast copy holds for fooled is attacked again
    through the net itself.
    """
    x_adv, standing = subject.x.clone(), torch.arange(len(subject.x), device=subject.x.device)
    exact = copy.deepcopy(subject.net).requires_grad_(False)

    def attack(part: str, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        return autoattack_part(part, model, x, y, threat=subject.threat, classes=10, seed=seed)[0]

    for part in AUTOATTACK_PARTS:
        x, y = subject.x[standing], subject.y[standing]
        found = attack(part, attacked, x, y)
        with torch.no_grad():
            disputed = (attacked(found).argmax(1) != y) & (attacked.verify(found).argmax(1) == y)
        if bool(disputed.any()):
            found[disputed] = attack(part, exact, x[disputed], y[disputed])
        x_adv[standing] = found
        standing = standing[attacked.verify(found).argmax(1) == y]
    return x_adv
