"""`awpbench train` and `awpbench resume`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awpbench import models, rundir
from awpbench.cli import common, training
from awpbench.cli.nets import ZooOption, checkpoint_file
from awpbench.errors import InputError, UsageError

if TYPE_CHECKING:
    pass

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
        typer.Option(
            help="Checkpoint to start from, or zoo:NAME (finetuning: its head is replaced).", rich_help_panel=DEFENSE
        ),
    ] = None,
    zoo: ZooOption = None,
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
    elsewhere |= {"dry_run", "as_json", "recipe", "checkpoint_every", "zoo"}
    flags = {key: value for key, value in given.items() if key not in elsewhere}
    flags |= {"architecture": models.canonical(arch) if arch else None, "defense": method}
    from_file = read_config_file(Path(config)) if config else {}
    named = _of_recipe(recipe, flags, from_file, data_dir) if recipe else ("", {})
    resolved, sources = resolve_training(flags, from_file, named=named)
    resolved = resolved.model_copy(update={"init_from": checkpoint_file(resolved.init_from or "", zoo) or None})
    run = Path(out or Path("runs") / (f"{recipe}-s{resolved.seed}" if recipe else resolved.name()))
    if dry_run:
        if (common.torchrun_place() or (0,))[0] > 0:
            return
        from awpbench.cli.plan import print_training_plan

        data = training.load(resolved, data_dir, offline)
        resolved = training.bound(resolved, data, sources)
        on = common.resolve_device(device)
        places = common.places(out=run, out_flag=out, device=str(on), device_flag=device, data_dir=data_dir)
        print_training_plan(resolved, sources, data, places, on, as_json=as_json)
        return
    with training.together(device) as (group, on):
        group.lead(lambda: training.refuse_to_overwrite(run, force))
        events = training.events(run, tensorboard and group.rank == 0)
        data = training.load_once(group, resolved, data_dir, offline)
        resolved = training.bound(resolved, data, sources)
        if resolved.init_from is not None and Path(resolved.init_from).resolve().is_relative_to(run.resolve()):
            raise UsageError(f"{resolved.init_from} lies in the run folder itself", "Name another folder with --out.")
        settings: dict[str, Any] = {"group": group, "checkpoint_every": checkpoint_every, "events": events}
        training.train(resolved, data, run, on, resume=False, as_json=as_json, **settings)


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
    with training.together(device) as (group, on):
        events = training.events(run, tensorboard and group.rank == 0)
        data = training.load_once(group, config, data_dir, offline)
        settings: dict[str, Any] = {"group": group, "checkpoint_every": checkpoint_every, "events": events}
        training.train(config, data, run, on, resume=True, as_json=as_json, **settings)


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
