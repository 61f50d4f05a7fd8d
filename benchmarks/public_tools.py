"""The public tools' attacks, called as their documentation calls them. They import in the environment of
`make public-tools` only.
"""

from __future__ import annotations

import importlib.metadata
import sys

import torch
from torch import Tensor, nn

from awpbench.threat import ThreatModel

try:
    import foolbox
    import pyautoattack
    import torchattacks
except ImportError as error:
    sys.exit(f"error: {error}\nRun `make public-tools`, and this script with .venv-public/bin/python.")


def versions() -> dict[str, str]:
    """Return the versions of the tools."""
    return {name: importlib.metadata.version(name) for name in ("torchattacks", "foolbox", "pyautoattack")}


def torchattacks_fgsm(net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """It knows FGSM in L-inf only."""
    found: Tensor = torchattacks.FGSM(net, eps=threat.eps)(x, y)
    return found


def foolbox_fgsm(net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """Return its FGSM, in L2 its fast gradient method."""
    attacks = foolbox.attacks
    attack = attacks.LinfFastGradientAttack() if threat.norm == "Linf" else attacks.L2FastGradientAttack()
    _, found, _ = attack(_foolbox_model(net, x), x, y, epsilons=threat.eps)
    return found


def torchattacks_pgd(
    net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, steps: int, step_size: float, seed: int
) -> Tensor:
    """Return the last iterate from its own random start, which the seed decides: with 0 steps, the start itself."""
    attack = torchattacks.PGD if threat.norm == "Linf" else torchattacks.PGDL2
    torch.manual_seed(seed)
    found: Tensor = attack(net, eps=threat.eps, alpha=step_size, steps=steps)(x, y)
    return found


def foolbox_pgd(
    net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, steps: int, step_size: float, start: Tensor
) -> Tensor:
    """Return the last iterate from a given start."""
    attacks = foolbox.attacks
    linf = threat.norm == "Linf"
    kind = attacks.LinfProjectedGradientDescentAttack if linf else attacks.L2ProjectedGradientDescentAttack
    attack = kind(abs_stepsize=step_size, steps=steps, random_start=True)
    attack.get_random_start = lambda x0, epsilon: type(x0)(start)
    _, found, _ = attack(_foolbox_model(net, x), x, y, epsilons=threat.eps)
    return found


def torchattacks_spsa(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    samples: int,
    delta: float,
    lr: float,
    seed: int,
) -> Tensor:
    """Return its last iterate. It knows L-inf only, never stops early, and draws the same directions for all images."""
    attack = torchattacks.SPSA(net, eps=threat.eps, delta=delta, lr=lr, nb_iter=steps, nb_sample=samples)
    torch.manual_seed(seed)
    found: Tensor = attack(x, y)
    return found


def plain_autoattack(net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Return what the standard version of the package leaves, all images one batch: clean ones where it failed."""
    attack = pyautoattack.AutoAttack(net, norm=threat.norm, eps=threat.eps, seed=seed, device=x.device)
    found: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return found


def _foolbox_model(net: nn.Module, x: Tensor) -> foolbox.PyTorchModel:
    return foolbox.PyTorchModel(net, bounds=(0, 1), device=x.device)
