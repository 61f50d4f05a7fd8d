"""What a run starts from: weights of a checkpoint under a new head, and files bound by their content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from awpbench import checkpoints, data
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.data.subset import subset
from awpbench.defaults import resolve_training
from awpbench.errors import InputError, Interrupted, UsageError
from awpbench.evaluation import hashes
from awpbench.training import loop, start
from tests.training.test_loop import Silent, after

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "architecture": "small-cnn",
    "width": 4,
    "dataset": "digits",
    "epochs": 2,
    "batch_size": 100,
    "steps": 2,
    "track_steps": 2,
    "track_examples": 50,
}


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data.load("digits", train_examples=300)


def config(**changed: Any) -> TrainConfig:
    return resolve_training(SMALL | changed)[0]


@pytest.fixture(scope="module")
def pretrained(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net trained on the digits 0 to 4 only."""
    train, test = subset(digits, classes=(0, 1, 2, 3, 4))
    held = subset(replace(digits, train=digits.validation), classes=(0, 1, 2, 3, 4))[0]
    five = DataSet("digits", 5, digits.shape, train, held, test)
    folder = tmp_path_factory.mktemp("pretrained")
    loop.train(config(epochs=1), five, folder, device=CPU, progress=Silent())
    return folder / "last.pt"


def weights(cfg: TrainConfig, images: DataSet) -> dict[str, Tensor]:
    return loop.fresh(cfg, images, CPU).model.state_dict()


def test_finetuning_loads_all_but_the_head_which_the_seed_draws(digits: DataSet, pretrained: Path) -> None:
    given = checkpoints.load(pretrained)
    assert given.model_spec.classes == 5
    cfg = config(defense="finetuning", init_from=str(pretrained))
    started, fresh = weights(cfg, digits), weights(config(), digits)
    assert started["fc.weight"].shape[0] == 10
    for key, value in started.items():
        expected = fresh[key] if key.startswith("fc.") else given.state_dict[key]
        assert torch.equal(value, expected), key
    other = weights(config(defense="finetuning", init_from=str(pretrained), seed=1), digits)
    assert not torch.equal(other["fc.weight"], started["fc.weight"])
    assert torch.equal(other["conv1.weight"], started["conv1.weight"])


def test_a_warm_start_keeps_the_head_where_the_classes_agree_and_finetuning_never_does(
    digits: DataSet, pretrained: Path, tmp_path: Path
) -> None:
    loop.train(config(epochs=1), digits, tmp_path, device=CPU, progress=Silent())
    saved = checkpoints.load(tmp_path / "last.pt").state_dict
    warm = weights(config(defense="at", init_from=str(tmp_path / "last.pt")), digits)
    assert all(torch.equal(value, saved[key]) for key, value in warm.items())
    tuned = weights(config(defense="finetuning", init_from=str(tmp_path / "last.pt")), digits)
    assert not torch.equal(tuned["fc.weight"], saved["fc.weight"])
    warm_from_five = weights(config(defense="at", init_from=str(pretrained)), digits)
    assert torch.equal(warm_from_five["fc.weight"], weights(config(), digits)["fc.weight"])


