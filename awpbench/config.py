"""Frozen, validated configurations. Importable without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from awpbench import own_data
from awpbench.errors import UsageError, hint, lookup

M = TypeVar("M", bound=BaseModel)


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
SMALLEST = Fraction(1, 10**12)  # of numbers but 0: nothing here is smaller, or larger than its inverse
_LONGEST = 24  # characters of a number: all digits of a float


@dataclass(frozen=True)
class Ratio:
    """An exact number with one spelling: decimals as they are, else so many 255ths, else a reduced fraction.

    So 3/20 is `0.15` and 16/510 is `8/255`, and results under equal budgets say so in equal words.
    """

    text: str
    value: float

    @classmethod
    def parse(cls, given: str | float | Ratio) -> Ratio:
        """Read `8/255`, `0.031`, or a number. Raises UsageError for anything else, NaN and infinity included."""
        if isinstance(given, Ratio):
            return given
        text = str(given).strip()
        try:
            return cls._of(_exact(text))
        except (ValueError, ZeroDivisionError, OverflowError):
            what = f"{text!r} is not a number"
            raise UsageError(what, "Write a decimal such as 0.031 or a fraction such as 8/255.") from None

    def times(self, numerator: int, denominator: int) -> Ratio:
        """Scale exactly: 8/255 times 1/4 is 2/255."""
        return Ratio._of(_exact(self.text) * Fraction(numerator, denominator))

    @classmethod
    def _of(cls, exact: Fraction) -> Ratio:
        text = _decimal(exact)
        if text is None:
            of_255 = _decimal(exact * 255)
            text = f"{exact.numerator}/{exact.denominator}" if of_255 is None else f"{of_255}/255"
        return cls(text, float(exact))

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def _validate(cls, given: Any) -> Ratio:
        if not isinstance(given, str | int | float | Ratio) or isinstance(given, bool):
            raise ValueError("not a number")
        return cls.parse(given)


def _exact(text: str) -> Fraction:
    numerator, slash, denominator = text.partition("/")
    for number in (numerator, denominator) if slash else (numerator,):
        if len(number) > _LONGEST or not _NUMBER.fullmatch(number):
            raise ValueError(number)
    exact = Fraction(numerator) / Fraction(denominator if slash else 1)
    if exact and not SMALLEST <= abs(exact) <= 1 / SMALLEST:
        raise ValueError(text)
    return exact


def _decimal(exact: Fraction) -> str | None:
    """Write a number without a fraction, or return None where that takes infinitely many digits."""
    rest = exact.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return None
    text = f"{Decimal(exact.numerator) / Decimal(exact.denominator):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


Norm = Literal["Linf", "L2"]
Precision = Literal["fp32", "bf16-attack"]  # of attacks; every reported accuracy comes from the fp32 net
TrainingPrecision = Literal["fp32", "bf16-attack", "bf16"]  # bf16: attack and update; weights are kept in fp32


def check_budget(norm: str, eps: float, shape: tuple[int, ...] = ()) -> None:
    """Raise UsageError for an unknown norm, a negative budget, or one that covers all images (8/255, not 8).

    In L-inf that is a budget above 1, in L2 one above the square root of the number of pixels of images of the shape
    `(C, H, W)`, where it is given.
    """
    if norm not in get_args(Norm):
        raise UsageError(f"there is no norm called {norm!r}", hint(norm, get_args(Norm)))
    if not eps >= 0:
        raise UsageError(f"eps is {eps}, which is no radius", "Give a number >= 0, such as 8/255.")
    if norm == "Linf" and eps > 1:
        raise UsageError(f"eps is {eps:g}, but pixels are in [0, 1]", f"Write it as a fraction of 255: {eps:g}/255.")
    if norm == "L2" and shape and eps > math.sqrt(math.prod(shape)):
        what = f"eps is {eps:g}, but no two images are further than {math.sqrt(math.prod(shape)):.4g} apart"
        raise UsageError(what, f"Write it as a fraction of 255: {eps:g}/255.")


LARGEST_SEED = 2**63 - 1  # that torch takes
Schedule = Literal["piecewise", "cosine", "cyclic", "linear", "one-drop", "multi-decay"]
Augmentation = Literal["crop-flip", "crop-flip-rotate", "none"]
SizeNorm = Literal["l1", "l2"]


# Mistakes of public code that a recipe may repeat, each with the one defense and norm that it can occur in (None: any).
COMPAT: Mapping[str, tuple[str, Norm | None]] = {
    "hendrycks-attack-centre": ("at", "Linf"),
    "svhn-l2-start": ("at", "L2"),
    "first-batch-eval": ("at", None),
}
LENDERS = ("at", "trades", "mart")  # whose attack and loss finetuning and rst may take


def check_step(norm: str, step_size: float, eps: float) -> None:
    """Raise UsageError for a step that moves nowhere or downhill, or in L-inf beyond all images (2/255, not 2).

    Where the budget is 0, so may the step be.
    """
    if norm == "Linf" and step_size > 1:
        what = f"--step-size is {step_size:g}, but pixels are in [0, 1]"
        raise UsageError(what, f"Write it as a fraction of 255: {step_size:g}/255.")
    if not (step_size > 0 or step_size == eps == 0):
        raise UsageError(f"--step-size is {step_size:g}, which is no step", "Give a number above 0, such as 2/255.")


def of_file(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the values of a configuration file to the types of a configuration's fields, or raise UsageError."""
    found = {}
    for key, value in values.items():
        lookup(model.model_fields, "configuration value", key)
        try:
            found[key] = TypeAdapter[Any](model.model_fields[key].annotation or Any).validate_python(value)
        except ValidationError as error:
            what = f"{key} is {value!r} in the file: {error.errors()[0]['msg']}"
            raise UsageError(what, f"Give another value of {key}.") from None
    return found


