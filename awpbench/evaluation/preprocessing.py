"""The preprocessing of a net whose file does not tell it: each is tried, and only a clear winner is taken.

A state dict holds no trace of a normalisation that the training script did outside the net, and a wrong one lowers the
clean and the robust accuracy without an error. The test images tell: all candidates predict the same images, and
McNemar's exact test compares the best with each other one image by image, where both see the same luck of the draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from awpbench.checkpoints import Checkpoint
from awpbench.data.images import ImageSet
from awpbench.errors import UsageError
from awpbench.evaluation.statistics import mcnemar, wilson
from awpbench.foreign import PREPROCESSING

EXAMPLES = 1000  # the first so many test images: a difference of 5 points is seen where 1 image in 5 is disputed
LEVEL = 0.001  # p below which the best one is taken for better
BATCH = 100  # images at a time; fixed, since other batches round otherwise
MEND = f"Give --preprocessing {', '.join(PREPROCESSING[:-1])} or {PREPROCESSING[-1]}."

Right = npt.NDArray[np.bool_]  # per image, whether it is classified correctly


@dataclass(frozen=True)
class Trial:
    """The preprocessing found on the first `n` test images, and how many of them each candidate got right."""

    name: str
    n: int
    correct: dict[str, int]

    def __str__(self) -> str:
        return f"{self.name} ({_told(self.correct, self.n)})"

    def document(self) -> dict[str, Any]:
        """Return what result.json says of it."""
        return {"source": "trial", "n": self.n, "correct": self.correct}


def trial_size(images: ImageSet) -> int:
    """Return how many of the images, the first ones, a trial looks at."""
    return min(EXAMPLES, len(images))


def find(checkpoint: Checkpoint, dataset: str, images: ImageSet, device: torch.device) -> Trial:
    """Try every preprocessing on the first test images; raises UsageError where none is clearly the best."""
    images = images.first(trial_size(images))
    right = {}
    for name in PREPROCESSING:
        net = checkpoint.preprocessed(name, dataset).build().to(device)
        right[name] = classified(net, images, device)
    return choose(right, images.labels.cpu().numpy(), str(checkpoint.path))


def classified(net: nn.Module, images: ImageSet, device: torch.device) -> Right:
    """Return for each image whether a net in eval mode classifies it correctly; NaN and infinite logits are wrong."""
    found = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            positions = torch.arange(start, min(start + BATCH, len(images)), device=images.images.device)
            x, y = images.batch(positions, device)
            logits = net(x)
            found.append(((logits.argmax(1) == y) & logits.isfinite().all(1)).cpu().numpy())
    return np.concatenate(found)


def choose(right: Mapping[str, Right], labels: npt.NDArray[Any], of: str) -> Trial:
    """Return the best candidate, if it beats chance and every other one beyond doubt; else raise UsageError.

    Chance is the share of the most frequent class, which a net that always names it would reach: the best one's 95 %
    Wilson interval must lie above it. Beyond doubt is p < 0.001 in the exact McNemar test on the same images.
    """
    n = len(labels)
    correct = {name: int(each.sum()) for name, each in right.items()}
    best = max(correct, key=lambda name: correct[name])
    told = f"on the first {n} test images: {_told(correct, n)}"
    chance = float(np.bincount(labels).max() / n)
    if wilson(correct[best], n)[0] <= chance:
        what = f"no preprocessing makes {of} better than chance ({100 * chance:.1f} %) {told}"
        raise UsageError(what, f"Check --dataset and --arch. {MEND}")
    rivals = [other for other in right if other != best and not _beats(right[best], right[other])]
    if rivals:
        what = f"the preprocessing of {of} may be {' or '.join([best, *rivals])} {told}"
        raise UsageError(what, MEND)
    return Trial(best, n, correct)


def _beats(one: Right, other: Right) -> bool:
    return mcnemar(int((one & ~other).sum()), int((other & ~one).sum())) < LEVEL


def _told(correct: Mapping[str, int], n: int) -> str:
    return ", ".join(f"{name} {100 * count / n:.1f} %" for name, count in correct.items())
