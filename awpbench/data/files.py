"""Files of images, with labels or with pseudo-labels: the public 500K pickle of Carmon et al. (2019), and `.npz`."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awpbench import rundir
from awpbench.data.images import ImageSet
from awpbench.data.unpickling import load_arrays
from awpbench.errors import InputError

NAMES = (("images", "labels"), ("x_train", "y_train"), ("data", "extrapolated_targets"))  # of images and their labels

_FORM = "Give uint8 images (N, H, W, C), or (N, H, W) of grey levels, as `images` or `x_train`."


def load_unlabelled(path: Path, *, shape: tuple[int, int, int], classes: int) -> ImageSet:
    """Return the images and pseudo-labels of a file, for a data set of this shape (C, H, W) and number of classes.

    Raises InputError for a file that is missing or damaged, that holds code, or whose images or labels do not fit.
    """
    images, labels = read_images(path)
    if labels is None:
        mend = f"Make them: awpbench data pseudolabel --ckpt CHECKPOINT --images {path} --out FILE.npz"
        raise InputError(f"{path} holds images without labels", mend)
    if tuple(images.shape[1:]) != shape:
        what = f"{path} holds images of shape {tuple(images.shape[1:])}, and the data set's are {shape}"
        raise InputError(what, "Give images of the same size and channels.")
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= classes:
        what = f"{path} holds labels from {low} to {high}, and the data set has {classes} classes"
        raise InputError(what, f"Give labels from 0 to {classes - 1}.")
    return ImageSet(images, labels, torch.arange(len(images), device="cpu"))


def read_images(path: Path) -> tuple[Tensor, Tensor | None]:
    """Return the images of a file, uint8 (N, C, H, W), and its labels (N,) as int64, None where it has none.

    Raises InputError for a file that is missing, damaged, holds code or no images.
    """
    arrays = _arrays(path)
    for image_name, label_name in NAMES:
        if image_name in arrays:
            images = _images(arrays[image_name], path)
            return images, _labels(arrays[label_name], len(images), path) if label_name in arrays else None
    found = f", only: {', '.join(arrays)}" if arrays else " under a name that is known"
    raise InputError(f"{path} holds no images{found}", _FORM)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        if path.suffix != ".npz":
            return load_arrays(path)
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:  # of itself, numpy also reads a .npy
            return {name: file[name] for name in file.files if name in {one for pair in NAMES for one in pair}}
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", "Check the path; a relative one begins where you are.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a file of images", "Name the .npz or .pickle file in it.") from None
    except (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path} is no .npz of plain arrays, or damaged", "Make or copy the file again.") from None


def _images(array: NDArray[Any], path: Path) -> Tensor:
    if array.ndim == 3:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape or array.shape[3] not in (1, 3):
        raise InputError(f"{path} holds images that are {array.dtype} of shape {array.shape}", _FORM)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def _labels(array: NDArray[Any], n: int, path: Path) -> Tensor:
    if array.shape not in ((n,), (n, 1)) or array.dtype.kind not in "iu":
        what = f"{path} holds labels that are {array.dtype} of shape {array.shape} for {n} images"
        raise InputError(what, "Give one whole number for each image.")
    return torch.from_numpy(array.reshape(n).astype(np.int64))


def write_npz(path: Path, arrays: dict[str, Tensor]) -> None:
    """Write an `.npz` atomically: images (N, C, H, W) turn into (N, H, W, C), the labels stay."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, each in arrays.items():
            array = (each.permute(0, 2, 3, 1) if each.ndim == 4 else each).contiguous().numpy()
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    rundir.atomic_write(path, buffer.getvalue())
