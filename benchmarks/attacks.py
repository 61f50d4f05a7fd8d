"""Times attacks of the public tools and ours in alternating rounds, on the same net and images.

    .venv-public/bin/python benchmarks/attacks.py pgd        --ckpt best.pt --images 128
    .venv-public/bin/python benchmarks/attacks.py spsa       --ckpt best.pt --images 4 --steps 10
    .venv-public/bin/python benchmarks/attacks.py autoattack --ckpt best.pt --images 128

`make public-tools` makes that environment. pgd: torchattacks' PGD-20 and PGD-100 against ours, which share one
trajectory. spsa: torchattacks' SPSA against ours on images that the net gets right, per forward pass, since ours stops
an image once it is fooled. autoattack: pyautoattack, called with the net itself, against ours; exit code 1 where the
lists of robust images differ. Every prediction is made by the net in fp32 and counts as part of the attack.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import pairs
import public_tools
from awpbench.attack_model import AttackModel
from awpbench.attacks.pgd import pgd_iterates
from awpbench.attacks.spsa import spsa
from awpbench.randomness import ImageDraws
from subjects import Subject, autoattack_with_verification, of_checkpoint, untrained

PRECISIONS = {"fp32": "fp32", "bf16": "bf16-attack"}
GOALS = {  # times as fast as the public tool
    "pgd": {"fp32": 1.6, "bf16": 3.3},
    "spsa": {"fp32": 1.5, "bf16": 2.5, "bf16 compiled": 2.8},
    "autoattack": {"fp32": 1.35, "bf16": 1.7},
}
DELTA, LR = 0.001, 0.01  # of SPSA, in the paper
BATCH = 128  # images of a pass, as in `awpbench eval`

Adversarial = dict[str, Tensor]  # images by the name of the attack
Side = Callable[[], tuple[Adversarial, int]]  # and the forward passes of images, 0 where nobody needs to know


def main() -> int:
    args = arguments()
    device = pairs.device_of(args)
    settings = (args.images if args.attack != "spsa" else 64 + 8 * args.images, args.data_dir, device)
    subject = of_checkpoint(args.ckpt, *settings) if args.ckpt else untrained(args.width, *settings, args.seed)
    if args.attack == "spsa":
        subject = subject.classified(args.images)
    sides = dict(all_sides(args, subject))
    robust: dict[str, dict[str, list[bool]]] = {}
    passes: dict[str, int] = {}

    def run(side: str) -> None:
        x_adv, passes[side] = sides[side]()
        robust[side] = {name: stand(subject, images) for name, images in x_adv.items()}

    seconds = pairs.time_rounds({side: lambda side=side: run(side) for side in sides}, args.pairs, args.clock)
    found = report(args, subject, seconds, robust, passes)
    print(json.dumps(found, indent=2) if args.json else table(found))
    return 0 if found["same_lists"] or args.attack != "autoattack" else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=ATTACKS)
    net = parser.add_mutually_exclusive_group(required=True)
    net.add_argument("--ckpt", type=Path, help="a checkpoint of ours")
    net.add_argument("--width", type=int, help="of an untrained PreActResNet-18, which costs the same in pgd")
    parser.add_argument("--images", type=int, default=BATCH, help="the first so many test images")
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets, else AWPBENCH_DATA")
    parser.add_argument(
        "--precision", choices=PRECISIONS, action="append", help="of ours, repeatable; both if left out"
    )
    parser.add_argument(
        "--compile", action="store_true", help="also ours with torch.compile where no gradient is asked"
    )
    parser.add_argument("--steps", type=int, default=100, help="of spsa")
    parser.add_argument("--samples", type=int, default=256, help="of spsa: directions per step")
    parser.add_argument("--together", type=int, help="of torchattacks' spsa: images per call, else all")
    pairs.add_arguments(parser)
    return parser.parse_args()


def all_sides(args: argparse.Namespace, subject: Subject) -> Iterator[tuple[str, Side]]:
    """Make the public tool's side, and ours for every precision."""
    theirs, ours = ATTACKS[args.attack]
    yield TOOLS[args.attack], lambda: theirs(args, subject)
    for precision in args.precision or PRECISIONS:
        attacked = AttackModel(subject.net, PRECISIONS[precision])
        yield precision, lambda attacked=attacked: ours(args, subject, attacked)
        if args.compile and args.attack != "pgd":
            compiled = Compiled(attacked, subject.x)
            yield f"{precision} compiled", lambda compiled=compiled: ours(args, subject, compiled)


