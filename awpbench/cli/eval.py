"""`awpbench eval`: attack a net and write its result and its row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awpbench.cli import common
from awpbench.errors import UsageError

if TYPE_CHECKING:
    import torch

    from awpbench.data.images import ImageSet
    from awpbench.evaluation.plan import EvalConfig
    from awpbench.evaluation.runner import Finished
    from awpbench.evaluation.subject import Subject


def eval_command(
    *,
    ckpt: Annotated[str | None, typer.Option(help="A checkpoint of ours, or a foreign state dict.")] = None,
    model: Annotated[
        str | None, typer.Option(help="FILE.py:factory or package.module:factory; runs that code.")
    ] = None,
    robustbench: Annotated[
        str | None, typer.Option(help="A model of RobustBench's zoo, by its ID; nothing is downloaded.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="File of the weights of --robustbench.")] = None,
    suite: Annotated[str | None, typer.Option(help="quick, standard or full.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="fgsm, pgd-N, cw-inf, spsa or autoattack, instead of a suite; repeatable.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="cifar10, mnist or digits; else the checkpoint's.")] = None,
    norm: Annotated[str | None, typer.Option(help="Linf or L2; else the checkpoint's.")] = None,
    eps: Annotated[
        str | None, typer.Option(help="Budget in pixels' units, such as 8/255; else the checkpoint's.")
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help="awp, trades, mart-wrn or mart-rn18: step and start of PGD.")
    ] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Step of PGD and CW, such as 2/255; else the dialect's.")
    ] = None,
    kappa: Annotated[float | None, typer.Option(help="Confidence of CW; else 0.")] = None,
    n_examples: Annotated[int | None, typer.Option(help="Only the first so many test images.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="ATTACK=N: images of one attack; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every random draw, image by image.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images at a time.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, or bf16-attack: attacks but SPSA in bfloat16; fp32 predicts.")
    ] = None,
    config: common.ConfigOption = None,
    arch: Annotated[str | None, typer.Option(help="Architecture of a foreign state dict.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of its first stage.")] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="Of a foreign state dict: none, meanstd or plus-minus-1; else found by trial.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the result.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the result of another evaluation.")] = False,
    no_row: Annotated[bool, typer.Option("--no-row", help="Write no row of the leaderboard.")] = False,
    file: Annotated[
        str | None, typer.Option("--file", "--leaderboard", help="The leaderboard; else AWPBENCH_LEADERBOARD, or near.")
    ] = None,
    card: Annotated[str | None, typer.Option(help="TOML file of the row's bibliographic keys.")] = None,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Attack a net with a suite and write its result and its row of the leaderboard.

    An interrupted evaluation continues when the same command is given again.
    """
    from awpbench.config import of_file
    from awpbench.defaults import read_config_file
    from awpbench.evaluation.plan import EvalConfig, read_limits, resolve_evaluation

    flags = {
        "suite": suite,
        "attacks": tuple(attack) if attack else None,
        "dataset": dataset,
        "norm": norm,
        "eps": eps,
        "dialect": dialect,
        "step_size": step_size,
        "kappa": kappa,
        "n_examples": n_examples,
        "limits": read_limits(limit) if limit else None,
        "seed": seed,
        "batch_size": batch_size,
        "precision": precision,
    }
    from_file = of_file(EvalConfig, read_config_file(Path(config)) if config else {})
    nets = {"--ckpt": ckpt, "--model": model, "--robustbench": robustbench}
    named = {"dataset": dataset or from_file.get("dataset"), "norm": norm or from_file.get("norm")}
    subject = _subject(nets, weights, arch, width, preprocessing, **named)
    settled, sources = resolve_evaluation(flags, file=from_file, checkpoint=subject.brings)
    sources = {key: subject.origin if source == "checkpoint" else source for key, source in sources.items()}
    images = _images(settled.dataset, data_dir, offline)
    where = Path(out) if out else subject.default_out(settled)
    on = common.resolve_device(device)
    subject = _with_preprocessing(subject, settled.dataset, images, on)
    if dry_run:
        from awpbench.leaderboard import store

        places = common.places(out=where, out_flag=out, device=str(on), device_flag=device, data_dir=data_dir)
        places["file"] = (str(store.find(file)), common.source(file, store.VARIABLE))
        _show_plan(settled, sources, subject, images, on, places, as_json)
        return
    from awpbench.leaderboard.store import check_targets, write_row

    if settled.suite and not no_row:
        check_targets(file=file, card=card)
    finished = _run(settled, subject, images, where, on, force)
    _report(finished, where, as_json)
    if settled.suite and not no_row:
        path, outcome = write_row(where, file=file, card=card)
        common.note(f"{outcome} its row in {path}")


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


