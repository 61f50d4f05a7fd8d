"""Small data sets in the official formats, in a folder or behind a local web server."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets as tvd

from awpbench.data import cifar10, cifar100, fashion_mnist, mnist, svhn
from awpbench.data.images import ImageSet
from awpbench.data.sources import Split

COUNTS: dict[Split, int] = {"train": 25, "test": 4}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(values: np.ndarray[Any, Any]) -> bytes:
    """Write unsigned bytes as an idx file."""
    return (
        bytes((0, 0, 8, values.ndim))
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(np.uint8).tobytes()
    )


def image_set(n: int, shape: tuple[int, int, int], *, seed: int) -> ImageSet:
    """Make `n` random images of ten classes."""
    rng = np.random.RandomState(seed)
    images = torch.from_numpy(rng.randint(0, 256, (n, *shape)).astype(np.uint8))
    return ImageSet(images, torch.from_numpy(rng.randint(0, 10, n)), torch.arange(n))


def mnist_files(sets: dict[Split, ImageSet]) -> dict[str, bytes]:
    """Return the idx files of both splits by name."""
    files = {}
    for split, images in sets.items():
        image_name, label_name = mnist.NAMES[split]
        files[image_name] = idx(images.images[:, 0].numpy())
        files[label_name] = idx(images.labels.numpy())
    return files


def cifar_files(sets: dict[Split, ImageSet]) -> dict[str, bytes]:
    """Return the pickled batches by name: a fifth of the training images each, the test images, the class names."""
    parts = {f"data_batch_{k + 1}": sets["train"].select(torch.arange(5 * k, 5 * k + 5)) for k in range(5)}
    parts["test_batch"] = sets["test"]
    files = {
        name: pickle.dumps({"data": part.images.flatten(1).numpy(), "labels": part.labels.tolist()}, protocol=2)
        for name, part in parts.items()
    }
    return files | {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)}


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def little_mnist(
    monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:9/"
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Make MNIST 25 + 4 images published at `url`; returns its files, and what the server must publish."""
    sets: dict[Split, ImageSet] = {split: image_set(n, (1, 28, 28), seed=n) for split, n in COUNTS.items()}
    files = mnist_files(sets)
    served = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
    monkeypatch.setattr(tvd.MNIST, "mirrors", [url])
    monkeypatch.setattr(tvd.MNIST, "resources", [(name, md5(content)) for name, content in served.items()])
    prints = {split: images.fingerprint() for split, images in sets.items()}
    monkeypatch.setattr(mnist, "SOURCE", dataclasses.replace(mnist.SOURCE, counts=COUNTS, fingerprints=prints))
    return files, served


def little_cifar10(
    monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:9/"
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Do the same for CIFAR-10."""
    sets: dict[Split, ImageSet] = {split: image_set(n, (3, 32, 32), seed=n) for split, n in COUNTS.items()}
    files = cifar_files(sets)
    packed = archive("cifar-10-batches-py", files)
    sums = [(name, md5(content)) for name, content in files.items()]
    monkeypatch.setattr(tvd.CIFAR10, "url", f"{url}cifar-10-python.tar.gz")
    monkeypatch.setattr(tvd.CIFAR10, "tgz_md5", md5(packed))
    monkeypatch.setattr(tvd.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(tvd.CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(tvd.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums[6][1]})
    prints = {split: images.fingerprint() for split, images in sets.items()}
    monkeypatch.setattr(cifar10, "SOURCE", dataclasses.replace(cifar10.SOURCE, counts=COUNTS, fingerprints=prints))
    return files, {"cifar-10-python.tar.gz": packed}


def little_fashion_mnist(
    monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:9/"
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Do the same for Fashion-MNIST."""
    sets: dict[Split, ImageSet] = {split: image_set(n, (1, 28, 28), seed=10 + n) for split, n in COUNTS.items()}
    files = mnist_files(sets)
    served = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
    monkeypatch.setattr(tvd.FashionMNIST, "mirrors", [url])
    monkeypatch.setattr(tvd.FashionMNIST, "resources", [(name, md5(content)) for name, content in served.items()])
    prints = {split: images.fingerprint() for split, images in sets.items()}
    source = dataclasses.replace(fashion_mnist.SOURCE, counts=COUNTS, fingerprints=prints)
    monkeypatch.setattr(fashion_mnist, "SOURCE", source)
    return files, served


def little_cifar100(
    monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:9/"
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Do the same for CIFAR-100, whose files hold fine and coarse labels; the fine ones are 0 to 99."""
    files = {}
    for split, n in COUNTS.items():
        images, fine = image_set(n, (3, 32, 32), seed=20 + n).images, [(37 * k) % 100 for k in range(n)]
        content = {"data": images.flatten(1).numpy(), "fine_labels": fine, "coarse_labels": [k // 5 for k in fine]}
        files[split] = pickle.dumps(content, protocol=2)
    names = {"fine_label_names": [f"fine {k}" for k in range(100)], "coarse_label_names": [f"c {k}" for k in range(20)]}
    files["meta"] = pickle.dumps(names, protocol=2)
    packed = archive("cifar-100-python", files)
    sums = {name: md5(content) for name, content in files.items()}
    monkeypatch.setattr(tvd.CIFAR100, "url", f"{url}cifar-100-python.tar.gz")
    monkeypatch.setattr(tvd.CIFAR100, "tgz_md5", md5(packed))
    monkeypatch.setattr(tvd.CIFAR100, "train_list", [("train", sums["train"])])
    monkeypatch.setattr(tvd.CIFAR100, "test_list", [("test", sums["test"])])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]}
    monkeypatch.setattr(tvd.CIFAR100, "meta", meta)
    monkeypatch.setattr(cifar100, "SOURCE", dataclasses.replace(cifar100.SOURCE, counts=COUNTS))
    return files, {"cifar-100-python.tar.gz": packed}


def little_svhn(
    monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:9/"
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Do the same for SVHN, whose Matlab files hold images (H, W, C, N) and labels 1 to 10, those of the digit 0."""
    files, listed = {}, {}
    for split, n in COUNTS.items():
        images = image_set(n, (3, 32, 32), seed=30 + n).images
        labels = np.array([[k % 10 + 1] for k in range(n)], dtype=np.uint8)
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"X": images.permute(2, 3, 1, 0).numpy(), "y": labels})
        name = f"{split}_32x32.mat"
        files[name] = buffer.getvalue()
        listed[split] = [f"{url}{name}", name, md5(files[name])]
    monkeypatch.setattr(tvd.SVHN, "split_list", listed)
    monkeypatch.setattr(svhn, "SOURCE", dataclasses.replace(svhn.SOURCE, counts=COUNTS))
    return files, files


def archive(folder: str, files: dict[str, bytes]) -> bytes:
    """Pack files of a folder into a .tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Served(dict[str, bytes]):
    """What a local web server publishes; `cut` is the number of bytes after which it breaks off."""

    url = ""
    cut: int | None = None
    announce = True


@contextmanager
def serving() -> Iterator[Served]:
    """Serve on a free local port what is put into the mapping."""
    served = Served()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.get(self.path.rpartition("/")[2])
            self.send_response(200 if content is not None else 404)
            if served.announce:
                self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write((content or b"")[: served.cut])

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
