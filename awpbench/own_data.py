"""A user's own data set: an `.npz` file in keras' naming, or a folder of images. Importable without torch."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from awpbench.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

T = TypeVar("T")

Split = Literal["train", "test"]
Read = tuple["npt.NDArray[Any]", "npt.NDArray[Any]"]
"""Images (N, C, H, W) as uint8, and labels (N,) as int64."""

NPZ = "Write it with: numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...), images uint8 (N, H, W, C)."
FOLDER = "Put the images into train/CLASS/ and test/CLASS/, all of one size, and all grey where the first one is."
DEEP = ("I", "F")  # how Pillow's modes of more than 8 bits begin
GREY = ("1", "L", "LA")


@dataclass(frozen=True)
class Facts:
    """What a data set's files say without its pixels: `shape` is (C, H, W), `train` counts the training images."""

    classes: int
    shape: tuple[int, int, int]
    train: int


def is_own(name: str) -> bool:
    """Tell whether the name of a data set is a path: it ends in `.npz` or has a slash."""
    return name.endswith(".npz") or "/" in name or os.sep in name


def spelled(name: str) -> str:
    """Return the name, with `./` before that of a folder: so it is known for a path wherever it is read again."""
    return f"./{name}" if not is_own(name) and os.path.isdir(name) else name


def shown(name: str) -> str:
    """Return what a table calls a data set: `flowers.npz` and `flowers/` for paths, which no built-in one is called."""
    if not is_own(name):
        return name
    return os.path.basename(os.path.normpath(name)) + ("" if name.endswith(".npz") else "/")


def slug(name: str) -> str:
    """Return what a run folder calls a data set: `flowers` of `data/flowers.npz`."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", shown(name).removesuffix("/").removesuffix(".npz")).lstrip(".-") or "own"


def facts(name: str) -> Facts:
    """Return a data set's classes, shape and size from its labels or folders; raises InputError as `read` does."""
    return _facts(name, _stamp(name))


def read(name: str, split: Split) -> Read:
    """Return one split's images and labels.

    A folder's images come one of each class, then the next of each, by name: so the first n are of all classes. Raises
    InputError for a file that is missing, damaged, or does not hold what it should.
    """
    known = facts(name)
    images, labels = (_read_npz if name.endswith(".npz") else _read_folder)(Path(name), split)
    if images.shape[1:] != known.shape:
        what = f"{name}: {split} images of shape {images.shape[1:]}, and training images of {known.shape}"
        raise InputError(what, NPZ if name.endswith(".npz") else FOLDER)
    if labels.min() < 0 or labels.max() >= known.classes:
        what = f"{name}: {split} labels from {labels.min()} to {labels.max()}, not 0 to {known.classes - 1}"
        raise InputError(what, "Number the classes from 0; each needs a training image.")
    return images, labels


