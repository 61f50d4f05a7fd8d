"""The training loop on the digits: what it writes, that it resumes bit for bit, and what stops it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from awpbench import checkpoints, data, rundir
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.defaults import resolve_training
from awpbench.errors import CheckError, InputError, Interrupted
from awpbench.randomness import BatchDraws, generator
from awpbench.training import loop
from awpbench.training.measure import measure

CPU = torch.device("cpu")


class Silent:
    """Collects what a run reports."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.starts: list[dict[str, Any]] = []

    def start(self, **report: Any) -> None:
        self.starts.append(report)

    def step(self, **report: Any) -> None:
        self.steps.append(report)

    def epoch(self, metrics: dict[str, Any]) -> None:
        self.epochs.append(metrics)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data.load("digits", validation=200, train_examples=300)


def config(**changed: Any) -> TrainConfig:
    small: dict[str, Any] = {
        "architecture": "small-cnn",
        "width": 4,
        "dataset": "digits",
        "train_examples": 300,
        "epochs": 3,
        "batch_size": 100,
        "steps": 2,
        "track_steps": 2,
        "track_examples": 50,
    }
    return resolve_training(small | changed)[0]


def run(cfg: TrainConfig, images: DataSet, folder: Path, **more: Any) -> list[dict[str, Any]]:
    return loop.train(cfg, images, folder, device=CPU, progress=more.pop("progress", Silent()), **more)


def after(watcher: Silent, steps: int, *, signal_number: int = 2, calls: int = 0) -> Callable[[], int | None]:
    """A `stop` that answers once so many steps were reported and it was asked so many times more."""
    asked = itertools.count()
    return lambda: signal_number if len(watcher.steps) >= steps and next(asked) >= calls else None


ROUNDS = {"awp_steps": 2, "awp_alternations": 2}


@pytest.mark.parametrize(
    ("defense", "awp", "forwards", "more"),
    [
        ("at", False, 1, {}),
        ("at", False, 2, {}),
        ("at", True, 3, {}),
        ("trades", False, 3, {}),
        ("trades", True, 4, {}),
        ("mart", True, 4, {}),
        ("at", True, 4, ROUNDS),  # in the second step of the first ascent: v is in the weights
        ("at", True, 5, ROUNDS),  # in the second attack
        ("trades", True, 11, ROUNDS),  # in the last step of the second ascent
    ],
)  # AT attacks with two forwards, TRADES with three, MART with two; those after them belong to the ascent
def test_a_signal_within_a_step_drops_what_that_step_did(
    defense: str, awp: bool, forwards: int, more: dict[str, Any], digits: DataSet, tmp_path: Path
) -> None:
    cfg = config(defense=defense, awp=awp, awp_warmup=0 if awp else None, epochs=1, **more)
    run(cfg, digits, tmp_path / "whole")
    watcher = Silent()
    with pytest.raises(Interrupted) as stopped:  # asked once between the steps, then at each forward pass of the second
        run(cfg, digits, tmp_path / "parts", progress=watcher, stop=after(watcher, 1, calls=forwards))
    assert "in epoch 1 after step 1 of 3;" in stopped.value.what
    run(cfg, digits, tmp_path / "parts", resume=True)
    one, other = (checkpoints.load(tmp_path / part / "last.pt") for part in ("whole", "parts"))
    assert all(torch.equal(tensor, other.state_dict[key]) for key, tensor in one.state_dict.items())
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


@pytest.mark.parametrize("awp", [False, True])
@pytest.mark.parametrize("defense", ["standard", "at", "trades", "mart"])
def test_a_run_that_was_stopped_and_resumed_equals_an_uninterrupted_one(
    defense: str, awp: bool, digits: DataSet, tmp_path: Path
) -> None:
    cfg = config(defense=defense, awp=awp, awp_warmup=1 if awp else None, steps=0 if defense == "standard" else 2)
    run(cfg, digits, tmp_path / "whole")
    watcher = Silent()
    with pytest.raises(Interrupted) as stopped:
        run(cfg, digits, tmp_path / "parts", progress=watcher, stop=after(watcher, 4))
    assert stopped.value.exit_code == 130
    assert stopped.value.what == (
        f"stopped by SIGINT in epoch 2 after step 1 of 3; saved to {tmp_path / 'parts' / 'last.pt'}"
    )
    assert stopped.value.mend == f"Continue with: awpbench resume {tmp_path / 'parts'}"
    run(cfg, digits, tmp_path / "parts", resume=True)

    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    for name in ("last.pt", "best.pt"):
        one, other = (checkpoints.load(tmp_path / part / name) for part in ("whole", "parts"))
        assert one.state_dict.keys() == other.state_dict.keys()
        assert all(torch.equal(tensor, other.state_dict[key]) for key, tensor in one.state_dict.items())
        assert (one.epoch, one.step, one.best) == (other.epoch, other.step, other.best)


