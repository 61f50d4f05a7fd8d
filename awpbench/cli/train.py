"""`awpbench train` and `awpbench resume`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awpbench import models, rundir
from awpbench.cli import common
from awpbench.errors import CheckError, InputError, Interrupted, RefusedError, UsageError

if TYPE_CHECKING:
    import torch

    from awpbench.config import TrainConfig
    from awpbench.data.images import DataSet
    from awpbench.training.distributed import Group
    from awpbench.training.tensorboard import EventFiles

CheckpointOption = Annotated[
    float, typer.Option("--checkpoint-every", min=0.0, help="Minutes between two saves of last.pt within an epoch.")
]
TensorboardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Also write event files into RUN_DIR/tensorboard/.")
]

GOES_WITH = {  # what of a recipe goes when a flag replaces another of its values
    "defense": ("beta", "loss", "init_from", "unlabelled", "unlabelled_fraction", "unlabelled_weight"),
    "dataset": ("eps", "step_size"),
    "norm": ("eps", "step_size"),
    "eps": ("step_size",),
    "schedule": ("lr_end",),
}
RUN_FILES = (rundir.CONFIG, rundir.LAST, rundir.BEST, rundir.METRICS, rundir.TIMING, rundir.PROVENANCE)


THREAT, DEFENSE, PERTURBATION, DATA = "Threat and attack", "Defense", "Weight perturbation", "Data"
MODEL, OPTIMISER, REGULARISERS, MEASURING = "Model", "Optimiser", "Regularisers", "Measuring"


def train(
    arch: Annotated[
        str | None,
        typer.Argument(
            help="prn18, wrn34, wrn28, wrn-D-W, resnet18, vgg19, small-cnn; else the recipe's or the data set's own."
        ),
    ] = None,
    *,
    recipe: Annotated[
        str | None, typer.Option(help="A run of the AWP paper by name: awpbench list recipes.", rich_help_panel=DEFENSE)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="standard, at, trades, mart, finetuning or rst", rich_help_panel=DEFENSE),
    ] = None,
    awp: Annotated[
        bool | None,
        typer.Option("--awp/--no-awp", help="With adversarial weight perturbation.", rich_help_panel=PERTURBATION),
    ] = None,
    awp_gamma: Annotated[
        float | None,
        typer.Option(help="Size of the perturbation relative to the weights.", rich_help_panel=PERTURBATION),
    ] = None,
    awp_warmup: Annotated[
        int | None, typer.Option(help="Epochs without perturbation at the start.", rich_help_panel=PERTURBATION)
    ] = None,
    rwp: Annotated[
        bool | None,
        typer.Option("--rwp/--no-rwp", help="With random weight perturbation.", rich_help_panel=PERTURBATION),
    ] = None,
    awp_steps: Annotated[
        int | None, typer.Option(help="Ascent steps in the weights (K2).", rich_help_panel=PERTURBATION)
    ] = None,
    awp_alternations: Annotated[
        int | None,
        typer.Option(help="Rounds of attack and ascent in the weights in a step (A).", rich_help_panel=PERTURBATION),
    ] = None,
    awp_size: Annotated[
        str | None,
        typer.Option(help="l2 or l1: what measures the size of the perturbation.", rich_help_panel=PERTURBATION),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(help="Checkpoint to start from (finetuning: its head is replaced).", rich_help_panel=DEFENSE),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="Of finetuning and rst: at, trades or mart.", rich_help_panel=DEFENSE)
    ] = None,
    unlabelled: Annotated[
        str | None, typer.Option(help="Of rst: file of images with pseudo-labels.", rich_help_panel=DEFENSE)
    ] = None,
    unlabelled_fraction: Annotated[
        float | None, typer.Option(help="Of rst: their share of a batch.", rich_help_panel=DEFENSE)
    ] = None,
    unlabelled_weight: Annotated[
        float | None, typer.Option(help="Of rst: lambda, the weight of their loss.", rich_help_panel=DEFENSE)
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="cifar10, cifar100, svhn, mnist, fashion-mnist, digits, or the path of your own", rich_help_panel=DATA
        ),
    ] = None,
    norm: Annotated[str | None, typer.Option(help="Linf or L2", rich_help_panel=THREAT)] = None,
    eps: Annotated[
        str | None, typer.Option(help="Budget in pixels' units, such as 8/255.", rich_help_panel=THREAT)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the attack in training.", rich_help_panel=THREAT)] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Step of the attack in training, such as 2/255.", rich_help_panel=THREAT)
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the robust term of TRADES and MART.", rich_help_panel=DEFENSE)
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Channels of the first stage, to narrow or widen the model.", rich_help_panel=MODEL),
    ] = None,
    normalization: Annotated[
        str | None, typer.Option(help="meanstd (the data set's) or none", rich_help_panel=MODEL)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images.", rich_help_panel=OPTIMISER)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.", rich_help_panel=OPTIMISER)] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.", rich_help_panel=OPTIMISER)] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="piecewise, cosine, cyclic, linear, one-drop, multi-decay", rich_help_panel=OPTIMISER),
    ] = None,
    lr_end: Annotated[
        float | None, typer.Option(help="Learning rate at the end of the cosine.", rich_help_panel=OPTIMISER)
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum of SGD.", rich_help_panel=OPTIMISER)] = None,
    nesterov: Annotated[
        bool | None, typer.Option("--nesterov/--no-nesterov", help="Nesterov's momentum.", rich_help_panel=OPTIMISER)
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of SGD.", rich_help_panel=OPTIMISER)] = None,
    l1: Annotated[
        float | None, typer.Option(help="Weight of the sum of |w| in the loss.", rich_help_panel=REGULARISERS)
    ] = None,
    l2: Annotated[
        float | None,
        typer.Option(
            help="Weight decay of convolutions and linear layers, in place of --weight-decay.",
            rich_help_panel=REGULARISERS,
        ),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(help="Mix pairs of images and labels with a share from Beta(a, a).", rich_help_panel=REGULARISERS),
    ] = None,
    cutout: Annotated[
        int | None, typer.Option(help="Side of a square to black out, in pixels.", rich_help_panel=REGULARISERS)
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="Share of the label spread over all classes.", rich_help_panel=REGULARISERS)
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of averaged weights, which are measured and saved.", rich_help_panel=REGULARISERS),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many measurements without a better best.pt.", rich_help_panel=REGULARISERS),
    ] = None,
    augmentation: Annotated[
        str | None, typer.Option(help="crop-flip, crop-flip-rotate or none", rich_help_panel=DATA)
    ] = None,
    padding: Annotated[str | None, typer.Option(help="reflect or zero, before the crop", rich_help_panel=DATA)] = None,
    train_examples: Annotated[
        int | None, typer.Option(help="Only the first so many training images.", rich_help_panel=DATA)
    ] = None,
    validation_examples: Annotated[
        int | None, typer.Option(help="Training images set aside for validation.", rich_help_panel=DATA)
    ] = None,
    select_on: Annotated[
        str | None,
        typer.Option(help="validation or test: what chooses best.pt; test is declared.", rich_help_panel=MEASURING),
    ] = None,
    track_every: Annotated[
        int | None, typer.Option(help="Epochs between measurements of robustness.", rich_help_panel=MEASURING)
    ] = None,
    track_examples: Annotated[
        int | None, typer.Option(help="Training images whose robustness is measured.", rich_help_panel=MEASURING)
    ] = None,
    track_steps: Annotated[
        int | None, typer.Option(help="Steps of the PGD that measures.", rich_help_panel=MEASURING)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16-attack (the attack in bfloat16), or bf16 (the update too).", rich_help_panel=OPTIMISER
        ),
    ] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="With torch.compile.", rich_help_panel=OPTIMISER)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides weights, data order, augmentation and attack starts.", rich_help_panel=OPTIMISER),
    ] = None,
    config: common.ConfigOption = None,
    out: Annotated[
        str | None, typer.Option(help="Run folder; else runs/<dataset>-<arch>-<defense>[-awp]-s<seed>.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing run folder.")] = False,
    checkpoint_every: CheckpointOption = 10.0,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    tensorboard: TensorboardOption = False,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Train a defense, with or without adversarial weight perturbation."""
    given = dict(locals())
    if arch is dataset is config is recipe is None:  # nothing says what to train
        raise UsageError("Missing argument 'arch'.", "See: awpbench train --help")
    from awpbench.defaults import read_config_file, resolve_training

    elsewhere = {"arch", "method", "config", "out", "force", "device", "data_dir", "offline", "tensorboard"}
    elsewhere |= {"dry_run", "as_json", "recipe", "checkpoint_every"}
    flags = {key: value for key, value in given.items() if key not in elsewhere}
    flags |= {"architecture": models.canonical(arch) if arch else None, "defense": method}
    from_file = read_config_file(Path(config)) if config else {}
    named = _of_recipe(recipe, flags, from_file, data_dir) if recipe else ("", {})
    resolved, sources = resolve_training(flags, from_file, named=named)
    run = Path(out or Path("runs") / (f"{recipe}-s{resolved.seed}" if recipe else resolved.name()))
    if dry_run:
        if (common.torchrun_place() or (0,))[0] > 0:
            return
        from awpbench.cli.plan import print_training_plan

        data = _load(resolved, data_dir, offline)
        resolved = _bound(resolved, data, sources)
        on = common.resolve_device(device)
        places = common.places(out=run, out_flag=out, device=str(on), device_flag=device, data_dir=data_dir)
        print_training_plan(resolved, sources, data, places, on, as_json=as_json)
        return
    with _together(device) as (group, on):
        group.lead(lambda: _refuse_to_overwrite(run, force))
        events = _events(run, tensorboard and group.rank == 0)
        data = _load_once(group, resolved, data_dir, offline)
        resolved = _bound(resolved, data, sources)
        if resolved.init_from is not None and Path(resolved.init_from).resolve().is_relative_to(run.resolve()):
            raise UsageError(f"{resolved.init_from} lies in the run folder itself", "Name another folder with --out.")
        settings: dict[str, Any] = {"group": group, "checkpoint_every": checkpoint_every, "events": events}
        _train(resolved, data, run, on, resume=False, as_json=as_json, **settings)


