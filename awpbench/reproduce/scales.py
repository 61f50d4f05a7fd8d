"""The scales at which recipes run, and the rules that scale them down. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from awpbench.config import Ratio
from awpbench.defaults import default_eps

Values = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large runs are: `shrink` gives the values that replace a recipe's, `rule` says so in words.

    `limits` are the images of an attack that is too dear for all of them, `n_examples` those of any attack.
    """

    name: str
    rule: str
    shrink: Callable[[Mapping[str, Any]], Values]
    limits: Mapping[str, int]
    n_examples: int | None = None
    block: int | None = None  # images per call of the net, None: as usual
    stand_ins: bool = True  # where a recipe's checkpoint does not fit these nets, a run of another recipe gives one
    own_unlabelled: bool = False  # unlabelled images are made from the data set


SMALL_WIDTH, SMALL_IMAGES, SMALL_EVERY = 16, 1000, 5
SMOKE_WIDTH, SMOKE_IMAGES, SMOKE_EPOCHS, SMOKE_TEST = 8, 192, 2, 40


def _fraction(ratio: Ratio) -> Fraction:
    numerator, _, denominator = ratio.text.partition("/")
    return Fraction(numerator) / Fraction(denominator or 1)


def _whole(values: Mapping[str, Any]) -> Values:
    return {}


def _small(values: Mapping[str, Any]) -> Values:
    share = Fraction(3, 4)
    found: Values = {
        "width": SMALL_WIDTH,
        "train_examples": SMALL_IMAGES,
        "validation_examples": 1000,
        "select_on": "validation",
        "epochs": round(share * values["epochs"]),
        "track_every": SMALL_EVERY,
        "track_examples": 500,
        "track_steps": 10,
    }
    if values.get("awp_warmup"):
        found["awp_warmup"] = round(share * values["awp_warmup"])
    if values.get("patience"):
        found["patience"] = round(share * values["patience"] / SMALL_EVERY)
    return found


def _smoke(values: Mapping[str, Any]) -> Values:
    eps = default_eps("digits", values["norm"])
    step = _fraction(values["step_size"]) / _fraction(values["eps"])
    found: Values = {
        "dataset": "digits",
        "architecture": "small-cnn",
        "width": SMOKE_WIDTH,
        "train_examples": SMOKE_IMAGES,
        "validation_examples": 50 if values["select_on"] == "validation" else 0,
        "eps": eps,
        "step_size": eps.times(step.numerator, step.denominator),
        "epochs": SMOKE_EPOCHS,
        "batch_size": values["batch_size"] // 2,
        "track_examples": 50,
    }
    if values.get("awp_warmup"):
        found["awp_warmup"] = 1
    if values.get("patience"):
        found["patience"] = 1
    if values.get("cutout"):
        found["cutout"] = round(values["cutout"] * Fraction(8, 32))  # sides of the images
    return found


SCALES = {
    "paper": Scale("paper", "as published", _whole, limits={}, stand_ins=False),
    "small": Scale(
        "small",
        "nets 16 channels wide, the first 1,000 training images, three quarters of the epochs (and of those before AWP "
        "starts), measured every 5 epochs with PGD-10 on 1,000 validation images, which choose best.pt; "
        "PGD-100, CW and AutoAttack on 300 test images, SPSA on 60",
        _small,
        limits={"pgd-100": 300, "cw-inf": 300, "autoattack": 300, "spsa": 60},
    ),
    "smoke": Scale(
        "smoke",
        "small-cnn 8 channels wide on 192 digits for 2 epochs with half of the batch, the digits' budget with steps of "
        "the same share of it, AWP from the second epoch where it starts late, cutout of 4 pixels, a patience of 1; "
        "unlabelled images are digits; 40 test images, AutoAttack on 8, SPSA on 1. "
        "It shows that everything runs, and nothing else",
        _smoke,
        limits={"autoattack": 8, "spsa": 1},
        n_examples=SMOKE_TEST,
        block=8,
        own_unlabelled=True,
    ),
}
