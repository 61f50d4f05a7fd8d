"""`awpbench data pseudolabel` and `awpbench data subset`: files of images to train on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awpbench import data
from awpbench.cli import common
from awpbench.cli.nets import ZooOption, checkpoint_file
from awpbench.errors import InputError, RefusedError, UsageError, lookup

if TYPE_CHECKING:
    from torch import Tensor

    from awpbench.checkpoints import Checkpoint
    from awpbench.data.images import DataSet

OutOption = Annotated[str, typer.Option("--out", help="The .npz file to write.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_EXAMPLES = re.compile(r"(\d{1,9}):(\d{1,9})")


def pseudolabel(
    *,
    ckpt: Annotated[str, typer.Option("--ckpt", help="Checkpoint of the net that gives the labels, or zoo:NAME.")],
    images: Annotated[
        str, typer.Option("--images", help="File (.npz, or a pickle as of the 500K images), or a data set's name.")
    ],
    out: OutOption,
    preprocessing: Annotated[
        str | None, typer.Option(help="Of a state dict that does not tell it: none, meanstd or plus-minus-1.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Whose mean and std --preprocessing meanstd takes.")] = None,
    zoo: ZooOption = None,
    force: ForceOption = False,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Give images the classes that a trained net sees in them, for robust self-training."""
    from awpbench.data.files import write_npz
    from awpbench.training.pseudo_labels import pseudo_labels

    target = _target(out, force)
    pixels, labels = _images(images, data_dir, offline)
    checkpoint = _checkpoint(Path(checkpoint_file(ckpt, zoo)), preprocessing, dataset, tuple(pixels.shape[1:]))
    due = common.Every()

    def report(done: int) -> None:
        if due():
            common.note(f"{done} of {len(pixels)} images")

    found = pseudo_labels(checkpoint.build(), pixels, device=common.resolve_device(device), report=report)
    write_npz(target, {"images": pixels, "labels": found})
    agreeing = None if labels is None else int((found == labels).sum())
    counts = found.bincount(minlength=checkpoint.model_spec.classes).tolist()
    if as_json:
        common.print_json({"out": out, "images": len(found), "per_class": counts, "agreeing": agreeing})
        return
    common.print_text(f"{out}: {len(found)} images, per class {', '.join(map(str, counts))}")
    if agreeing is not None:
        common.print_text(f"{agreeing} of {len(found)} ({agreeing / len(found):.2%}) agree with the labels in {images}")


def subset(
    name: Annotated[str, typer.Argument(help="Data set.")],
    *,
    out: OutOption,
    classes: Annotated[
        str | None, typer.Option(help="Classes to keep, such as 0-4 or 1,3,5; they are numbered from 0.")
    ] = None,
    examples: Annotated[
        str | None, typer.Option(help="Training images to keep, A:B for those from A to before B.")
    ] = None,
    validation_examples: Annotated[
        int | None, typer.Option(help="Training images set aside for validation first, as train does.")
    ] = None,
    force: ForceOption = False,
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Write some of a data set's classes or training images to a file that is a data set of its own."""
    from awpbench.data.files import write_npz
    from awpbench.data.subset import subset as chosen

    if classes is None and examples is None:
        raise UsageError("the whole data set is no subset", "Give --classes, --examples, or both.")
    target = _target(out, force)
    numbers, positions = _classes(classes), _positions(examples)
    train, test = chosen(_load(name, data_dir, offline, validation_examples), classes=numbers, examples=positions)
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}
    write_npz(target, arrays)
    if as_json:
        common.print_json({"out": out, "train": len(train), "test": len(test), "classes": numbers})
    else:
        common.print_text(f"{out}: {len(train)} training and {len(test)} test images")


def _target(out: str, force: bool) -> Path:
    path = Path(out)
    if path.suffix != ".npz":
        raise UsageError(f"{out} is no name of an .npz file", "End it in .npz.")
    if path.exists() and not force:
        raise RefusedError(f"{out} exists", "Overwrite it with --force, or write elsewhere with --out.")
    return path


def _images(name: str, data_dir: str | None, offline: bool) -> tuple[Tensor, Tensor | None]:
    from awpbench.data.files import read_images

    if name in data.DATASETS and not Path(name).is_file():
        train = _load(name, data_dir, offline, None).train
        return train.images, train.labels
    return read_images(Path(name))


def _load(name: str, data_dir: str | None, offline: bool, validation: int | None) -> DataSet:
    from awpbench.cli.data import fetch_progress

    lookup(data.DATASETS, "data set", name)
    folder = Path(data_dir) if data_dir else None
    with fetch_progress() as progress:
        return data.load(name, data_dir=folder, offline=offline, validation=validation, progress=progress)


def _checkpoint(path: Path, preprocessing: str | None, dataset: str | None, shape: tuple[int, ...]) -> Checkpoint:
    from awpbench import checkpoints

    if preprocessing == "meanstd":
        found = checkpoints.load(path, dataset=dataset, preprocessing=preprocessing)
    else:
        found = checkpoints.load(path, preprocessing=preprocessing)
    if found.foreign and found.model_spec.mean is None and preprocessing is None:
        what = f"{path} does not tell how it normalises its input"
        raise UsageError(what, "Give --preprocessing none, meanstd or plus-minus-1.")
    wants = found.model_spec.shape
    if shape != wants and not (found.foreign and shape[0] == wants[0]):
        raise InputError(f"{path} takes images of shape {wants}, and these are {shape}", "Give others.")
    return found


def _classes(text: str | None) -> tuple[int, ...] | None:
    """Read `0-4` or `1,3,5-7`."""
    if text is None:
        return None
    ranges = [_RANGE.fullmatch(part.strip()) for part in text.split(",")]
    bounds = [(int(match[1]), int(match[2] or match[1])) for match in ranges if match]
    if len(bounds) < len(ranges) or any(end - first > 10_000 for first, end in bounds):
        raise UsageError(f"{text!r} names no classes", "Write numbers and ranges, such as 0-4 or 1,3,5-7.")
    return tuple(each for first, end in bounds for each in range(first, end + 1))


def _positions(text: str | None) -> tuple[int, int] | None:
    """Read `0:100`."""
    if text is None:
        return None
    match = _EXAMPLES.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} names no examples", "Write two positions, such as 0:1000.")
    return int(match[1]), int(match[2])
