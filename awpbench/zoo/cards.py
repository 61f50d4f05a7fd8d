"""The card of a published net, and how nets of the zoo are found. Importable without torch.

A card is derived from the files beside it; only its bibliography was written by a person.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, JsonValue, model_validator
from tabulate import tabulate

from awpbench import rundir
from awpbench.config import Norm
from awpbench.errors import InputError, UsageError, lookup
from awpbench.leaderboard.attacks import Attack
from awpbench.leaderboard.columns import accuracy
from awpbench.leaderboard.details import ID, Awp, Card, Digest, Name, Score, Strict, checked
from awpbench.leaderboard.escape import plain
from awpbench.leaderboard.store import json_object

SCHEMA_VERSION = 1  # of card.json
PREFIX = "zoo:"
VARIABLE = "AWPBENCH_ZOO"
FOLDER = "model_zoo"
CARD = "card.json"
README = "README.md"
COPIED = (rundir.CONFIG, rundir.PROVENANCE, rundir.METRICS)  # from the run folder

Which = Literal["best", "last"]
CHECKPOINTS: tuple[Which, ...] = get_args(Which)


class NewerError(InputError):
    """A card of a newer schema than this version reads."""


class Evaluation(Strict):
    """What one evaluation found; its folder is the key that it stands under."""

    row: dict[str, JsonValue] = Field(description="RobustBench's keys, as the leaderboard's row has them")
    suite: str
    suite_version: str
    dataset: str
    norm: Norm
    eps: str
    dialect: str
    partial: bool
    verdict: Literal["reliable", "suspicious"] | None
    ranked_by: Name
    accuracies: dict[Name, Attack]
    worst_case: Score | None

    @model_validator(mode="after")
    def _has_what_is_listed(self) -> Evaluation:
        for attack in ("clean", self.ranked_by):
            if attack not in self.accuracies:
                raise ValueError(f"the accuracy under {attack} is missing")
        return self


class Published(Strict):
    """One checkpoint; `weights` is the hash of its parameters and buffers, as results have it."""

    weights: Digest
    model: str
    architecture: str
    width: int | None
    epoch: int | None
    defense: str
    awp: Awp | None
    evaluations: dict[Name, Evaluation] = Field(min_length=1)


class ModelCard(Strict):
    """What card.json holds; `files` has the SHA-256 of every file but the card and the README made of it."""

    schema_version: Literal[1]
    name: Name
    bibliography: Card
    checkpoints: dict[Which, Published] = Field(min_length=1)
    command: str = Field(description="that trained the net")
    training: dict[str, JsonValue]
    provenance: dict[str, JsonValue]
    files: dict[str, Digest]


def folder(explicit: str | None) -> Path:
    """Return where the zoo lies: the path given, else AWPBENCH_ZOO, else ./model_zoo."""
    return Path(explicit or os.environ.get(VARIABLE) or FOLDER).expanduser()


def weights_file(which: str) -> str:
    """Return the name of the file that holds a checkpoint."""
    return f"{which}.safetensors"


def sidecar(which: str) -> str:
    """Return the name of the file that holds its hash, in the form of sha256sum."""
    return f"{weights_file(which)}.sha256"


def check_name(name: str) -> str:
    """Return the name of a net as it is; raises UsageError for one that could lie elsewhere than in the zoo."""
    if not re.fullmatch(ID, name):
        mend = "Use letters, digits and . _ + -, a letter or digit first, at most 128: --name NAME"
        raise UsageError(f"{name!r} is no name of a net", mend)
    return name


def names(zoo: Path) -> list[str]:
    """Return the names of the published nets of a zoo."""
    return sorted(path.parent.name for path in zoo.glob(f"*/{CARD}") if re.fullmatch(ID, path.parent.name))


def folders(zoo: Path) -> list[str]:
    """Return the names of the folders of a zoo that hold anything of a net, with or without its card."""
    parts = (
        CARD,
        *COPIED,
        rundir.EVAL,
        *(name for which in CHECKPOINTS for name in (weights_file(which), sidecar(which))),
    )
    found = (path for path in zoo.glob("*") if any(os.path.lexists(path / part) for part in parts))
    return sorted(path.name for path in found if re.fullmatch(ID, path.name))


def find(zoo: Path, there: Sequence[str], wanted: Sequence[str] = ()) -> list[Path]:
    """Return the folders of nets, of those that are there; none named: of all.

    Raises UsageError for an unknown name, with the nearest one, and for a zoo without any net.
    """
    known = {name: zoo / name for name in there}
    if not known:
        mend = f"Publish one with: awpbench zoo add RUN, or name another zoo with --zoo or {VARIABLE}."
        raise UsageError(f"there is no net in {zoo}", mend)
    return [lookup(known, "net in the model zoo", name) for name in dict.fromkeys(wanted or known)]


def read(net: Path) -> ModelCard:
    """Read the card of a net. Raises InputError where it is missing or damaged, NewerError for a newer schema."""
    mend = "Restore it from version control, or publish the net again: awpbench zoo add RUN --force"
    path = net / CARD
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise InputError(f"{path} is no plain file", mend)
    _, document = json_object(path, mend)
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        what = f"{path} has schema version {version}; this awpbench reads {SCHEMA_VERSION}"
        raise NewerError(what, "Update awpbench.")
    return checked(ModelCard, document, str(path), mend)


def locate(reference: str, zoo: Path) -> Path:
    """Return the file of `zoo:NAME` (best, or the only one there) or `zoo:NAME/last`, whose hash is that of the card.

    Raises UsageError for a name that is not there, InputError for a file that is missing or not the published one.
    """
    name, slash, which = reference.removeprefix(PREFIX).partition("/")
    (net,) = find(zoo, names(zoo), [name])
    card = read(net)
    chosen = which if slash else next(iter(sorted(card.checkpoints)))  # best is before last
    lookup(dict.fromkeys(map(str, card.checkpoints)), f"checkpoint of {PREFIX}{name}", chosen)
    path = net / weights_file(chosen)
    if not path.is_file():
        raise InputError(f"there is no file {path}", "Restore it from version control.")
    if rundir.sha256(path) != card.files.get(path.name):
        what = f"{path} is not the file that {net / CARD} names: it is damaged or was changed"
        raise InputError(what, "Restore it from version control, or copy it again.")
    return path


def listed(card: ModelCard) -> list[dict[str, Any]]:
    """Return a line for each evaluation of a net, of plain values."""
    return [
        {
            "name": card.name,
            "checkpoint": _called(which, found),
            "suite": f"{found.suite} {found.suite_version}",
            "architecture": _architecture(net),
            "dataset": found.dataset,
            "threat": f"{found.norm} {found.eps}",
            "defense": net.defense,
            "awp": awp(net.awp, card.training),
            "clean": _score(found.accuracies["clean"]),
            "ranked_by": found.ranked_by,
            "ranking": _score(found.accuracies[found.ranked_by]),
        }
        for which, net in card.checkpoints.items()
        for found in net.evaluations.values()
    ]


def _score(attack: Attack) -> dict[str, Any]:
    return attack.model_dump(mode="json", include={*Score.model_fields}) | {"text": accuracy(attack)}


def written(card: ModelCard) -> dict[str, bytes]:
    """Return the files that are made of a card: itself, and the README."""
    text = json.dumps(card.model_dump(mode="json"), indent=1, allow_nan=False)
    return {CARD: f"{text}\n".encode(), README: _readme(card).encode()}


def _readme(card: ModelCard) -> str:
    """Write the card for people; what others wrote stands in indented blocks, where Markdown interprets nothing."""
    first = next(iter(card.checkpoints))
    trained, said = card.checkpoints[first], _bibliography(card.bibliography)
    evaluated = next(iter(trained.evaluations.values()))
    about = [
        ("architecture", _architecture(trained)),
        ("data set", evaluated.dataset),
        ("defense", trained.defense),
        ("AWP", awp(trained.awp, card.training)),
        ("trained against", f"{card.training.get('norm')} {card.training.get('eps')}"),
        ("seed", card.training.get("seed")),
    ]
    parts = [
        f"# {card.name}",
        "Made by `awpbench zoo add` from the files in this folder; nothing in it is typed. Check it with "
        f"`awpbench zoo check {card.name}`.",
        _block(_pairs(about)),
        *(["It follows", _block(_pairs(said))] if said else []),
        "Trained with",
        _block(card.command),
        "Accuracy in percent, its 95 % Wilson interval, and n, the number of images:",
        _block(_accuracies(card)),
        "Use it:",
        _block(
            "\n".join(f"awpbench eval --ckpt {PREFIX}{card.name}/{which} --suite quick" for which in card.checkpoints)
        ),
    ]
    return "\n\n".join(parts) + "\n"


def awp(found: Awp | None, training: Mapping[str, Any]) -> str:
    """Write the weight perturbation of a training: its gamma and warm-up, or `no`."""
    if found is None:
        return "no (RWP)" if training.get("rwp") else "no"
    return f"{found.gamma:g}" + (f" after {found.warmup} epochs" if found.warmup else "")


def _architecture(net: Published) -> str:
    return net.architecture + (f" (width {net.width})" if net.width else "")


def _called(which: str, found: Evaluation) -> str:
    return f"{which} (suspicious)" if found.verdict == "suspicious" else which


def _pairs(lines: Sequence[tuple[str, Any]]) -> str:
    return tabulate(lines, tablefmt="plain", disable_numparse=True)


def _bibliography(card: Card) -> list[tuple[str, str]]:
    extra = [("additional data", "yes")] if card.additional_data else []
    named = [("paper", card.name), ("authors", card.authors), ("venue", card.venue), ("link", card.link)]
    return [(key, value) for key, value in named if value] + extra


def _accuracies(card: ModelCard) -> str:
    lines = [
        (_called(which, found), f"{found.suite} {found.suite_version}", attack, accuracy(score))
        for which, net in card.checkpoints.items()
        for found in net.evaluations.values()
        for attack, score in found.accuracies.items()
    ]
    return tabulate(lines, headers=("checkpoint", "suite", "attack", "accuracy"), disable_numparse=True)


def _block(text: str) -> str:
    return "\n".join(f"    {plain(line)}" for line in text.splitlines())
