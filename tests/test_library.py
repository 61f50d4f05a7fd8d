"""The examples of docs/library.md run as they stand, and the names that it promises are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from awpbench.errors import load_object

PAGE = (Path(__file__).parents[1] / "docs" / "library.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples left behind, run one after the other in an empty folder."""
    left: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(tmp_path_factory.mktemp("library"))
        for number, example in enumerate(EXAMPLES, 1):
            exec(compile(example, f"docs/library.md, example {number}", "exec"), left)
    return left


def example_with(text: str) -> str:
    (found,) = [example for example in EXAMPLES if text in example]
    return found


def test_every_code_block_of_python_is_found() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == 7


def test_every_example_runs_and_training_learns_something(names: dict[str, Any]) -> None:
    assert names["outcome"].loss.isfinite()
    assert 0 < names["correct"] < len(names["digits"].test)
    assert 0.1 < names["low"] < names["correct"] / len(names["digits"].test) < names["high"]
    assert names["mine"].fingerprint() == names["mine"].first(200).fingerprint()


def test_weight_perturbation_takes_five_lines_and_leaves_no_perturbation_behind() -> None:
    lines = example_with("import perturbed").split("\n\n")[1].splitlines()
    assert len(lines) == 5
    left: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        exec(EXAMPLES[0], left)
        left["optimizer"] = torch.optim.SGD(left["model"].parameters(), lr=0.0)
        before = {name: value.clone() for name, value in left["model"].named_parameters()}
        exec(example_with("import perturbed"), left)
    for name, value in left["model"].named_parameters():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)
        assert value.grad is not None


def test_an_example_shows_what_is_wrong_with_an_attack_that_leaves_the_ball(names: dict[str, Any]) -> None:
    x = torch.full((1, 1, 8, 8), 0.5)
    assert names["threat"].violation(x + 0.2, x).endswith("more than eps = 0.15")


PROMISED = re.findall(r"`(awpbench(?:\.\w+)+)`", PAGE.split("## What to rely on")[1])


def test_names_are_promised() -> None:
    assert len(PROMISED) == len(set(PROMISED)) == 21


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_name_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert load_object(f"{module}:{attribute}").__doc__
