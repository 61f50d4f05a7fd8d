"""What identifies the parts of an evaluation."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

from awpbench.checkpoints import of_weights as of_weights
from awpbench.data.images import ImageSet


def of_bytes(data: bytes) -> str:
    """Hash bytes with SHA-256."""
    return hashlib.sha256(data).hexdigest()


def identify(net: nn.Module, images: ImageSet, indices: Tensor) -> dict[str, str]:
    """Return the hashes of the net, of a whole test set, and of the indices `(n,)` of the images that are attacked."""
    places = " ".join(map(str, indices.tolist()))
    return {"weights": of_weights(net), "data": images.fingerprint(), "indices": of_bytes(places.encode())}
