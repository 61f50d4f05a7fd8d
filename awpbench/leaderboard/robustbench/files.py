"""RobustBench's folder `model_info/<data set>/<threat model>/<model>.json`: read, checked, written.

A file is kept as it was read: values, key order, forms of numbers ("0.0", "76.9"), null, "" and missing keys. Only the
keys that RobustBench's own readers use are checked; unknown keys survive. Strings come from strangers: whoever shows
them has to escape them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from awpbench import rundir
from awpbench.errors import InputError, RefusedError
from awpbench.leaderboard.details import ID, Threat, checked

THREATS: tuple[Threat, ...] = get_args(Threat)
LIMIT = 64 * 1024  # bytes; RobustBench's largest file has 803
OURS = "awpbench"  # the key of the leaderboard's own object
FOLDER = "Name RobustBench's folder model_info: model_info/<data set>/<threat model>/<model>.json."
RESTORE = "Take the file from RobustBench again, or out of the folder."

Percent = Annotated[str, Field(pattern=r"^(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)$")]
Budget = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?(/[1-9][0-9]{0,5})?$")]
Relative = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,6})?$", description="percent of AlexNet's error")]
MISSING: Any = None  # the default of a key that may be missing, but is never null
Text = str | None  # RobustBench's `update_json` leaves null what it does not know


class ModelInfo(BaseModel):
    """One of RobustBench's files: accuracies are percent as text, without a sign."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    link: Text
    name: Text = Field(description="the paper's title")
    authors: Text = Field(description="separated by commas, in some files by ` and `")
    additional_data: bool | None = Field(description="trained on more than the data set")
    number_forward_passes: int | None = Field(description="more than 1 for an ensemble")
    dataset: Text = Field(description="the folder's name counts: five of RobustBench's files name another data set")
    venue: Text
    architecture: Text
    eps: Budget | Annotated[float, Field(ge=0)] | None = Field(description='"8/255"; a number from `update_json`')
    clean_acc: Percent
    reported: Text = Field(description='by the paper; "" and "null" occur')
    autoattack_acc: Percent | None = Field(default=None, description="needed in Linf and L2")
    external: Percent = Field(default=MISSING, description="under another attack; ranks if present")
    footnote: Text = Field(default=None, description="may hold HTML and MathJax")
    unreliable: bool = Field(default=MISSING, description="missing: unknown")
    corruptions_acc: Percent | None = Field(default=None, description="needed in corruptions")
    corruptions_acc_3d: Percent | None = None
    corruptions_mce: Relative | None = None
    corruptions_mce_3d: Relative | None = None

    @model_validator(mode="after")
    def _holds_nothing_of_ours(self) -> ModelInfo:
        if OURS in (self.model_extra or {}):
            raise ValueError(f"the key {OURS} is no key of RobustBench")
        return self


@dataclass(frozen=True)
class Entry:
    """One file: the folders that it lies in, its name without `.json`, and its content as it was read."""

    dataset: str
    threat: Threat
    model: str
    document: dict[str, Any]

    def path(self, folder: Path) -> Path:
        """Return where the file lies in a folder `model_info`."""
        return folder / self.dataset / self.threat / f"{self.model}.json"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of RobustBench's files, as published in docs/schema/robustbench-model.schema.json."""
    schema = ModelInfo.model_json_schema()
    for key, values in schema["properties"].items():
        values.pop("default", None)  # a missing key stays missing
        values["title"] = key
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read(folder: Path) -> list[Entry]:
    """Read every file of a folder `model_info`, sorted by data set, threat model and model.

    Raises InputError, which names the file, for anything that RobustBench's own readers would stumble over; and where
    there is no file at all.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}", FOLDER)
    entries = [_read(path, folder) for path in sorted(folder.glob("*/*/*.json"))]
    if not entries:
        raise InputError(f"{str(folder)!r} holds no file of RobustBench", FOLDER)
    return sorted(entries, key=lambda entry: (entry.dataset, entry.threat, entry.model))


def parse(document: Any, what: str) -> dict[str, Any]:
    """Check one of RobustBench's documents and return it as it is; raises InputError that begins with `what`."""
    if not isinstance(document, dict):
        raise InputError(f"{what} holds no JSON object", RESTORE)
    try:
        checked(ModelInfo, document, what, RESTORE)
    except RecursionError:
        raise InputError(f"{what} is nested too deeply", RESTORE) from None
    return document


