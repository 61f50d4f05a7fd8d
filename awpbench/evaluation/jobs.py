"""The work of an evaluation in units that are saved: jobs, each cut into blocks of images. Importable without torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from awpbench.attacks import AUTOATTACK_BATCH, AUTOATTACK_TARGETS, pgd_steps, worst_steps
from awpbench.defaults import facts_of
from awpbench.evaluation.audit import AUDITED, audit_passes
from awpbench.evaluation.plan import CW_STEPS, SPSA_SAMPLES, SPSA_STEPS, EvalConfig, autoattack_parts

AUDIT = "audit"  # name of the job that attacks nothing, and looks at the net
SPSA_BLOCK = 8  # images: one costs up to 51,300 forward passes


@dataclass(frozen=True)
class Job:
    """Attacks that run together: those that share a trajectory, or one part of AutoAttack.

    `forward` and `backward` are passes per image, at most. `leaving` means that images leave before the end, so that
    several blocks are worth attacking together; `part` is one of AutoAttack, which attacks what the part `after` left.
    """

    name: str
    attacks: tuple[str, ...]
    block: int  # images
    forward: int
    backward: int
    leaving: bool = False
    part: str | None = None
    after: str | None = None  # name of a job
    most: int | None = None  # images that it sees, where not all


def jobs(config: EvalConfig, classes: int) -> list[Job]:
    """Return the jobs in the order of the suite; PGD with any number of steps is one job, AutoAttack one per part."""
    pgd = sorted((each for each in config.attacks if pgd_steps(each)), key=lambda each: pgd_steps(each) or 0)
    found: list[Job] = []
    for attack in config.attacks:
        if attack in pgd[1:]:
            continue
        if attack in pgd:
            steps = pgd_steps(pgd[-1]) or 0
            found.append(Job("+".join(pgd), tuple(pgd), config.block, steps + len(pgd), steps))
        elif attack == "autoattack":
            found += _autoattack(classes)
        else:
            found.append(_single(attack, config))
    if config.audit:
        forward, backward = audit_passes(facts_of(config.dataset).shape[0])
        found.append(Job(AUDIT, ("clean",), AUDITED, forward, backward, most=AUDITED))
    return found


def _single(attack: str, config: EvalConfig) -> Job:
    if attack == "spsa":
        forward = SPSA_STEPS * (1 + 2 * SPSA_SAMPLES) + 1
        return Job(attack, (attack,), SPSA_BLOCK, forward, 0)
    if (steps := worst_steps(attack)) is not None:
        return Job(attack, (attack,), config.block, steps + 2, steps, leaving=True)
    if attack == "cw-inf":
        return Job(attack, (attack,), config.block, CW_STEPS + 1, CW_STEPS, leaving=config.kappa == 0)
    forward, backward = {"clean": (1, 0), "fgsm": (2, 1)}[attack]
    return Job(attack, (attack,), config.block, forward, backward)


def _autoattack(classes: int) -> list[Job]:
    """Count each part's passes for an image that it never fools; its checks of the model cost at most 16."""
    targets = min(AUTOATTACK_TARGETS, classes - 1)
    passes = {
        "apgd-ce": (101, 101),
        "apgd-t": (102 * targets, 101 * targets),
        "fab-t": (203 * targets, 100 * targets),
        "square": (5003, 0),
    }
    found: list[Job] = []
    for part in autoattack_parts(classes):
        forward, backward = passes[part]
        after = found[-1].name if found else None
        found.append(
            Job(
                f"autoattack {part}",
                ("autoattack",),
                AUTOATTACK_BATCH,
                forward + 16,
                backward,
                part=part,
                after=after,
            )
        )
    return found


def blocks(n: int, size: int, ends: Sequence[int] = ()) -> list[range]:
    """Cut the first n images into blocks of at most `size` that no end falls into, the same for every evaluation."""
    cuts = sorted({*range(0, n, size), *(end for end in ends if end < n), n} if n else {0})
    return [range(start, end) for start, end in itertools.pairwise(cuts)]
