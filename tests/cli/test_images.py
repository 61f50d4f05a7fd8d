"""Files of images on the command line, and from there to fine-tuning and robust self-training, on the digits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from awpbench import checkpoints, data
from awpbench.cli import main
from awpbench.data.images import DataSet
from awpbench.data.subset import subset
from awpbench.defaults import resolve_training
from awpbench.training import loop
from tests.training.test_loop import Silent

SMALL = ["small-cnn", "--dataset", "digits", "--width", "4", "--track-steps", "2", "--track-examples", "50"]
QUICK = [*SMALL, "--epochs", "2", "--steps", "2", "--batch-size", "100"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def arrays(path: str) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def on_five_classes(folder: Path) -> Path:
    """Pre-train on the digits 0 to 4 for an epoch."""
    digits, five = data.load("digits"), (0, 1, 2, 3, 4)
    train, test = subset(digits, classes=five)
    held, _ = subset(replace(digits, train=digits.validation), classes=five)
    flags = {"architecture": "small-cnn", "width": 4, "dataset": "digits", "epochs": 1, "steps": 2, "track_steps": 2}
    images = DataSet("digits", 5, digits.shape, train, held, test)
    loop.train(resolve_training(flags)[0], images, folder, device=torch.device("cpu"), progress=Silent())
    return folder / "best.pt"


def test_a_net_of_five_classes_is_fine_tuned_on_all_and_resumed_without_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = on_five_classes(tmp_path / "pretrained")
    words = ["train", *QUICK, "--method", "finetuning", "--init-from", str(begin), "--train-examples", "300"]
    assert main([*words, "--dry-run"]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    identity = checkpoints.of_weights(checkpoints.load(begin).build())
    for line in (
        f"--init-weights {identity} the file of --init-from",
        "--lr 0.001 defense finetuning",
        "--lr-end 1e-06 defense finetuning",
        "--nesterov True defense finetuning",
        "--loss at defense finetuning",
    ):
        assert line.split() in rows
    assert main([*words, "--awp"]) == 0
    run = Path("runs/digits-small-cnn-w4-finetuning-awp-s0")
    tuned = checkpoints.load(run / "last.pt")
    assert tuned.model_spec.classes == 10
    assert tuned.config is not None
    assert tuned.config["init_weights"] == identity
    begin.unlink()
    assert main(["resume", str(run)]) == 0


def test_digits_whose_labels_are_withheld_are_labelled_by_a_net_and_trained_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["data", "subset", "digits", "--examples", "600:1197", "--out", "rest.npz"]) == 0
    assert capsys.readouterr().out == "rest.npz: 597 training and 400 test images\n"
    labelled = ["--train-examples", "600"]
    assert main(["train", *QUICK, *labelled, "--method", "standard", "--steps", "0", "--out", "labeller"]) == 0
    words = ["data", "pseudolabel", "--ckpt", "labeller/last.pt", "--images", "rest.npz", "--out", "pseudo.npz"]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rest, pseudo = arrays("rest.npz"), arrays("pseudo.npz")
    assert np.array_equal(pseudo["images"], rest["x_train"])
    assert document == {
        "out": "pseudo.npz",
        "images": 597,
        "per_class": np.bincount(pseudo["labels"], minlength=10).tolist(),
        "agreeing": int((pseudo["labels"] == rest["y_train"]).sum()),
    }
    net, x = checkpoints.load(Path("labeller/last.pt")).build(), torch.from_numpy(rest["x_train"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert np.array_equal(pseudo["labels"], net(x / 255).argmax(1).numpy())

    words = ["train", *QUICK, *labelled, "--method", "rst", "--unlabelled", "pseudo.npz", "--unlabelled-weight", "0.5"]
    assert main([*words, "--out", "run", "--awp"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert (config["loss"], config["unlabelled"], config["unlabelled_weight"]) == ("trades", "pseudo.npz", 0.5)
    assert main(["resume", "run"]) == 0

    pseudo["labels"][0] = (pseudo["labels"][0] + 1) % 10
    np.savez("pseudo.npz", **pseudo)
    capsys.readouterr()
    assert main(["resume", "run"]) == 4
    assert said(capsys) == [
        "error: pseudo.npz holds other images or labels than those that the run was started with",
        "mend:  Put the file back that it was started with, or start a new run.",
    ]
    Path("pseudo.npz").unlink()
    assert main(["resume", "run"]) == 4
    assert said(capsys)[0] == "error: there is no file pseudo.npz"


def test_a_subset_of_classes_is_written_in_keras_naming() -> None:
    assert main(["data", "subset", "digits", "--classes", "1,3-4", "--out", "three.npz"]) == 0
    found, digits = arrays("three.npz"), data.load("digits")
    assert found.keys() == {"x_train", "y_train", "x_test", "y_test"}
    kept = torch.isin(digits.test.labels, torch.tensor([1, 3, 4]))
    assert np.array_equal(found["x_test"][..., 0], digits.test.images[kept, 0].numpy())
    assert np.array_equal(np.array([1, 3, 4])[found["y_test"]], digits.test.labels[kept].numpy())
    assert found["x_train"].dtype == np.uint8


@pytest.mark.parametrize(
    ("words", "code", "error", "mend"),
    [
        (
            ["subset", "digits", "--out", "x.npz"],
            2,
            "error: the whole data set is no subset",
            "mend:  Give --classes, --examples, or both.",
        ),
        (
            ["subset", "digits", "--classes", "a-b", "--out", "x.npz"],
            2,
            "error: 'a-b' names no classes",
            "mend:  Write numbers and ranges, such as 0-4 or 1,3,5-7.",
        ),
        (
            ["subset", "digits", "--examples", "5", "--out", "x.npz"],
            2,
            "error: '5' names no examples",
            "mend:  Write two positions, such as 0:1000.",
        ),
        (
            ["subset", "digits", "--classes", "0-4", "--out", "x.pt"],
            2,
            "error: x.pt is no name of an .npz file",
            "mend:  End it in .npz.",
        ),
        (
            ["subset", "digits", "--classes", "0-4", "--out", "there.npz"],
            3,
            "error: there.npz exists",
            "mend:  Overwrite it with --force, or write elsewhere with --out.",
        ),
        (
            ["pseudolabel", "--ckpt", "x.pt", "--images", "there.npz", "--out", "x.npz"],
            4,
            "error: there.npz is no .npz of plain arrays, or damaged",
            "mend:  Make or copy the file again.",
        ),
    ],
)
def test_bad_input_is_refused_in_two_lines(
    words: list[str], code: int, error: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.npz").write_text("no images")
    assert main(["data", *words]) == code
    assert said(capsys) == [error, mend]
    assert [path.name for path in Path().iterdir()] == ["there.npz"]


def test_a_state_dict_that_tells_no_preprocessing_is_not_guessed_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoints.load(on_five_classes(tmp_path / "five")).state_dict, "foreign.pt")
    images = torch.zeros(3, 28, 28, dtype=torch.uint8).numpy()
    np.savez("x.npz", images=images)
    words = ["data", "pseudolabel", "--ckpt", "foreign.pt", "--images", "x.npz", "--out", "y.npz"]
    assert main(words) == 2
    assert said(capsys) == [
        "error: foreign.pt does not tell how it normalises its input",
        "mend:  Give --preprocessing none, meanstd or plus-minus-1.",
    ]
    assert main([*words, "--preprocessing", "plus-minus-1"]) == 0


def test_the_checkpoint_to_start_from_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = on_five_classes(tmp_path / "run")
    words = ["train", *QUICK, "--method", "finetuning", "--init-from", str(begin), "--out", "run", "--force"]
    assert main(words) == 2
    assert said(capsys) == [
        f"error: {begin} lies in the run folder itself",
        "mend:  Name another folder with --out.",
    ]
    assert begin.exists()
