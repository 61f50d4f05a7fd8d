"""What identifies the parts of an evaluation."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from awpbench.data.images import ImageSet


def of_bytes(data: bytes) -> str:
    """Hash bytes with SHA-256."""
    return hashlib.sha256(data).hexdigest()


def of_weights(net: nn.Module) -> str:
    """Hash every parameter and buffer with its name, those that no state dict holds (the normalisation) included."""
    digest = hashlib.sha256()
    tensors: list[tuple[str, Tensor]] = [*net.named_parameters(), *net.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def identify(net: nn.Module, images: ImageSet, indices: Tensor) -> dict[str, str]:
    """Return the hashes of the net, of a whole test set, and of the indices `(n,)` of the images that are attacked."""
    places = " ".join(map(str, indices.tolist()))
    return {"weights": of_weights(net), "data": images.fingerprint(), "indices": of_bytes(places.encode())}
