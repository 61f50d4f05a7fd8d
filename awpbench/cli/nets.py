"""The net and the images that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awpbench.cli import common
from awpbench.errors import UsageError

if TYPE_CHECKING:
    import torch

    from awpbench.data.images import ImageSet
    from awpbench.evaluation.subject import Subject


ZooOption = Annotated[
    str | None, typer.Option("--zoo", help="Folder of the nets called zoo:NAME; else AWPBENCH_ZOO, else ./model_zoo.")
]


def checkpoint_file(named: str, zoo: str | None) -> str:
    """Return the file that the name of a checkpoint stands for: `zoo:NAME` or `zoo:NAME/last`, else a path as it is.

    Raises UsageError for a `--zoo` that nothing is looked for in.
    """
    from awpbench.zoo import cards

    if named.startswith(cards.PREFIX):
        return str(cards.locate(named, cards.folder(zoo)))
    if zoo is not None:
        raise UsageError("--zoo says where zoo:NAME lies, and no such net is named", "Leave it out, or name one.")
    return named


def _check_net(nets: dict[str, str | None], weights: str | None, describes: object) -> None:
    """Raise UsageError unless one net is named, with its weights where it takes them, and nothing that it brings."""
    given = [flag for flag, value in nets.items() if value is not None]
    if len(given) != 1:
        what = f"a net is named by {', '.join(list(nets)[:-1])} or {list(nets)[-1]}, one of them"
        raise UsageError(what, "Example: awpbench eval --ckpt best.pt")
    if describes and given != ["--ckpt"]:
        what = f"--arch, --width and --preprocessing describe a state dict, and {given[0]} brings a whole net"
        raise UsageError(what, "Leave them out.")
    if (weights is not None) != (given == ["--robustbench"]):
        what = "--weights FILE belongs to --robustbench ID, and each needs the other"
        raise UsageError(what, "Example: awpbench eval --robustbench Carmon2019Unlabeled --weights rst_adv.pt")


def chosen_subject(
    nets: dict[str, str | None],
    weights: str | None,
    arch: str | None,
    width: int | None,
    preprocessing: str | None,
    *,
    dataset: str | None,
    norm: str | None,
    zoo: str | None = None,
) -> Subject:
    """Load the net that one of `--ckpt`, `--model` and `--robustbench` names."""
    _check_net(nets, weights, arch or width or preprocessing)
    file = checkpoint_file(nets["--ckpt"] or "", zoo)
    if (model := nets["--model"]) is not None:
        from awpbench.evaluation.subject import from_factory

        return from_factory(model)
    if (name := nets["--robustbench"]) is not None:
        from awpbench.evaluation.zoo import from_robustbench

        return from_robustbench(name, Path(str(weights)), dataset=dataset, norm=norm)
    from awpbench.evaluation.subject import from_checkpoint

    return from_checkpoint(Path(file), arch=arch, width=width, dataset=dataset, preprocessing=preprocessing)


def with_preprocessing(
    subject: Subject, dataset: str, images: ImageSet, device: torch.device, out: Path | None
) -> Subject:
    """Find the preprocessing of a state dict that does not tell it, and say which it is; a result in `out` knows."""
    from awpbench.evaluation.subject import with_preprocessing as tried

    subject, trial = tried(subject, dataset, images, device, out)
    if trial is not None:
        common.note(f"preprocessing found by trial on the first {trial.n} test images: {trial}")
    return subject


def load_images(dataset: str, data_dir: str | None, offline: bool) -> ImageSet:
    """Load a test set, fetching it where it is missing and that is allowed."""
    from awpbench import data
    from awpbench.cli.data import fetch_progress

    with fetch_progress() as progress:
        return data.load_test(
            dataset, data_dir=Path(data_dir) if data_dir else None, offline=offline, progress=progress
        )
