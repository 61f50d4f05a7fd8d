"""Files as RobustBench has them, for every test of the bridge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

AWP: dict[str, Any] = {
    "link": "https://arxiv.org/abs/2004.05884",
    "name": "Adversarial Weight Perturbation Helps Robust Generalization",
    "authors": "Dongxian Wu, Shu-tao Xia, Yisen Wang",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "NeurIPS 2020",
    "architecture": "WideResNet-34-10",
    "eps": "8/255",
    "clean_acc": "85.36",
    "reported": "56.17",
    "autoattack_acc": "56.17",
    "unreliable": False,
}
CORRUPTIONS: dict[str, Any] = {
    **{key: value for key, value in AWP.items() if key not in ("autoattack_acc", "unreliable")},
    "eps": None,
    "reported": "",
    "corruptions_acc": "42.0",
    "footnote": None,
}


def put(folder: Path, place: str, document: Any = AWP, **changes: Any) -> Path:
    """Write a file such as `cifar10/Linf/Wu2020Adversarial`; `changes` replace keys, bytes are written as they are."""
    path = folder / f"{place}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = document if isinstance(document, bytes) else json.dumps({**document, **changes}).encode()
    path.write_bytes(data)
    return path
