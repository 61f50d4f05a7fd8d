"""Whether a published net is what its card says: the files, what follows from them, and the clean accuracy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from awpbench import checkpoints, rundir
from awpbench.data.images import ImageSet
from awpbench.defaults import facts_of
from awpbench.errors import AwpbenchError, CheckError
from awpbench.evaluation.claims import TOLERANCE
from awpbench.evaluation.results import Result
from awpbench.evaluation.verify import Verifier
from awpbench.zoo import deriving
from awpbench.zoo.cards import CARD, ModelCard, NewerError, read, weights_file, written

ABSENT = object()  # in place of a value that a document does not have


@dataclass(frozen=True)
class Finding:
    """Something wrong with a net; `missing` where a file is not there, `newer` where this version cannot check it."""

    what: str
    missing: bool = False
    newer: bool = False


@dataclass(frozen=True)
class Clean:
    """The clean accuracy of an evaluation, on the card and measured again, as counts of n."""

    evaluation: str
    n: int
    claimed: int
    found: int

    def told(self) -> str:
        """Say what was found and what the card says."""
        now, before = (f"{100 * correct / self.n:.2f} %" for correct in (self.found, self.claimed))
        return f"{self.evaluation}: clean accuracy {now} ({self.found} of {self.n} images), on the card {before}"

    @property
    def holds(self) -> bool:
        """Whether both agree up to 0.05 points: what is left to other hardware, which sums in another order.

        Of 10,000 images that is 5; of fewer than 2,000 none may differ.
        """
        return abs(self.claimed - self.found) <= TOLERANCE / 100 * self.n


@dataclass(frozen=True)
class Report:
    """What a check of a net found, and the clean accuracies that it measured: none where a file is wrong already."""

    name: str
    findings: tuple[Finding, ...]
    clean: tuple[Clean, ...]


Measure = tuple[Callable[[str], ImageSet], torch.device]
"""What measuring needs: a function that loads the test set of a data set, and a device."""


def check(net: Path, measure: Measure | None) -> Report:
    """Check a published net in its folder; without `measure`, its clean accuracy is not measured again.

    Raises InputError where a test set cannot be loaded.
    """
    if (found := files(net)) or measure is None:
        return Report(net.name, tuple(found), ())
    told = list(_clean(net, *measure))
    clean = tuple(each for each in told if isinstance(each, Clean))
    wrong = [each for each in told if isinstance(each, Finding)]
    wrong += [Finding(each.told()) for each in clean if not each.holds]
    return Report(net.name, tuple(wrong), clean)


def files(net: Path) -> list[Finding]:
    """Compare a net's files with its card, and the card with what follows from the files."""
    if net.is_symlink():
        return [Finding("the folder is a link")]
    if not os.path.lexists(net / CARD):
        return [Finding(f"{CARD} is missing", missing=True)]
    try:
        card = read(net)
    except NewerError as error:
        return [Finding(error.what, newer=True)]
    except AwpbenchError as error:
        return [Finding(error.what)]
    odd = list(_odd(net, card))
    found = [*odd, *_hashes(net, card), *_made(net, card)]
    # nothing is derived from what is no plain file: reading a pipe would wait for ever
    return found if odd or any(each.missing for each in found) else [*found, *_card(net, card)]


def _odd(net: Path, card: ModelCard) -> Iterator[Finding]:
    """Name what is neither a plain file nor a folder of such; of an emptied folder, the files are missing instead."""
    folders = {net / folder for name in card.files for folder in PurePosixPath(name).parents}
    for path in sorted(net.rglob("*")):
        name = path.relative_to(net)
        if path.is_symlink():
            yield Finding(f"{name} is a link")
        elif path.is_dir():
            if path not in folders and not any(path.iterdir()):
                yield Finding(f"{name} is an empty folder")
        elif not path.is_file():
            yield Finding(f"{name} is no plain file")


def _clean(net: Path, load: Callable[[str], ImageSet], device: torch.device) -> Iterator[Clean | Finding]:
    """Measure the clean accuracy of every evaluation again; another test set than was used is a finding."""
    for which, published in read(net).checkpoints.items():
        model = checkpoints.load(net / weights_file(which)).build()
        for label, evaluation in published.evaluations.items():
            folder = net / rundir.EVAL / label
            dataset = str(Result.read(folder).document["dataset"])
            settings: dict[str, Any] = {"classes": facts_of(dataset).classes, "device": device}
            try:
                found = Verifier(folder, model, load(dataset), **settings).clean()
            except CheckError as error:
                yield Finding(f"{rundir.EVAL}/{label}: {error.what}")
                continue
            yield Clean(label, found.n, evaluation.accuracies["clean"].correct, found.found)


def _hashes(net: Path, card: ModelCard) -> Iterator[Finding]:
    there = deriving.hashes(net)
    for name in sorted({*there, *card.files}):
        if name not in there:
            yield Finding(f"{name} is missing", missing=True)
        elif name not in card.files:
            yield Finding(f"{name} is not on the card")
        elif there[name] != card.files[name]:
            yield Finding(f"{name} is not the file that the card names")


def _card(net: Path, card: ModelCard) -> Iterator[Finding]:
    """Derive the card again and name every value that differs; the hashes of files are compared elsewhere."""
    try:
        derived = deriving.card_of(net, net.name, card.bibliography)
    except AwpbenchError as error:
        yield Finding(error.what)
        return
    told, follows = (each.model_dump(mode="json", exclude={"files"}) for each in (card, derived))
    for where, says, should in _differences(told, follows):
        yield Finding(f"{CARD}: {where} is {_said(says)}, but the files make it {_said(should)}")


def _differences(told: Any, follows: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(told, Mapping) and isinstance(follows, Mapping):
        for key in dict.fromkeys([*told, *follows]):
            yield from _differences(told.get(key, ABSENT), follows.get(key, ABSENT), f"{where}.{key}".lstrip("."))
    elif told != follows:
        yield where, told, follows


def _said(value: Any) -> str:
    return "absent" if value is ABSENT else repr(value)


def _made(net: Path, card: ModelCard) -> Iterator[Finding]:
    """Compare the bytes of the card and of its README with those that awpbench writes."""
    for name, data in written(card).items():
        if not (net / name).is_file():
            yield Finding(f"{name} is missing", missing=True)
        elif (net / name).read_bytes() != data:
            yield Finding(f"{name} is not as awpbench writes it")
