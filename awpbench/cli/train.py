"""`awpbench train` and `awpbench resume`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awpbench import models, rundir
from awpbench.cli import common
from awpbench.errors import InputError, RefusedError, UsageError

if TYPE_CHECKING:
    import torch

    from awpbench.config import TrainConfig
    from awpbench.data.images import DataSet

RUN_FILES = (rundir.CONFIG, rundir.LAST, rundir.BEST, rundir.METRICS, rundir.TIMING, rundir.PROVENANCE)


def train(
    arch: Annotated[
        str | None,
        typer.Argument(
            help="prn18, wrn34, wrn28, wrn-D-W, resnet18, vgg19, small-cnn; else the one usual for --dataset."
        ),
    ] = None,
    *,
    method: Annotated[str | None, typer.Option("--method", help="standard, at, trades or mart")] = None,
    awp: Annotated[bool | None, typer.Option("--awp/--no-awp", help="With adversarial weight perturbation.")] = None,
    awp_gamma: Annotated[float | None, typer.Option(help="Size of the perturbation relative to the weights.")] = None,
    awp_warmup: Annotated[int | None, typer.Option(help="Epochs without perturbation at the start.")] = None,
    rwp: Annotated[bool | None, typer.Option("--rwp/--no-rwp", help="With random weight perturbation.")] = None,
    awp_steps: Annotated[int | None, typer.Option(help="Ascent steps in the weights (K2).")] = None,
    awp_alternations: Annotated[
        int | None, typer.Option(help="Rounds of attack and ascent in the weights in a step (A).")
    ] = None,
    awp_size: Annotated[str | None, typer.Option(help="l2 or l1: what measures the size of the perturbation.")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Checkpoint to start from (finetuning: its head is replaced).")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Of finetuning and rst: at, trades or mart.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="Of rst: file of images with pseudo-labels.")] = None,
    unlabelled_fraction: Annotated[float | None, typer.Option(help="Of rst: their share of a batch.")] = None,
    unlabelled_weight: Annotated[float | None, typer.Option(help="Of rst: lambda, the weight of their loss.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="cifar10, cifar100, svhn, mnist, fashion-mnist, digits, or the path of your own")
    ] = None,
    norm: Annotated[str | None, typer.Option(help="Linf or L2")] = None,
    eps: Annotated[str | None, typer.Option(help="Budget in pixels' units, such as 8/255.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the attack in training.")] = None,
    step_size: Annotated[str | None, typer.Option(help="Step of the attack in training, such as 2/255.")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the robust term of TRADES and MART.")] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the first stage, to narrow or widen the model.")
    ] = None,
    normalization: Annotated[str | None, typer.Option(help="meanstd (the data set's) or none")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="piecewise, cosine, cyclic, linear, one-drop, multi-decay")
    ] = None,
    lr_end: Annotated[float | None, typer.Option(help="Learning rate at the end of the cosine.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum of SGD.")] = None,
    nesterov: Annotated[bool | None, typer.Option("--nesterov/--no-nesterov", help="Nesterov's momentum.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of SGD.")] = None,
    l1: Annotated[float | None, typer.Option(help="Weight of the sum of |w| in the loss.")] = None,
    l2: Annotated[
        float | None, typer.Option(help="Weight decay of convolutions and linear layers, in place of --weight-decay.")
    ] = None,
    mixup: Annotated[
        float | None, typer.Option(help="Mix pairs of images and labels with a share from Beta(a, a).")
    ] = None,
    cutout: Annotated[int | None, typer.Option(help="Side of a square to black out, in pixels.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the label spread over all classes.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of averaged weights, which are measured and saved.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many measurements without a better best.pt.")
    ] = None,
    augmentation: Annotated[str | None, typer.Option(help="crop-flip, crop-flip-rotate or none")] = None,
    padding: Annotated[str | None, typer.Option(help="reflect or zero, before the crop")] = None,
    train_examples: Annotated[int | None, typer.Option(help="Only the first so many training images.")] = None,
    validation_examples: Annotated[int | None, typer.Option(help="Training images set aside for validation.")] = None,
    select_on: Annotated[
        str | None, typer.Option(help="validation or test: what chooses best.pt; test is declared.")
    ] = None,
    track_every: Annotated[int | None, typer.Option(help="Epochs between measurements of robustness.")] = None,
    track_examples: Annotated[int | None, typer.Option(help="Training images whose robustness is measured.")] = None,
    track_steps: Annotated[int | None, typer.Option(help="Steps of the PGD that measures.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16-attack (the attack in bfloat16), or bf16 (the update too).")
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="With torch.compile.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides weights, data order, augmentation and attack starts.")
    ] = None,
    config: common.ConfigOption = None,
    out: Annotated[
        str | None, typer.Option(help="Run folder; else runs/<dataset>-<arch>-<defense>[-awp]-s<seed>.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing run folder.")] = False,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Train a defense, with or without adversarial weight perturbation."""
    given = dict(locals())
    if arch is dataset is config is None:  # nothing says what to train
        raise UsageError("Missing argument 'arch'.", "See: awpbench train --help")
    from awpbench.defaults import read_config_file, resolve_training

    elsewhere = ("arch", "method", "config", "out", "force", "device", "data_dir", "offline", "dry_run", "as_json")
    flags = {key: value for key, value in given.items() if key not in elsewhere}
    flags |= {"architecture": models.canonical(arch) if arch else None, "defense": method}
    resolved, sources = resolve_training(flags, read_config_file(Path(config)) if config else None)
    run = Path(out or Path("runs") / resolved.name())
    if dry_run:
        from awpbench.cli.plan import print_training_plan

        data = _load(resolved, data_dir, offline)
        on = common.resolve_device(device)
        places = common.places(out=run, out_flag=out, device=str(on), device_flag=device, data_dir=data_dir)
        print_training_plan(resolved, sources, data, places, on, as_json=as_json)
        return
    _refuse_to_overwrite(run, force)
    data, on = _load(resolved, data_dir, offline), common.resolve_device(device)
    _remove_old_run(run)
    _train(resolved, data, run, on, resume=False, as_json=as_json)