def test_within_an_epoch_last_pt_is_saved_as_often_as_asked(digits: DataSet, tmp_path: Path) -> None:
    watcher = Silent()
    saved: list[tuple[int | None, int | None]] = []

    def look(**report: Any) -> None:
        last = checkpoints.load(tmp_path / "run/last.pt")
        saved.append((last.epoch, last.step))

    watcher.step = look  # type: ignore[method-assign]
    run(config(epochs=2), digits, tmp_path / "run", progress=watcher, checkpoint_every=0.0)
    assert saved == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]  # each step sees the save of the one before
    saved.clear()
    run(config(epochs=2), digits, tmp_path / "run", progress=watcher, checkpoint_every=1000.0)
    assert saved == [(0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (1, 0)]


def test_a_run_is_said_to_go_on_where_it_was_before_its_first_step(digits: DataSet, tmp_path: Path) -> None:
    watcher = Silent()
    with pytest.raises(Interrupted):
        run(config(), digits, tmp_path, progress=watcher, stop=after(watcher, 4))
    resumed = Silent()
    run(config(), digits, tmp_path, progress=resumed, resume=True)
    assert watcher.starts == [{"epoch": 1, "step": 0, "steps": 3}, {"epoch": 2, "step": 0, "steps": 3}]
    assert resumed.starts == [{"epoch": 2, "step": 1, "steps": 3}, {"epoch": 3, "step": 0, "steps": 3}]


def test_a_full_disk_stops_the_run_and_names_file_and_way_on(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Silent()
    with pytest.raises(Interrupted):
        run(config(), digits, tmp_path, progress=watcher, stop=after(watcher, 4))
    before = (tmp_path / "last.pt").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError) as stopped:
        run(config(), digits, tmp_path, resume=True, checkpoint_every=0.0)
    monkeypatch.undo()
    assert stopped.value.what == f"{tmp_path}/last.pt could not be written: No space left on device"
    assert stopped.value.mend == (
        f"{tmp_path}/last.pt is still that of the last save. Free some space, then: awpbench resume {tmp_path}"
    )
    assert (tmp_path / "last.pt").read_bytes() == before
    assert len(run(config(), digits, tmp_path, resume=True)) == 3


def equal(one: Any, other: Any) -> bool:
    """Compare what a checkpoint holds, tensors bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    "more",
    [
        {"rwp": True, "awp_gamma": 0.6},
        {"defense": "trades", "awp": True, "awp_warmup": 0, **ROUNDS},
        {"awp": True, "awp_size": "l1", "l1": 1e-4, "schedule": "linear"},
        {"l2": 5e-3, "nesterov": True, "schedule": "one-drop"},
        {"mixup": 1.4, "cutout": 3, "schedule": "multi-decay"},
        {"defense": "trades", "label_smoothing": 0.1, "schedule": "cosine", "lr_end": 0.01},
        {"awp": True, "ema": 0.9, "schedule": "cyclic"},
        {"rwp": True, "patience": 1, "epochs": 9, "lr": 1e-9},
    ],
    ids=lambda more: "-".join(more),
)
def test_every_regulariser_resumes_bit_for_bit(more: dict[str, Any], digits: DataSet, tmp_path: Path) -> None:
    cfg = config(**{"defense": "at", "epochs": 2, **more})
    run(cfg, digits, tmp_path / "whole")
    watcher = Silent()
    with pytest.raises(Interrupted):
        run(cfg, digits, tmp_path / "parts", progress=watcher, stop=after(watcher, 4))
    run(cfg, digits, tmp_path / "parts", resume=True)

    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    for name in ("last.pt", "best.pt"):
        one, other = (torch.load(tmp_path / part / name, weights_only=True) for part in ("parts", "whole"))
        assert equal(one, other), name


def test_the_draws_of_a_random_perturbation_are_keyed_by_seed_epoch_and_step(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Tensor] = []
    original = loop.training_step

    def listening(*args: Any, **more: Any) -> Any:
        assert more["gamma"] == 0.3
        drawn.append(more["random"].normal(torch.empty(3)))
        return original(*args, **more)

    monkeypatch.setattr(loop, "training_step", listening)
    run(config(defense="at", rwp=True, awp_gamma=0.3, epochs=1, seed=7), digits, tmp_path)
    keyed = [BatchDraws(generator("cpu", 7, "rwp", 0, step)).normal(torch.empty(3)) for step in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(drawn, keyed, strict=True))


def test_best_is_the_averaged_net_and_last_goes_on_with_the_live_one(digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense="at", ema=0.8, epochs=2)
    metrics = run(cfg, digits, tmp_path / "ema")
    run(config(defense="at", epochs=2), digits, tmp_path / "plain")
    last, plain = (checkpoints.load(tmp_path / name / rundir.LAST) for name in ("ema", "plain"))
    assert all(torch.equal(tensor, plain.state_dict[key]) for key, tensor in last.state_dict.items())
    assert plain.averaged is None
    best = checkpoints.load(tmp_path / "ema" / rundir.BEST)
    assert (best.averaged, best.optimizer) == (None, None)
    again = measure(
        best.build(),
        digits.validation,
        threat=loop.ThreatModel(cfg.norm, cfg.eps.value),
        steps=cfg.track_steps,
        step_size=cfg.step_size.value,
        seed=cfg.seed,
    )
    assert best.epoch is not None
    assert again == metrics[best.epoch - 1]["validation"]
    if best.epoch == 2:
        assert last.averaged is not None
        assert all(torch.equal(tensor, last.averaged[key]) for key, tensor in best.state_dict.items())
    assert not torch.equal(best.state_dict["fc.weight"], last.state_dict["fc.weight"])


def test_a_run_whose_averaged_weights_are_lost_is_not_resumed(digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense="at", ema=0.8, epochs=1)
    run(cfg, digits, tmp_path)
    raw = torch.load(tmp_path / rundir.LAST, weights_only=True)
    checkpoints.save(tmp_path / rundir.LAST, {key: value for key, value in raw.items() if key != "averaged"})
    with pytest.raises(InputError, match="holds no averaged weights"):
        run(cfg, digits, tmp_path, resume=True)


def test_training_ends_when_patience_is_lost_and_resuming_then_does_nothing(digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense="at", lr=1e-9, epochs=9, patience=2)  # nothing is learnt: the first measurement is the best
    watcher = Silent()
    metrics = run(cfg, digits, tmp_path, progress=watcher)
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert [line.get("stopped_early") for line in metrics] == [None, None, True]
    saved = checkpoints.load(tmp_path / rundir.LAST)
    assert (saved.epoch, saved.best["epoch"], saved.metrics["stopped_early"]) == (3, 1, True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(cfg, digits, tmp_path, resume=True) == metrics
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("defense", ["standard", "at", "trades", "mart"])
def test_awp_with_gamma_zero_trains_as_if_it_were_off(defense: str, digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense=defense, epochs=1, steps=0 if defense == "standard" else 2)
    zero = {"awp": True, "awp_gamma": 0.0, "awp_steps": 3, "awp_alternations": 2}  # which the command line refuses
    run(cfg, digits, tmp_path / "off")
    run(cfg.model_copy(update=zero), digits, tmp_path / "zero")
    assert (tmp_path / "off/metrics.jsonl").read_bytes() == (tmp_path / "zero/metrics.jsonl").read_bytes()
    one, other = (checkpoints.load(tmp_path / part / "last.pt") for part in ("off", "zero"))
    assert equal(one.state_dict, other.state_dict)
    assert equal(one.optimizer, other.optimizer)


def test_a_signal_while_robustness_is_measured_loses_nothing(digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense="at", epochs=2)
    run(cfg, digits, tmp_path / "whole")
    watcher = Silent()
    stop = after(watcher, 3, signal_number=15, calls=1)  # after the first measured batch of the first epoch
    with pytest.raises(Interrupted) as stopped:
        run(cfg, digits, tmp_path / "parts", progress=watcher, stop=stop)
    assert stopped.value.exit_code == 143
    assert "in epoch 1 after step 3 of 3" in stopped.value.what
    run(cfg, digits, tmp_path / "parts", resume=True)
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_a_finished_run_holds_what_the_architecture_says(digits: DataSet, tmp_path: Path) -> None:
    watcher = Silent()
    cfg = config(defense="at", awp=True)
    metrics = run(cfg, digits, tmp_path, progress=watcher)
    assert json.loads((tmp_path / rundir.CONFIG).read_text()) == cfg.model_dump(mode="json")
    assert [json.loads(line) for line in (tmp_path / rundir.METRICS).read_text().splitlines()] == metrics
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert metrics[0].keys() == {"epoch", "lr", "loss", "train", "validation"}
    assert metrics[0]["train"]["n"] == 50
    assert metrics[0]["validation"]["n"] == 200
    assert [{key: told[key] for key in told if key != "timing"} for told in watcher.epochs] == metrics
    assert len(watcher.steps) == 9
    assert len((tmp_path / rundir.TIMING).read_text().splitlines()) == 3


def test_best_is_the_first_epoch_with_the_highest_validation_robustness(digits: DataSet, tmp_path: Path) -> None:
    metrics = run(config(defense="at"), digits, tmp_path)
    best = max(metrics, key=lambda line: line["validation"]["robust"])
    saved = checkpoints.load(tmp_path / rundir.BEST)
    assert saved.best == {"epoch": best["epoch"], "robust": best["validation"]["robust"], "selected_on": "validation"}
    assert saved.epoch == best["epoch"]


def test_robustness_is_measured_at_w_and_can_be_measured_again_from_the_checkpoint(
    digits: DataSet, tmp_path: Path
) -> None:
    cfg = config(defense="at", awp=True, awp_gamma=0.5)  # at w + v the accuracy would be another one
    metrics = run(cfg, digits, tmp_path)
    model = checkpoints.load(tmp_path / rundir.LAST).build()
    again = measure(
        model,
        digits.validation,
        threat=loop.ThreatModel(cfg.norm, cfg.eps.value),
        steps=cfg.track_steps,
        step_size=cfg.step_size.value,
        seed=cfg.seed,
    )
    assert again == metrics[-1]["validation"]


def test_selection_on_test_images_measures_them_and_says_so(digits: DataSet, tmp_path: Path) -> None:
    metrics = run(config(defense="at", select_on="test", epochs=1, validation_examples=200), digits, tmp_path)
    assert metrics[0]["test"]["n"] == len(digits.test)
    assert checkpoints.load(tmp_path / rundir.BEST).best["selected_on"] == "test"


def test_track_every_leaves_epochs_out_but_never_the_last(digits: DataSet, tmp_path: Path) -> None:
    metrics = run(config(defense="standard", steps=0, track_every=2), digits, tmp_path)
    assert ["validation" in line for line in metrics] == [False, True, True]


def test_two_defenses_with_one_seed_see_the_same_batches(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Tensor]] = {}
    original = loop.training_step

    for defense in ("at", "trades"):
        seen[defense] = []

        def listening(model: Any, optimizer: Any, d: Any, x: Tensor, y: Tensor, **more: Any) -> Any:
            seen[defense].append(x.clone())  # noqa: B023 - called within this round of the loop
            return original(model, optimizer, d, x, y, **more)

        monkeypatch.setattr(loop, "training_step", listening)
        run(config(defense=defense, epochs=1, augmentation="crop-flip", padding="zero"), digits, tmp_path / defense)
    assert all(torch.equal(a, b) for a, b in zip(seen["at"], seen["trades"], strict=True))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense="at", lr=1e30)
    with pytest.raises(CheckError) as stopped:
        run(cfg, digits, tmp_path)
    assert stopped.value.exit_code == 5
    assert "the loss is nan in epoch 1, step" in stopped.value.what
    assert stopped.value.mend == f"Lower --lr or --awp-gamma; {tmp_path}/last.pt holds epoch 1 after step 0."
    saved = checkpoints.load(tmp_path / rundir.LAST)
    assert saved.epoch == 0
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.state_dict.values())


def test_weights_that_are_not_finite_after_the_last_step_of_an_epoch_are_not_saved(
    digits: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(CheckError) as stopped:  # one step an epoch: its loss is finite, its update is not
        run(config(defense="at", lr=1e38, epochs=1, batch_size=300, momentum=0.0, weight_decay=1e4), digits, tmp_path)
    assert stopped.value.what == "the weights are no longer finite after epoch 1"
    saved = checkpoints.load(tmp_path / rundir.LAST)
    assert saved.epoch == 0
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.state_dict.values())
    assert not (tmp_path / rundir.BEST).exists()


def test_resuming_with_another_configuration_is_refused(digits: DataSet, tmp_path: Path) -> None:
    run(config(defense="at", epochs=1), digits, tmp_path)
    with pytest.raises(InputError) as refused:
        run(config(defense="at", epochs=2), digits, tmp_path, resume=True)
    assert refused.value.mend == "Restore the run's config.json."


def test_a_best_checkpoint_cannot_be_resumed_from(digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense="at", epochs=1)
    run(cfg, digits, tmp_path)
    for ending in ("", ".sha256"):
        (tmp_path / f"best.pt{ending}").replace(tmp_path / f"last.pt{ending}")
    (tmp_path / "last.pt.sha256").unlink()
    with pytest.raises(InputError, match="holds no optimiser state"):
        run(cfg, digits, tmp_path, resume=True)


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(digits: DataSet, tmp_path: Path) -> None:
    metrics = run(config(defense="standard", steps=0, lr=1e-12, epochs=1, momentum=0.0), digits, tmp_path)
    assert metrics[0]["loss"] == pytest.approx(math.log(10), abs=1.0)
