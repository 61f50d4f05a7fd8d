"""What the `awpbench` object of a row holds: of a measured row everything that was measured, of a reported one whence.

Importable without torch, as the whole package.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from awpbench.config import Norm, Ratio
from awpbench.errors import InputError, UsageError
from awpbench.leaderboard.attacks import Attack, Fraction, Json, check_counts, in_canonical_order, in_columns, strongest

ID = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$"
FOLDER = r"^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*$"
PERCENT = r"^\d{1,3}\.\d\d$"
DAY = r"^\d{4}-\d\d-\d\d$"
DIGEST = r"^[0-9a-f]{64}$"

M = TypeVar("M", bound=BaseModel)


def _is_a_budget(text: str) -> str:
    try:
        value = Ratio.parse(text).value
    except UsageError as error:
        raise ValueError(error.what) from None
    if value < 0:
        raise ValueError(f"{text!r} is negative")
    return text


def _is_a_web_address(text: str) -> str:
    if text and not re.match(r"https?://", text):
        raise ValueError(f"{text!r} is no http(s) address")
    return text


Name = Annotated[str, Field(pattern=ID)]
Eps = Annotated[str, AfterValidator(_is_a_budget)]
Link = Annotated[str, AfterValidator(_is_a_web_address)]
Percent = Annotated[str, Field(pattern=PERCENT)]
Day = Annotated[str, Field(pattern=DAY)]
Digest = Annotated[str, Field(pattern=DIGEST)]
Threat = Literal["Linf", "L2", "corruptions"]


class Strict(BaseModel):
    """Base of every part of the file: frozen, no unknown key, no coercion, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Card(Strict):
    """What only a person can say of a model: the bibliographic keys, each of which may be left out."""

    link: Link = ""
    name: str = Field(default="", description="the paper's title")
    authors: str = ""
    additional_data: bool = False
    venue: str = ""


class Awp(Strict):
    """Adversarial weight perturbation: its size relative to the weights, and the epochs before it starts."""

    gamma: float = Field(ge=0)
    warmup: int = Field(ge=0)


class Audit(Strict):
    """Whether the evaluation is to be trusted; no verdict where it was not audited."""

    verdict: Literal["reliable", "suspicious"] | None
    findings: tuple[Json, ...]


class Score(Strict):
    """How many of n images are right, and its 95 % Wilson interval."""

    n: int = Field(ge=1)
    correct: int = Field(ge=0)
    accuracy: Fraction
    interval: tuple[Fraction, Fraction]

    @model_validator(mode="after")
    def _follows_from_its_counts(self) -> Score:
        check_counts(self.correct, self.n, self.accuracy, self.interval)
        return self


class Robust(Strict):
    """What a training run measured on `n` of its images: clean and robust accuracy."""

    n: int = Field(ge=1)
    clean: Fraction
    robust: Fraction


class Tracked(Strict):
    """What the run measured at the epoch of the checkpoint, at w under its own PGD; null where it did not measure."""

    epoch: int = Field(ge=1)
    train: Robust | None
    held_out: Robust | None
    held_out_images: Literal["validation", "test"] | None

    @property
    def gap(self) -> float | None:
        """The robust generalisation gap: robust accuracy on training images less that on images held out."""
        return self.train.robust - self.held_out.robust if self.train and self.held_out else None