def resume(
    run_dir: Annotated[str, typer.Argument(help="The folder of an interrupted run.")],
    *,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Continue an interrupted run from its last checkpoint, as if nothing had happened."""
    run = Path(run_dir)
    if not (run / rundir.LAST).exists():
        raise InputError(f"there is no {rundir.LAST} in {run}", "Give the folder of a run that awpbench train started.")
    from awpbench.config import TrainConfig

    try:
        config = TrainConfig.model_validate_json((run / rundir.CONFIG).read_text())
    except (OSError, ValueError):
        mend = "Restore it: last.pt holds the same values under config."
        raise InputError(f"{run / rundir.CONFIG} is missing or damaged", mend) from None
    _train(config, _load(config, data_dir, offline), run, common.resolve_device(device), resume=True, as_json=as_json)


def _load(config: TrainConfig, data_dir: str | None, offline: bool) -> DataSet:
    from awpbench import data
    from awpbench.cli.data import fetch_progress

    with fetch_progress() as progress:
        return data.load(
            config.dataset,
            data_dir=Path(data_dir) if data_dir else None,
            offline=offline,
            validation=config.validation_examples,
            train_examples=config.train_examples,
            progress=progress,
        )


def _refuse_to_overwrite(run: Path, force: bool) -> None:
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file", "Name a folder with --out.")
    existing = [name for name in RUN_FILES if (run / name).exists()]
    if existing not in ([], [rundir.PROVENANCE]) and not force:  # provenance alone: a start that failed
        raise RefusedError(
            f"{run} already holds a run ({', '.join(existing)})",
            f"Continue it with: awpbench resume {run}, or overwrite it with --force, or write elsewhere with --out.",
        )


def _remove_old_run(run: Path) -> None:
    """Remove what another run left, its evaluations included: they belong to weights that are about to go."""
    for name in (*RUN_FILES, rundir.LOG, f"{rundir.LAST}.sha256", f"{rundir.BEST}.sha256"):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / rundir.EVAL, ignore_errors=True)


def _train(config: TrainConfig, data: DataSet, run: Path, device: torch.device, *, resume: bool, as_json: bool) -> None:
    from awpbench import provenance
    from awpbench.cli.progress import TrainingProgress
    from awpbench.training.loop import train as run_training

    _record_provenance(run, data, provenance.describe(str(device)), resume=resume)
    with common.stop_on_signals() as stop, TrainingProgress(config, run / rundir.LOG) as progress:
        metrics = run_training(config, data, run, device=device, progress=progress, stop=stop, resume=resume)
    if as_json:
        common.print_json({"run": str(run), "last": metrics[-1], "checkpoint": str(run / rundir.BEST)})
    else:
        common.note(f"finished: {run}. Attack it with: awpbench eval --ckpt {run / rundir.BEST} --suite full")


def _record_provenance(run: Path, data: DataSet, described: dict[str, Any], *, resume: bool) -> None:
    """Write what made the run; a resumed run keeps what it says and adds to it, if its images are still the same."""
    path = run / rundir.PROVENANCE
    fingerprints = {split: getattr(data, split).fingerprint() for split in ("train", "validation", "test")}
    if not resume or not path.exists():
        rundir.write_json(path, {**described, "data": fingerprints, "resumed": []})
        return
    try:
        before = json.loads(path.read_text())
    except ValueError:
        raise InputError(
            f"{path} is damaged", "Restore it, or remove it: the run then says where it was resumed."
        ) from None
    if before["data"] != fingerprints:
        raise InputError(
            f"{run} was trained on other images than those found now", "Give the --data-dir that it was started with."
        )
    rundir.write_json(path, {**before, "resumed": [*before.get("resumed", []), described]})
