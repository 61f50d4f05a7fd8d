"""Load a data set by name: find or fetch its files, read and check them, split them."""

from __future__ import annotations

from pathlib import Path

import torch

from awpbench import own_data
from awpbench.data import DATASETS, Fetched, Progress, own
from awpbench.data.fetching import download, provide
from awpbench.data.images import DataSet, ImageSet
from awpbench.data.sources import Source, Split, data_folder, verified
from awpbench.defaults import facts_of
from awpbench.errors import InputError, UsageError, load_object, lookup

SPLITS: tuple[Split, ...] = ("train", "test")


def load(
    name: str,
    *,
    data_dir: Path | None,
    offline: bool,
    validation: int | None,
    train_examples: int | None,
    progress: Progress | None,
) -> DataSet:
    """Return all three splits; see `awpbench.data.load`."""
    source, root, facts = _find(name), data_folder(data_dir), facts_of(name)
    provide(source, root, SPLITS, offline=offline, progress=progress)
    everything = _read(source, root, "train")
    normalization = own_data.statistics(everything.images.numpy()) if facts.mean is None else None
    train, held_out = _set_aside(source, everything, facts.validation if validation is None else validation)
    if train_examples is not None:
        train = train.first(train_examples)
    return DataSet(name, facts.classes, facts.shape, train, held_out, _read(source, root, "test"), normalization)


def load_test(name: str, *, data_dir: Path | None, offline: bool, progress: Progress | None) -> ImageSet:
    """Return the test images; see `awpbench.data.load_test`."""
    source, root = _find(name), data_folder(data_dir)
    provide(source, root, ("test",), offline=offline, progress=progress)
    return _read(source, root, "test")


def fetch(name: str, *, data_dir: Path | None, progress: Progress | None) -> Fetched:
    """Fetch a data set that is missing or damaged; see `awpbench.data.fetch`."""
    source = _find(name)
    try:
        check(name, data_dir=data_dir)
        return "present" if source.files else "embedded" if name in DATASETS else "own"
    except InputError:
        if source.files is None:
            raise
    download(source.name, source.files(), data_folder(data_dir), progress)
    check(name, data_dir=data_dir)
    return "fetched"


def check(name: str, *, data_dir: Path | None) -> dict[str, ImageSet]:
    """Read and verify both of the data set's own splits; see `awpbench.data.check`."""
    source, root = _find(name), data_folder(data_dir)
    provide(source, root, SPLITS, offline=True, progress=None)
    return {split: _read(source, root, split) for split in SPLITS}


def _find(name: str) -> Source:
    if name not in DATASETS and own_data.is_own(own_data.spelled(name)):
        return own.source(own_data.spelled(name))
    source: Source = load_object(lookup(DATASETS, "data set", name))
    return source


def _read(source: Source, root: Path, split: Split) -> ImageSet:
    try:
        found = source.read(root, split)
    except OSError as error:
        raise InputError(
            f"{source.name}: {error.filename} cannot be read ({error.strerror})",
            "Make it readable, or name another folder with --data-dir or AWPBENCH_DATA.",
        ) from error
    return verified(source, split, found, root)


def _set_aside(source: Source, everything: ImageSet, validation: int) -> tuple[ImageSet, ImageSet]:
    """Return the images left for training, in file order, and those held out."""
    if not 0 <= validation < len(everything):
        raise UsageError(
            f"{validation} of {source.name}'s {len(everything)} training images cannot be set aside for validation",
            f"Set aside 0 to {len(everything) - 1}.",
        )
    held_out = source.hold_out(everything.labels, validation)
    kept = torch.ones(len(everything), dtype=torch.bool, device=held_out.device)
    kept[held_out] = False
    return everything.select(kept.nonzero().squeeze(1)), everything.select(held_out)