@torch.no_grad()
def stand(subject: Subject, x_adv: Tensor) -> list[bool]:
    """Return which images the net still gets right."""
    predictions = torch.cat([subject.net(batch).argmax(1) for batch in x_adv.split(BATCH)])
    return (predictions == subject.y).tolist()


def their_pgd(args: argparse.Namespace, subject: Subject) -> tuple[Adversarial, int]:
    found = {}
    for steps in (20, 100):
        settings = {"steps": steps, "step_size": subject.step_size, "seed": args.seed}
        blocks = [
            public_tools.torchattacks_pgd(block.net, block.x, block.y, block.threat, **settings)
            for block in subject.blocks(BATCH)
        ]
        found[f"pgd-{steps}"] = torch.cat(blocks)
    return found, 0


def our_pgd(args: argparse.Namespace, subject: Subject, attacked: AttackModel) -> tuple[Adversarial, int]:
    found: dict[int, list[Tensor]] = {20: [], 100: []}
    for block in subject.blocks(BATCH):
        draws = ImageDraws(args.seed, "pgd", block.indices)
        settings = {"threat": block.threat, "step_size": block.step_size, "generator": draws}
        for steps, x_adv in pgd_iterates(attacked, block.x, block.y, at=set(found), **settings).items():
            found[steps].append(x_adv)
    return {f"pgd-{steps}": torch.cat(blocks) for steps, blocks in found.items()}, 0


def their_spsa(args: argparse.Namespace, subject: Subject) -> tuple[Adversarial, int]:
    settings = {"steps": args.steps, "samples": args.samples, "delta": DELTA, "lr": LR, "seed": args.seed}
    blocks = [
        public_tools.torchattacks_spsa(block.net, block.x, block.y, block.threat, **settings)
        for block in subject.blocks(args.together or len(subject.x))
    ]
    return {"spsa": torch.cat(blocks)}, 2 * args.samples * args.steps * len(subject.x)


def our_spsa(args: argparse.Namespace, subject: Subject, attacked: AttackModel) -> tuple[Adversarial, int]:
    counted = Counted(attacked)
    settings = {"steps": args.steps, "samples": args.samples, "delta": DELTA, "lr": LR, "max_batch": BATCH}
    settings |= {"generator": ImageDraws(args.seed, "spsa", subject.indices), "near": counted.near}
    return {"spsa": spsa(counted.verify, subject.x, subject.y, threat=subject.threat, **settings)}, counted.passes


def their_autoattack(args: argparse.Namespace, subject: Subject) -> tuple[Adversarial, int]:
    blocks = [
        public_tools.plain_autoattack(block.net, block.x, block.y, block.threat, seed=args.seed)
        for block in subject.blocks(BATCH)
    ]
    return {"autoattack": torch.cat(blocks)}, 0


def our_autoattack(args: argparse.Namespace, subject: Subject, attacked: AttackModel) -> tuple[Adversarial, int]:
    blocks = [autoattack_with_verification(attacked, block, args.seed) for block in subject.blocks(BATCH)]
    return {"autoattack": torch.cat(blocks)}, 0


ATTACKS = {
    "pgd": (their_pgd, our_pgd),
    "spsa": (their_spsa, our_spsa),
    "autoattack": (their_autoattack, our_autoattack),
}
TOOLS = {"pgd": "torchattacks", "spsa": "torchattacks", "autoattack": "pyautoattack"}


