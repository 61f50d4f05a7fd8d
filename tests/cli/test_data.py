from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from awpbench.cli import common, main
from awpbench.cli.data import fetch_progress
from tests.data.publisher import Served, little_mnist, serving, write

DIGITS = {
    "train": "0abdb2c10294ae9718809908c6469bd743babd2442c46db6389f67820ee6628f",
    "test": "e974a568e2566b9fb8056be6c5f96c23d03a0b0b3182139e0ce9949c3ec6db09",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as served:
        yield served


def test_check_prints_counts_and_fingerprints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "digits"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[2:] == [
        f"digits      train    1397      {DIGITS['train']}",
        f"digits      test     400       {DIGITS['test']}",
    ]
    assert err == ""


def test_check_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"dataset": "digits", "split": split, "images": n, "shape": [1, 8, 8], "fingerprint": DIGITS[split]}
        for split, n in (("train", 1397), ("test", 400))
    ]


def test_check_recognises_the_originals(cifar_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "cifar10", "mnist", "--data-dir", str(cifar_root), "--json"]) == 0
    found = {(row["dataset"], row["split"]): row["images"] for row in json.loads(capsys.readouterr().out)}
    assert found == {
        ("cifar10", "train"): 50_000,
        ("cifar10", "test"): 10_000,
        ("mnist", "train"): 60_000,
        ("mnist", "test"): 10_000,
    }


def test_check_never_fetches(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, published = little_mnist(monkeypatch, server.url)
    server.update(published)
    assert main(["data", "check", "mnist", "--data-dir", str(tmp_path)]) == 4
    assert list(tmp_path.iterdir()) == []


def test_fetch_puts_the_data_set_into_the_folder_and_says_so(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, published = little_mnist(monkeypatch, server.url)
    server.update(published)
    assert main(["data", "fetch", "mnist", "digits", "--data-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"mnist: fetched into {tmp_path}\ndigits: comes with scikit-learn, nothing to fetch\n"
    assert [line.partition(":")[0] for line in err.splitlines()] == [f"fetching {name}" for name in published]
    assert main(["data", "fetch", "mnist", "--data-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"dataset": "mnist", "folder": str(tmp_path), "outcome": "present"}]


def test_fetch_into_the_folder_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, _ = little_mnist(monkeypatch)
    write(tmp_path / "MNIST" / "raw", files)
    monkeypatch.setenv("AWPBENCH_DATA", str(tmp_path))
    assert main(["data", "fetch", "mnist"]) == 0
    assert capsys.readouterr().out == f"mnist: already complete in {tmp_path}\n"


@pytest.mark.parametrize("command", ["fetch", "check"])
def test_an_unknown_name_stops_before_anything_is_done(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", command, "digits", "mnits"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: there is no data set called 'mnits'",
        "mend:  Did you mean 'mnist'? Known: cifar10, cifar100, svhn, mnist, fashion-mnist, digits.",
    ]


def test_a_failed_fetch_ends_with_code_4_and_two_lines(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    little_mnist(monkeypatch, server.url)
    assert main(["data", "fetch", "mnist", "--data-dir", str(tmp_path)]) == 4
    fault = f"{server.url}train-images-idx3-ubyte.gz: HTTP Error 404: Not Found"
    assert capsys.readouterr().err.splitlines() == [
        f"error: mnist: could not be fetched ({fault})",
        f"mend:  Put MNIST/raw/ (unpacked from {server.url}NAME.gz) into {tmp_path}, "
        f"or run 'awpbench data fetch mnist --data-dir {tmp_path}' with a network.",
    ]


def test_a_damaged_file_ends_check_with_code_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, _ = little_mnist(monkeypatch)
    write(tmp_path / "MNIST" / "raw", files | {"t10k-labels-idx1-ubyte": b"damaged"})
    assert main(["data", "check", "mnist", "--data-dir", str(tmp_path)]) == 4
    assert capsys.readouterr().err.splitlines() == [
        f"error: mnist: found a t10k-labels-idx1-ubyte that does not begin as an idx file (in {tmp_path})",
        f"mend:  Run 'awpbench data fetch mnist --data-dir {tmp_path}' to replace the files.",
    ]


def test_plain_progress_is_a_line_at_the_start_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with fetch_progress() as show:
        for done in range(1_000_000, 6_000_000, 1_000_000):
            show(done, 5_000_000, "images.gz")
    assert capsys.readouterr().err.splitlines() == [
        "fetching images.gz: 1.0 MB of 5.0 MB",
        "fetching images.gz: 5.0 MB of 5.0 MB",
    ]


def test_plain_progress_of_unknown_size_says_what_has_come(capsys: pytest.CaptureFixture[str]) -> None:
    with fetch_progress() as show:
        show(1_000_000, 0, "images.gz")
    assert capsys.readouterr().err == "fetching images.gz: 1.0 MB\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(common, "stderr", lambda: Console(file=screen, force_terminal=True, width=120))
    with fetch_progress() as show:
        show(1_000_000, 5_000_000, "images.gz")
        show(5_000_000, 5_000_000, "images.gz")
    assert "fetching images.gz" in screen.getvalue()
    assert "5.0/5.0 MB" in screen.getvalue()


def test_nothing_is_shown_where_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(common, "stderr", lambda: Console(file=screen, force_terminal=True))
    with fetch_progress():
        pass
    assert screen.getvalue() == ""


def test_the_documentation_names_every_data_set_and_its_fingerprints() -> None:
    from awpbench.data import DATASETS
    from awpbench.errors import load_object

    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for name, where in DATASETS.items():
        assert f"`{name}`" in text
        for fingerprint in load_object(where).fingerprints.values():
            assert fingerprint in text
