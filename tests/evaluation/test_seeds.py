from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from awpbench.cli import main
from awpbench.errors import UsageError
from awpbench.evaluation.results import Result
from awpbench.evaluation.seeds import selected_on_test, spread
from awpbench.evaluation.statistics import mean_std
from tests.evaluation.conftest import settle

TRAINING = {"defense": "at", "epochs": 3, "select_on": "validation"}
MODEL = {"source": "checkpoint", "architecture": "small-cnn", "width": 2}


def test_mean_and_std_of_known_values() -> None:
    assert mean_std([0.2, 0.4, 0.6]) == (pytest.approx(0.4), pytest.approx(0.2))
    assert mean_std([0.25]) == (0.25, None)


@pytest.fixture
def trained(attack: Callable[..., Any], net: nn.Module, tmp_path: Path) -> Callable[..., Path]:
    """Evaluate a net of a seed, whose weights depend on it."""

    def run(seed: int, folder: str | None = None, eps: str = "0.05", **changes: Any) -> Path:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            for parameter in net.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        folder = folder or f"seed {seed}"
        model = {**MODEL, "name": f"run-s{seed}/best"}
        attack(settle("pgd-4", eps=eps), folder, model=model, training={**TRAINING, "seed": seed, **changes})
        return tmp_path / folder

    return run


def test_the_spread_is_that_of_the_accuracies(trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folders = [trained(seed) for seed in range(3)]
    results = list(map(Result.read, folders))
    found = {each.attack: each for each in spread(results)}
    accuracies = [result.document["attacks"]["pgd-4"]["accuracy"] for result in results]
    assert len(set(accuracies)) > 1
    assert (found["pgd-4"].n, found["pgd-4"].images) == (3, 16)
    assert (found["pgd-4"].mean, found["pgd-4"].std) == pytest.approx(mean_std(accuracies), abs=1e-6)
    assert (found["pgd-4"].lowest, found["pgd-4"].highest) == (min(accuracies), max(accuracies))
    assert main(["report", *map(str, folders), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["selected_on_test"] is False
    assert document["attacks"][1]["attack"] == "pgd-4"


def test_nets_that_were_chosen_on_the_test_images_are_flagged(
    trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(0, select_on="test")
    assert selected_on_test(Result.read(folder))
    assert main(["report", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "selected on test: each net is the best of its checkpoints on these images, so too good"


@pytest.mark.parametrize(
    ("seed", "changes", "what"),
    [
        (0, {}, "two results are of one seed"),
        (1, {"epochs": 4}, "the nets were trained differently"),
        (1, {"eps": "0.06"}, "the results differ in eps: 0.05 and 0.06"),
    ],
)
def test_what_is_no_set_of_seeds_is_refused(
    seed: int, changes: dict[str, Any], what: str, trained: Callable[..., Path]
) -> None:
    results = [Result.read(trained(0, "one")), Result.read(trained(seed, "other", **changes))]
    with pytest.raises(UsageError) as caught:
        spread(results)
    assert caught.value.what == what
