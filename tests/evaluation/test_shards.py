from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from awpbench.evaluation.shards import Shards, npz_bytes

ARRAYS = {"a": np.arange(5), "b": np.array([0.5, -np.inf], dtype=np.float32), "c": np.array(["x", "yz"])}


def test_the_bytes_depend_on_the_values_alone(tmp_path: Path) -> None:
    before = npz_bytes(ARRAYS)
    time.sleep(2.1)  # a zip file keeps times to two seconds
    assert npz_bytes(ARRAYS) == before
    path = tmp_path / "x.npz"
    path.write_bytes(before)
    with np.load(path, allow_pickle=False) as found:
        assert {key: found[key].tolist() for key in found} == {key: array.tolist() for key, array in ARRAYS.items()}


def test_a_shard_is_found_by_evaluation_job_and_images_only(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "shards", "key")
    assert shards.load("pgd-20", range(1, 3)) is None
    shards.save("pgd-20", range(1, 3), ARRAYS)
    found = shards.load("pgd-20", range(1, 3))
    assert found is not None
    assert found["a"].tolist() == [0, 1, 2, 3, 4]
    assert shards.load("pgd-20", range(1, 4)) is None
    assert shards.load("pgd-100", range(1, 3)) is None
    assert Shards(tmp_path / "shards", "other").load("pgd-20", range(1, 3)) is None


def test_a_damaged_shard_counts_as_absent(tmp_path: Path) -> None:
    shards = Shards(tmp_path, "key")
    shards.save("fgsm", range(1), ARRAYS)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no zip file at all"):
        file.write_bytes(damaged)
        assert shards.load("fgsm", range(1)) is None
