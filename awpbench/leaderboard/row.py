"""A row of the leaderboard and the file around it: schema version 2.

A measured row is RobustBench's keys in RobustBench's spelling and order, all derived from a result, then the `awpbench`
object with everything else. A reported row is RobustBench's keys as somebody else wrote them, then an `awpbench` object
that says where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from awpbench.leaderboard.derived import details_of, hash_of, identifier, robustbench_keys
from awpbench.leaderboard.details import (
    Card,
    Details,
    Event,
    Link,
    Percent,
    ReportedDetails,
    Retraction,
    Source,
    Strict,
    Threat,
    checked,
)

SCHEMA_VERSION = 2  # of leaderboard.json
OPTIONAL = (
    "autoattack_acc",
    "external",
    "footnote",
    "unreliable",
)  # RobustBench leaves these out where they say nothing


class _Row(Strict):
    """What measured and reported rows share."""

    awpbench: Details | ReportedDetails

    def document(self) -> dict[str, Any]:
        """Return the row as it stands in the file: plain values, one key order."""
        return self.model_dump(mode="json")

    def sealed(self, *, history: tuple[Event, ...] | None = None, retracted: Retraction | None = None) -> Self:
        """Return the row with another history and retraction, and the digest of all that."""
        changes = {"history": self.awpbench.history if history is None else history, "retracted": retracted}
        bare = self.model_copy(update={"awpbench": self.awpbench.model_copy(update={**changes, "digest": None})})
        details = bare.awpbench.model_copy(update={"digest": hash_of(bare.document())})
        return bare.model_copy(update={"awpbench": details})

    def _check_itself(self) -> None:
        """Raise ValueError where one part of the row contradicts another."""

    @model_validator(mode="after")
    def _is_as_it_was_written(self) -> Any:
        self._check_itself()
        digest = self.awpbench.digest
        if digest is not None:
            bare = self.model_copy(update={"awpbench": self.awpbench.model_copy(update={"digest": None})})
            if hash_of(bare.document()) != digest:
                raise ValueError(f"the row {self.awpbench.id} is not as awpbench wrote it")
        return self

    def same_content(self, other: _Row) -> bool:
        """Tell whether two rows differ in nothing but their history, retraction and the version that built them."""
        return self.content() == other.content()

    def content(self) -> dict[str, Any]:
        """Return the row without its history, retraction, digest and the version that built it."""
        document = self.document()
        beside = ("history", "retracted", "digest", "tool_version")
        own = {key: value for key, value in document["awpbench"].items() if key not in beside}
        return {**document, "awpbench": own}


class Row(_Row):
    """One measured row: RobustBench's keys (accuracies are percent strings), then `awpbench`."""

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

    def _check_itself(self) -> None:
        for key, value in robustbench_keys(self.awpbench).items():
            if getattr(self, key) != value:
                raise ValueError(f"{key} is {getattr(self, key)!r}, but the awpbench object makes it {value!r}")
        if self.awpbench.id != (known := identifier(self.awpbench)):
            raise ValueError(f"the id is {self.awpbench.id!r}, but the awpbench object makes it {known!r}")

    @classmethod
    def from_result(
        cls,
        result: Mapping[str, Any],
        arrays: Mapping[str, Any],
        card: dict[str, Any] | None = None,
        *,
        folder: str | None = None,
    ) -> Row:
        """Build the row of a finished evaluation of a named suite.

        `result` is result.json, whose `training` is the configuration of the run that trained the net (null: not
        trained by awpbench); `arrays` are those of per_image.npz; `card` holds the bibliographic keys; `folder` says
        where the result lies. Raises CheckError for NaN and infinity, InputError for anything else that does not fit.
        """
        bibliography = card_of(card or {})
        details = details_of(result, arrays, folder)
        keys = bibliography.model_dump() | robustbench_keys(details)
        keys["additional_data"] |= bool((details.train or {}).get("unlabelled"))
        return cls(**keys, awpbench=details).sealed()

    def with_bibliography_of(self, other: Row) -> Row:
        """Return the row with the bibliographic keys of another one."""
        keys = {key: getattr(other, key) for key in Card.model_fields}
        return self.model_copy(update=keys).sealed()

    def document(self) -> dict[str, Any]:
        """Return the row as it stands in the file: plain values, one key order, empty optional keys left out."""
        values = self.model_dump(mode="json")
        kept = {key: value for key, value in values.items() if key not in OPTIONAL or value is not None}
        return {**{key: value for key, value in kept.items() if key != "awpbench"}, "awpbench": kept["awpbench"]}


