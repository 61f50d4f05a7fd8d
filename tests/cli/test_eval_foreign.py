"""`awpbench eval` of nets of other projects: bare state dicts, and RobustBench's model zoo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from awpbench import checkpoints, data, models, robustbench_compat
from awpbench.cli import main
from awpbench.defaults import DATASETS
from awpbench.errors import InputError
from awpbench.evaluation.results import IDENTITY, evaluation_key
from awpbench.evaluation.subject import as_recorded, from_checkpoint
from awpbench.models.small_cnn import SmallCNN
from tests import hostile, zoo

THREAT = ["--dataset", "digits", "--norm", "Linf", "--eps", "0.05"]
QUICK = ["--attack", "fgsm", "--n-examples", "20", "--out", "out"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _tiny_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.install(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """The bare weights of two nets for digits: one trained for long enough without normalisation, one too shortly."""
    words = ["train", "small-cnn", "--dataset", "digits", "--method", "standard", "--normalization", "none"]
    words += ["--width", "4", "--track-steps", "1", "--track-examples", "20"]
    found = {}
    for name, epochs in (("clear", "4"), ("ambiguous", "2")):
        out = tmp_path_factory.mktemp("runs") / name
        assert main([*words, "--epochs", epochs, "--out", str(out)]) == 0
        found[name] = checkpoints.load(out / "last.pt").state_dict
    return found


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def result() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path("out/result.json").read_text())
    return document


def test_the_preprocessing_of_a_bare_state_dict_is_found_said_and_recorded(
    trained: dict[str, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {f"module.{key}": value for key, value in trained["clear"].items()}}, "x.pt")
    capsys.readouterr()
    assert main(["eval", "--ckpt", "x.pt", *THREAT, "--attack", "clean", "--out", "out"]) == 0
    found = result()["model"].pop("preprocessing")
    assert list(found["correct"]) == ["none", "meanstd", "plus-minus-1"]
    assert (found["source"], found["n"], found["mean"], found["std"]) == ("trial", 400, None, None)
    assert found["correct"]["none"] == result()["attacks"]["clean"]["correct"]
    shares = ", ".join(f"{name} {correct / 4:.1f} %" for name, correct in found["correct"].items())
    assert said(capsys)[0] == f"preprocessing found by trial on the first 400 test images: none ({shares})"


def test_a_finished_evaluation_of_a_bare_state_dict_does_not_try_its_preprocessing_again(
    trained: dict[str, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(trained["clear"], "x.pt")
    words = ["eval", "--ckpt", "x.pt", *THREAT, "--attack", "fgsm", "--out", "out"]
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    capsys.readouterr()
    seen: list[int] = []
    forward = SmallCNN.forward

    def watched(net: SmallCNN, x: Tensor) -> Tensor:
        seen.extend([len(x)] if isinstance(x, Tensor) else [])  # and not what torch.fx traces
        return forward(net, x)

    monkeypatch.setattr(SmallCNN, "forward", watched)
    assert main(words) == 0
    assert seen == [2, 64], "two images show that it gives logits, and a block of them is part of the key"
    assert said(capsys) == ["this evaluation was finished before; nothing was run: out"]
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


@pytest.mark.parametrize("change", ["weights", "result"])
def test_what_another_evaluation_tried_is_not_taken_over(
    change: str, trained: dict[str, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(trained["clear"], "x.pt")
    words = ["eval", "--ckpt", "x.pt", *THREAT, "--attack", "clean", "--out", "out"]
    assert main(words) == 0
    if change == "weights":
        torch.save(trained["clear"] | {"fc.bias": trained["clear"]["fc.bias"] * 1.001}, "x.pt")
    else:
        Path("out/result.json").write_text(Path("out/result.json").read_text().replace('"trial"', '"trial "'))
    capsys.readouterr()
    assert main(words) == (3 if change == "weights" else 0)
    assert said(capsys)[0].startswith("preprocessing found by trial on the first 400 test images: none (")


def test_the_counts_of_a_trial_are_no_part_of_what_identifies_an_evaluation() -> None:
    hashes = dict.fromkeys(IDENTITY, "")
    found = {"mean": [0.5], "std": [0.2], "source": "trial", "n": 400, "correct": {"none": 1, "meanstd": 300}}
    keys = [
        evaluation_key({"name": "x", "preprocessing": {**found, **change}}, hashes, {}, {})
        for change in ({}, {"correct": {"none": 2, "meanstd": 300}}, {"mean": [0.4]})
    ]
    assert keys[0] == keys[1] != keys[2]


def test_the_data_set_of_a_config_file_serves_the_trial_too(trained: dict[str, dict[str, Tensor]]) -> None:
    torch.save(trained["clear"], "x.pt")
    Path("eval.toml").write_text('dataset = "digits"\nnorm = "Linf"\neps = "0.05"\n')
    assert main(["eval", "--ckpt", "x.pt", "--config", "eval.toml", *QUICK]) == 0
    assert result()["model"]["preprocessing"]["source"] == "trial"
    assert (
        main(["eval", "--ckpt", "x.pt", "--config", "eval.toml", *QUICK, "--preprocessing", "meanstd", "--force"]) == 0
    )
    facts = DATASETS["digits"]
    assert result()["model"]["preprocessing"] == {"mean": [*facts.mean], "std": [*facts.std], "source": "flag"}


def test_an_ambiguous_preprocessing_is_refused_before_anything_is_written(
    trained: dict[str, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(trained["ambiguous"], "x.pt")
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        assert main(["eval", "--ckpt", "x.pt", *THREAT, *QUICK, *more]) == 2
        lines = said(capsys)
        assert lines[0].startswith(
            "error: the preprocessing of x.pt may be none or meanstd on the first 400 test images: "
        )
        assert lines[1:] == ["mend:  Give --preprocessing none, meanstd or plus-minus-1."]
    assert not Path("out").exists()
    assert main(["eval", "--ckpt", "x.pt", *THREAT, *QUICK, "--preprocessing", "none"]) == 0


def test_a_net_that_has_learnt_nothing_is_refused_in_every_preprocessing(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({key: torch.zeros_like(value) for key, value in untrained().items()}, "x.pt")
    assert main(["eval", "--ckpt", "x.pt", *THREAT, *QUICK]) == 2
    assert said(capsys)[0].startswith("error: no preprocessing makes x.pt better than chance (")


def untrained() -> dict[str, Tensor]:
    return models.build("small-cnn", classes=10, shape=(1, 8, 8), width=2).state_dict()


@pytest.mark.usefixtures("_tiny_zoo")
def test_a_net_of_the_zoo_is_evaluated_with_its_own_data_set_and_norm(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {f"module.{key}": value for key, value in zoo.Tiny().state_dict().items()}}, "w.pt")
    words = ["eval", "--robustbench", "One2020Tiny", "--weights", "w.pt", "--eps", "0.05"]
    assert main([*words, "--suite", "quick", "--n-examples", "20", "--out", "out", "--file", "board.json"]) == 0
    document = result()
    assert document["model"] == {"source": "robustbench", "name": "One2020Tiny", "architecture": "Tiny", "width": None}
    assert (document["dataset"], document["norm"], document["eps"]) == ("digits", "Linf", "0.05")
    assert document["hashes"]["checkpoint"] == checkpoints.load_weights(Path("w.pt"))[1]
    (row,) = json.loads(Path("board.json").read_text())["rows"]
    assert (row["architecture"], row["awpbench"]["source"]) == ("Tiny", "robustbench")
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["--norm", "Linf", "robustbench"] in lines
    assert ["--eps", "0.05", "flag"] in lines


@pytest.mark.parametrize("preprocessing", ["none", "meanstd"])
def test_the_result_of_a_bare_state_dict_is_verified_with_its_recorded_preprocessing(
    preprocessing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(untrained(), "x.pt")
    assert main(["eval", "--ckpt", "x.pt", *THREAT, *QUICK, "--preprocessing", preprocessing, "--evidence"]) == 0
    assert main(["verify", "out", "--ckpt", "x.pt"]) == 0
    document = result()
    del document["model"]["preprocessing"]
    subject = from_checkpoint(Path("x.pt"), arch=None, width=None, dataset="digits", preprocessing=None)
    with pytest.raises(InputError) as caught:
        as_recorded(subject, document)
    assert caught.value.what == "the result does not say how its net normalises the input"


@pytest.mark.usefixtures("_tiny_zoo")
def test_the_result_of_a_net_of_the_zoo_is_verified_with_the_file_of_its_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(zoo.Tiny().state_dict(), "w.pt")
    words = ["eval", "--robustbench", "Two2020Tables", "--weights", "w.pt", "--norm", "L2", "--eps", "0.5"]
    assert main([*words, *QUICK, "--evidence"]) == 0
    assert main(["verify", "out", "--weights", "w.pt"]) == 0
    torch.save(zoo.Tiny().state_dict(), "w.pt")
    capsys.readouterr()
    assert main(["verify", "out", "--weights", "w.pt"]) != 0
    assert main(["verify", "out"]) == 2
    assert said(capsys)[-2:] == [
        "error: the net of this result lies elsewhere",
        "mend:  Name it: --ckpt FILE, --model FILE.py:factory, or --weights FILE where it is RobustBench's.",
    ]


@pytest.mark.usefixtures("_tiny_zoo")
@pytest.mark.parametrize(
    ("words", "code", "what", "mend"),
    [
        (
            ["One2020Tiny", "--weights", "w.pt"],
            2,
            "nothing names the data and the threat to evaluate on: --eps missing",
            "Add them, for example: --dataset cifar10 --norm Linf --eps 8/255.",
        ),
        (
            ["Corrupt2020Only", "--weights", "w.pt"],
            2,
            "nothing names the data and the threat to evaluate on: --norm, --eps missing",
            "Add them, for example: --dataset cifar10 --norm Linf --eps 8/255.",
        ),
        (
            ["One2020Tny", "--weights", "w.pt"],
            2,
            "RobustBench has no model called 'One2020Tny'",
            "Did you mean 'One2020Tiny'? RobustBench's README lists them.",
        ),
        (
            ["Far2020Hundred", "--weights", "w.pt"],
            2,
            "RobustBench has Far2020Hundred for imagenet, which awpbench has no images of",
            "Choose a model for one of: cifar10, cifar100, svhn, mnist, fashion-mnist, digits.",
        ),
        (
            ["Two2020Tables", "--weights", "w.pt"],
            2,
            "RobustBench has Two2020Tables for digits Linf and digits L2",
            "Pick one with --dataset and --norm.",
        ),
        (
            ["One2020Tiny", "--weights", "none.pt"],
            4,
            "there is no checkpoint none.pt",
            "Check the path; a run folder has best.pt and last.pt.",
        ),
        (
            ["One2020Tiny", "--weights", "other.pt"],
            4,
            "other.pt does not hold the weights of RobustBench's One2020Tiny: missing features.weight and 3 more; "
            "unexpected conv1.weight and 19 more",
            "Check the model's name, --dataset and --norm.",
        ),
        (
            ["Bad2020Fails", "--weights", "w.pt"],
            4,
            "RobustBench cannot build Bad2020Fails here: RuntimeError: Found no NVIDIA driver on your system.",
            "Build it in a factory of your own: --model FILE.py:factory.",
        ),
        (
            ["One2020Tiny"],
            2,
            "--weights FILE belongs to --robustbench ID, and each needs the other",
            "Example: awpbench eval --robustbench Carmon2019Unlabeled --weights rst_adv.pt",
        ),
        (
            ["One2020Tiny", "--weights", "w.pt", "--preprocessing", "none"],
            2,
            "--arch, --width and --preprocessing describe a state dict, and --robustbench brings a whole net",
            "Leave them out.",
        ),
        (
            ["One2020Tiny", "--weights", "w.pt", "--ckpt", "x.pt"],
            2,
            "a net is named by --ckpt, --model or --robustbench, one of them",
            "Example: awpbench eval --ckpt best.pt",
        ),
    ],
)
def test_a_mistake_with_the_zoo_is_answered_by_two_lines(
    words: list[str], code: int, what: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(zoo.Tiny().state_dict(), "w.pt")
    torch.save(untrained(), "other.pt")
    assert main(["eval", "--robustbench", *words]) == code
    assert said(capsys) == [f"error: {what}", f"mend:  {mend}"]


def test_a_bare_state_dict_without_a_threat_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(untrained(), "x.pt")
    assert main(["eval", "--ckpt", "x.pt", "--dataset", "digits"]) == 2
    assert said(capsys)[0] == ("error: nothing names the data and the threat to evaluate on: --norm, --eps missing")


def test_a_bare_state_dict_of_another_architecture_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(untrained(), "x.pt")
    assert main(["eval", "--ckpt", "x.pt", *THREAT, "--arch", "prn18"]) == 4
    assert said(capsys) == [
        "error: x.pt does not hold the weights of PreActResNet-18: missing layer1.0.bn1.weight and 88 more; "
        "unexpected bn1.weight and 18 more; mis-shaped conv1.weight [2, 1, 3, 3] for [64, 1, 3, 3]",
        "mend:  Give the --arch and --width that it was trained with, or leave them out.",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("853.6", "--expect-clean is 853.6, which is no percentage"),
        ("-1", "--expect-clean is -1, which is no percentage"),
        ("nan", "--expect-clean is nan, which is no percentage"),
    ],
)
def test_an_expected_accuracy_that_is_no_percentage_is_a_usage_error(
    given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(untrained(), "x.pt")
    assert main(["eval", "--ckpt", "x.pt", *THREAT, *QUICK, "--expect-clean", given]) == 2
    assert said(capsys) == [f"error: {message}", "mend:  Write it as in: --expect-clean 85.36."]
    assert main(["eval", "--ckpt", "x.pt", *THREAT, *QUICK, "--expect-clean", "about 85"]) == 2


def test_another_clean_accuracy_than_the_claimed_one_stops_the_run_before_any_attack(
    trained: dict[str, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(trained["clear"], "x.pt")
    words = ["eval", "--ckpt", "x.pt", *THREAT, "--preprocessing", "none", "--attack", "fgsm", "--out", "out"]
    assert main([*words, "--expect-clean", "100"]) == 5
    what = said(capsys)[-2]
    assert what.startswith("error: the clean accuracy is ")
    assert what.endswith(" of 400 images; allowed: 0.05 points), not 100 % as expected")
    assert not Path("out/result.json").exists()
    assert not list(Path("out").rglob("fgsm*"))
    assert main(words) == 0
    clean = result()["attacks"]["clean"]
    assert main([*words, "--expect-clean", str(100 * clean["accuracy"])]) == 0
    capsys.readouterr()
    assert main([*words, "--expect-clean", "100"]) == 5, "a finished evaluation is compared too"
    assert said(capsys)[0] == what


def test_weights_without_the_zoo_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--ckpt", "x.pt", "--weights", "w.pt"]) == 2
    assert said(capsys)[0] == "error: --weights FILE belongs to --robustbench ID, and each needs the other"


@pytest.mark.usefixtures("_tiny_zoo")
@pytest.mark.parametrize("source", [["--ckpt"], ["--robustbench", "One2020Tiny", "--weights"]], ids=["ckpt", "zoo"])
def test_no_hostile_file_runs_its_code(source: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary = tmp_path / "canary"
    for name, bytes_ in hostile.corpus(canary).items():
        Path("x.pt").write_bytes(bytes_)
        assert main(["eval", *source, "x.pt", *THREAT, *QUICK]) == 4, name
        assert not canary.exists(), name
        assert len(said(capsys)) == 2, name


# The file, and which of RobustBench's own quirks it meets: a wrapper with two nets, no normalisation buffers.
REAL = {
    "Andriushchenko2020Understanding": (None, "Linf", "8/255", "PreActResNet"),
    "Rice2020Overfitting": ("L2", "L2", "0.5", "prn18"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_an_architecture_of_the_real_zoo_is_loaded_and_evaluated_from_end_to_end(name: str, cifar_root: Path) -> None:
    pick, norm, eps, architecture = REAL[name]
    theirs = robustbench_compat.build(robustbench_compat.find(name, dataset="cifar10", norm=pick, known=["cifar10"]))
    theirs = theirs.eval()
    state = {f"module.{key}": value for key, value in theirs.state_dict().items() if key not in ("mu", "sigma")}
    torch.save({"last": state, "best": {key: value * 0 for key, value in state.items()}}, "w.pt")
    words = [
        "eval",
        "--robustbench",
        name,
        "--weights",
        "w.pt",
        *QUICK,
        "--n-examples",
        "8",
        "--block",
        "8",
        "--no-audit",
    ]
    where = ["--data-dir", str(cifar_root), "--offline"]
    assert main([*words, *where, *(["--norm", pick] if pick else [])]) == 0
    document = result()
    described = {"source": "robustbench", "name": name, "architecture": architecture, "width": None}
    assert document["model"] == described
    assert (document["dataset"], document["norm"], document["eps"]) == ("cifar10", norm, eps)
    images = data.load_test("cifar10", data_dir=cifar_root, offline=True).first(8)
    with torch.no_grad():
        expected = theirs(images.images.float() / 255).argmax(1)
    with np.load("out/per_image.npz", allow_pickle=False) as per_image:
        assert per_image["clean.prediction"].tolist() == expected.tolist()
        assert per_image["clean.margin"].shape == (8,)