class Counted:
    """Counts the images that SPSA forwards."""

    def __init__(self, attacked: AttackModel) -> None:
        self.attacked, self.passes = attacked, 0

    def verify(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        return self.attacked.verify(x)

    def near(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        logits = self.attacked.near(x)

        def near(d: Tensor) -> Tensor:
            self.passes += len(d)
            return logits(d)

        return near


class Compiled:
    """An AttackModel whose passes without a gradient are compiled, its weights frozen into them.

    The compiler makes code for one batch size at a time, so a batch is filled up to a power of two.
    """

    def __init__(self, attacked: AttackModel, x: Tensor) -> None:
        torch._inductor.config.freezing = True
        self.attacked, self.verify = attacked, attacked.verify
        with torch.no_grad():
            attacked(x[:1])
            attacked.near(x[:1])
        self.fast = torch.compile(attacked._fast, dynamic=False)
        self.moved = attacked._differences and torch.compile(attacked._differences._moved, dynamic=False)

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return self.attacked(x)
        with torch.no_grad():
            return self.fast(filled(x))[: len(x)].clone()

    def near(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        if self.moved is None:
            return lambda d: self(x + d)
        differences = self.attacked._differences
        with torch.no_grad():
            logits, walls = differences._observed(x.contiguous(memory_format=torch.channels_last))

        def near(d: Tensor) -> Tensor:
            with torch.no_grad():
                return logits + self.moved(filled(d), *walls)[: len(d)]

        return near


def filled(x: Tensor) -> Tensor:
    """Append zeros up to a power of two of at least 8 images, in the layout of the copies."""
    missing = (1 << max(3, (len(x) - 1).bit_length())) - len(x)
    return F.pad(x, (0, 0, 0, 0, 0, 0, 0, missing)).contiguous(memory_format=torch.channels_last)


def report(
    args: argparse.Namespace,
    subject: Subject,
    seconds: dict[str, list[float]],
    robust: dict[str, dict[str, list[bool]]],
    passes: dict[str, int],
) -> dict[str, Any]:
    """Gather what was measured; a ratio is that of the seconds per forward pass where the passes were counted."""
    base = TOOLS[args.attack]
    each = {side: [value / (passes[side] or 1) for value in values] for side, values in seconds.items()}
    own = [side for side in seconds if side != base]
    spsa_settings = {"steps": args.steps, "samples": args.samples, "together": args.together or len(subject.x)}
    return {
        "attack": args.attack,
        "net": subject.name,
        "images": len(subject.x),
        **(spsa_settings if args.attack == "spsa" else {}),
        **pairs.machine(subject.x.device),
        "clock": args.clock,
        "versions": public_tools.versions(),
        "seconds": seconds,
        "passes": passes,
        "ratios": {side: pairs.ratios(each, base, side) for side in own},
        "ratios_of_seconds": {side: pairs.ratios(seconds, base, side) for side in own},
        "robust": robust,
        "same_lists": all(robust[side] == robust[base] for side in own),
    }


def table(found: dict[str, Any]) -> str:
    """Say in words what was measured."""
    settings = [key for key in ("attack", "net", "images", "steps", "samples", "together") if key in found]
    lines = [pairs.heading(found, *settings)]
    for side, seconds in found["seconds"].items():
        accuracy = ", ".join(f"{name} {sum(flags)}" for name, flags in found["robust"][side].items())
        passes = f", {found['passes'][side]} forward passes" if found["passes"][side] else ""
        lines.append(f"{side}: {statistics.median(seconds):.3f} s{passes}; robust of {found['images']}: {accuracy}")
    per = " per forward pass" if any(found["passes"].values()) else ""
    for side, values in found["ratios"].items():
        goal = GOALS[found["attack"]].get(side)
        lines.append(f"{side}: median ratio{per} {pairs.spread(values)}{f', goal {goal}' if goal else ''}")
        if per:
            lines.append(f"{side}: median ratio of the seconds {pairs.spread(found['ratios_of_seconds'][side])}")
    if found["attack"] == "autoattack":
        listed = [str(i) for i, flag in enumerate(found["robust"]["pyautoattack"]["autoattack"]) if flag]
        verdict = "all sides leave the same images" if found["same_lists"] else "THE LISTS DIFFER; pyautoattack leaves"
        lines.append(f"{verdict}: {' '.join(listed) or 'none'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
