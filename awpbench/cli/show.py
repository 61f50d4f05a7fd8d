"""`awpbench list` and `awpbench doctor`."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

import typer
from tabulate import tabulate

from awpbench import attacks, data, defenses, models, provenance, recipes, robustbench_compat
from awpbench.cli import common
from awpbench.errors import InputError, lookup
from awpbench.evaluation.suites import SUITES


def _tables() -> dict[str, list[dict[str, Any]]]:
    from awpbench.defaults import DATASETS
    from awpbench.defaults import DEFENSES as DEFENSE_DEFAULTS

    aliases = {full: short for short, full in models.ALIASES.items()}
    return {
        "defenses": [
            {
                "name": name,
                "steps": d.steps,
                "beta": d.beta,
                "awp gamma": d.awp_gamma,
                "awp warm-up": f"{d.awp_warmup_share:.1%}",
            }
            for name, d in DEFENSE_DEFAULTS.items()
            if name in defenses.DEFENSES
        ],
        "attacks": [{"name": name, "implementation": where} for name, where in attacks.ATTACKS.items()],
        "suites": [{"name": s.name, "version": s.version, "attacks": ", ".join(s.attacks)} for s in SUITES.values()],
        "models": [
            {"name": name, "also": aliases.get(name, ""), "RobustBench": models.published_name(name)}
            for name in models.MODELS
        ]
        + [{"name": "wrn-D-W", "also": "", "RobustBench": "WideResNet-D-W"}],
        "datasets": [
            {
                "name": name,
                "classes": f.classes,
                "shape": "x".join(map(str, f.shape)),
                "eps Linf": f.eps_linf,
                "eps L2": f.eps_l2,
            }
            for name, f in DATASETS.items()
            if name in data.DATASETS
        ],
        "recipes": [
            {"name": recipe.name, "title": recipe.title, "source": recipe.source} for recipe in recipes.in_group("all")
        ],
    }


def list_command(
    what: Annotated[str, typer.Argument(help="defenses, attacks, suites, models, datasets or recipes")],
    as_json: common.JsonOption = False,
) -> None:
    """List what can be named on the command line."""
    rows = lookup(_tables(), "list", what)
    if as_json:
        common.print_json(rows)
    else:
        common.print_text(tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True, missingval="-"))


def doctor(as_json: common.JsonOption = False) -> None:
    """Say what this machine offers: versions, devices, disk space, where data and leaderboard are looked for."""
    import torch

    from awpbench.data.sources import data_folder
    from awpbench.leaderboard import store

    folder = data_folder(None)
    board = store.find(None)
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    facts = {
        **provenance.versions(),
        "device": str(common.resolve_device("auto")),
        "GPUs": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "data folder": str(folder),
        "free disk (GB)": round(shutil.disk_usage(existing).free / 1e9, 1),
        "leaderboard": str(board) if board else None,
    }
    missing = [name for name in ("pyautoattack", "torchvision", "sklearn") if not _importable(name)]
    facts["missing packages"] = missing
    try:
        robustbench_compat.load()
        facts["RobustBench"] = "can be imported"
    except InputError as error:
        facts["RobustBench"] = error.what
        missing.append("robustbench")
    if as_json:
        common.print_json(facts)
    else:
        common.print_text(
            tabulate(
                [(key, value) for key, value in facts.items()], tablefmt="plain", disable_numparse=True, missingval="-"
            )
        )
    raise typer.Exit(5 if missing else 0)


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
