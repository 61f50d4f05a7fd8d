"""The suites: fixed, versioned lists of attacks. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """Attacks in their order. Rows with the same `major.minor` are comparable; a changed attack bumps it."""

    name: str
    version: str
    attacks: tuple[str, ...]


SUITES = {
    "quick": Suite("quick", "1.0", ("clean", "fgsm", "pgd-20")),
    "standard": Suite("standard", "1.0", ("clean", "autoattack")),
    "full": Suite("full", "1.0", ("clean", "fgsm", "pgd-20", "pgd-100", "cw-inf", "spsa", "autoattack")),
}

USUAL_EXAMPLES = {"spsa": 1000}  # test images of an attack that is too dear for all of them, unless more are asked for
