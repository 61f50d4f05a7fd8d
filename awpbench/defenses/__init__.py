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
}


def get(name: str) -> Defense:
    """Return a defense by name. Raises UsageError for an unknown one."""
    defense: Defense = load_object(lookup(DEFENSES, "defense", name))
    return defense
