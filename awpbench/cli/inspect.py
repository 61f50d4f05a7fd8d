"""`awpbench inspect`: what is in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from tabulate import tabulate

from awpbench.cli import common
from awpbench.cli.nets import ZooOption, checkpoint_file


def inspect_command(
    *,
    ckpt: Annotated[
        str,
        typer.Option(
            help="A checkpoint of ours, zoo:NAME of the model zoo, or a foreign state dict.", show_default=False
        ),
    ],
    zoo: ZooOption = None,
    dataset: Annotated[
        str | None, typer.Option(help="On whose test images the preprocessing of a state dict is found by trial.")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="Architecture of a foreign state dict.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of its first stage.")] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="Of a foreign state dict: none, meanstd or plus-minus-1; else found by trial.")
    ] = None,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Say what is in a checkpoint: net, key dialect, preprocessing, provenance, hashes. Nothing is fetched."""
    from awpbench import data
    from awpbench.evaluation.inspection import inspect

    load = partial(data.load_test, data_dir=Path(data_dir) if data_dir else None, offline=True)
    on = common.resolve_device(device)
    document = inspect(
        Path(checkpoint_file(ckpt, zoo)),
        load=load,
        device=on,
        arch=arch,
        width=width,
        dataset=dataset,
        preprocessing=preprocessing,
    )
    if as_json:
        common.print_json(document)
    else:
        rows = list(_rows(document))
        if document["net"]["architecture"] is None:
            rows.append(("net: architecture", "of no known family; its first tensors are above"))
        common.print_text(tabulate(rows, tablefmt="plain", disable_numparse=True))


def _rows(document: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Write a document as lines of two columns; what is None or empty has none."""
    for key, value in document.items():
        name = f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _rows(value, f"{name}: ")
        elif isinstance(value, list):
            if value:
                yield name, ", ".join(map(str, value))
        elif value is not None:
            yield name, str(value)
