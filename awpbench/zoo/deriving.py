"""How a card follows from the files of a net: publishing derives it once, and every check derives it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awpbench import checkpoints, rundir
from awpbench.checkpoints import Checkpoint
from awpbench.errors import AwpbenchError, CheckError, InputError
from awpbench.evaluation.results import Result
from awpbench.leaderboard.attacks import strongest
from awpbench.leaderboard.details import Card, checked
from awpbench.leaderboard.row import Row
from awpbench.leaderboard.store import json_object
from awpbench.zoo.cards import CARD, CHECKPOINTS, README, SCHEMA_VERSION, ModelCard, Which, weights_file

AGAIN = "Evaluate it again: awpbench eval --ckpt RUN/{}.pt --suite full --force"
RESTORE = "Restore it; awpbench train wrote it into the run folder."
PUBLISH = "Publish the run again: awpbench zoo add RUN --force"


def card_of(folder: Path, name: str, bibliography: Card) -> ModelCard:
    """Derive the card of the net in a folder; a card and a README that lie there already are not looked at.

    Raises CheckError where weights, configuration and results do not belong together or a result contradicts itself,
    InputError where a file is missing or damaged.
    """
    _, provenance = json_object(folder / rundir.PROVENANCE, RESTORE)
    _, training = json_object(folder / rundir.CONFIG, RESTORE)
    values = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "bibliography": bibliography.model_dump(),
        "checkpoints": {which: _published(folder, which, training, bibliography) for which in there(folder)},
        "command": provenance.get("command"),
        "training": training,
        "provenance": provenance,
        "files": hashes(folder),
    }
    return checked(ModelCard, values, f"what lies in {folder}", PUBLISH)


def there(folder: Path) -> list[Which]:
    """Return which checkpoints a folder of the zoo holds."""
    return [which for which in CHECKPOINTS if (folder / weights_file(which)).is_file()]


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a net by its path, without the card and the README made of it."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: rundir.sha256(path) for name, path in files.items() if name not in (CARD, README)}


def load(path: Path, training: Mapping[str, Any]) -> Checkpoint:
    """Load a checkpoint of the run that has this configuration; raises CheckError or InputError for any other file."""
    found = checkpoints.load(path)
    if found.foreign:
        raise InputError(f"{path} is no checkpoint of awpbench", "Publish what awpbench train made.")
    if found.config != training:
        what = f"{path} was trained with another configuration than {rundir.CONFIG} says"
        raise CheckError(what, f"Restore {rundir.CONFIG}: the checkpoint holds its values under config.")
    return found


def results_of(folder: Path, which: Which) -> dict[str, Result]:
    """Return the finished evaluations of a checkpoint with a named suite, by their folders' names.

    Raises CheckError where one contradicts itself, InputError where it is damaged or too old to be checked.
    """
    found = {}
    for path in sorted((folder / rundir.EVAL).glob(f"{which}-*/{rundir.RESULT}")):
        result = Result.read(path.parent)
        if not result.document.get("suite"):
            continue
        try:
            result.check()
        except AwpbenchError as error:
            raise type(error)(f"{path.parent}: {error.what}", error.mend) from None
        found[path.parent.name] = result
    return found


def same_net(which: Which, checkpoint: Checkpoint, results: Mapping[str, Result]) -> tuple[str, str]:
    """Return the hash of a checkpoint's weights and the name under which it was evaluated.

    Raises CheckError where a result is of other weights, another training or another name than the rest.
    """
    weights: str = checkpoints.of_weights(checkpoint.build())
    name = str(next(iter(results.values())).document["model"]["name"])
    for label, result in results.items():
        told = result.document
        if told["hashes"]["weights"] != weights or told["training"] != checkpoint.config:
            what = f"{checkpoint.path} is not the net that {rundir.EVAL}/{label} is about"
            raise CheckError(what, AGAIN.format(which))
        if told["model"]["name"] != name or name.rpartition("/")[2] != which:
            what = f"{rundir.EVAL}/{label} calls its net {told['model']['name']}, which is not {_expected(name, which)}"
            raise CheckError(what, AGAIN.format(which))
    return weights, name


def _expected(name: str, which: Which) -> str:
    return f"{name.rpartition('/')[0] or 'RUN'}/{which}"


def _published(folder: Path, which: Which, training: Mapping[str, Any], bibliography: Card) -> dict[str, Any]:
    """Return what the card says of a checkpoint."""
    path = folder / weights_file(which)
    checkpoint, results = load(path, training), results_of(folder, which)
    if not results:
        raise CheckError(f"{folder} holds no result of {which}", PUBLISH)
    weights, name = same_net(which, checkpoint, results)
    if checkpoint.name != name:
        raise CheckError(f"{path} says that it is {checkpoint.name}, and its results say {name}", PUBLISH)
    rows = {label: _row(result, bibliography) for label, result in results.items()}
    details = next(iter(rows.values())).awpbench
    return {
        "weights": weights,
        "model": name,
        "architecture": details.architecture,
        "width": details.width,
        "epoch": checkpoint.epoch,
        "defense": details.defense,
        "awp": None if details.awp is None else details.awp.model_dump(),
        "evaluations": {label: _evaluation(row) for label, row in rows.items()},
    }


def _row(result: Result, bibliography: Card) -> Row:
    """Build the row that the leaderboard has of a result."""
    return Row.from_result(result.document, result.arrays, bibliography.model_dump())


def _evaluation(row: Row) -> dict[str, Any]:
    details = row.awpbench
    document = row.document()
    own = document.pop("awpbench")
    copied = ("suite", "suite_version", "dataset", "norm", "eps", "dialect", "partial", "worst_case")
    ranked_by = strongest(details.attacks)
    return {"row": document, **{key: own[key] for key in copied}, "verdict": own["audit"]["verdict"]} | {
        "ranked_by": ranked_by,
        "accuracies": own["attacks"],
    }
