"""Learning curves read from run folders, and the picture of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from awpbench.analysis.curves import draw, grouped, read_curve, read_curves
from awpbench.errors import InputError, UsageError

EPOCHS = ((0.1, 0.2, 0.15), (0.1, 0.3, 0.25), (0.01, 0.6, 0.22))  # learning rate, robust on training and held-out


def write_run(
    folder: Path,
    *,
    seed: int = 0,
    epochs: tuple[tuple[float, float, float], ...] = EPOCHS,
    unmeasured: tuple[int, ...] = (),
    **config: Any,
) -> Path:
    folder.mkdir(parents=True)
    settled = {"select_on": "validation", "track_steps": 10, "schedule": "piecewise", "epochs": 3, "seed": seed}
    (folder / "config.json").write_text(json.dumps({**settled, **config}))
    lines = []
    for epoch, (lr, train, held_out) in enumerate(epochs, start=1):
        found = {"train": {"n": 500, "robust": train}, "validation": {"n": 1000, "robust": held_out}}
        split = {} if epoch in unmeasured else found
        lines.append(json.dumps({"epoch": epoch, "lr": lr, "loss": 1.0, **split}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def shifted(by: float) -> tuple[tuple[float, float, float], ...]:
    return tuple((lr, train + by, held_out + by) for lr, train, held_out in EPOCHS)


def test_a_curve_holds_the_measured_epochs_the_drops_the_gap_and_the_best_epoch(tmp_path: Path) -> None:
    curve = read_curve(write_run(tmp_path / "run"))
    assert curve.name == "run"
    assert (curve.epochs, curve.train, curve.held_out) == ([1, 2, 3], [0.2, 0.3, 0.6], [0.15, 0.25, 0.22])
    assert curve.gap == pytest.approx([0.05, 0.05, 0.38])
    assert (curve.drops, curve.best, curve.split) == ([3], 2, "validation")
    assert (curve.images, curve.steps) == ((500, 1000), 10)


def test_a_rate_that_falls_little_by_little_drops_nowhere(tmp_path: Path) -> None:
    falling = ((0.1, 0.2, 0.1), (0.05, 0.2, 0.1), (0.0, 0.2, 0.1))
    assert read_curve(write_run(tmp_path / "run", epochs=falling, schedule="cosine")).drops == []


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"at-s{seed}", seed=seed, epochs=shifted(0.1 * seed)) for seed in (0, 1, 2)]
    runs.append(write_run(tmp_path / "at-awp-s0", awp=True))
    seeds, single = grouped(read_curves(runs))
    assert (seeds.name, len(seeds.curves), single.name) == ("at", 3, "at-awp-s0")
    assert seeds.values("held_out").mean(0) == pytest.approx([0.25, 0.35, 0.32])
    assert seeds.values("gap").max(0) == pytest.approx([0.05, 0.05, 0.38])


def test_a_field_that_an_old_configuration_lacks_has_its_default(tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "at-s0"), write_run(tmp_path / "at-s1", seed=1, awp=False, ema=0.0)
    assert len(grouped(read_curves([old, new]))) == 1


def test_a_seed_that_was_run_twice_is_no_second_seed(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "here" / "at-s0"), write_run(tmp_path / "there" / "at-s0")]
    assert [group.name for group in grouped(read_curves(runs))] == [str(run) for run in runs]


def test_a_group_is_drawn_on_the_epochs_that_all_its_runs_measured(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "s0", unmeasured=(1,)), write_run(tmp_path / "s1", seed=1, unmeasured=(3,))]
    (group,) = grouped(read_curves(runs))
    assert group.epochs == [2]
    assert group.values("train").tolist() == [[0.3], [0.3]]


def test_a_group_without_a_common_epoch_is_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", unmeasured=(1,)), write_run(tmp_path / "b", seed=1, unmeasured=(2, 3))]
    with pytest.raises(UsageError) as refused:
        grouped(read_curves(runs))
    assert refused.value.what == "no epoch was measured in all of a, b"


def legends(figure: Any) -> list[list[str]]:
    return [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]


def test_the_picture_has_a_panel_for_the_gap_and_says_what_everything_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", awp=True)]
    figure = draw(grouped(read_curves(runs)))
    above, below = figure.axes
    assert legends(figure) == [
        ["one", "two"],
        ["training images (500)", "validation images (1,000)", "best epoch", "learning rate drops"],
    ]
    assert (above.get_ylabel(), below.get_ylabel()) == ("robust accuracy (PGD-10)", "gap, points")
    drawn = [line.get_ydata() for line in above.lines if len(line.get_xdata()) == 3]
    assert [list(values) for values in drawn] == 2 * [[0.2, 0.3, 0.6], [0.15, 0.25, 0.22]]
    dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in above.lines if line.get_marker() == "o"]
    assert dots == [(2, 0.25), (2, 0.25)]
    assert [line.get_xdata()[0] for line in above.lines if line.get_linestyle() == ":"] == [3]


def test_several_seeds_are_drawn_as_their_mean_in_a_band_from_the_lowest_to_the_highest(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    runs = [write_run(tmp_path / f"at-s{seed}", seed=seed, epochs=shifted(0.1 * seed)) for seed in (0, 1)]
    figure = draw(grouped(read_curves(runs)))
    above, below = figure.axes
    assert legends(figure)[0] == ["at, mean of 2 seeds"]
    assert legends(figure)[1][-1] == "lowest to highest seed"
    means = [list(line.get_ydata()) for line in above.lines if len(line.get_xdata()) == 3]
    assert means == [pytest.approx([0.25, 0.35, 0.65]), pytest.approx([0.2, 0.3, 0.27])]
    band = above.collections[1].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.15, 0.35))
    assert len(below.collections) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_curve(tmp_path)
    assert refused.value.mend == "Give a folder that awpbench train wrote."


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"epochs": 3, "seed": 0}')
    with pytest.raises(InputError) as refused:
        read_curve(tmp_path)
    assert refused.value.what == f"{tmp_path} is no run folder: config.json lacks schedule, select_on, track_steps"


def test_a_run_without_a_measurement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no measurement of robustness yet"):
        read_curve(write_run(tmp_path / "run", unmeasured=(1, 2, 3)))
