"""Times a training step of the AWP authors' public code and ours in alternating pairs, or proves both equal in float64.

    python benchmarks/train_step.py --authors CHECKOUT --method at --width 16
    python benchmarks/train_step.py --authors CHECKOUT --method at --width 16 --check

CHECKOUT is a clone of github.com/csdongxian/AWP. Both sides get the same weights, batch and start of the attack.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

import pairs
from authors import AuthorsAT, AuthorsTrades
from awpbench import defenses
from awpbench.attack_model import AttackModel
from awpbench.data.images import DataSet, ImageSet
from awpbench.defaults import resolve_training
from awpbench.threat import ThreatModel
from awpbench.training.loop import fresh
from awpbench.training.step import training_step

AUTHORS = {"at": AuthorsAT, "trades": AuthorsTrades}
EQUAL = 1e-9  # largest relative difference of a tensor of weights that float64 rounding may leave
CHECKED_BATCH = 16


class GivenNoise:
    """Hands one drawn tensor to the attack, whatever it asks for."""

    def __init__(self, noise: Tensor) -> None:
        self._noise = noise

    def uniform(self, like: Tensor) -> Tensor:
        return self._noise

    def normal(self, like: Tensor) -> Tensor:
        return self._noise


class Ours:
    """awpbench's step as `awpbench train` takes it, with the defaults of the defense."""

    def __init__(self, method: str, width: int, images: ImageSet, device: torch.device) -> None:
        self.config, _ = resolve_training({"defense": method, "width": width, "awp": True, "batch_size": len(images)})
        state = fresh(self.config, DataSet("random", 10, (3, 32, 32), images, images, images), device)
        self.model, self.optimizer = state.model, state.optimizer
        self.defense = defenses.get(method)
        self.attack_model = AttackModel(self.model) if self.defense.attack_mode == "eval" else None

    def step(self, x: Tensor, y: Tensor, noise: Tensor) -> None:
        config = self.config
        outcome = training_step(
            self.model,
            self.optimizer,
            self.defense,
            x.contiguous(memory_format=torch.channels_last),
            y,
            threat=ThreatModel(config.norm, config.eps.value),
            steps=config.steps,
            step_size=config.step_size.value,
            gamma=config.awp_gamma,
            generator=GivenNoise(noise),
            hyper={} if config.beta is None else {"beta": config.beta},
            attack_model=self.attack_model,
        )
        for value in (outcome.loss, outcome.correct):
            value.item()


def main() -> int:
    args = arguments()
    device = pairs.device_of(args)
    if args.check:
        torch.set_default_dtype(torch.float64)
    batch_size = args.batch_size or (CHECKED_BATCH if args.check else 128)
    images = random_images(batch_size, args.seed)
    x, y = images.batch(torch.arange(batch_size), device)
    x = x.to(torch.get_default_dtype())
    draw = torch.Generator().manual_seed(args.seed)
    noise = torch.rand(x.shape, generator=draw) * 2 - 1 if args.method == "at" else torch.randn(x.shape, generator=draw)
    authors, ours = (
        AUTHORS[args.method](args.authors, args.width, device),
        Ours(args.method, args.width, images, device),
    )
    ours.model.load_state_dict(authors.model.state_dict())
    batch = (x, y, noise.to(device))
    found = {
        "method": f"{args.method}-awp",
        "model": "prn18",
        "width": args.width,
        "batch_size": batch_size,
        "dtype": str(x.dtype).removeprefix("torch."),
        **pairs.machine(device),
        "clock": args.clock,
    }
    found |= check(authors, ours, batch) if args.check else timed(authors, ours, batch, args.pairs, args.clock)
    print(json.dumps(found, indent=2) if args.json else table(found))
    return 1 if found.get("equal") is False else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True, metavar="CHECKOUT", help="a clone of csdongxian/AWP")
    parser.add_argument("--method", choices=AUTHORS, default="at")
    parser.add_argument("--width", type=int, default=16, help="channels of PreActResNet-18's first stage")
    parser.add_argument("--batch-size", type=int, help=f"images per step (128; {CHECKED_BATCH} with --check)")
    parser.add_argument("--check", action="store_true", help="compare the weights after one step in float64 instead")
    pairs.add_arguments(parser)
    return parser.parse_args()


def random_images(n: int, seed: int) -> ImageSet:
    """Make noise in the form of CIFAR-10; no cost of a step depends on what is in the images."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=draw, dtype=torch.uint8)
    return ImageSet(images, torch.randint(0, 10, (n,), generator=draw), torch.arange(n))


def check(authors: AuthorsAT | AuthorsTrades, ours: Ours, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, object]:
    """Take one step each and compare every weight: |ours - theirs| / |theirs| per tensor, the largest."""
    before = {name: value.clone() for name, value in authors.model.named_parameters()}
    authors.step(*batch)
    ours.step(*batch)
    mine = dict(ours.model.named_parameters())
    theirs = dict(authors.model.named_parameters())
    difference = {name: relative(mine[name], w) for name, w in theirs.items()}
    moved = min(relative(before[name], w) for name, w in theirs.items())
    largest = max(difference.values())
    return {"largest_difference": largest, "smallest_move": moved, "equal": largest < EQUAL < moved}


def relative(found: Tensor, expected: Tensor) -> float:
    with torch.no_grad():
        return float((found - expected).norm() / expected.norm())


def timed(
    authors: AuthorsAT | AuthorsTrades, ours: Ours, batch: tuple[Tensor, Tensor, Tensor], rounds: int, clock: str
) -> dict[str, object]:
    """Time one step of each per pair; every step ends by reading its loss."""
    sides = {"authors": lambda: authors.step(*batch), "ours": lambda: ours.step(*batch)}
    seconds = pairs.time_rounds(sides, rounds, clock)
    ratios = pairs.ratios(seconds, "authors", "ours")
    return {"seconds": seconds, "ratios": ratios, "median_ratio": statistics.median(ratios)}


def table(found: dict[str, object]) -> str:
    """Say in words what was measured."""
    lines = [pairs.heading(found, "method", "model", "width", "batch_size", "dtype")]
    if "equal" in found:
        verdict = "equal" if found["equal"] else "NOT EQUAL"
        lines.append(f"{verdict}: weights differ by {found['largest_difference']:.1e} of their norm at most")
        lines.append(f"(the step moved every tensor by at least {found['smallest_move']:.1e} of its norm)")
        return "\n".join(lines)
    seconds, ratios = found["seconds"], found["ratios"]
    rows = zip(seconds["authors"], seconds["ours"], ratios, strict=True)
    lines += ["authors s   ours s   ratio", *(f"{a:9.3f} {b:8.3f} {r:7.2f}" for a, b, r in rows)]
    lines.append(f"median ratio {pairs.spread(ratios)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
