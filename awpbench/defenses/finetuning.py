"""Adversarial fine-tuning of a pre-trained net (Hendrycks, Lee and Mazeika 2019).

It has no loss of its own: it takes attack and loss of another defense, AT's unless `loss` names one, and starts from
the weights of a checkpoint under a new last layer.
"""

from __future__ import annotations

from awpbench.defenses.at import DEFENSE as DEFENSE
