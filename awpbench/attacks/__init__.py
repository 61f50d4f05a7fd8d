"""Attacks: pure functions `(model, x, y, *, threat, ...) -> x_adv`, one file each; names resolve without torch."""

from __future__ import annotations

import re

from awpbench.errors import UsageError, hint

ATTACKS = {
    "fgsm": "awpbench.attacks.fgsm:fgsm",
    "pgd-N": "awpbench.attacks.pgd:pgd",
    "pgd-N-worst": "awpbench.attacks.pgd:pgd_worst",
    "cw-inf": "awpbench.attacks.cw:cw",
    "spsa": "awpbench.attacks.spsa:spsa",
    "autoattack": "awpbench.attacks.autoattack:autoattack",
}

AUTOATTACK_PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")  # of the standard version, in its order
AUTOATTACK_TARGETS = (
    9  # classes that apgd-t and fab-t aim at, each in turn; fewer where there are fewer than 10 classes
)
AUTOATTACK_BATCH = 128  # images at a time: the official package's draws depend on the place in the batch

_PGD = re.compile(r"pgd-([1-9]\d*)(-worst)?")


def canonical(name: str) -> str:
    """Return the one name of an attack; `pgd-N` exists for any N >= 1. Raises UsageError for an unknown name."""
    name = name.lower()
    patterns = [attack for attack in ATTACKS if "N" in attack]
    if _PGD.fullmatch(name) or (name in ATTACKS and name not in patterns):
        return name
    known = [attack for attack in ATTACKS if attack not in patterns]
    told = hint(name, [*known, "pgd-20", "pgd-100", "pgd-20-worst"]).partition("Known:")[0]
    mend = f"{told}Known: {', '.join([*known, *patterns])}; N is any number, as in pgd-20."
    raise UsageError(f"there is no attack called {name!r}", mend)


def pgd_steps(name: str) -> int | None:
    """Return N of `pgd-N`, None for any other attack."""
    match = _PGD.fullmatch(name)
    return int(match[1]) if match and not match[2] else None


def worst_steps(name: str) -> int | None:
    """Return N of `pgd-N-worst`, None for any other attack."""
    match = _PGD.fullmatch(name)
    return int(match[1]) if match and match[2] else None
