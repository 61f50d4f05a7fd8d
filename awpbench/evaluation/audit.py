"""The audit: is this evaluation to be trusted? Findings from what every attack did and from a few extra computations.

Most checks are those of Athalye et al. (2018, section 3.1) and of the checklist of Carlini et al. (2019) for gradients
that are masked; the rest are AutoAttack's own (Croce and Hein 2020, `checks.py` of its package). Where neither gives a
number, the tolerance is what a handful of images can do by chance. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from awpbench.attacks import pgd_steps
from awpbench.evaluation.results import DIGITS, Table, worst_case
from awpbench.evaluation.shards import Arrays

Finding = dict[str, Any]
Flags = npt.NDArray[np.bool_]

AUDITED = 128  # images that the extra computations are made for, at most
REPEATS = 5  # forward passes of the same images, as in AutoAttack's check
ITERATIONS = 20  # of PGD; FGSM is held against PGD with no fewer, since one short step need not beat one of eps
STARTS = 4  # random starts of PGD
QUERIES = 100  # of the random search
CELLS = 4  # per side of the grid of its estimated gradient
RUNGS = (0.5, 1.0, 2.0, 4.0)  # budgets as multiples of eps; one that covers the cube comes after them

POINTS, IMAGES = 0.005, 2  # what counts as equal: half a point, or two images where that is more
LOGITS = 1e-4  # between logits of length 1: AutoAttack's check for randomised defenses
SQUARE = 0.002  # of the images: AutoAttack's check of what Square may add

WHITE_BOX_PARTS = ("apgd-ce", "apgd-t", "fab-t")  # of AutoAttack
WARNINGS = {  # AutoAttack's, by words of theirs
    "randomized defense": "autoattack-randomized",
    "probability distribution": "autoattack-softmax",
    "zero gradient": "autoattack-zero-gradients",
    "dynamic defense": "autoattack-dynamic",
    "Square Attack": "autoattack-square",
    "classes": "autoattack-classes",
}


def audit_passes(channels: int) -> tuple[int, int]:
    """Return how many forward and backward passes `probes.probe` takes per image, at most; 405 and 185 for color."""
    runs = len(RUNGS) + STARTS + 1  # of PGD: the cube and the margin besides, and one start is the rung of eps
    looks = REPEATS + 2 + 2  # again, beside others, and through both nets under watch
    gradients = 3 + 2  # and the margins before and after a step
    search = 1 + 2 * CELLS**2 * channels + 1 + QUERIES + 1
    return looks + 3 + gradients + runs * (ITERATIONS + 1) + search, 2 + 3 + runs * ITERATIONS


def findings(
    tables: Mapping[str, Table],
    probes: Arrays,
    *,
    weights: tuple[str, str],
    warnings: Collection[str] = (),
    nan_gradients: Mapping[str, int] | None = None,
) -> list[Finding]:
    """Return `{"check", "value", "threshold", "ok", "detail"}` of every check that the attacks run allow.

    A check is passed where its value is at most its threshold; both are finite. Row i of `probes` (from `probe`,
    blocks joined by `combine`) is image i of the tables. `weights` are the hashes of all parameters and buffers before
    and after the attacks, `warnings` those of AutoAttack's package, `nan_gradients` the number of gradients per attack
    that were not finite.
    """
    return [
        *_of_the_forward(tables, probes),
        *_of_the_gradients(probes),
        *_of_the_budgets(tables, probes),
        *_of_the_order(tables),
        *_of_the_black_box(tables, probes),
        *_of_the_worst_case(tables),
        *_of_what_broke(tables, weights, nan_gradients or {}),
        *_of_autoattack(warnings),
    ]


def verdict(found: Sequence[Finding]) -> dict[str, Any]:
    """Return the `audit` of result.json: reliable where every check is passed, suspicious otherwise."""
    return {"verdict": "reliable" if all(each["ok"] for each in found) else "suspicious", "findings": list(found)}


def combine(blocks: Sequence[Arrays]) -> Arrays:
    """Join what `probe` returned for several blocks of images, in their order."""
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def tolerance(n: int) -> float:
    """Return by what share of n images two accuracies may differ and count as equal; never by more than half."""
    return min(0.5, _tolerance(n))


def _tolerance(n: int) -> float:
    return max(POINTS, IMAGES / n) if n else 1.0


def _finding(check: str, value: float, threshold: float, detail: str) -> Finding:
    values = {"value": round(float(value), DIGITS), "threshold": round(float(threshold), DIGITS)}
    return {"check": check, **values, "ok": bool(value <= threshold), "detail": detail}


def _share(check: str, which: Flags, of: int, detail: str) -> Finding:
    """Make a finding of a share of images that should be none, up to the tolerance."""
    count = int(which.sum())
    return _finding(check, count / of if of else 0.0, tolerance(of), f"{count} of {of} images {detail}")


def _of_the_forward(tables: Mapping[str, Table], probes: Arrays) -> Iterator[Finding]:
    n = len(probes["index"])
    changed = probes["eps_zero"] != tables["clean"].prediction[:n]
    yield _finding(
        "eps-zero-equals-clean",
        changed.mean(),
        0,
        f"{changed.sum()} of {n} predictions change under an attack of eps 0",
    )
    other = probes["attacked"] != probes["prediction"]
    yield _share("attacked-net-is-scored-net", other, n, "have another class in the net that the attacks see")
    seen = f"largest change of logits scaled to length 1, {n} images"
    yield _finding("randomised-forward", probes["spread"].max(), LOGITS, f"{seen} seen {REPEATS} times")
    yield _finding("batch-dependent-forward", probes["neighbours"].max(), LOGITS, f"{seen} beside others")
    calls = int(probes["backward_in_forward"].max())
    yield _finding("dynamic-forward", calls, 0, f"{calls} backward passes inside two forward passes")
    yield _share("softmax-outputs", probes["distribution"], n, "have a probability distribution for logits")


def _of_the_gradients(probes: Arrays) -> Iterator[Finding]:
    correct = int(probes["correct"].sum())
    zero = "have no gradient of the cross-entropy, at the image or at a random start"
    yield _share("zero-gradients", probes["zero_gradient"], correct, zero)
    misled = "are no closer to another class after a step of eps / 10 along the gradient of the margin"
    yield _share("misleading-gradients", probes["misled"], correct, misled)


def _of_the_budgets(tables: Mapping[str, Table], probes: Arrays) -> Iterator[Finding]:
    n, ladder = len(probes["index"]), probes["ladder"]
    standing = [int(probes["correct"].sum()), *(int(each) for each in (~ladder).sum(0))]
    names = ["0", *(f"{rung:g} eps" for rung in RUNGS), "the cube"]
    rise = max(after - before for before, after in pairwise(standing))
    steps = ", ".join(f"{name}: {count}" for name, count in zip(names, standing, strict=True))
    yield _finding("accuracy-falls-with-eps", rise / n, tolerance(n), f"standing of {n} images at {steps}")
    left = f"stand against PGD-{ITERATIONS} with a budget that covers the cube"
    yield _share("accuracy-at-full-budget", ~ladder[:, -1], n, left)
    starts = (~probes["restarts"]).sum(0)
    told = ", ".join(f"{count}: {starts[count - 1]}" for count in (1, STARTS // 2, STARTS))
    gained = probes["restarts"][:, -1] & ~probes["restarts"][:, STARTS // 2 - 1] & ~_any(tables.values(), n)
    yield _finding(
        "restarts", gained.mean(), tolerance(n), f"standing of {n} images after so many random starts: {told}"
    )


def _of_the_order(tables: Mapping[str, Table]) -> Iterator[Finding]:
    """Hold every attack against the next stronger one on the images that both were given."""
    pgd = sorted((each for each in tables if pgd_steps(each)), key=lambda each: pgd_steps(each) or 0)
    long = [each for each in pgd if (pgd_steps(each) or 0) >= ITERATIONS]
    pairs = [("clean", each) for each in ("fgsm", *pgd[:1], "cw-inf") if each in tables]
    pairs += [("fgsm", long[0])] if "fgsm" in tables and long else []
    for weaker, stronger in [*pairs, *pairwise(pgd)]:
        n = min(tables[weaker].n, tables[stronger].n)
        standing = [int((~tables[each].fooled[:n]).sum()) for each in (weaker, stronger)]
        detail = f"standing of {n} images: {weaker} {standing[0]}, {stronger} {standing[1]}"
        yield _finding(f"order-{weaker}-{stronger}", (standing[1] - standing[0]) / n, _tolerance(n), detail)


def _of_the_black_box(tables: Mapping[str, Table], probes: Arrays) -> Iterator[Finding]:
    """Look for images that only attacks without gradients fool."""
    n = len(probes["index"])
    white = probes["restarts"].any(1) | probes["margin_attack"] | ~probes["correct"] | _white_box(tables, n)
    yield _share(
        "black-box-search", probes["search"] & ~white, n, "are fooled by a short search without gradients alone"
    )
    gradient_attacks = [each for each in tables if each not in ("clean", "spsa")]
    if "spsa" in tables and gradient_attacks:
        n = min(tables[each].n for each in ("spsa", *gradient_attacks))
        fooled = int(_white_box(tables, n).sum()), int(tables["spsa"].fooled[:n].sum())
        detail = f"fooled of {n} images: white box {fooled[0]}, spsa {fooled[1]}"
        yield _finding("black-box-spsa", (fooled[1] - fooled[0]) / n, _tolerance(n), detail)
    if "autoattack" in tables:
        square, n = int((tables["autoattack"].part == "square").sum()), tables["autoattack"].n
        detail = f"{square} of {n} images are fooled by AutoAttack's square alone"
        yield _finding("black-box-square", square / n, max(SQUARE, IMAGES / n), detail)


def _of_the_worst_case(tables: Mapping[str, Table]) -> Iterator[Finding]:
    wrong = sum(int(_contradicted(table).sum()) for table in tables.values())
    yield _finding("outcomes-consistent", wrong, 0, f"{wrong} outcomes contradict the margin of the same image")
    if "autoattack" in tables:
        found = worst_case(tables)
        n, standing = found["n"], int((~tables["autoattack"].fooled[: found["n"]]).sum())
        detail = f"standing of {n} images: autoattack {standing}, all attacks together {found['correct']}"
        yield _finding("worst-case", (standing - found["correct"]) / n, _tolerance(n), detail)


def _of_what_broke(
    tables: Mapping[str, Table], weights: tuple[str, str], nan_gradients: Mapping[str, int]
) -> Iterator[Finding]:
    before, after = weights
    changed = "other weights or buffers than before" if before != after else "the weights and buffers of before"
    yield _finding("weights-unchanged", float(before != after), 0, f"after the attacks the net has {changed}")
    for check, counts in (
        ("nan-logits", {attack: int(table.broken.sum()) for attack, table in tables.items()}),
        ("nan-gradients", nan_gradients),
    ):
        told = ", ".join(f"{attack} {count}" for attack, count in counts.items() if count)
        yield _finding(check, sum(counts.values()), 0, f"not finite: {told or 'none'}")


def _of_autoattack(warnings: Collection[str]) -> Iterator[Finding]:
    """Make a finding of every kind of warning; none is passed."""
    kinds: dict[str, list[str]] = {}
    for message in sorted(warnings):
        kind = next((check for words, check in WARNINGS.items() if words in message), "autoattack-warning")
        kinds.setdefault(kind, []).append(message)
    for kind, messages in kinds.items():
        yield _finding(kind, len(messages), 0, " ".join(messages[0].split()))


def _white_box(tables: Mapping[str, Table], n: int) -> Flags:
    """Tell which of the first n images some attack with gradients fooled, or were misclassified before."""
    fooled = _any([tables[each] for each in tables if each not in ("spsa", "autoattack")], n)
    if "autoattack" in tables:
        found = np.isin(tables["autoattack"].part[:n], WHITE_BOX_PARTS)
        fooled[: len(found)] |= found
    return fooled


def _any(tables: Iterable[Table], n: int) -> Flags:
    fooled = np.zeros(n, dtype=np.bool_)
    for table in tables:
        seen = table.fooled[:n]
        fooled[: len(seen)] |= seen
    return fooled


def _contradicted(table: Table) -> Flags:
    """Tell where an image stands with a negative margin or NaN among its logits, or is fooled with neither."""
    wrong = (table.margin < 0) | table.broken
    right = (table.margin > 0) & ~table.broken
    contradicted: Flags = np.where(table.fooled, right, wrong)
    return contradicted
