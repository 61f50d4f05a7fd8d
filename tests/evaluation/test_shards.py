from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from awpbench.errors import RefusedError
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


def test_a_share_is_worked_on_by_one_process_at_a_time(tmp_path: Path) -> None:
    one, other = Shards(tmp_path / "shards", "key"), Shards(tmp_path / "shards", "key")
    with one.claimed("1-of-2"), other.claimed("2-of-2"):
        with pytest.raises(RefusedError) as caught, other.claimed("1-of-2"):
            pass
        assert caught.value.what == f"another process is working on this evaluation in {tmp_path}"
        one.remove()
    with other.claimed("1-of-2"):
        pass


def test_who_waits_for_a_lock_gets_it_when_the_folder_is_removed_meanwhile(tmp_path: Path) -> None:
    entered = threading.Event()

    def wait() -> None:
        with Shards(tmp_path / "shards", "key").locked():
            entered.set()

    shards = Shards(tmp_path / "shards", "key")
    with shards.locked():
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        assert not entered.is_set()
        shards.remove()
    waiting.join(timeout=10)
    assert entered.is_set()
