"""Adversarial training (Madry et al. 2018) with PGD, as in Rice, Wong and Kolter (2020) and the AWP paper, Eq. 1."""

from __future__ import annotations

from awpbench.attacks.pgd import pgd
from awpbench.defenses.base import Defense
from awpbench.defenses.standard import loss

DEFENSE = Defense(attack=pgd, loss=loss, attack_mode="train")
