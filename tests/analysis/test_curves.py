"""Learning curves read from run folders, and the picture of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awpbench.analysis.curves import draw, read_curve
from awpbench.errors import InputError


def write_run(folder: Path, *, measured: bool = True) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"select_on": "validation", "track_steps": 10}))
    lines = []
    for epoch, (lr, train, held_out) in enumerate([(0.1, 0.2, 0.15), (0.1, 0.3, 0.25), (0.01, 0.6, 0.22)], start=1):
        found = {"train": {"n": 500, "robust": train}, "validation": {"n": 1000, "robust": held_out}}
        split = found if measured else {}
        lines.append(json.dumps({"epoch": epoch, "lr": lr, "loss": 1.0, **split}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_curve_holds_the_measured_epochs_the_drops_and_the_best_epoch(tmp_path: Path) -> None:
    curve = read_curve(write_run(tmp_path / "run"))
    assert curve.name == "run"
    assert (curve.epochs, curve.train, curve.held_out) == ([1, 2, 3], [0.2, 0.3, 0.6], [0.15, 0.25, 0.22])
    assert (curve.drops, curve.best, curve.split) == ([3], 2, "validation")
    assert (curve.images, curve.steps) == ((500, 1000), 10)


def test_the_picture_has_two_lines_a_run_and_says_what_its_axes_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    figure = draw([read_curve(write_run(tmp_path / name)) for name in ("one", "two")])
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "one: 500 training images",
        "one: 1000 validation images",
        "two: 500 training images",
        "two: 1000 validation images",
    ]
    assert axes.get_ylabel() == "robust accuracy at w (PGD-10)"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_curve(tmp_path)
    assert refused.value.mend == "Give a folder that awpbench train wrote."


def test_a_run_without_a_measurement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no measurement of robustness yet"):
        read_curve(write_run(tmp_path / "run", measured=False))