def test_a_state_dict_of_another_project_is_a_start_too(digits: DataSet, pretrained: Path, tmp_path: Path) -> None:
    state = checkpoints.load(pretrained).state_dict
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "foreign.pt")
    cfg = config(defense="finetuning", init_from=str(tmp_path / "foreign.pt"))
    assert torch.equal(weights(cfg, digits)["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize(
    ("changed", "what", "mend"),
    [
        (
            {"width": 8},
            "holds SmallCNN (width 4), which does not fit SmallCNN (width 8): "
            "mis-shaped conv1.weight [4, 1, 3, 3] for [8, 1, 3, 3] and 14 more",
            "Train the architecture and --width of the checkpoint.",
        ),
        (
            {"normalization": "none"},
            "was trained with normalisation, and this run goes without it",
            "Add --normalization meanstd.",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    changed: dict[str, Any], what: str, mend: str, digits: DataSet, pretrained: Path
) -> None:
    cfg = config(defense="finetuning", init_from=str(pretrained), **changed)
    with pytest.raises(UsageError) as refused:
        loop.fresh(cfg, digits, CPU)
    assert (refused.value.what, refused.value.mend) == (f"{pretrained} {what}", mend)


def test_another_architecture_is_refused(digits: DataSet, pretrained: Path) -> None:
    cfg = config(defense="finetuning", init_from=str(pretrained), architecture="prn18")
    with pytest.raises(UsageError) as refused:
        loop.fresh(cfg, digits, CPU)
    assert "holds SmallCNN (width 4), which does not fit PreActResNet-18 (width 4): missing" in refused.value.what


def test_a_run_is_bound_to_the_weights_and_not_to_the_file(digits: DataSet, pretrained: Path, tmp_path: Path) -> None:
    cfg = start.bound(config(defense="finetuning", init_from=str(pretrained)), digits)
    assert cfg.init_weights == hashes.of_weights(checkpoints.load(pretrained).build())
    copied = tmp_path / "copy.pt"
    copied.write_bytes(pretrained.read_bytes())
    again = start.bound(cfg.model_copy(update={"init_from": str(copied)}), digits)
    assert again.init_weights == cfg.init_weights
    loop.train(config(epochs=1, seed=1), digits, tmp_path / "other", device=CPU, progress=Silent())
    with pytest.raises(InputError) as refused:
        start.bound(cfg.model_copy(update={"init_from": str(tmp_path / "other/last.pt")}), digits)
    other = tmp_path / "other/last.pt"
    assert refused.value.what == f"{other} holds other weights than those that the configuration names"
    assert refused.value.mend == f"Give the checkpoint whose weights have the SHA-256 {cfg.init_weights}."


def withheld(digits: DataSet) -> DataSet:
    return replace(digits, unlabelled=data.load("digits").train.select(torch.arange(300, 800)))


@pytest.mark.parametrize(
    ("defense", "loss", "awp"), [("finetuning", "at", True), ("rst", "trades", False), ("rst", "mart", True)]
)
def test_a_stopped_run_goes_on_bit_for_bit_without_the_checkpoint_it_started_from(
    defense: str, loss: str, awp: bool, digits: DataSet, pretrained: Path, tmp_path: Path
) -> None:
    begin = tmp_path / "begin.pt"
    begin.write_bytes(pretrained.read_bytes())
    of_finetuning, of_rst = {"init_from": str(begin)}, {"unlabelled": "x.npz", "unlabelled_weight": 0.5}
    cfg = config(defense=defense, loss=loss, awp=awp, **(of_rst if defense == "rst" else of_finetuning))
    images = withheld(digits) if defense == "rst" else digits
    loop.train(cfg, images, tmp_path / "whole", device=CPU, progress=Silent())
    watcher = Silent()
    with pytest.raises(Interrupted):
        loop.train(cfg, images, tmp_path / "parts", device=CPU, progress=watcher, stop=after(watcher, 4))
    begin.unlink()
    saved = TrainConfig.model_validate_json((tmp_path / "parts/config.json").read_text())
    assert (saved.init_weights is None, saved.unlabelled_fingerprint is None) == (defense == "rst", defense != "rst")
    loop.train(saved, images, tmp_path / "parts", device=CPU, progress=Silent(), resume=True)
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    one, other = (checkpoints.load(tmp_path / part / "last.pt").state_dict for part in ("whole", "parts"))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_the_weight_of_the_pseudo_labelled_images_changes_the_run(digits: DataSet, tmp_path: Path) -> None:
    lines = {
        weight: loop.train(
            config(defense="rst", unlabelled="x.npz", unlabelled_weight=weight, epochs=1),
            withheld(digits),
            tmp_path / str(weight),
            device=CPU,
            progress=Silent(),
        )
        for weight in (0.0, 1.0)
    }
    assert lines[0.0][0]["loss"] != lines[1.0][0]["loss"]


def test_other_pseudo_labels_are_noticed(digits: DataSet) -> None:
    images = withheld(digits)
    cfg = start.bound(config(defense="rst", unlabelled="x.npz"), images)
    assert images.unlabelled is not None
    assert cfg.unlabelled_fingerprint == images.unlabelled.fingerprint()
    changed = replace(images, unlabelled=images.unlabelled.first(100))
    for again in (start.bound, start.check_unlabelled):
        with pytest.raises(InputError) as refused:
            again(cfg, changed)
        assert refused.value.what == "x.npz holds other images or labels than those that the run was started with"
    with pytest.raises(InputError, match=r"the images of x\.npz were not loaded"):
        start.check_unlabelled(cfg, digits)