def write(folder: Path, entries: Iterable[Entry], *, force: bool = False) -> dict[str, int]:
    """Write entries as files of a folder `model_info`; count those `written`, `replaced` and left `unchanged`.

    A file that says the same already is left as it is, blanks included. Raises InputError for a name that is none,
    RefusedError for a file that says something else (but for `force`), for one name given twice and for a path that
    leaves the folder through a link; then nothing was written.
    """
    planned: dict[Path, tuple[str, bytes]] = {}
    for entry in entries:
        path = _target(folder, entry)
        if path in planned:
            raise RefusedError(f"two rows would be the file {path}", "Export them into two folders.")
        planned[path] = (_outcome(path, entry), formatted(entry.document))
    differing = [path for path, (outcome, _) in planned.items() if outcome == "replaced"]
    if differing and not force:
        more = f", and {len(differing) - 1} more" if differing[1:] else ""
        what = f"{differing[0]} is there and says something else{more}"
        raise RefusedError(what, "Name another folder, or replace it with --force.")
    for path, (outcome, data) in planned.items():
        if outcome != "unchanged":
            rundir.atomic_write(path, data)
    counts = Counter(outcome for outcome, _ in planned.values())
    return {outcome: counts[outcome] for outcome in ("written", "replaced", "unchanged")}


def formatted(document: dict[str, Any]) -> bytes:
    """Write a document as most of RobustBench's files are: two blanks, ASCII, a line end."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def _read(path: Path, folder: Path) -> Entry:
    dataset, threat, model = path.parts[-3], path.parts[-2], path.stem
    what = repr(str(path))  # a file's name may hold terminal escapes
    for name in (dataset, model):
        if not re.fullmatch(ID, name):
            raise InputError(f"{what}: {name!r} is no name", "A name has letters, digits and . _ + - only.")
    if threat not in THREATS:
        raise InputError(f"{what}: {threat!r} is no threat model", f"Known: {', '.join(THREATS)}.")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{what} is a link that leaves the folder", RESTORE)
    document = parse(_json(path, what), what)
    needed = "corruptions_acc" if threat == "corruptions" else "autoattack_acc"
    if document.get(needed) is None:
        raise InputError(f"{what} has no {needed}, which RobustBench ranks by", RESTORE)
    return Entry(dataset, threat, model, document)


def _json(path: Path, what: str) -> Any:
    if not path.is_file():
        raise InputError(f"{what} is no file", RESTORE)
    with path.open("rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise InputError(f"{what} is larger than {LIMIT // 1024} KiB", RESTORE)
    try:
        return json.loads(data, parse_constant=_no_number)
    except RecursionError:
        raise InputError(f"{what} is nested too deeply", RESTORE) from None
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}", RESTORE) from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _target(folder: Path, entry: Entry) -> Path:
    for name in (entry.dataset, entry.model):
        if not re.fullmatch(ID, name):
            raise InputError(f"{name!r} cannot be the name of a file", "A name has letters, digits and . _ + - only.")
    if entry.threat not in THREATS:
        raise InputError(f"{entry.threat!r} is no threat model of RobustBench", f"Known: {', '.join(THREATS)}.")
    path = entry.path(folder)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RefusedError(f"{path} leads out of {folder} through a link", "Remove the link, or name another folder.")
    return path


def _outcome(path: Path, entry: Entry) -> str:
    if not path.exists():
        return "written"
    try:
        there = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "replaced"
    return "unchanged" if json.dumps(there) == json.dumps(entry.document) else "replaced"  # order and types count


def tables(entries: Iterable[Entry]) -> Iterator[tuple[tuple[str, str], list[Entry]]]:
    """Group entries by data set and threat model, in the order of `read`."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.dataset, entry.threat), []).append(entry)
    yield from sorted(groups.items())
