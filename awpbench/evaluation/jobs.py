"""The work of an evaluation in units that are saved: jobs, each cut into blocks of images. Importable without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from awpbench.attacks import AUTOATTACK_BATCH, AUTOATTACK_TARGETS, pgd_steps
from awpbench.evaluation.plan import CW_STEPS, SPSA_SAMPLES, SPSA_STEPS, EvalConfig, autoattack_parts

SPSA_BLOCK = 4  # images: one costs up to 51,300 forward passes


@dataclass(frozen=True)
class Job:
    """Attacks that run together: those that share a trajectory, or one part of AutoAttack.

    `forward` and `backward` are passes per image, at most. `standing` means that the job attacks only images that are
    still classified correctly, otherwise all.
    """

    name: str
    attacks: tuple[str, ...]
    block: int  # images
    forward: int
    backward: int
    standing: bool = False
    part: str | None = None  # of AutoAttack


def jobs(config: EvalConfig, classes: int) -> list[Job]:
    """Return the jobs in the order of the suite; PGD with any number of steps is one job, AutoAttack one per part."""
    pgd = sorted((each for each in config.attacks if pgd_steps(each)), key=lambda each: pgd_steps(each) or 0)
    found = []
    for attack in config.attacks:
        if attack in pgd[1:]:
            continue
        if attack in pgd:
            steps = pgd_steps(pgd[-1]) or 0
            found.append(Job("+".join(pgd), tuple(pgd), config.batch_size, steps + len(pgd), steps))
        elif attack == "autoattack":
            found += [_part(part, classes) for part in autoattack_parts(classes)]
        else:
            found.append(_single(attack, config))
    return found


def _single(attack: str, config: EvalConfig) -> Job:
    if attack == "spsa":
        forward = SPSA_STEPS * (1 + 2 * SPSA_SAMPLES) + 1
        return Job(attack, (attack,), SPSA_BLOCK, forward, 0, standing=True)
    forward, backward = {"clean": (1, 0), "fgsm": (2, 1), "cw-inf": (CW_STEPS + 1, CW_STEPS)}[attack]
    return Job(attack, (attack,), config.batch_size, forward, backward)


def _part(part: str, classes: int) -> Job:
    """Count a part's passes for an image that it never fools; its checks of the model cost at most 16."""
    targets = min(AUTOATTACK_TARGETS, classes - 1)
    forward, backward = {
        "apgd-ce": (101, 101),
        "apgd-t": (102 * targets, 101 * targets),
        "fab-t": (203 * targets, 100 * targets),
        "square": (5003, 0),
    }[part]
    return Job(
        f"autoattack {part}", ("autoattack",), AUTOATTACK_BATCH, forward + 16, backward, standing=True, part=part
    )


def blocks(positions: list[int], size: int, ends: Sequence[int] = ()) -> list[list[int]]:
    """Cut positions in ascending order into blocks of at most `size` that no end (a position) falls into."""
    cut: list[list[int]] = []
    start = 0
    for i in range(1, len(positions) + 1):
        if i == len(positions) or i - start == size or positions[i] in ends:
            cut.append(positions[start:i])
            start = i
    return cut
