from __future__ import annotations

from pathlib import Path

import pytest
import torch

from awpbench import models
from awpbench.errors import AwpbenchError
from awpbench.evaluation.hashes import of_weights
from awpbench.evaluation.subject import from_checkpoint, from_factory
from tests.evaluation.conftest import settle

FACTORIES = """
from torch import nn
def good():
    return nn.Linear(1, 1)
def fails():
    raise OSError("no weights here")
def wrong():
    return 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)
    return path


def test_a_factory_in_a_file_makes_the_net(file: Path) -> None:
    subject = from_factory(f"{file}:good")
    assert isinstance(subject.net, torch.nn.Linear)
    assert subject.description == {"source": "factory", "name": "good", "architecture": None, "width": None}
    assert subject.default_out(settle("pgd-7", "fgsm")) == Path("results/good/pgd-7+fgsm")


def test_a_factory_in_a_module_makes_the_net() -> None:
    assert isinstance(from_factory("torch.nn:Identity").net, torch.nn.Identity)


@pytest.mark.parametrize(
    ("spec", "code", "what", "mend"),
    [
        ("nothing", 2, "--model nothing names no factory", "Write FILE.py:factory or package.module:factory."),
        ("{file}:god", 2, "there is no factory called 'god'", "Did you mean 'good'? Known: good, fails, wrong."),
        (
            "{file}:fails",
            4,
            "{file}:fails failed: OSError: no weights here",
            "Make it return the net when called without arguments.",
        ),
        (
            "{file}:wrong",
            4,
            "{file}:wrong gives back int, no torch.nn.Module",
            "Make it return the net when called without arguments.",
        ),
        ("absent.py:net", 4, "there is no file absent.py", "Check the path given to --model."),
        (
            "no.such.module:net",
            4,
            "no.such.module cannot be imported: ModuleNotFoundError: No module named 'no'",
            "Check the file or module given to --model.",
        ),
    ],
)
def test_a_bad_specification_is_answered_by_two_lines(
    file: Path, monkeypatch: pytest.MonkeyPatch, spec: str, code: int, what: str, mend: str
) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(AwpbenchError) as caught:
        from_factory(spec.format(file=file))
    assert caught.value.exit_code == code
    assert (caught.value.what, caught.value.mend) == (what.format(file=file), mend)


def test_a_checkpoint_in_a_run_folder_is_evaluated_there(tmp_path: Path) -> None:
    run = tmp_path / "digits-small-cnn-at-s0"
    run.mkdir()
    net = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=2)
    for folder in (run, tmp_path):
        torch.save(net.state_dict(), folder / "best.pt")
    (run / "config.json").write_text("{}")
    settings = {"arch": None, "width": None, "dataset": "digits", "preprocessing": None}
    inside = from_checkpoint(run / "best.pt", **settings)
    assert inside.description["name"] == "digits-small-cnn-at-s0/best"
    assert inside.default_out(settle("fgsm").model_copy(update={"suite": "full"})) == run / "eval" / "best-full-v1.0"
    outside = from_checkpoint(tmp_path / "best.pt", **settings)
    assert outside.default_out(settle("fgsm")) == Path("results/best/fgsm")
    assert outside.brings == {"dataset": "digits"}


def test_the_hash_of_the_weights_covers_the_normalisation_too() -> None:
    hashes = set()
    for mean in (0.1, 0.2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=2, mean=(mean,), std=(1.0,))
        hashes |= {of_weights(net), of_weights(net.eval())}
    assert len(hashes) == 2
