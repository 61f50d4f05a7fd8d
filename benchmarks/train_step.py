"""Times a training step of the AWP authors' public code and ours in alternating pairs, or proves both equal in float64,
or measures how much memory a process of each takes.

    python benchmarks/train_step.py --authors CHECKOUT --method at --width 16
    python benchmarks/train_step.py --authors CHECKOUT --method at --width 16 --check
    python benchmarks/train_step.py --authors CHECKOUT --method at --width 16 --memory

CHECKOUT is a clone of github.com/csdongxian/AWP. Both sides get the same weights, batch and start of the attack.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pairs
from authors import AuthorsAT, AuthorsTrades
from awpbench import defenses
from awpbench.data.images import DataSet, ImageSet
from awpbench.defaults import resolve_training
from awpbench.threat import ThreatModel
from awpbench.training.state import eval_mode_copy, fresh
from awpbench.training.step import training_step

AUTHORS = {"at": AuthorsAT, "trades": AuthorsTrades}
EQUAL = 1e-9  # largest relative difference of a tensor of weights that float64 rounding may leave
CHECKED_BATCH = 16
PRECISIONS = ("fp32", "bf16-attack", "bf16")
GOALS = {  # times as fast as the authors' step, by method, width and precision
    ("at", 16): {"fp32": 1.5, "bf16": 3.0},
    ("at", 64): {"fp32": 1.6, "bf16": 2.8},
    ("trades", 16): {"fp32": 1.7, "bf16": 2.9},
}
THEIRS = "authors"
COMPILED = " compiled"


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

    def __init__(self, method: str, width: int, side: str, images: ImageSet, device: torch.device) -> None:
        flags = {"defense": method, "width": width, "awp": True, "batch_size": len(images)}
        flags |= {"precision": side.removesuffix(COMPILED), "compile": side.endswith(COMPILED)}
        self.config, _ = resolve_training(flags)
        state = fresh(self.config, DataSet("random", 10, (3, 32, 32), images, images, images), device)
        self.model, self.optimizer = state.model, state.optimizer
        self.defense = defenses.get(method)
        self.views, self.attack_model = state.views, eval_mode_copy(state, self.config)

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
            views=self.views,
        )
        for value in (outcome.loss, outcome.correct):
            value.item()


def main() -> int:
    args = arguments()
    device = pairs.device_of(args)
    if args.check:
        torch.set_default_dtype(torch.float64)
    args.batch_size = args.batch_size or (CHECKED_BATCH if args.check else 128)
    found: dict[str, Any] = {
        "method": f"{args.method}-awp",
        "model": "prn18",
        "width": args.width,
        "batch_size": args.batch_size,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        **pairs.machine(device),
        "clock": args.clock,
    }
    if args.memory:
        found["peak_mib"] = {side: peak_of_process(side) for side in wanted(args)}
        print(json.dumps(found, indent=2) if args.json else memory_table(found))
        return 0
    steps = all_steps(args, device)
    if args.only:
        steps[args.only]()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return 0
    found |= check(steps) if args.check else timed(steps, args.pairs, args.clock)
    print(json.dumps(found, indent=2) if args.json else table(found, GOALS.get((args.method, args.width), {})))
    return 1 if found.get("equal") is False else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True, metavar="CHECKOUT", help="a clone of csdongxian/AWP")
    parser.add_argument("--method", choices=AUTHORS, default="at")
    parser.add_argument("--width", type=int, default=16, help="channels of PreActResNet-18's first stage")
    parser.add_argument("--batch-size", type=int, help=f"images per step (128; {CHECKED_BATCH} with --check)")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="of ours, repeatable; fp32 and bf16")
    parser.add_argument("--compile", action="store_true", help="also ours with torch.compile, in each precision")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="compare the weights after one step in float64 instead")
    instead.add_argument("--memory", action="store_true", help="compare what a process of each side takes instead")
    instead.add_argument("--only", help=argparse.SUPPRESS)  # the one side of a process whose memory is measured
    pairs.add_arguments(parser)
    return parser.parse_args()


def wanted(args: argparse.Namespace) -> list[str]:
    """Name the sides: the authors', and ours for every precision, compiled too where that is asked for."""
    if args.check:
        return [THEIRS, "fp32"]
    ours = args.precision or ["fp32", "bf16"]
    return [THEIRS, *ours, *(f"{precision}{COMPILED}" for precision in ours if args.compile)]


