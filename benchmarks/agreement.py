"""Compares what attacks of the public tools and ours do to the same images, one by one.

    .venv-public/bin/python benchmarks/agreement.py --shared FOLDER --images 64 --out agreement.json

`make public-tools` makes that environment. The nets are the published ones of FOLDER/peers and two of model_zoo/. FGSM
takes no draw, PGD starts from what torchattacks drew, AutoAttack gets the same seed; SPSA draws differently everywhere.
An image counts as fooled where the net in fp32 misclassifies what the attack returns; the margin is the logit of the
true class minus the largest other one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pairs
import public_tools
from awpbench.attack_model import AttackModel
from awpbench.attacks.cw import margin
from awpbench.attacks.fgsm import fgsm
from awpbench.attacks.pgd import pgd
from awpbench.attacks.spsa import spsa
from awpbench.evaluation.statistics import mcnemar
from awpbench.randomness import ImageDraws
from subjects import PEERS, Subject, autoattack_with_verification, of_checkpoint, of_peer

ZOO = Path(__file__).parents[1] / "model_zoo"
OURS = ("cifar10-prn18-w16-at-s0", "cifar10-prn18-w16-at-awp-s0")
PGD_STEPS = 20
SPSA = {"delta": 0.001, "lr": 0.01}

Pairs = Iterator[tuple[str, Subject, Tensor, Tensor]]  # public tool, what both attacked, its images, ours


def main() -> int:
    args = arguments()
    device = pairs.device_of(args)
    found = {
        "definitions": {"pgd": {"steps": PGD_STEPS}, "spsa": {"steps": args.steps, "samples": args.samples, **SPSA}},
        "precision": args.precision,
        "seed": args.seed,
        **pairs.machine(device),
        "versions": public_tools.versions(),
        "comparisons": [row for subject in subjects(args, device) for row in compare(args, subject)],
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with peers/; without it, only the nets of model_zoo/")
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets, else AWPBENCH_DATA")
    parser.add_argument("--net", action="append", choices=(*PEERS, *OURS), help="repeatable; else all")
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="repeatable; else all")
    parser.add_argument("--images", type=int, default=64, help="the first so many test images, for FGSM and PGD")
    parser.add_argument("--costly-images", type=int, default=16, help="the same for SPSA and AutoAttack")
    parser.add_argument("--steps", type=int, default=100, help="of SPSA")
    parser.add_argument("--samples", type=int, default=256, help="of SPSA: directions per step")
    parser.add_argument("--precision", choices=("fp32", "bf16-attack"), default="fp32", help="of ours")
    parser.add_argument("--threads", type=int, help="torch's threads; all cores if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file")
    return parser.parse_args()


def subjects(args: argparse.Namespace, device: torch.device) -> Iterator[Subject]:
    """Load the nets that were asked for."""
    n = max(args.images, args.costly_images)
    for name in args.net or (*(PEERS if args.shared else ()), *OURS):
        if name in PEERS:
            yield of_peer(args.shared / "peers" / "factories.py", name, n, args.data_dir, device)
        else:
            yield of_checkpoint(ZOO / name / "best.safetensors", n, args.data_dir, device)


def compare(args: argparse.Namespace, subject: Subject) -> Iterator[dict[str, Any]]:
    """Run every attack that a public tool and we have."""
    attacked = AttackModel(subject.net, args.precision)
    for attack in args.attack or ATTACKS:
        for tool, attacked_by_both, theirs, ours in ATTACKS[attack](args, subject, attacked):
            yield row(attack, tool, attacked_by_both, theirs, ours)


def compare_fgsm(args: argparse.Namespace, subject: Subject, attacked: AttackModel) -> Pairs:
    s = subject.first(args.images)
    ours = fgsm(attacked, s.x, s.y, threat=s.threat)
    if s.threat.norm == "Linf":
        yield "torchattacks", s, public_tools.torchattacks_fgsm(s.net, s.x, s.y, s.threat), ours
    yield "foolbox", s, public_tools.foolbox_fgsm(s.net, s.x, s.y, s.threat), ours


def compare_pgd(args: argparse.Namespace, subject: Subject, attacked: AttackModel) -> Pairs:
    s = subject.first(args.images)
    how: dict[str, Any] = {"steps": PGD_STEPS, "step_size": s.step_size}
    start = public_tools.torchattacks_pgd(s.net, s.x, s.y, s.threat, seed=args.seed, **(how | {"steps": 0}))
    ours = pgd(attacked, s.x, s.y, threat=s.threat, start=start, **how)
    yield "torchattacks", s, public_tools.torchattacks_pgd(s.net, s.x, s.y, s.threat, seed=args.seed, **how), ours
    yield "foolbox", s, public_tools.foolbox_pgd(s.net, s.x, s.y, s.threat, start=start, **how), ours


def compare_spsa(args: argparse.Namespace, subject: Subject, attacked: AttackModel) -> Pairs:
    s = subject.classified(args.costly_images)
    if s.threat.norm != "Linf" or not s.indices:
        return
    how: dict[str, Any] = {"steps": args.steps, "samples": args.samples, **SPSA}
    draws = ImageDraws(args.seed, "spsa", s.indices)
    ours = spsa(attacked.verify, s.x, s.y, threat=s.threat, generator=draws, max_batch=128, near=attacked.near, **how)
    blocks = [public_tools.torchattacks_spsa(b.net, b.x, b.y, b.threat, seed=args.seed, **how) for b in s.blocks(2)]
    yield "torchattacks", s, torch.cat(blocks), ours


def compare_autoattack(args: argparse.Namespace, subject: Subject, attacked: AttackModel) -> Pairs:
    s = subject.first(args.costly_images)
    theirs = public_tools.plain_autoattack(s.net, s.x, s.y, s.threat, seed=args.seed)
    yield "pyautoattack", s, theirs, autoattack_with_verification(attacked, s, args.seed)


ATTACKS = {"fgsm": compare_fgsm, "pgd": compare_pgd, "spsa": compare_spsa, "autoattack": compare_autoattack}


@torch.no_grad()
def row(attack: str, tool: str, subject: Subject, theirs: Tensor, ours: Tensor) -> dict[str, Any]:
    """Compare outcomes and margins image by image."""
    margins = [margin(subject.net(x_adv), subject.y) for x_adv in (theirs, ours)]
    right = [subject.net(x_adv).argmax(1) == subject.y for x_adv in (theirs, ours)]
    only_theirs, only_ours = int((~right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum())
    return {
        "net": subject.name,
        "dataset": subject.dataset,
        "norm": subject.threat.norm,
        "eps": subject.eps,
        "attack": attack,
        "tool": tool,
        "n": len(subject.x),
        "robust": {"theirs": int(right[0].sum()), "ours": int(right[1].sum())},
        "fooled_by_one": {"theirs": only_theirs, "ours": only_ours},
        "p": mcnemar(only_theirs, only_ours),
        "largest_change_of_margin": float((margins[0] - margins[1]).abs().max()),
        "differing": [
            {"index": subject.indices[i], "theirs": float(margins[0][i]), "ours": float(margins[1][i])}
            for i in (right[0] != right[1]).nonzero().flatten().tolist()
        ],
    }


def table(found: dict[str, Any]) -> str:
    """Write the table for the documentation; margins are theirs / ours, of the images that only one attack fooled."""
    columns = ("net", "attack", "tool", "n", "robust: theirs, ours", "fooled by theirs only, ours only", "p", "margins")
    lines = [
        pairs.heading(found, "precision", "definitions", "versions"),
        "",
        markdown(columns),
        "|---" * len(columns) + "|",
    ]
    for each in found["comparisons"]:
        robust, only = each["robust"], each["fooled_by_one"]
        margins = ", ".join(f"{one['theirs']:.2g} / {one['ours']:.2g}" for one in each["differing"])
        net = f"{each['net']}, {each['norm']} {each['eps']}"
        outcome = [f"{robust['theirs']}, {robust['ours']}", f"{only['theirs']}, {only['ours']}", f"{each['p']:.2g}"]
        lines.append(markdown([net, each["attack"], each["tool"], each["n"], *outcome, margins or "-"]))
    return "\n".join(lines)


def markdown(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
