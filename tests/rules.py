"""The rules that rebuild the inputs of the reference vectors in tests/golden, all in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def noise(n: int, k: int) -> npt.NDArray[np.float64]:
    """Draw n standard normal numbers from numpy's frozen legacy stream with seed k."""
    return np.random.RandomState(k).standard_normal(n)


def fill(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace every tensor of a state by its rule, keys in the order given; the k-th sorted key, from 0, has seed k."""
    seeds = {key: k for k, key in enumerate(sorted(state_dict))}
    return {key: _filled(key, tensor, seeds[key]) for key, tensor in state_dict.items()}


def _filled(key: str, tensor: Tensor, k: int) -> Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    s = torch.from_numpy(noise(tensor.numel(), k)).view(tensor.shape)
    if key.endswith("running_var"):
        return 1 + 0.1 * s**2
    if key.endswith("running_mean"):
        return 0.1 * s
    if tensor.ndim >= 2:
        return s * (2 / (tensor.numel() / tensor.shape[0])) ** 0.5
    return 1 + 0.1 * s if key.endswith("weight") else 0.05 * s


def images(n: int, phase: float = 0) -> Tensor:
    """Make n smooth images `(n, 3, 32, 32)` in [0, 1]."""
    j = torch.arange(3 * 32 * 32, dtype=torch.float64, device="cpu")
    i = torch.arange(n, dtype=torch.float64, device="cpu")[:, None]
    return (0.5 + 0.5 * torch.sin(0.013 * j * (1 + 0.1 * i) + 0.9 * i + phase)).view(n, 3, 32, 32)


def summary(tensor: Tensor) -> dict[str, Any]:
    """Summarise a tensor: shape, sum, Euclidean norm and the first five values."""
    flat = tensor.detach().double().flatten()
    return {"shape": list(tensor.shape), "sum": flat.sum().item(), "l2": flat.norm().item(), "head": flat[:5].tolist()}