def resume(
    run_dir: Annotated[str, typer.Argument(help="The folder of an interrupted run.")],
    *,
    checkpoint_every: CheckpointOption = 10.0,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    tensorboard: TensorboardOption = False,
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
    with _together(device) as (group, on):
        events = _events(run, tensorboard and group.rank == 0)
        data = _load_once(group, config, data_dir, offline)
        settings: dict[str, Any] = {"group": group, "checkpoint_every": checkpoint_every, "events": events}
        _train(config, data, run, on, resume=True, as_json=as_json, **settings)


@contextmanager
def _together(device: str) -> Iterator[tuple[Group, torch.device]]:
    """Join the other processes under torchrun, and say which GPU is this one's; only the first reports an error.

    An error that each of them finds alike, that is: what one alone knows, such as a file that only it lacks, it says.
    """
    from awpbench.training.distributed import ALONE, ToldError, joined

    place = common.torchrun_place()
    if place is None:
        yield ALONE, common.resolve_device(device)
        return
    rank, count, local = place
    try:
        on = common.resolve_device(device)
        on = common.resolve_device(f"cuda:{local}") if str(on) == "cuda" else on
        with joined(rank, count, on) as group:
            yield group, on
    except (UsageError, RefusedError, CheckError, Interrupted, ToldError) as error:
        if rank == 0:
            raise
        raise typer.Exit(error.exit_code) from error


def _load_once(group: Group, config: TrainConfig, data_dir: str | None, offline: bool) -> DataSet:
    """Load a data set in process 0, which fetches what is missing, and then in the others."""

    def load() -> DataSet:
        return _load(config, data_dir, offline)

    return group.lead(load) or load()


def _events(run: Path, wanted: bool) -> EventFiles | None:
    if not wanted:
        return None
    from awpbench.training.tensorboard import EventFiles

    return EventFiles(run / rundir.TENSORBOARD)


def _of_recipe(
    name: str, flags: dict[str, Any], file: dict[str, Any], data_dir: str | None
) -> tuple[str, dict[str, Any]]:
    """Return a recipe's values with the files that it needs, without those that belong to what a flag replaces."""
    from awpbench import recipes
    from awpbench.data.sources import data_folder

    recipe = recipes.get(name)
    gone = {key for key in recipe.values if key.startswith("awp_")} if False in (flags["awp"], flags["rwp"]) else set()
    for flag, fields in GOES_WITH.items():
        if flags[flag] not in (None, recipe.values.get(flag)):
            gone.update(fields)
    values = {key: value for key, value in recipe.values.items() if key not in gone}
    for need in recipe.needs:
        if need.field not in gone and flags[need.field] is None and need.field not in file:
            values[need.field] = str(need.find(data_folder(Path(data_dir) if data_dir else None)))
    return f"recipe {name}", values


def _load(config: TrainConfig, data_dir: str | None, offline: bool) -> DataSet:
    from awpbench import data
    from awpbench.cli.data import fetch_progress
    from awpbench.data.files import load_unlabelled

    with fetch_progress() as progress:
        found = data.load(
            config.dataset,
            data_dir=Path(data_dir) if data_dir else None,
            offline=offline,
            validation=config.validation_examples,
            train_examples=config.train_examples,
            progress=progress,
        )
    if config.unlabelled is None:
        return found
    unlabelled = load_unlabelled(Path(config.unlabelled), shape=found.shape, classes=found.classes)
    return replace(found, unlabelled=unlabelled)


def _bound(config: TrainConfig, data: DataSet, sources: dict[str, str]) -> TrainConfig:
    """Bind a run to the content of the files that it names, and say where their hashes came from."""
    from awpbench.training.start import bound

    found = bound(config, data)
    for field, file in (("init_weights", "init_from"), ("unlabelled_fingerprint", "unlabelled")):
        if getattr(found, field) != getattr(config, field):
            sources[field] = f"the file of --{file.replace('_', '-')}"
    return found


def _refuse_to_overwrite(run: Path, force: bool) -> None:
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file", "Name a folder with --out.")
    existing = [name for name in RUN_FILES if (run / name).exists()]
    if {rundir.LAST, rundir.BEST, rundir.METRICS} & {*existing} and not force:  # none of them: a start that failed
        raise RefusedError(
            f"{run} already holds a run ({', '.join(existing)})",
            f"Continue it with: awpbench resume {run}, or overwrite it with --force, or write elsewhere with --out.",
        )


def _remove_old_run(run: Path) -> None:
    """Remove what another run left, its evaluations included: they belong to weights that are about to go."""
    for name in (*RUN_FILES, rundir.LOG, f"{rundir.LAST}.sha256", f"{rundir.BEST}.sha256"):
        (run / name).unlink(missing_ok=True)
    for name in (rundir.EVAL, rundir.TENSORBOARD):
        shutil.rmtree(run / name, ignore_errors=True)


def _train(
    config: TrainConfig,
    data: DataSet,
    run: Path,
    device: torch.device,
    *,
    resume: bool,
    as_json: bool,
    group: Group | None = None,
    checkpoint_every: float = 10.0,
    events: EventFiles | None = None,
) -> None:
    from awpbench.cli.progress import TrainingProgress, Unseen
    from awpbench.training.distributed import ALONE
    from awpbench.training.loop import train as run_training

    group = group or ALONE
    first, processes = group.rank == 0, group.count
    with (
        common.stop_on_signals(quiet=not first) as stop,
        TrainingProgress(config, run / rundir.LOG, events) if first else nullcontext(Unseen()) as progress,
    ):
        metrics = run_training(
            config,
            data,
            run,
            device=device,
            progress=progress,
            stop=stop,
            resume=resume,
            begun=lambda: _begin(run, data, str(device), processes, resume=resume),
            checkpoint_every=checkpoint_every,
            group=group,
        )
    if not first:
        return
    if as_json:
        common.print_json({"run": str(run), "last": metrics[-1], "checkpoint": str(run / rundir.BEST)})
    else:
        common.note(f"finished: {run}. Attack it with: awpbench eval --ckpt {run / rundir.BEST} --suite full")


def _begin(run: Path, data: DataSet, device: str, processes: int, *, resume: bool) -> None:
    """Clear the run folder of what it must not hold, and say there what makes the run from here on."""
    from awpbench import provenance

    if not resume:
        _remove_old_run(run)
    rundir.remove_torn(run)
    _record_provenance(run, data, {**provenance.describe(device), "processes": processes}, resume=resume)


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
