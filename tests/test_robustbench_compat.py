"""RobustBench as PyPI has it imports through the compat module, and its nets are ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from awpbench import robustbench_compat
from awpbench.errors import InputError

ROUND_TRIP = """
import sys
from pathlib import Path
import torch
from awpbench import checkpoints, robustbench_compat

assert robustbench_compat.load().__name__ == "robustbench"
eval_module = robustbench_compat.load("robustbench.eval")
assert callable(eval_module.benchmark) and eval_module.AutoAttack.__module__.startswith("pyautoattack")

architectures = robustbench_compat.load("robustbench.model_zoo.architectures.wide_resnet")
torch.manual_seed(0)
theirs = architectures.WideResNet(depth=16, widen_factor=2, sub_block1=True).eval()
path = Path(sys.argv[1]) / "theirs.pt"
torch.save({"state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}}, path)
ours = checkpoints.load(path, dataset="cifar10", preprocessing="none").build().eval()
x = torch.rand(2, 3, 32, 32)
with torch.no_grad():
    assert (ours(x) - theirs(x)).abs().max() <= 1e-5
"""


def test_robustbench_imports_and_awpbench_loads_the_weights_of_its_nets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_module_that_cannot_be_imported_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustbench_compat, "_stand_in", lambda: None)
    with pytest.raises(InputError) as caught:
        robustbench_compat.load("robustbench_that_is_not_there")
    assert caught.value.what.startswith("robustbench_that_is_not_there cannot be imported: ModuleNotFoundError")
    assert caught.value.mend == "Install it again: pip install 'robustbench>=1.1,<2'"