def statistics(images: npt.NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of images (N, C, H, W), as floats in [0, 1], to four digits.

    A channel without any variation has standard deviation 1.
    """
    import numpy as np

    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in images.transpose(1, 0, 2, 3):
        share = np.bincount(channel.ravel(), minlength=256) / channel.size
        mean = float(share @ levels)
        means.append(round(mean, 4))
        deviations.append(round(float(np.sqrt(share @ (levels - mean) ** 2)), 4) or 1.0)
    return tuple(means), tuple(deviations)


def _stamp(name: str) -> object:
    """Return what changes with the file, so that a new one under the same name is read again."""
    try:
        found = os.stat(name)
    except OSError as error:
        what = f"there is no data set {name} here ({os.getcwd()}): {error.strerror}"
        raise InputError(
            what, "Give its path with --dataset, which eval and verify take too, or change into its folder."
        ) from None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=8)
def _facts(name: str, stamp: object) -> Facts:
    found = (_npz_facts if name.endswith(".npz") else _folder_facts)(Path(name))
    if found.classes < 2:
        raise InputError(f"{name} has one class, and there is nothing to tell apart", "Give images of two classes.")
    return found


def _npz_facts(path: Path) -> Facts:
    import numpy as np

    shape, dtype = _from_npz(path, "x_train", _header)
    labels = _labels(path, "y_train", shape[0] if shape else 0)
    present = np.unique(labels)
    if present[0] != 0 or present[-1] != len(present) - 1:
        what = f"{path}: y_train holds {len(present)} classes numbered from {present[0]} to {present[-1]}"
        raise InputError(what, "Number the classes from 0; each needs a training image.")
    return Facts(len(present), _channels_first(path, "x_train", shape, dtype), len(labels))


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], Any]:
    """Read shape and dtype of an array, not the array."""
    import numpy as np

    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        of_version = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = of_version(file)
    return shape, dtype


def _array(archive: zipfile.ZipFile, member: str) -> npt.NDArray[Any]:
    import numpy as np

    with archive.open(member) as file:
        found: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _from_npz(path: Path, key: str, how: Callable[[zipfile.ZipFile, str], T]) -> T:
    try:
        with zipfile.ZipFile(path) as archive:
            return how(archive, f"{key}.npy")
    except KeyError:
        raise InputError(f"{path} holds no {key}", NPZ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: {key} cannot be read ({error})", NPZ) from None


def _channels_first(path: Path, key: str, shape: tuple[int, ...], dtype: Any) -> tuple[int, int, int]:
    """Return (C, H, W) of images (N, H, W) or (N, H, W, C)."""
    form = f"{path}: {key} is {dtype} of shape {shape}"
    if dtype != "uint8" or len(shape) not in (3, 4) or 0 in shape:
        raise InputError(form, "Save images as uint8 of shape (N, H, W, C), or (N, H, W) where they are grey.")
    channels = shape[3] if len(shape) == 4 else 1
    if channels > 4:
        raise InputError(f"{form}, which are {channels} channels", "Save the channels last: (N, H, W, C).")
    return channels, shape[1], shape[2]


def _labels(path: Path, key: str, n: int) -> npt.NDArray[Any]:
    import numpy as np

    found = _from_npz(path, key, _array)
    if found.ndim == 2 and found.shape[1] == 1:  # as keras has them
        found = found[:, 0]
    if found.dtype.kind not in "iu" or found.shape != (n,) or n == 0:
        what = f"{path}: {key} is {found.dtype} of shape {found.shape}"
        raise InputError(what, f"Save one whole number for each of the {n} images, the classes numbered from 0.")
    return found.astype(np.int64)


def _read_npz(path: Path, split: Split) -> Read:
    import numpy as np

    images = _from_npz(path, f"x_{split}", _array)
    shape = _channels_first(path, f"x_{split}", images.shape, images.dtype)
    nhwc = images.reshape(len(images), *shape[1:], shape[0])
    return np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2)), _labels(path, f"y_{split}", len(images))


def _listing(path: Path, what: Callable[[Path], bool]) -> list[Path]:
    try:
        return sorted(each for each in path.iterdir() if not each.name.startswith(".") and what(each))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", FOLDER) from None


def _classes(path: Path, split: Split) -> dict[str, list[Path]]:
    """Return each class's files, classes and files by name; every class of the training images is there."""
    found = {folder.name: _listing(folder, Path.is_file) for folder in _listing(path / split, Path.is_dir)}
    if split == "train":
        if empty := [name for name, files in found.items() if not files] or ([] if found else ["any class"]):
            raise InputError(f"{path}/train has no image of {empty[0]}", FOLDER)
        return found
    trained = _classes(path, "train")
    if unknown := [name for name in found if name not in trained]:
        raise InputError(f"{path}/test has a class {unknown[0]!r}, and {path}/train has none", FOLDER)
    if not any(found.values()):
        raise InputError(f"{path}/test has no images", FOLDER)
    return {name: found.get(name, []) for name in trained}


def _folder_facts(path: Path) -> Facts:
    classes = _classes(path, "train")
    first = _pixels(next(iter(classes.values()))[0])
    channels, height, width = first.shape
    return Facts(len(classes), (channels, height, width), sum(map(len, classes.values())))


def _read_folder(path: Path, split: Split) -> Read:
    import numpy as np

    shape = _folder_facts(path).shape
    classes = _classes(path, split)
    turns = zip_longest(*classes.values())
    chosen = [(label, file) for turn in turns for label, file in enumerate(turn) if file is not None]
    images = np.empty((len(chosen), *shape), dtype=np.uint8)
    for place, (_, file) in enumerate(chosen):
        pixels = _pixels(file, grey=shape[0] == 1)
        if pixels.shape != shape:
            forms = ("{}x{} with {} channel(s)".format(*each[1:], each[0]) for each in (pixels.shape, shape))
            raise InputError("{} is {}, and the first image {}".format(file, *forms), FOLDER)
        images[place] = pixels
    return images, np.array([label for label, _ in chosen], dtype=np.int64)


def _pixels(file: Path, *, grey: bool | None = None) -> npt.NDArray[Any]:
    """Return an image (C, H, W) of one channel, or of red, green and blue, transparency dropped.

    `grey` asks for one channel, which an image of any mode has where its colours are grey; None: the mode decides.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(DEEP):
                raise InputError(f"{file} has more than 8 bits a channel ({image.mode})", "Convert it to 8 bits.")
            one = image.mode in GREY if grey is None else grey
            pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file} is no image that Pillow can read ({error})", "Remove or replace it.") from None
    return pixels[:1] if one and (pixels == pixels[:1]).all() else pixels
