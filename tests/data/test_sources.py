from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from awpbench.data.sources import data_folder, fetch_command, shuffled


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("AWPBENCH_DATA", str(tmp_path / "named"))
    return tmp_path


def test_the_folder_on_the_command_line_wins(environment: Path) -> None:
    assert data_folder(Path("~/here")) == environment / "here"


def test_the_folder_of_the_environment_comes_next(environment: Path) -> None:
    assert data_folder(None) == environment / "named"


def test_the_cache_folder_comes_last(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWPBENCH_DATA")
    assert data_folder(None) == environment / "caches" / "awpbench" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder(None) == environment / ".cache" / "awpbench" / "data"


def test_the_held_out_images_are_the_first_of_the_legacy_permutation() -> None:
    expected = np.random.RandomState(0).permutation(50_000)[:1000]
    assert shuffled(torch.zeros(50_000), 1000).tolist() == expected.tolist()
    assert expected[:5].tolist() == [11841, 19602, 45519, 25747, 42642]  # Rice et al. 2020's validation images


def test_a_folder_with_a_blank_is_quoted_in_the_command_to_run() -> None:
    assert fetch_command("mnist", Path("my data")) == "awpbench data fetch mnist --data-dir 'my data'"
