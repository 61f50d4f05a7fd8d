"""Robust self-training (Carmon et al. 2019): labelled and pseudo-labelled images in every batch.

It has no loss of its own: it takes attack and loss of another defense, TRADES' unless `loss` names one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from awpbench.defenses.trades import DEFENSE as DEFENSE


def image_weights(pseudo: Tensor, unlabelled_weight: float) -> Tensor:
    """Return the weights `(N,)` that make a mean over the batch (rho_l + lambda rho_u) / (1 + lambda).

    rho_l is the mean loss of the labelled images and rho_u that of the pseudo-labelled ones, for which `pseudo` `(N,)`
    is true (AWP paper, Eq. 4). The factor 1 / (1 + lambda) keeps the loss, and so the learning rate, on one scale: in
    a batch of two halves lambda 1 gives every image the weight 1, which is the mean over the mixed batch that the
    public code takes.
    """
    n, others = len(pseudo), int(pseudo.sum())
    scale = n / (1 + unlabelled_weight)
    labelled = scale / (n - others)
    other = scale * unlabelled_weight / others
    weights = torch.full((n,), labelled, dtype=torch.float64, device=pseudo.device)
    return weights.masked_fill_(pseudo, other)
