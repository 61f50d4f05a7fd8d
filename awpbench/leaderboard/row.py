"""A row of the leaderboard and the file around it: schema version 1.

RobustBench's keys stand in RobustBench's spelling and order; everything else is in the `awpbench` object.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from awpbench import __version__, own_data
from awpbench.config import Norm, Ratio
from awpbench.errors import CheckError, InputError, UsageError
from awpbench.leaderboard.attacks import Attack, Json, in_canonical_order, in_columns, strongest
from awpbench.models import published_name

SCHEMA_VERSION = 1  # of leaderboard.json
RESULT_VERSION = 1  # of result.json
ID = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$"
PERCENT = r"^\d{1,3}\.\d\d$"
OPTIONAL = (
    "autoattack_acc",
    "external",
    "footnote",
    "unreliable",
)  # RobustBench leaves these out where they say nothing
LIFTED = {"defense", "awp", "awp_gamma", "awp_warmup", "select_on"}  # of config.json: a row has fields for these

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


class Details(Strict):
    """Everything of a row that RobustBench has no key for. Accuracies are fractions in [0, 1]."""

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
    audit: Audit
    defense: str | None = Field(description="null for a net that awpbench did not train, as are the next three")
    awp: Awp | None = Field(description="null without weight perturbation")
    selection: Literal["validation", "test", "last"] | None = Field(description="the images that chose the checkpoint")
    train: Json | None = Field(description="the rest of the run's config.json")
    hashes: Annotated[dict[str, str | None], AfterValidator(in_canonical_order)] = Field(
        description="SHA-256 each; `data` is the fingerprint of the test images and labels, `indices` tells which of "
        "them were used, `result` and `config` are taken of the documents with sorted keys and no blanks"
    )
    tool_version: str = Field(description="version of awpbench that built the row")

    @model_validator(mode="after")
    def _says_what_was_measured(self) -> Details:
        if "clean" not in self.attacks or not self.attacks["clean"].complete:
            raise ValueError("the clean accuracy is missing")
        for key in ("data", "indices"):
            if not self.hashes.get(key):
                raise ValueError(f"the hash of the {key} is missing")
        return self

    @property
    def suite_series(self) -> str:
        """The suite's `major.minor`: rows that share it are comparable."""
        return ".".join(self.suite_version.split(".")[:2])


