"""The whole way on CUDA: `make test-gpu`. Skips, and says why, where there is no GPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from awpbench import data, defenses, models
from awpbench.cli import main
from awpbench.data.augment import crop_flip
from awpbench.randomness import generator
from awpbench.threat import Norm, ThreatModel
from awpbench.training.step import training_step
from tests.conftest import cuda_param
from tests.draws import GivenDraws

pytestmark = list(cuda_param().marks)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("method", ["standard", "at", "trades", "mart"])
def test_a_step_on_cuda_equals_the_step_on_the_cpu_in_float64(method: str, norm: Norm) -> None:
    torch.manual_seed(0)
    on_cpu = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4).double()
    on_cuda = copy.deepcopy(on_cpu).to("cuda")
    x, y = torch.rand(6, 1, 8, 8, dtype=torch.float64), torch.arange(6)
    for model in (on_cpu, on_cuda):
        device = next(model.parameters()).device
        training_step(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            defenses.get(method),
            x.to(device),
            y.to(device),
            threat=ThreatModel(norm, 0.1),
            steps=3,
            step_size=0.05,
            gamma=0.01,
            generator=GivenDraws(),
            hyper={},
        )
    for one, other in zip(on_cpu.state_dict().values(), on_cuda.state_dict().values(), strict=True):
        assert torch.allclose(one, other.cpu(), rtol=1e-8, atol=1e-10)


def test_the_batches_on_cuda_equal_those_on_the_cpu() -> None:
    images = data.load("digits").train.first(20)
    x, _ = images.batch(torch.arange(20), "cpu")
    on_cuda, _ = images.to("cuda").batch(torch.arange(20), "cuda")
    augmented = [crop_flip(batch, padding="zero", generator=generator("cpu", 0)) for batch in (x, on_cuda)]
    assert torch.equal(augmented[0], augmented[1].cpu())


def test_cuda_is_the_default_and_the_main_job_runs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = [
        "train",
        "small-cnn",
        "--dataset",
        "digits",
        "--method",
        "trades",
        "--awp",
        "--epochs",
        "2",
        "--out",
        "run",
    ]
    assert main([*train, "--awp-warmup", "0"]) == 0
    assert '"device": "cuda' in Path("run/provenance.json").read_text()
    assert main(["eval", "--ckpt", "run/best.pt", "--suite", "full", "--n-examples", "20", "--limit", "spsa=2"]) == 0
    capsys.readouterr()
    assert main(["leaderboard", "--format", "md"]) == 0
    assert "autoattack" in capsys.readouterr().out
