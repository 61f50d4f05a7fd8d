"""Attacks: pure functions `(model, x, y, *, threat, ...) -> x_adv`, one file each; names resolve without torch."""

from __future__ import annotations

import re

from awpbench.errors import UsageError, hint

ATTACKS = {
    "fgsm": "awpbench.attacks.fgsm:fgsm",
    "pgd-N": "awpbench.attacks.pgd:pgd",
    "cw-inf": "awpbench.attacks.cw:cw",
    "spsa": "awpbench.attacks.spsa:spsa",
    "autoattack": "awpbench.attacks.autoattack:autoattack",
}

AUTOATTACK_PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")  # of the standard version, in its order
AUTOATTACK_TARGETS = (
    9  # classes that apgd-t and fab-t aim at, each in turn; fewer where there are fewer than 10 classes
)
AUTOATTACK_BATCH = 128  # images at a time: the official package's draws depend on the place in the batch

_PGD = re.compile(r"pgd-([1-9]\d*)")


def canonical(name: str) -> str:
    """Return the one name of an attack; `pgd-N` exists for any N >= 1. Raises UsageError for an unknown name."""
    name = name.lower()
    if _PGD.fullmatch(name) or (name in ATTACKS and name != "pgd-N"):
        return name
    known = [attack for attack in ATTACKS if attack != "pgd-N"]
    told = hint(name, [*known, "pgd-20", "pgd-100"]).partition("Known:")[0]
    raise UsageError(
        f"there is no attack called {name!r}", f"{told}Known: {', '.join(known)}, and pgd-N for any N, such as pgd-20."
    )


def pgd_steps(name: str) -> int | None:
    """Return N of `pgd-N`, None for any other attack."""
    match = _PGD.fullmatch(name)
    return int(match[1]) if match else None