class Row(Strict):
    """One row: RobustBench's keys (accuracies are percent strings), then `awpbench`."""

    link: Link
    name: str
    authors: str
    additional_data: bool
    number_forward_passes: int = Field(ge=1)
    dataset: str
    venue: str
    architecture: str
    eps: str
    clean_acc: Percent
    reported: Percent
    autoattack_acc: Percent | None = None
    external: Percent | None = None
    footnote: str | None = None
    unreliable: bool | None = None
    awpbench: Details

    @model_validator(mode="after")
    def _was_not_typed_by_hand(self) -> Row:
        for key, value in _derived(self.awpbench).items():
            if getattr(self, key) != value:
                raise ValueError(f"{key} is {getattr(self, key)!r}, but the awpbench object makes it {value!r}")
        return self

    @classmethod
    def from_result(cls, result: dict[str, Any], card: dict[str, Any] | None = None) -> Row:
        """Build the row of a finished evaluation of a named suite.

        `result` is result.json, whose `training` is the configuration of the run that trained the net (null: not
        trained by awpbench); `card` holds the bibliographic keys. Raises CheckError for NaN and infinity, InputError
        for anything else that does not fit.
        """
        config = result["training"] if isinstance(result.get("training"), dict) else None
        try:
            hashes = {"result": _hash(result), "config": None if config is None else _hash(config)}
        except ValueError:
            mend = "Evaluate again, and look for the attack that broke down."
            raise CheckError("the result holds NaN or infinity", mend) from None
        bibliography = card_of(card or {})
        details = _details(result, config, hashes)
        keys = bibliography.model_dump() | _derived(details)
        keys["number_forward_passes"] = 1
        keys["architecture"] = _published(details)
        keys["footnote"] = _footnote(details) if details.partial else None
        return cls(**keys, awpbench=details)

    def document(self) -> dict[str, Any]:
        """Return the row as it stands in the file: plain values, one key order, empty optional keys left out."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if key not in OPTIONAL or value is not None}


def _by_id(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: row.awpbench.id))


class Board(Strict):
    """The leaderboard file: rows sorted by id, each id once."""

    schema_version: Literal[1]
    rows: Annotated[tuple[Row, ...], AfterValidator(_by_id)]

    @model_validator(mode="after")
    def _holds_each_id_once(self) -> Board:
        for one, other in zip(self.rows, self.rows[1:], strict=False):
            if one.awpbench.id == other.awpbench.id:
                raise ValueError(f"two rows have the id {one.awpbench.id}")
        return self


def board_of(rows: tuple[Row, ...]) -> Board:
    """Make a leaderboard of the current schema version."""
    return Board(schema_version=1, rows=rows)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of leaderboard.json, as published in docs/schema/leaderboard.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Board.model_json_schema()}


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


def card_of(values: dict[str, Any]) -> Card:
    """Read the bibliographic keys of a card. Raises InputError for any other key or a value that does not fit."""
    return checked(Card, values, "the card", f"A card holds {', '.join(Card.model_fields)} and nothing else.")


def _hash(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _details(result: dict[str, Any], config: dict[str, Any] | None, hashes: dict[str, str | None]) -> Details:
    version = result.get("schema_version")
    if isinstance(version, int) and version > RESULT_VERSION:
        what = f"the result has schema version {version}; this awpbench reads {RESULT_VERSION}"
        raise InputError(what, "Update awpbench.")
    if version != RESULT_VERSION:
        raise InputError("the result is no result.json of awpbench", "Name the folder that awpbench eval wrote.")
    if not result.get("suite"):
        raise InputError("the result belongs to no named suite", "Evaluate with --suite quick, standard or full.")
    model, attacks, audit = (_object(result.get(key)) for key in ("model", "attacks", "audit"))
    copied = ("suite", "suite_version", "dataset", "norm", "eps", "dialect", "n", "partial", "seed")
    values = {
        "id": "unnamed",
        "model": model.get("name"),
        "source": model.get("source"),
        "architecture": model.get("architecture"),
        "width": model.get("width"),
        **{key: result.get(key) for key in copied},
        "dataset": _shown(result.get("dataset")),
        "attacks": {name: _measured(name, _object(attack)) for name, attack in attacks.items()},
        "audit": {"verdict": audit.get("verdict"), "findings": audit.get("findings") or []},
        **_training(config, str(model.get("name"))),
        "hashes": {**_object(result.get("hashes")), **hashes},
        "tool_version": __version__,
    }
    details = checked(Details, values, "the result", "Evaluate again with this version of awpbench.")
    return details.model_copy(update={"id": _identifier(details)})


def _shown(dataset: Any) -> Any:
    return own_data.shown(dataset) if isinstance(dataset, str) else dataset


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _measured(name: str, attack: dict[str, Any]) -> dict[str, Any]:
    measured = {key: attack.get(key) for key in ("n", "correct", "accuracy", "interval")}
    rest = {"definition": attack.get("definition") or {}, "parts": attack.get("parts") or {}}
    rest |= {"nan_logits": attack.get("nan_logits", 0), "nan_gradients": attack.get("nan_gradients")}
    return {**measured, **rest, "complete": attack.get("complete", name != "autoattack")}


def _training(config: dict[str, Any] | None, model: str) -> dict[str, Any]:
    """Return what a row says of the training; a model's name ends in its checkpoint's: `cifar10-prn18-at-s0/best`."""
    if config is None:
        return dict.fromkeys(("defense", "awp", "selection", "train"))
    checkpoint = re.search(r"(?:^|[^A-Za-z0-9])(best|last)(?:\.pt)?$", model)
    selection = {"best": config.get("select_on"), "last": "last"}.get(checkpoint[1]) if checkpoint else None
    awp = {"gamma": config.get("awp_gamma"), "warmup": config.get("awp_warmup")} if config.get("awp") else None
    lifted = LIFTED - {"awp_gamma", "awp_warmup"} if config.get("rwp") else LIFTED
    train = {key: value for key, value in config.items() if key not in lifted}
    if "dataset" in train:  # where it lay on somebody's machine is nobody's business
        train["dataset"] = _shown(train["dataset"])
    return {"defense": config.get("defense"), "awp": awp, "selection": selection, "train": train}


def _derived(details: Details) -> dict[str, Any]:
    """Return RobustBench's keys that follow from the measurements; a row in which they differ was edited."""
    attacks = details.attacks
    autoattack = attacks.get("autoattack")
    complete = autoattack is not None and autoattack.complete
    verdict = details.audit.verdict
    return {
        "dataset": details.dataset,
        "eps": details.eps,
        "clean_acc": attacks["clean"].percent,
        "reported": attacks[strongest(attacks)].percent,
        "autoattack_acc": autoattack.percent if autoattack and complete else None,
        "external": _external(details) if complete else None,
        "unreliable": None if verdict is None else verdict == "suspicious",
    }


def _external(details: Details) -> str | None:
    """Return the lowest accuracy that another attack reached on AutoAttack's images, where it is below AutoAttack's."""
    autoattack = details.attacks["autoattack"]
    best = min(
        (attack for attack in details.attacks.values() if attack.n == autoattack.n),
        key=lambda attack: attack.correct,
    )
    return best.percent if best.correct < autoattack.correct else None


def _published(details: Details) -> str:
    try:
        return published_name(details.architecture or "", details.width)
    except UsageError:
        return details.architecture or ""


def _footnote(details: Details) -> str:
    sizes = sorted({attack.n for attack in details.attacks.values()}, reverse=True)
    groups = {size: [name for name, attack in details.attacks.items() if attack.n == size] for size in sizes}
    told = "; ".join(f"{', '.join(names)} on {size} images" for size, names in groups.items())
    return f"Measured on part of the test set: {told}."


def _identifier(details: Details) -> str:
    """Name what was measured: equal names mean that the newer row supersedes the older one (docs/leaderboard.md).

    A net that we trained is known by its name and configuration, any other by its weights.
    """
    hashes = details.hashes
    weights = hashes.get("weights") or hashes.get("checkpoint") or details.model
    measured = {
        "net": [details.model, hashes["config"]] if hashes["config"] else [weights],
        "images": [details.dataset, hashes["data"], hashes["indices"]],
        "threat": [details.norm, details.eps, details.dialect],
        "suite": [details.suite, details.suite_series],
        "attacks": {name: [attack.n, attack.definition] for name, attack in details.attacks.items()},
    }
    ending = f".{details.suite}-v{details.suite_series}.{_hash(measured)[:12]}"
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", details.model).lstrip("._+-") or "model"
    return readable[: 128 - len(ending)] + ending
