"""`awpbench verify`: check a result from its stored images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tabulate import tabulate

from awpbench import rundir
from awpbench.cli import common
from awpbench.cli.nets import ZooOption, chosen_subject, load_images
from awpbench.errors import CheckError, UsageError

if TYPE_CHECKING:
    from awpbench.evaluation.verify import Again, Claim, Verifier


def verify_command(
    folder: Annotated[Path, typer.Argument(metavar="RESULT_DIR", help="Folder that eval wrote.", show_default=False)],
    *,
    ckpt: Annotated[str | None, typer.Option(help="The net's checkpoint; else the one of the run folder.")] = None,
    zoo: ZooOption = None,
    model: Annotated[
        str | None, typer.Option(help="FILE.py:factory or package.module:factory; runs that code.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="The weights of a model of RobustBench's zoo.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Where your own images lie now; else where they lay for the evaluation.")
    ] = None,
    reattack: Annotated[int | None, typer.Option(min=1, help="Also attack so many random images afresh.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Chooses the images to attack afresh.")] = 0,
    export: Annotated[
        str | None, typer.Option(help="Write the images as RobustBench's new evaluation takes them: FILE.pt.")
    ] = None,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Compute every accuracy of a result again from its stored adversarial images, and name every image that fails."""
    from awpbench.defaults import facts_of
    from awpbench.evaluation.results import Result
    from awpbench.evaluation.subject import as_recorded
    from awpbench.evaluation.verify import Verifier

    document = Result.read(folder).document
    if ckpt is None and model is None and weights is None:
        ckpt = str(_checkpoint(folder, document))
    robustbench = None if weights is None else str(document["model"]["name"])
    nets = {"--ckpt": ckpt, "--model": model, "--robustbench": robustbench}
    net = document["model"]
    foreign = ckpt is not None and "preprocessing" in net
    arch, width = (net["architecture"], net["width"]) if foreign else (None, None)
    dataset = dataset or str(document["dataset"])
    facts = {"dataset": dataset, "norm": document["norm"]}
    subject = as_recorded(chosen_subject(nets, weights, arch, width, None, **facts, zoo=zoo), document)
    images, on = load_images(dataset, data_dir, offline), common.resolve_device(device)
    classes = facts_of(dataset).classes
    verifier = Verifier(folder, subject.net, images, classes=classes, device=on, dataset=dataset)
    claims = verifier.claims()
    again = _again(verifier, reattack, seed) if reattack else []
    if as_json:
        found: dict[str, Any] = {"claims": [dataclasses.asdict(each) for each in claims]}
        common.print_json({**found, "again": [dataclasses.asdict(each) for each in again]})
    else:
        _show(document, claims, again)
    if export is not None:
        _export(verifier, Path(export))
    _judge(claims, again)


def _checkpoint(folder: Path, document: dict[str, Any]) -> Path:
    """Find the checkpoint beside the evaluations of a run, or of a net of the model zoo."""
    from awpbench.zoo.cards import weights_file

    name, run = str(document["model"].get("name")).rpartition("/")[2], folder.resolve().parent.parent
    path = next((run / each for each in (f"{name}.pt", weights_file(name)) if (run / each).is_file()), None)
    if folder.resolve().parent.name != rundir.EVAL or path is None:
        mend = "Name it: --ckpt FILE, --model FILE.py:factory, or --weights FILE where it is RobustBench's."
        raise UsageError("the net of this result lies elsewhere", mend)
    return path


def _again(verifier: Verifier, n: int, seed: int) -> list[Again]:
    from awpbench.cli.evaluation import EvaluationProgress

    with EvaluationProgress() as progress:
        return verifier.again(n, seed, progress)


def _show(document: dict[str, Any], claims: list[Claim], again: list[Again]) -> None:
    common.print_text(f"{document['model']['name']}: {document['dataset']}, {document['norm']} {document['eps']}")
    rows = [(each.attack, each.n, *_shares(each), _images(each.failing)) for each in claims]
    heads = ("attack", "n", "claimed", "from the stored images", "images that fail")
    common.print_text(tabulate(rows, headers=heads, disable_numparse=True))
    if again:
        rows = [(each.attack, each.n, *_shares(each), _images(each.differing)) for each in again]
        heads = ("attacked afresh", "n", "claimed", "now", "images that differ")
        common.print_text("\n" + tabulate(rows, headers=heads, disable_numparse=True))


def _shares(each: Claim | Again) -> tuple[str, str]:
    return f"{each.claimed / each.n:.2%}", f"{each.found / each.n:.2%}"


def _images(indices: tuple[int, ...]) -> str:
    return ", ".join(map(str, indices)) or "-"


def _export(verifier: Verifier, path: Path) -> None:
    import io

    import torch

    images, correct = verifier.adversarial_images()
    buffer = io.BytesIO()
    torch.save(images, buffer)
    rundir.atomic_write(path, buffer.getvalue())
    common.note(f"wrote {len(images)} images to {path}; the net is right on {correct} of them")


def _judge(claims: list[Claim], again: list[Again]) -> None:
    failing = [each for each in claims if not each.holds]
    if failing:
        names = ", ".join(f"{each.attack} ({len(each.failing)})" for each in failing)
        raise CheckError(f"stored images do not show what is claimed: {names}", "Do not trust this result.")
    worse = [each for each in again if not each.holds]
    if worse:
        names = ", ".join(each.attack for each in worse)
        raise CheckError(f"attacked afresh, the net is weaker than claimed: {names}", "Do not trust this result.")