def _subject(
    nets: dict[str, str | None],
    weights: str | None,
    arch: str | None,
    width: int | None,
    preprocessing: str | None,
    *,
    dataset: str | None,
    norm: str | None,
) -> Subject:
    _check_net(nets, weights, arch or width or preprocessing)
    if (model := nets["--model"]) is not None:
        from awpbench.evaluation.subject import from_factory

        return from_factory(model)
    if (name := nets["--robustbench"]) is not None:
        from awpbench.evaluation.zoo import from_robustbench

        return from_robustbench(name, Path(str(weights)), dataset=dataset, norm=norm)
    from awpbench.evaluation.subject import from_checkpoint

    path = Path(str(nets["--ckpt"]))
    return from_checkpoint(path, arch=arch, width=width, dataset=dataset, preprocessing=preprocessing)


def _with_preprocessing(subject: Subject, dataset: str, images: ImageSet, device: torch.device) -> Subject:
    from awpbench.evaluation.subject import with_preprocessing

    subject, trial = with_preprocessing(subject, dataset, images, device)
    if trial is not None:
        common.note(f"preprocessing found by trial on the first {trial.n} test images: {trial}")
    return subject


def _images(dataset: str, data_dir: str | None, offline: bool) -> ImageSet:
    from awpbench import data
    from awpbench.cli.data import fetch_progress

    with fetch_progress() as progress:
        return data.load_test(
            dataset, data_dir=Path(data_dir) if data_dir else None, offline=offline, progress=progress
        )


def _run(
    config: EvalConfig, subject: Subject, images: ImageSet, out: Path, device: torch.device, force: bool
) -> Finished:
    from awpbench.cli.evaluation import EvaluationProgress
    from awpbench.defaults import DATASETS
    from awpbench.evaluation.runner import evaluate

    with common.stop_on_signals() as stop, EvaluationProgress() as progress:
        return evaluate(
            subject.net,
            images,
            config,
            classes=DATASETS[config.dataset].classes,
            model=subject.description,
            checkpoint=subject.checkpoint,
            training=subject.training,
            out=out,
            device=device,
            progress=progress,
            stop=stop,
            force=force,
        )


def _report(finished: Finished, out: Path, as_json: bool) -> None:
    from awpbench.cli.evaluation import show_results

    if finished.reused:
        common.note(f"this evaluation was finished before; nothing was run: {out}")
    if as_json:
        common.print_json(finished.document)
    else:
        show_results(finished.document)
    if not finished.reused:
        common.note(f"finished: {out}")


def _show_plan(
    config: EvalConfig,
    sources: dict[str, str],
    subject: Subject,
    images: ImageSet,
    device: torch.device,
    places: common.Settled,
    as_json: bool,
) -> None:
    from awpbench.cli.evaluation import show_plan
    from awpbench.defaults import DATASETS
    from awpbench.evaluation.estimate import estimate
    from awpbench.evaluation.jobs import jobs

    config.check_examples(len(images))
    values = config.model_dump(mode="json")
    settled = {key: (values[key], source) for key, source in sources.items()}
    planned = [
        (job, max(config.examples(each, len(images)) for each in job.attacks))
        for job in jobs(config, DATASETS[config.dataset].classes)
    ]
    timed = estimate(subject.net, images, device, config.batch_size, config.precision)
    show_plan({**settled, **places}, planned, timed, as_json=as_json)