def all_steps(args: argparse.Namespace, device: torch.device) -> dict[str, Step]:
    """Make the sides with the same weights; each takes steps on one and the same batch."""
    images = random_images(args.batch_size, args.seed)
    x, y = images.batch(torch.arange(args.batch_size), device)
    x = x.to(torch.get_default_dtype())
    draw = torch.Generator().manual_seed(args.seed)
    noise = torch.rand(x.shape, generator=draw) * 2 - 1 if args.method == "at" else torch.randn(x.shape, generator=draw)
    batch = (x, y, noise.to(device))
    steps = {}
    for side in [args.only] if args.only else wanted(args):
        stepper = (
            AUTHORS[args.method](args.authors, args.width, device)
            if side == THEIRS
            else Ours(args.method, args.width, side, images, device)
        )
        if steps:
            stepper.model.load_state_dict(steps[THEIRS].stepper.model.state_dict())
        steps[side] = Step(stepper, batch)
    return steps


@dataclass(frozen=True)
class Step:
    """A side and the batch that it steps on; a call takes a step."""

    stepper: AuthorsAT | AuthorsTrades | Ours
    batch: tuple[Tensor, Tensor, Tensor]

    def __call__(self) -> None:
        self.stepper.step(*self.batch)

    def weights(self) -> dict[str, Tensor]:
        return dict(self.stepper.model.named_parameters())


def peak_of_process(side: str) -> float:
    """Return the largest resident memory in MiB of a process that takes a step of this side alone."""
    again = [argument for argument in sys.argv[1:] if argument not in ("--memory", "--json")]
    command = [sys.executable, __file__, *again, "--only", side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def random_images(n: int, seed: int) -> ImageSet:
    """Make noise in the form of CIFAR-10; no cost of a step depends on what is in the images."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=draw, dtype=torch.uint8)
    return ImageSet(images, torch.randint(0, 10, (n,), generator=draw), torch.arange(n))


def check(steps: dict[str, Step]) -> dict[str, object]:
    """Take one step each and compare every weight: |ours - theirs| / |theirs| per tensor, the largest."""
    before = {name: value.clone() for name, value in steps[THEIRS].weights().items()}
    for step in steps.values():
        step()
    theirs, mine = steps[THEIRS].weights(), steps["fp32"].weights()
    difference = {name: relative(mine[name], w) for name, w in theirs.items()}
    moved = min(relative(before[name], w) for name, w in theirs.items())
    largest = max(difference.values())
    return {"largest_difference": largest, "smallest_move": moved, "equal": largest < EQUAL < moved}


def relative(found: Tensor, expected: Tensor) -> float:
    with torch.no_grad():
        return float((found - expected).norm() / expected.norm())


def timed(steps: dict[str, Step], rounds: int, clock: str) -> dict[str, object]:
    """Time one step of each side per round; every step ends by reading its loss."""
    seconds = pairs.time_rounds(steps, rounds, clock)
    ratios = {side: pairs.ratios(seconds, THEIRS, side) for side in steps if side != THEIRS}
    return {"seconds": seconds, "ratios": ratios, "median_ratios": {s: statistics.median(r) for s, r in ratios.items()}}


def heading(found: dict[str, Any]) -> str:
    return pairs.heading(found, "method", "model", "width", "batch_size", "dtype")


def table(found: dict[str, Any], goals: dict[str, float]) -> str:
    """Say in words what was measured."""
    lines = [heading(found)]
    if "equal" in found:
        verdict = "equal" if found["equal"] else "NOT EQUAL"
        lines.append(f"{verdict}: weights differ by {found['largest_difference']:.1e} of their norm at most")
        lines.append(f"(the step moved every tensor by at least {found['smallest_move']:.1e} of its norm)")
        return "\n".join(lines)
    lines += [f"{side}: {statistics.median(seconds):.3f} s" for side, seconds in found["seconds"].items()]
    for side, ratios in found["ratios"].items():
        goal = f", goal {goals[side]}" if side in goals else ""
        lines.append(f"{side}: median ratio {pairs.spread(ratios)}{goal}")
    return "\n".join(lines)


def memory_table(found: dict[str, Any]) -> str:
    """Say how much each process took at its peak."""
    theirs = found["peak_mib"][THEIRS]
    lines = [f"{side}: {peak:.0f} MiB, {peak / theirs:.2f} of theirs" for side, peak in found["peak_mib"].items()]
    return "\n".join([heading(found), *lines])


if __name__ == "__main__":
    sys.exit(main())
