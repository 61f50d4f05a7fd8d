"""`awpbench eval`: attack a net and write its result and its row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awpbench import rundir
from awpbench.cli import common
from awpbench.cli.nets import ZooOption, chosen_subject, load_images, with_preprocessing
from awpbench.errors import CheckError, UsageError

if TYPE_CHECKING:
    import torch

    from awpbench.data.images import ImageSet
    from awpbench.evaluation.plan import EvalConfig
    from awpbench.evaluation.runner import Finished, Share, Unfinished
    from awpbench.evaluation.subject import Subject


def eval_command(
    *,
    ckpt: Annotated[
        str | None, typer.Option(help="A checkpoint of ours, zoo:NAME of the model zoo, or a foreign state dict.")
    ] = None,
    zoo: ZooOption = None,
    model: Annotated[
        str | None, typer.Option(help="FILE.py:factory or package.module:factory; runs that code.")
    ] = None,
    robustbench: Annotated[
        str | None, typer.Option(help="A model of RobustBench's zoo, by its ID; nothing is downloaded.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="File of the weights of --robustbench.")] = None,
    suite: Annotated[str | None, typer.Option(help="quick, standard or full.")] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="fgsm, pgd-N, pgd-N-worst, cw-inf, spsa or autoattack, instead of a suite; repeatable."),
    ] = None,
    worst: Annotated[
        bool, typer.Option("--worst", help="Beside the last iterate of the longest PGD, also score its worst ones.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="cifar10, cifar100, svhn, mnist, fashion-mnist, digits, or a path; else the checkpoint's."),
    ] = None,
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
    indices: Annotated[
        str | None, typer.Option(help="File with the places of the test images to use, one a line.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every random draw, image by image.")] = None,
    block: Annotated[
        int | None, typer.Option(help="Images per call of the net, padded to it; else 64. Less takes less memory.")
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="auto, or images attacked together; changes no result.")
    ] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Keep the adversarial images, for awpbench verify.")
    ] = False,
    no_audit: Annotated[
        bool, typer.Option("--no-audit", help="Do not ask whether the evaluation is to be trusted.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 5 where the audit is suspicious.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="I/N: attack every N-th block, from the I-th; all write into one folder.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, or bf16-attack: attacks in bfloat16; fp32 predicts.")
    ] = None,
    config: common.ConfigOption = None,
    arch: Annotated[str | None, typer.Option(help="Architecture of a foreign state dict.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of its first stage.")] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="Of a foreign state dict: none, meanstd or plus-minus-1; else found by trial.")
    ] = None,
    expect_clean: Annotated[
        float | None, typer.Option(help="Claimed clean accuracy in percent; another one stops the run.")
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
    from awpbench.evaluation.claims import check_clean, read_percent
    from awpbench.evaluation.plan import EvalConfig, read_limits, resolve_evaluation
    from awpbench.evaluation.subject import read_indices

    if expect_clean is not None:
        read_percent(expect_clean)
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
        "block": block,
        "batch_size": batch_size,
        "evidence": evidence or None,
        "audit": False if no_audit else None,
        "precision": precision,
    }
    from_file = of_file(EvalConfig, read_config_file(Path(config)) if config else {})
    nets = {"--ckpt": ckpt, "--model": model, "--robustbench": robustbench}
    named = {"dataset": dataset or from_file.get("dataset"), "norm": norm or from_file.get("norm")}
    subject = chosen_subject(nets, weights, arch, width, preprocessing, **named, zoo=zoo)
    settled, sources = resolve_evaluation(flags, file=from_file, checkpoint=subject.brings, worst=worst)
    sources = {key: subject.origin if source == "checkpoint" else source for key, source in sources.items()}
    whole = load_images(settled.dataset, data_dir, offline)
    images = whole.select(read_indices(Path(indices), len(whole))) if indices is not None else whole
    where = Path(out) if out else subject.default_out(settled)
    on = common.resolve_device(device)
    subject = with_preprocessing(subject, settled.dataset, whole, on, None if force else where)
    if dry_run:
        from awpbench.leaderboard import store

        places = common.places(out=where, out_flag=out, device=str(on), device_flag=device, data_dir=data_dir)
        places["file"] = (str(store.find(file)), common.source(file, store.VARIABLE))
        _show_plan(settled, sources, subject, images, on, places, as_json)
        return
    from awpbench.evaluation.runner import Unfinished
    from awpbench.leaderboard.store import check_targets, write_row

    if settled.suite and not no_row:
        check_targets(file=file, card=card)
    rundir.check_writable(where / rundir.SHARDS)
    if strict and no_audit:
        raise UsageError("--strict asks for the audit that --no-audit leaves out", "Leave one of them out.")
    share, on = _share(shard, on, force)
    finished = _run(settled, subject, images, whole, where, on, force, share, expect_clean)
    if isinstance(finished, Unfinished):
        there = finished.total - finished.missing
        common.note(f"this share is done; {there} of {finished.total} blocks are there, and the last share finishes")
        return
    if expect_clean is not None:  # also of a finished evaluation, and of the whole of several shares
        clean = finished.document["attacks"]["clean"]
        check_clean(expect_clean, clean["correct"], clean["n"], len(whole))
    _report(finished, where, as_json)
    if settled.suite and not no_row:
        common.note(str(write_row(where, file=file, card=card)))
    if strict and finished.document["audit"]["verdict"] != "reliable":
        raise CheckError("the audit does not find this evaluation reliable", "See its findings above.")


def _share(text: str | None, device: torch.device, force: bool) -> tuple[Share, torch.device]:
    """Read `--shard 1/4`, or what torchrun says, which also names this process's GPU."""
    from awpbench.evaluation.runner import WHOLE, Share

    place = common.torchrun_place()
    if text is not None:
        which, _, of = text.partition("/")
        if not (which.isdecimal() and of.isdecimal() and 1 <= int(which) <= int(of)):
            raise UsageError(f"--shard {text} names no share", "Write it as in --shard 1/4, up to --shard 4/4.")
        share = Share(int(which) - 1, int(of))
    elif place is not None:
        rank, count, local = place
        share = Share(rank, count)
        if str(device) == "cuda":
            device = common.resolve_device(f"cuda:{local}")
    else:
        return WHOLE, device
    if force and share.count > 1:
        raise UsageError("--force and shards exclude each other", "Remove the folder first, or give another --out.")
    return share, device