class Outcomes(Strict):
    """Which images withstood the attack that ranks, in the order in which they were evaluated: one bit each, base64."""

    attack: str
    bits: str

    @classmethod
    def of(cls, attack: str, standing: Sequence[bool]) -> Outcomes:
        """Pack a truth value per image."""
        digits = "".join("1" if ok else "0" for ok in standing).ljust(-(-len(standing) // 8) * 8, "0")
        packed = int(digits or "0", 2).to_bytes(len(digits) // 8, "big")
        return cls(attack=attack, bits=base64.b64encode(packed).decode())

    def standing(self, n: int) -> tuple[bool, ...]:
        """Unpack them. Raises ValueError where they are not those of n images."""
        try:
            packed = base64.b64decode(self.bits, validate=True)
        except binascii.Error:
            raise ValueError("the outcomes are no base64") from None
        digits = f"{int.from_bytes(packed, 'big'):0{8 * len(packed)}b}" if packed else ""
        if len(packed) != -(-n // 8) or "1" in digits[n:]:
            raise ValueError(f"the outcomes are not those of {n} images")
        return tuple(digit == "1" for digit in digits[:n])


class Event(Strict):
    """What happened to a row on a day (UTC; null: not known). `digest`, `reported` and `result` are of the row before.

    `result` is the hash of its result, of a reported row that of its keys but for the bibliography.
    """

    date: Day | None
    action: Literal["added", "superseded", "retracted", "restored", "migrated"]
    digest: Digest | None = None
    reported: Percent | None = None
    result: Digest | None = None
    reason: str | None = Field(default=None, min_length=1)


class Retraction(Strict):
    """Why a row does not count any more, and since when."""

    date: Day
    reason: str = Field(min_length=1)


class Details(Strict):
    """Everything of a measured row that RobustBench has no key for. Accuracies are fractions in [0, 1]."""

    kind: Literal["measured"] = "measured"
    id: Name
    model: str = Field(min_length=1)
    source: str
    architecture: str | None
    width: int | None
    suite: Annotated[str, Field(pattern=ID, max_length=32)]
    suite_version: str = Field(pattern=r"^\d+\.\d+(\.\d+)?$")
    dataset: str = Field(min_length=1)
    norm: Norm
    eps: Eps
    dialect: str
    n: int = Field(ge=1)
    partial: bool = Field(description="true where an attack saw fewer images than its suite means it to")
    seed: int
    attacks: Annotated[dict[Name, Attack], AfterValidator(in_columns)]
    worst_case: Score | None = Field(description="the images that withstood all attacks, of those that all attacks saw")
    outcomes: Outcomes | None = Field(description="null in rows older than schema version 2, as is worst_case")
    audit: Audit
    defense: str | None = Field(description="null for a net that awpbench did not train, as are the next four")
    awp: Awp | None = Field(description="null without weight perturbation")
    selection: Literal["validation", "test", "last"] | None = Field(description="the images that chose the checkpoint")
    train: Json | None = Field(description="the rest of the run's config.json")
    tracked: Tracked | None
    hashes: Annotated[dict[str, str | None], AfterValidator(in_canonical_order)] = Field(
        description="SHA-256 each; `data` is the fingerprint of the test images and labels, `indices` tells which of "
        "them were used, `result` and `config` are taken of the documents with sorted keys and no blanks"
    )
    result: Annotated[str, Field(pattern=FOLDER)] | None = Field(
        description="folder of the result, from that of the leaderboard; null where it lies elsewhere"
    )
    tool_version: str = Field(description="version of awpbench that built the row")
    history: tuple[Event, ...] = ()
    retracted: Retraction | None = None
    digest: Digest | None = Field(default=None, description="SHA-256 of all the rest of the row")

    @model_validator(mode="after")
    def _says_what_was_measured(self) -> Details:
        if "clean" not in self.attacks or not self.attacks["clean"].complete:
            raise ValueError("the clean accuracy is missing")
        for key in ("data", "indices"):
            if not self.hashes.get(key):
                raise ValueError(f"the hash of the {key} is missing")
        if self.outcomes is not None:
            name = strongest(self.attacks)
            if self.outcomes.attack != name:
                raise ValueError(f"the outcomes are those of {self.outcomes.attack}, but {name} ranks")
            if sum(self.outcomes.standing(self.attacks[name].n)) != self.attacks[name].correct:
                raise ValueError(f"the outcomes do not add up to the correct images under {name}")
        return self

    @property
    def suite_series(self) -> str:
        """The suite's `major.minor`: rows that share it are comparable."""
        return ".".join(self.suite_version.split(".")[:2])

    @property
    def standing(self) -> tuple[bool, ...] | None:
        """Whether each image withstood the attack that ranks; None in rows that do not say."""
        return self.outcomes.standing(self.attacks[self.outcomes.attack].n) if self.outcomes else None


class Source(Strict):
    """Where a reported row comes from."""

    kind: Literal["robustbench", "paper"]
    reference: str = Field(min_length=1)
    attack: str | None = Field(default=None, description="behind the robust accuracy; null: that which the keys name")


class ReportedDetails(Strict):
    """What awpbench says of a row whose numbers others reported."""

    kind: Literal["reported"] = "reported"
    id: Name
    model: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    threat: Threat
    eps: Eps | None
    source: Source
    history: tuple[Event, ...] = Field(default=(), strict=False)  # a list, once the keys were told apart
    retracted: Retraction | None = None
    digest: Digest | None = Field(default=None, description="SHA-256 of all the rest of the row")


def checked(model: type[M], values: Any, what: str, mend: str) -> M:
    """Validate plain JSON values; raises an InputError of one line that names the first value that does not fit."""
    try:
        text = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(f"{what} holds a value that JSON cannot: NaN, infinity or a date", mend) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{what} does not fit: {where + ': ' if where else ''}{first['msg']}", mend) from None
