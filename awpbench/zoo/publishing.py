"""Publish a training run: its checkpoints as .safetensors, what made them, their evaluations, and a card of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from awpbench import checkpoints, rundir
from awpbench.errors import CheckError, InputError, RefusedError
from awpbench.evaluation.hashes import of_bytes
from awpbench.evaluation.results import Result
from awpbench.leaderboard.details import Card
from awpbench.leaderboard.store import json_object
from awpbench.zoo import deriving
from awpbench.zoo.cards import (
    CARD,
    CHECKPOINTS,
    COPIED,
    ModelCard,
    Which,
    check_name,
    read,
    sidecar,
    weights_file,
    written,
)
from awpbench.zoo.placing import locked, place

OF_RESULT = (rundir.RESULT, rundir.PER_IMAGE)
EVALUATE = "Evaluate it first: awpbench eval --ckpt {} --suite full"


def publish(
    run: Path, zoo: Path, *, name: str | None, chosen: Sequence[Which], bibliography: Card, force: bool
) -> tuple[Path, ModelCard]:
    """Publish a run folder in a zoo under a name, by default the folder's, and return where and with which card.

    `chosen` are the checkpoints; none: those that have a finished evaluation with a named suite. Raises UsageError for
    a name that is none, RefusedError where something has that name already and `force` is not given or nothing has been
    evaluated, InputError where a file is missing or damaged, CheckError where the files do not belong together.
    """
    name = check_name(name or run.resolve().name)
    target = zoo / name
    files = _files(run, _evaluated(run, chosen))
    with locked(target):
        _check_free(target, run, force)
        place(target, files, lambda folder: written(deriving.card_of(folder, name, bibliography)))
    return target, read(target)


def _check_free(target: Path, run: Path, force: bool) -> None:
    """Refuse a name that is taken, unless it is to be replaced and what has it is a published net or the run itself."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise RefusedError(f"{target} is a link or a file", "Publish under another name: --name NAME")
    if not target.exists():
        return
    itself = target.resolve() == run.resolve()
    if itself and not force:
        mend = "--force puts the net in its place and removes what is not published; or publish in another --zoo."
        raise RefusedError(f"{target} is the run folder itself", mend)
    if not force:
        raise RefusedError(f"{target} is there already", "Replace it with --force, or publish with another --name.")
    if not itself and not (target / CARD).is_file():
        what = f"{target} is no published net, and --force replaces nothing else"
        raise RefusedError(what, "Move it away, or publish with another --name.")


def _evaluated(run: Path, chosen: Sequence[Which]) -> dict[Which, dict[str, Result]]:
    """Return the results of the chosen checkpoints, or of those that have any."""
    if not run.is_dir():
        raise InputError(f"there is no run folder {run}", "Name a folder that awpbench train wrote.")
    found = {which: deriving.results_of(run, which) for which in CHECKPOINTS if which in (chosen or CHECKPOINTS)}
    missing = [which for which in chosen if not found[which]]
    if missing or not any(found.values()):
        which = missing[0] if missing else "best"
        what = f"{which}.pt" if missing else "no checkpoint"
        has = "has no finished evaluation" if missing else "has a finished evaluation"
        raise RefusedError(f"{what} in {run} {has} with a named suite", EVALUATE.format(run / f"{which}.pt"))
    return {which: results for which, results in found.items() if results}


def _files(run: Path, found: Mapping[Which, Mapping[str, Result]]) -> dict[str, bytes]:
    """Return the files of a net by their paths, but for its card."""
    _, training = json_object(run / rundir.CONFIG, deriving.RESTORE)
    json_object(run / rundir.PROVENANCE, deriving.RESTORE)
    files = {each: _read(run / each) for each in COPIED}
    for which, results in found.items():
        checkpoint = deriving.load(run / f"{which}.pt", training)
        _, called = deriving.same_net(which, checkpoint, results)
        try:
            data = checkpoints.publishable(checkpoint, called)
        except ValueError:
            what = f"{checkpoint.path} holds NaN or infinity among its metrics"
            raise CheckError(what, "Publish an earlier checkpoint: this training had diverged.") from None
        files[weights_file(which)] = data
        files[sidecar(which)] = f"{of_bytes(data)}  {weights_file(which)}\n".encode()
        for label in results:
            files |= {f"{rundir.EVAL}/{label}/{each}": _read(run / rundir.EVAL / label / each) for each in OF_RESULT}
    return files


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", deriving.RESTORE) from None
