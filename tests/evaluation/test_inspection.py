"""What `awpbench inspect` says of checkpoints, ours and foreign ones."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from awpbench import checkpoints, data, models, rundir
from awpbench.cli import main
from awpbench.data.images import ImageSet
from awpbench.errors import InputError
from awpbench.evaluation import inspection
from awpbench.evaluation.inspection import inspect
from awpbench.evaluation.preprocessing import Trial

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
ZOO = ROOT / "model_zoo" / "cifar10-prn18-w16-at-s0"


def no_images(name: str) -> ImageSet:
    raise InputError(f"{name} is not here", "Fetch it.")


def weights(architecture: str = "wrn-10-1", prefix: str = "", **more: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    net = models.build(architecture, classes=10, shape=(3, 32, 32), width=16, **more)
    return {prefix + key: value for key, value in net.state_dict().items()}


def seen(path: Path, value: Any, **more: Any) -> dict[str, Any]:
    torch.save(value, path)
    document = inspect(path, load=more.pop("load", no_images), device=CPU, **more)
    json.dumps(document, allow_nan=False)
    return document


def test_a_checkpoint_of_ours_tells_its_net_its_making_and_its_evaluations() -> None:
    document = inspect(ZOO / "best.safetensors", load=no_images, device=CPU)
    result = json.loads((ZOO / "eval" / "best-full-v1.0" / "result.json").read_text())
    assert document["kind"] == "checkpoint of awpbench"
    assert document["sha256"] == rundir.sha256(ZOO / "best.safetensors")
    assert document["weights"] == result["hashes"]["weights"]
    assert document["net"] == {
        "architecture": "prn18",
        "published": "PreActResNet-18 (width 16)",
        "width": 16,
        "classes": 10,
        "shape": [3, 32, 32],
        "parameters": 701018,
    }
    assert document["layout"] == {"keys of": "AWP (AT), robust_overfitting (PreAct ResNet-18)"}
    assert document["preprocessing"]["source"] == "checkpoint"
    assert document["preprocessing"]["mean"] == [0.4914, 0.4822, 0.4465]
    stored = document["stored"]
    assert (stored["dataset"], stored["norm"], stored["eps"], stored["epoch"]) == ("cifar10", "Linf", "8/255", 40)
    assert stored["training"]["defense"] == "at"
    assert stored["best"] == {"epoch": 40, "robust": 0.256, "selected_on": "validation"}
    assert not stored["can be resumed"]
    assert document["run"]["command"].startswith("awpbench train prn18 --width 16 --method at ")
    assert document["run"]["evaluations"] == ["best-full-v1.0"]


def test_a_checkpoint_outside_of_a_run_folder_has_no_run(tmp_path: Path) -> None:
    published, _ = checkpoints.read(ZOO / "last.safetensors")  # without what resuming takes
    checkpoints.save(tmp_path / "copy.pt", {**published, "optimizer": {}, "progress": {}})
    document = inspect(tmp_path / "copy.pt", load=no_images, device=CPU)
    assert document["run"] is None
    assert document["stored"]["can be resumed"]


@pytest.mark.parametrize(
    ("architecture", "whose"),
    [
        ("wrn-10-1", "AWP, robust_overfitting, RobustBench (wide residual network)"),
        ("prn18", "AWP (AT), robust_overfitting (PreAct ResNet-18)"),
        ("resnet18", "MART, TRADES-AWP (ResNet-18)"),
        ("small-cnn", "awpbench (small-cnn)"),
    ],
)
def test_the_keys_say_whose_public_code_they_are_of(architecture: str, whose: str, tmp_path: Path) -> None:
    assert seen(tmp_path / "x.pt", weights(architecture))["layout"]["keys of"] == whose


@pytest.mark.parametrize(
    ("keys", "whose"),
    [
        (("features.0.weight", "classifier.weight"), "kuangliu/pytorch-cifar (VGG)"),
        (("conv_layer.0.weight", "fc_layer.0.weight"), "MAIR (VGG)"),
        (("features.0.weight",), None),
    ],
)
def test_both_dialects_of_vgg_are_told_apart(keys: tuple[str, ...], whose: str | None) -> None:
    assert inspection._dialect(keys) == whose


def test_wrappers_prefixes_unused_weights_and_what_lies_beside_them_are_named(tmp_path: Path) -> None:
    unused = {"module.sub_block1.layer.0.conv1.weight": torch.zeros(1)}
    file = {"net": {"state_dict": weights(prefix="module.") | unused, "epoch": 76}, "acc": 84.9, "lost": float("nan")}
    document = seen(tmp_path / "x.pt", file)
    assert document["layout"] == {
        "keys of": "TRADES, MART, RST (wide residual network with a second first stage that is never used)",
        "wrappers": ["net", "state_dict"],
        "prefixes": ["module."],
        "unused": 1,
        "normalisation": [],
    }
    assert document["stored"] == {"acc": 84.9, "lost": "nan", "epoch": 76}


def test_a_normalisation_in_the_file_is_told(tmp_path: Path) -> None:
    buffers = {"mu": torch.full((1, 3, 1, 1), 0.25), "sigma": torch.full((1, 3, 1, 1), 0.5)}
    document = seen(tmp_path / "x.pt", weights() | buffers)
    assert document["preprocessing"] == {
        "name": "mean and std",
        "mean": [0.25] * 3,
        "std": [0.5] * 3,
        "source": "file",
    }
    assert document["layout"]["normalisation"] == ["mu", "sigma"]


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (None, "it is found by trial on test images, and no --dataset is named"),
        ("cifar10", "cifar10 is not here"),
    ],
)
def test_a_trial_that_cannot_be_made_says_why(dataset: str | None, why: str, tmp_path: Path) -> None:
    assert seen(tmp_path / "x.pt", weights(), dataset=dataset)["preprocessing"] == {"source": None, "why": why}


def test_a_flag_needs_no_trial(tmp_path: Path) -> None:
    found = seen(tmp_path / "x.pt", weights(), dataset="cifar10", preprocessing="plus-minus-1")["preprocessing"]
    assert (found["mean"], found["source"]) == ([0.5] * 3, "flag")


def stripped(path: Path) -> Path:
    """A net of the zoo as AT's public code would have saved it: its normalisation lies in no file."""
    loaded = checkpoints.load(ZOO / "best.safetensors")
    return _saved(path, {"state_dict": {f"module.{key}": value for key, value in loaded.state_dict.items()}})