def _run(
    config: EvalConfig,
    subject: Subject,
    images: ImageSet,
    whole: ImageSet,
    out: Path,
    device: torch.device,
    force: bool,
    share: Share,
    expect_clean: float | None,
) -> Finished | Unfinished:
    from awpbench.cli.evaluation import EvaluationProgress
    from awpbench.defaults import facts_of
    from awpbench.evaluation.runner import evaluate

    label = f"shard {share.index + 1}/{share.count}: " if share.count > 1 else ""
    with common.stop_on_signals() as stop, EvaluationProgress(label) as progress:
        return evaluate(
            subject.net,
            images,
            config,
            classes=facts_of(config.dataset).classes,
            model=subject.description,
            checkpoint=subject.checkpoint,
            training=subject.training,
            tracked=subject.tracked,
            whole=whole,
            out=out,
            device=device,
            progress=progress,
            stop=stop,
            force=force,
            share=share,
            expect_clean=expect_clean,
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
    from awpbench.defaults import facts_of
    from awpbench.evaluation.estimate import estimate
    from awpbench.evaluation.jobs import jobs

    config.check_examples(len(images))
    values = config.model_dump(mode="json")
    settled = {key: (values[key], source) for key, source in sources.items()}
    planned = [
        (job, min(max(config.examples(each, len(images)) for each in job.attacks), job.most or len(images)))
        for job in jobs(config, facts_of(config.dataset).classes)
    ]
    timed = estimate(subject.net, images, device, config.block, config.precision)
    show_plan({**settled, **places}, planned, timed, as_json=as_json)
