"""`awpbench zoo`: publish nets with a card, list them, and check that they are what their cards say."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from tabulate import tabulate

from awpbench.cli import common
from awpbench.errors import CheckError, InputError, lookup

if TYPE_CHECKING:
    from awpbench.data.images import ImageSet
    from awpbench.zoo.cards import Which
    from awpbench.zoo.checking import Report

app = typer.Typer(help="Publish nets with a card, list and check those of a model zoo.", no_args_is_help=True)

ZooOption = Annotated[str | None, typer.Option("--zoo", help="The zoo's folder; else AWPBENCH_ZOO, else ./model_zoo.")]


@app.command()
def add(
    run: Annotated[Path, typer.Argument(help="A folder that awpbench train wrote.", show_default=False)],
    *,
    name: Annotated[str | None, typer.Option(help="Of the published net; else the folder's name.")] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="best or last; repeatable. Else those with a finished evaluation of a named suite."),
    ] = None,
    card: Annotated[str | None, typer.Option(help="TOML file: link, name, authors, venue, additional_data.")] = None,
    zoo: ZooOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a net that is published under this name.")] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Publish a run's checkpoints as .safetensors, with their evaluations and a card made of all that."""
    from awpbench import own_data
    from awpbench.leaderboard.row import card_of
    from awpbench.leaderboard.store import read_card
    from awpbench.zoo import cards
    from awpbench.zoo.publishing import publish

    for each in checkpoint or []:
        lookup(dict.fromkeys(cards.CHECKPOINTS), "checkpoint of a run", each)
    chosen = cast("list[Which]", checkpoint or [])
    bibliography = card_of({} if card is None else read_card(Path(card)))
    where = cards.folder(zoo)
    net, made = publish(run, where, name=name, chosen=chosen, bibliography=bibliography, force=force)
    if own_data.is_own(str(made.training.get("dataset"))):
        common.note(f"the published files say where the images lie on this machine: {made.training['dataset']}")
    if as_json:
        common.print_json({"folder": str(net), "name": made.name, "checkpoints": list(made.checkpoints)})
    else:
        common.print_text(f"published {' and '.join(made.checkpoints)} as {made.name} in {net}")


@app.command("list")
def list_command(*, zoo: ZooOption = None, as_json: common.JsonOption = False) -> None:
    """List the published nets with their clean accuracy and that under the attack that ranks."""
    from awpbench.zoo import cards

    where = cards.folder(zoo)
    lines: list[dict[str, Any]] = []
    broken = []
    for name in cards.names(where):
        try:
            lines += cards.listed(cards.read(where / name))
        except InputError as error:
            broken.append(name)
            common.note(f"{error.what}: {error.mend}")
    if as_json:
        common.print_json({"zoo": str(where), "nets": lines})
    elif lines:
        _print_lines(lines)
    elif not broken:
        common.note(f"there is no net in {where} yet: awpbench zoo add RUN publishes one")
    if broken:
        what = f"not listed, for their cards cannot be read: {', '.join(broken)}"
        raise InputError(what, "See the lines above, one for each card.")


def _print_lines(lines: list[dict[str, Any]]) -> None:
    from awpbench.leaderboard.escape import plain

    told = ("name", "checkpoint", "suite", "architecture", "dataset", "threat", "defense", "awp")
    rows = [
        [plain(str(line[key])) for key in told] + [line["clean"]["text"], line["ranked_by"], line["ranking"]["text"]]
        for line in lines
    ]
    heads = (*told[:4], "data set", "threat", "defense", "AWP", "clean", "ranked by", "accuracy")
    common.print_text(tabulate(rows, headers=heads, disable_numparse=True))


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Nets; else all of the zoo.")] = None,
    *,
    zoo: ZooOption = None,
    clean: Annotated[bool, typer.Option("--clean/--no-clean", help="Measure the clean accuracies again.")] = True,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Check the files of published nets, that their cards follow from them, and that the clean accuracies are met."""
    from awpbench.cli.nets import load_images
    from awpbench.zoo import cards, checking

    where = cards.folder(zoo)
    nets = cards.find(where, cards.folders(where), names or ())
    on = common.resolve_device(device)

    @cache
    def load(dataset: str) -> ImageSet:
        return load_images(dataset, data_dir, offline)

    reports = [checking.check(net, (load, on) if clean else None) for net in nets]
    if as_json:
        common.print_json({"zoo": str(where), "nets": [dataclasses.asdict(each) for each in reports]})
    else:
        _show(reports)
    _judge(reports, where)


def _show(reports: list[Report]) -> None:
    from awpbench.leaderboard.escape import plain

    for each in reports:
        common.print_text(f"{each.name}: {_verdict(each)}")
        for finding in each.findings:
            common.print_text(f"- {plain(finding.what)}")
        for measured in each.clean:
            if measured.holds:
                common.print_text(f"  {measured.told()}")


def _verdict(report: Report) -> str:
    if any(each.newer for each in report.findings):
        return "refused, update awpbench"
    return "not what its card says" if report.findings else "ok"


def _judge(reports: list[Report], zoo: Path) -> None:
    """Raise CheckError for findings, InputError where files are missing or cards newer, and nothing is wrong."""
    findings = [finding for each in reports for finding in each.findings]
    if not findings:
        return
    names = ", ".join(each.name for each in reports if each.findings)
    what = f"{len(findings)} findings in {zoo}: {names}"
    mend = "Restore the files from version control, or publish from the run: awpbench zoo add RUN --force"
    if all(each.newer for each in findings):
        mend = "Update awpbench."
    raise (InputError if all(each.missing or each.newer for each in findings) else CheckError)(what, mend)
