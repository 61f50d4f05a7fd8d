"""Data sets as uint8 tensors: found or fetched, checked, split and fingerprinted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from awpbench.data.images import DataSet, ImageSet

DATASETS = {
    "cifar10": "awpbench.data.cifar10:SOURCE",
    "cifar100": "awpbench.data.cifar100:SOURCE",
    "svhn": "awpbench.data.svhn:SOURCE",
    "mnist": "awpbench.data.mnist:SOURCE",
    "fashion-mnist": "awpbench.data.fashion_mnist:SOURCE",
    "digits": "awpbench.data.digits:SOURCE",
}

Progress = Callable[[int, int, str], None]
"""Called with the bytes done, the bytes expected (0 where the server does not say) and the name of the file."""

Fetched = Literal["fetched", "present", "embedded", "own"]
"""What fetching did: it fetched, the files were there and sound, they come with an installed package, or are yours."""


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    offline: bool = False,
    validation: int | None = None,
    train_examples: int | None = None,
    progress: Progress | None = None,
) -> DataSet:
    """Return the training, validation and test images of a data set, fetching them first where files are missing.

    `name` is one of DATASETS, or the path of an `.npz` file or a folder of images (docs/data.md). `validation` training
    images are set aside (0: none; by default 1,000, of digits 200, of a path a tenth, 1,000 at most). The others keep
    their order in the file, and `train_examples` keeps the first so many of them. The folder is `data_dir`, else what
    AWPBENCH_DATA names, else the cache folder. Raises UsageError for an unknown name or more images than there are,
    InputError for missing or damaged data.
    """
    from awpbench.data import loading

    return loading.load(
        name,
        data_dir=data_dir,
        offline=offline,
        validation=validation,
        train_examples=train_examples,
        progress=progress,
    )


def load_test(
    name: str, *, data_dir: Path | None = None, offline: bool = False, progress: Progress | None = None
) -> ImageSet:
    """Return the test images of a data set in file order, reading its test files only; errors as in `load`."""
    from awpbench.data import loading

    return loading.load_test(name, data_dir=data_dir, offline=offline, progress=progress)


def fetch(name: str, *, data_dir: Path | None = None, progress: Progress | None = None) -> Fetched:
    """Fetch a data set unless it is there and sound, replacing damaged files; errors as in `load`."""
    from awpbench.data import loading

    return loading.fetch(name, data_dir=data_dir, progress=progress)


def check(name: str, *, data_dir: Path | None = None) -> Mapping[str, ImageSet]:
    """Return both of the data set's own splits, `train` and `test`, without fetching; raises InputError as `load`."""
    from awpbench.data import loading

    return loading.check(name, data_dir=data_dir)