def validated(model: type[M], values: Mapping[str, Any]) -> M:
    """Make a configuration; the first value that does not fit is a UsageError that names its flag."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
    name = str(first["loc"][0])
    flag, given = f"--{name.replace('_', '-')}", first["input"]
    known = get_args(model.model_fields[name].annotation)
    if first["type"] == "literal_error" and isinstance(given, str) and all(isinstance(each, str) for each in known):
        raise UsageError(f"there is no {flag} called {given!r}", hint(given, known))
    raise UsageError(f"{flag} is {given!r}: {first['msg']}", f"Give another {flag}.")


class TrainConfig(BaseModel):
    """Everything that decides what a training run computes; where it runs and writes is not part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    architecture: str
    width: int | None = Field(default=None, ge=1)
    normalization: Literal["meanstd", "none"]
    defense: str
    loss: str | None = None  # the defense whose attack and loss finetuning and rst take
    init_from: str | None = None  # a checkpoint to start from
    init_weights: str | None = None  # SHA-256 of its weights
    unlabelled: str | None = None  # a file of images with pseudo-labels
    unlabelled_fingerprint: str | None = None  # of those images and labels
    unlabelled_fraction: float = Field(default=0.5, gt=0, lt=1)  # of a batch
    unlabelled_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)  # lambda of AWP paper, Eq. 4
    norm: Norm
    eps: Ratio
    steps: int = Field(ge=0)
    step_size: Ratio
    beta: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    awp: bool = False
    rwp: bool = False  # a random perturbation in place of the adversarial one
    awp_gamma: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    awp_warmup: int = Field(default=0, ge=0)  # epochs without perturbation at the start
    awp_steps: int = Field(default=1, ge=1)  # K2: ascent steps in the weights
    awp_alternations: int = Field(default=1, ge=1)  # A: rounds of attack and ascent in a step
    awp_size: SizeNorm = "l2"  # the norm that measures weights and perturbation
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0, allow_inf_nan=False)
    schedule: Schedule
    lr_end: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # of the cosine
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(ge=0, allow_inf_nan=False)
    l1: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # times the sum of |w|, added to the loss
    l2: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # weight decay of convolutions and linear layers only
    mixup: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # alpha of the Beta distribution
    cutout: int = Field(default=0, ge=0)  # side of the square, in pixels
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)  # decay of the averaged weights; 0: none are kept
    patience: int | None = Field(default=None, ge=1)  # measurements without a better best.pt before training ends
    augmentation: Augmentation
    padding: Literal["reflect", "zero"]
    train_examples: int | None = Field(default=None, ge=1)
    validation_examples: int = Field(ge=0)
    select_on: Literal["validation", "test"] = "validation"
    track_every: int = Field(default=1, ge=1)  # epochs between measurements of robustness
    track_examples: int | None = Field(default=1000, ge=1)  # training images measured; None: all
    track_steps: int = Field(default=20, ge=1)  # of the PGD that measures
    precision: TrainingPrecision = "fp32"  # of training; accuracies are measured in fp32
    compile: bool = False  # torch.compile
    compat: tuple[str, ...] = ()  # known mistakes of public code to repeat, by name
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _make_sense(self) -> TrainConfig:
        check_budget(self.norm, self.eps.value)
        check_step(self.norm, self.step_size.value, self.eps.value)
        self._check_perturbation()
        self._check_regularisers()
        self._check_borrowing()
        self._check_compat()
        if self.select_on == "validation" and self.validation_examples == 0:
            raise UsageError(
                "the best checkpoint is chosen on validation images, but none are set aside",
                "Give --validation-examples, or --select-on test.",
            )
        return self

    def _check_borrowing(self) -> None:
        """Hold finetuning and rst to what they need, and the others to nothing of it."""
        borrows = self.defense in ("finetuning", "rst")
        if borrows and self.loss not in LENDERS:
            raise UsageError(
                f"{self.defense} takes attack and loss of another defense, and {self.loss} lends none",
                f"Give --loss {', '.join(LENDERS[:-1])} or {LENDERS[-1]}.",
            )
        if not borrows and self.loss is not None:
            raise UsageError(f"--loss {self.loss} is for finetuning and rst", f"Leave it out, or --method {self.loss}.")
        if self.defense == "finetuning" and self.init_from is None:
            raise UsageError(
                "finetuning starts from a pre-trained net, and none is given", "Add --init-from CHECKPOINT."
            )
        if (self.defense == "rst") != (self.unlabelled is not None):
            raise UsageError(
                "--method rst and --unlabelled FILE need each other",
                "Make the file with: awpbench data pseudolabel --ckpt CHECKPOINT --images FILE --out FILE.npz",
            )
        if self.defense != "rst" and (self.unlabelled_fraction, self.unlabelled_weight) != (0.5, 1.0):
            what = "--unlabelled-fraction and --unlabelled-weight would do nothing: there are no pseudo-labelled images"
            raise UsageError(what, "Leave them out, or choose --method rst.")
        if self.defense == "rst" and not 0 < self.pseudo_labelled() < self.batch_size:
            raise UsageError(
                f"of a batch of {self.batch_size}, {self.unlabelled_fraction:g} leaves one part without an image",
                "Give a larger --batch-size, or an --unlabelled-fraction nearer to 0.5.",
            )

    def _check_compat(self) -> None:
        for name in self.compat:
            defense, norm = lookup(COMPAT, "compat name", name)
            if (self.loss or self.defense) != defense or self.norm != (norm or self.norm):
                where = f"the attack of {defense}" + (f" in {norm}" if norm else "")
                raise UsageError(f"compat {name} is a mistake of {where}, which this run does not use", "Leave it out.")
        if len(set(self.compat)) < len(self.compat):
            raise UsageError("a name stands twice in compat", "Leave one of them out.")

    def pseudo_labelled(self) -> int:
        """Return how many images of a batch of rst have pseudo-labels."""
        return round(self.unlabelled_fraction * self.batch_size)

    def _check_perturbation(self) -> None:
        kind = "RWP" if self.rwp else "AWP"
        if self.awp and self.rwp:
            raise UsageError("a perturbation of the weights is adversarial or random", "Give --awp or --rwp, not both.")
        if (self.awp or self.rwp) and self.awp_gamma == 0:
            what = f"{kind} with gamma 0 would never perturb anything"
            raise UsageError(what, f"Give an --awp-gamma above 0, or --no-{kind.lower()}.")
        if (self.awp or self.rwp) and self.awp_warmup >= self.epochs:
            raise UsageError(
                f"{kind} would start after epoch {self.awp_warmup}, but the run has {self.epochs} epochs",
                "Give a smaller --awp-warmup or more --epochs.",
            )
        if self.rwp and (self.awp_steps, self.awp_alternations) != (1, 1):
            what = "RWP draws once a step: it has no ascent steps and no alternations"
            raise UsageError(what, "Leave --awp-steps and --awp-alternations out, or choose --awp.")
        shape = (self.awp_gamma, self.awp_warmup, self.awp_steps, self.awp_alternations, self.awp_size)
        if not (self.awp or self.rwp) and shape != (0.0, 0, 1, 1, "l2"):
            raise UsageError(
                "a size of the weights' perturbation is given, but there is none",
                "Add --awp or --rwp, or leave it out.",
            )

    def _check_regularisers(self) -> None:
        method = self.loss or self.defense
        if self.l2 and self.weight_decay:
            what = f"--l2 takes the place of --weight-decay, which is {self.weight_decay:g}"
            raise UsageError(what, "Leave --weight-decay or --l2 out.")
        if self.mixup and (method not in ("standard", "at") or self.defense == "rst"):
            what = f"mixup mixes the labels that a cross-entropy is taken of, and {self.defense} needs whole ones"
            raise UsageError(what, "Leave --mixup out, or choose --method at or standard.")
        if self.mixup and (self.awp or self.rwp):
            what = "mixup is defined without a perturbation of the weights, as in the public code"
            raise UsageError(what, "Leave --mixup out, or --awp and --rwp.")
        if self.label_smoothing and method == "mart":
            what = "MART's loss reads the probability of one label and has no place for smoothed ones"
            raise UsageError(what, "Leave --label-smoothing out, or choose another --method.")
        if self.nesterov and self.momentum == 0:
            raise UsageError("--nesterov needs a momentum, which is 0", "Give a --momentum above 0, or --no-nesterov.")
        if self.lr_end and (self.schedule != "cosine" or self.lr_end > self.lr):
            what = f"--lr-end is where the cosine ends, at most --lr: it is {self.lr_end:g} of {self.schedule}"
            raise UsageError(what, "Give --schedule cosine and a smaller --lr-end, or leave it out.")

    def name(self) -> str:
        """Name a run folder: `cifar10-prn18-w16-trades-awp-s0`."""
        width = [f"w{self.width}"] if self.width else []
        awp = ["awp"] if self.awp else ["rwp"] if self.rwp else []
        return "-".join([own_data.slug(self.dataset), self.architecture, *width, self.defense, *awp, f"s{self.seed}"])