def test_a_trial_names_what_it_found_and_the_hash_is_that_of_the_net_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = ImageSet(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1).long(), torch.zeros(1).long())
    trial = Trial("meanstd", 1000, {"none": 177, "meanstd": 364, "plus-minus-1": 234})
    asked: list[Any] = []
    monkeypatch.setattr(inspection, "find", lambda *given: asked.append(given) or trial)
    path = stripped(tmp_path / "x.pt")
    document = inspect(path, load=lambda name: test, device=CPU, dataset="cifar10")
    assert [given[1:] for given in asked] == [("cifar10", test, CPU)]
    assert document["preprocessing"] == {
        "name": "meanstd",
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2471, 0.2435, 0.2616],
        "source": "trial",
        "n": 1000,
        "correct": {"none": 177, "meanstd": 364, "plus-minus-1": 234},
    }
    own = inspect(ZOO / "best.safetensors", load=no_images, device=CPU)
    assert document["weights"] == own["weights"]
    assert inspect(path, load=no_images, device=CPU)["weights"] != own["weights"]


@pytest.mark.slow
def test_the_trial_is_made_on_the_test_images(tmp_path: Path, cifar_root: Path) -> None:
    load = partial(data.load_test, data_dir=cifar_root, offline=True)
    found = inspect(stripped(tmp_path / "x.pt"), load=load, device=CPU, dataset="cifar10")["preprocessing"]
    assert (found["name"], found["source"], found["n"]) == ("meanstd", "trial", 1000)


def _saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def test_a_state_dict_of_an_unknown_architecture_is_described_as_far_as_it_goes(tmp_path: Path) -> None:
    document = seen(tmp_path / "x.pt", {"module.0.weight": torch.zeros(2, 3), "module.0.bias": torch.zeros(2)})
    assert document["net"] == {
        "architecture": None,
        "tensors": 2,
        "numbers": 8,
        "first": {"0.weight": [2, 3], "0.bias": [2]},
    }
    assert document["layout"]["keys of"] is None


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="no checkpoint"):
        inspect(tmp_path / "x.pt", load=no_images, device=CPU)


def test_the_command_prints_two_columns_or_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _saved(tmp_path / "x.pt", {"state_dict": weights(prefix="module.")})
    assert main(["inspect", "--ckpt", str(path)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "net: published WideResNet-10-1" in lines
    assert "layout: prefixes module." in lines
    assert "preprocessing: why it is found by trial on test images, and no --dataset is named" in lines
    assert main(["inspect", "--ckpt", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["net"]["parameters"] == 77850


def test_the_command_fetches_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _saved(tmp_path / "x.pt", weights())
    words = ["inspect", "--ckpt", str(path), "--dataset", "cifar10", "--data-dir", str(tmp_path / "data"), "--json"]
    assert main(words) == 0
    assert "missing in" in json.loads(capsys.readouterr().out)["preprocessing"]["why"]


def test_no_such_file_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--ckpt", "nowhere.pt"]) == 4
    assert capsys.readouterr().err.splitlines()[0] == "error: there is no checkpoint nowhere.pt"
