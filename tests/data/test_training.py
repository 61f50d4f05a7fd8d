"""Every official format through the command line: fetched files to a checkpoint and a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awpbench.cli import main
from tests.data.publisher import little_cifar100, little_fashion_mnist, little_svhn, write

QUICK = ["--method", "at", "--width", "2", "--epochs", "1", "--steps", "1", "--track-steps", "1", "--device", "cpu"]


@pytest.mark.parametrize(
    ("name", "little", "folder", "classes"),
    [
        ("cifar100", little_cifar100, "cifar-100-python", 100),
        ("svhn", little_svhn, ".", 10),
        ("fashion-mnist", little_fashion_mnist, "FashionMNIST/raw", 10),
    ],
)
def test_a_run_and_its_evaluation_take_files_in_the_official_format(
    name: str, little: Callable[..., Any], folder: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / folder, little(monkeypatch)[0])
    monkeypatch.setenv("AWPBENCH_DATA", str(tmp_path / "data"))
    assert main(["train", "small-cnn", "--dataset", name, "--validation-examples", "5", "--out", "run", *QUICK]) == 0
    assert main(["eval", "--ckpt", "run/best.pt", "--suite", "quick", "--no-row", "--device", "cpu"]) == 0
    result = json.loads(Path("run/eval/best-quick-v1.0/result.json").read_text())
    assert (result["dataset"], result["n"]) == (name, 4)
    config = json.loads(Path("run/config.json").read_text())
    assert config["augmentation"] == ("crop-flip-rotate" if name == "cifar100" else "none")
    import torch

    assert torch.load("run/best.pt", weights_only=True)["model"]["classes"] == classes
