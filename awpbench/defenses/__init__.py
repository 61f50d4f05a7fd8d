"""Defenses: an attack (inner maximisation) and a loss (outer minimisation) each, one file per defense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from awpbench.errors import load_object, lookup

if TYPE_CHECKING:
    from awpbench.defenses.base import Defense

DEFENSES = {
    "standard": "awpbench.defenses.standard:DEFENSE",
    "at": "awpbench.defenses.at:DEFENSE",
    "trades": "awpbench.defenses.trades:DEFENSE",
    "mart": "awpbench.defenses.mart:DEFENSE",
    "finetuning": "awpbench.defenses.finetuning:DEFENSE",
    "rst": "awpbench.defenses.rst:DEFENSE",
}


def get(name: str, loss: str | None = None) -> Defense:
    """Return a defense by name, or the one that `loss` names, for a defense that borrows attack and loss.

    Raises UsageError for an unknown name.
    """
    defense: Defense = load_object(lookup(DEFENSES, "defense", loss or name))
    return defense