class Reported(_Row):
    """One reported row: `keys` are RobustBench's, as they were found; in the file they stand beside `awpbench`."""

    keys: dict[str, JsonValue]
    awpbench: ReportedDetails

    @classmethod
    def of(
        cls, name: str, *, model: str, dataset: str, threat: Threat, keys: Mapping[str, Any], source: Source
    ) -> Reported:
        """Make the row with the id `name`; its eps is that of `keys`. Raises InputError.

        `dataset` is the table's: five of RobustBench's files stand in the folder of one data set and name another.
        """
        facts = {"id": name, "model": model, "dataset": dataset, "threat": threat, "eps": _text(keys.get("eps"))}
        own = {**facts, "source": source.model_dump(mode="json")}
        row = checked(cls, {**keys, "awpbench": own}, model, "Correct it at its source.")
        return row.sealed()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the form in the file: any keys of RobustBench, which publishes no schema, beside `awpbench`."""
        described = handler(core)
        own = handler.resolve_ref_schema(described)
        own["properties"].pop("keys", None)
        own |= {"required": ["awpbench"], "additionalProperties": True}
        return described

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {"keys": {k: v for k, v in values.items() if k != "awpbench"}, "awpbench": values.get("awpbench")}
        return values

    @model_serializer
    def _together(self) -> dict[str, Any]:
        return self.document()

    def _check_itself(self) -> None:
        eps, own = self.keys.get("eps"), self.awpbench.eps
        if _text(eps) != own:
            raise ValueError(f"eps is {eps!r}, but the awpbench object says {own!r}")

    def document(self) -> dict[str, Any]:
        """Return the row as it stands in the file: the keys as they were found, then `awpbench`."""
        return {**self.keys, "awpbench": self.awpbench.model_dump(mode="json")}


def _text(eps: Any) -> str | None:
    """Return an eps as text: RobustBench's own `update_json` writes a number."""
    return None if eps is None else str(eps)


def _kind(value: Any) -> str:
    own = value.get("awpbench") if isinstance(value, dict) else getattr(value, "awpbench", None)
    kind = own.get("kind") if isinstance(own, dict) else getattr(own, "kind", None)
    return "reported" if kind == "reported" else "measured"


AnyRow = Annotated[Annotated[Row, Tag("measured")] | Annotated[Reported, Tag("reported")], Discriminator(_kind)]


def row_of(values: Any, what: str, mend: str) -> Row | Reported:
    """Read one row of the file, of either kind. Raises an InputError of one line."""
    return checked(Reported, values, what, mend) if _kind(values) == "reported" else checked(Row, values, what, mend)


def _by_id(rows: tuple[Row | Reported, ...]) -> tuple[Row | Reported, ...]:
    return tuple(sorted(rows, key=lambda row: row.awpbench.id))


class Board(Strict):
    """The leaderboard file: rows sorted by id, each id once."""

    schema_version: Literal[2]
    rows: Annotated[tuple[AnyRow, ...], AfterValidator(_by_id)]

    @model_validator(mode="after")
    def _holds_each_id_once(self) -> Board:
        for one, other in zip(self.rows, self.rows[1:], strict=False):
            if one.awpbench.id == other.awpbench.id:
                raise ValueError(f"two rows have the id {one.awpbench.id}")
        for row in self.rows:
            if row.awpbench.digest is None:
                raise ValueError(f"the row {row.awpbench.id} has no digest")
        return self

    @property
    def measured(self) -> tuple[Row, ...]:
        """The rows that awpbench measured."""
        return tuple(row for row in self.rows if isinstance(row, Row))

    @property
    def reported(self) -> tuple[Reported, ...]:
        """The rows whose numbers others reported."""
        return tuple(row for row in self.rows if isinstance(row, Reported))


def board_of(rows: tuple[Row | Reported, ...]) -> Board:
    """Make a leaderboard of the current schema version."""
    return Board(schema_version=2, rows=rows)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of leaderboard.json, as published in docs/schema/leaderboard.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Board.model_json_schema()}


def card_of(values: dict[str, Any]) -> Card:
    """Read the bibliographic keys of a card. Raises InputError for any other key or a value that does not fit."""
    return checked(Card, values, "the card", f"A card holds {', '.join(Card.model_fields)} and nothing else.")
