from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from awpbench import data
from awpbench.errors import InputError
from tests.data.publisher import (
    Served,
    little_cifar10,
    little_cifar100,
    little_fashion_mnist,
    little_mnist,
    little_svhn,
    serving,
    write,
)

TGZ = "cifar-10-python.tar.gz"
CIFAR_TEST_MISSING = "test_batch, batches.meta missing in"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as served:
        yield served


def refusal(name: str, root: Path, *, offline: bool = False) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        data.load_test(name, data_dir=root, offline=offline)
    return caught.value.what, caught.value.mend


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_missing_data_set_is_fetched_on_first_use(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new" / "folder"
    for name, little, folder in (
        ("cifar10", little_cifar10, "cifar-10-batches-py"),
        ("mnist", little_mnist, "MNIST/raw"),
        ("cifar100", little_cifar100, "cifar-100-python"),
        ("svhn", little_svhn, "."),
        ("fashion-mnist", little_fashion_mnist, "FashionMNIST/raw"),
    ):
        files, published = little(monkeypatch, server.url)
        server.update(published)
        assert len(data.load(name, data_dir=root, validation=5).train) == 20
        assert {file: (root / folder / file).read_bytes() for file in files} == files
        server.clear()
        assert len(data.load_test(name, data_dir=root)) == 4  # now it is there
    assert len(files_below(root)) == 7 + 4 + 3 + 2 + 4


def test_fetched_files_are_those_that_torchvision_reads(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets as tvd

    for name, little, reader in (("cifar10", little_cifar10, tvd.CIFAR10), ("mnist", little_mnist, tvd.MNIST)):
        _, published = little(monkeypatch, server.url)
        server.update(published)
        assert data.fetch(name, data_dir=tmp_path) == "fetched"
        assert len(reader(str(tmp_path), train=True)) == 25


def test_progress_is_reported_up_to_the_whole_file(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awpbench.data.fetching.CHUNK", 20_000)
    _, published = little_cifar10(monkeypatch, server.url)
    server.update(published)
    size = len(published[TGZ])
    seen: list[tuple[int, int, str]] = []
    data.load_test("cifar10", data_dir=tmp_path, progress=lambda *report: seen.append(report))
    assert seen == [(min(done, size), size, TGZ) for done in range(20_000, size + 20_000, 20_000)]


def test_a_server_that_does_not_say_the_size_is_reported_with_size_zero(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, published = little_cifar10(monkeypatch, server.url)
    server.update(published)
    server.announce = False
    seen: list[tuple[int, int, str]] = []
    data.load_test("cifar10", data_dir=tmp_path, progress=lambda *report: seen.append(report))
    assert seen[-1] == (len(published[TGZ]), 0, TGZ)


def test_offline_says_what_is_missing_and_what_to_put_where(tmp_path: Path) -> None:
    assert refusal("cifar10", tmp_path, offline=True) == (
        f"cifar10: {CIFAR_TEST_MISSING} {tmp_path}/cifar-10-batches-py",
        "Put cifar-10-batches-py/ (unpacked from https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz) into "
        f"{tmp_path}, or run 'awpbench data fetch cifar10 --data-dir {tmp_path}' with a network.",
    )
    assert refusal("mnist", tmp_path, offline=True) == (
        f"mnist: t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte missing in {tmp_path}/MNIST/raw",
        "Put MNIST/raw/ (unpacked from https://ossci-datasets.s3.amazonaws.com/mnist/NAME.gz) into "
        f"{tmp_path}, or run 'awpbench data fetch mnist --data-dir {tmp_path}' with a network.",
    )
    assert list(tmp_path.iterdir()) == []


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        data.load("cifar10", data_dir=tmp_path, offline=True)
    assert caught.value.what == (
        "cifar10: data_batch_1, data_batch_2, data_batch_3, data_batch_4, data_batch_5, batches.meta, test_batch "
        f"missing in {tmp_path}/cifar-10-batches-py"
    )


def test_offline_never_asks_the_server(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, published = little_mnist(monkeypatch, server.url)
    server.update(published)
    assert refusal("mnist", tmp_path, offline=True)[0].startswith("mnist: t10k-images-idx3-ubyte")
    assert files_below(tmp_path) == []


def test_without_a_network_the_error_says_why_and_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as closed:
        url = closed.url
    monkeypatch.setenv("no_proxy", "*")
    little_cifar10(monkeypatch, url)
    assert refusal("cifar10", tmp_path) == (
        f"cifar10: {CIFAR_TEST_MISSING} {tmp_path}/cifar-10-batches-py; "
        f"could not be fetched ({url}{TGZ}: [Errno 111] Connection refused)",
        f"Put cifar-10-batches-py/ (unpacked from {url}{TGZ}) into "
        f"{tmp_path}, or run 'awpbench data fetch cifar10 --data-dir {tmp_path}' with a network.",
    )
    assert files_below(tmp_path) == []


def test_a_file_that_the_server_lacks_is_not_fetched(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little_cifar10(monkeypatch, server.url)
    assert f"({server.url}{TGZ}: HTTP Error 404: Not Found)" in refusal("cifar10", tmp_path)[0]


def test_a_download_that_breaks_off_leaves_nothing(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, published = little_cifar10(monkeypatch, server.url)
    server.update(published)
    server.cut = 1000
    size = len(published[TGZ])
    assert f"({server.url}{TGZ}: it ended after 1000 of {size} bytes)" in refusal("cifar10", tmp_path)[0]
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_unannounced_leaves_nothing(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, published = little_cifar10(monkeypatch, server.url)
    server.update(published)
    server.cut, server.announce = 1000, False
    assert f"({server.url}{TGZ}: its MD5 is " in refusal("cifar10", tmp_path)[0]
    assert list(tmp_path.iterdir()) == []


def test_another_file_under_the_right_name_leaves_nothing(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.data.publisher import md5

    _, published = little_cifar10(monkeypatch, server.url)
    server[TGZ] = b"<html>sign in to this network</html>"
    assert (
        f"({server.url}{TGZ}: its MD5 is {md5(server[TGZ])}, not {md5(published[TGZ])})"
        in refusal("cifar10", tmp_path)[0]
    )
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_during_a_download_leaves_nothing(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awpbench.data.fetching.CHUNK", 1000)
    _, published = little_mnist(monkeypatch, server.url)
    server.update(published)

    def interrupt(done: int, total: int, name: str) -> None:
        if name == "t10k-images-idx3-ubyte.gz" and done >= 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load_test("mnist", data_dir=tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried_where_the_first_fails(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets as tvd

    _, published = little_mnist(monkeypatch, server.url)
    server.update(published)
    monkeypatch.setattr(tvd.MNIST, "mirrors", ["http://127.0.0.1:9/", server.url])
    assert len(data.load_test("mnist", data_dir=tmp_path)) == 4


def test_fetch_leaves_sound_files_alone(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = little_mnist(monkeypatch, server.url)
    write(tmp_path / "MNIST" / "raw", files)
    assert data.fetch("mnist", data_dir=tmp_path) == "present"


@pytest.mark.parametrize("damaged", ["test_batch", "batches.meta", "data_batch_3"])
def test_fetch_replaces_damaged_files(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    files, published = little_cifar10(monkeypatch, server.url)
    server.update(published)
    write(tmp_path / "cifar-10-batches-py", files | {damaged: b"damaged"})
    assert data.fetch("cifar10", data_dir=tmp_path) == "fetched"
    assert (tmp_path / "cifar-10-batches-py" / damaged).read_bytes() == files[damaged]


def test_damaged_files_stay_where_nothing_better_can_be_fetched(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = little_cifar10(monkeypatch, server.url)
    write(tmp_path / "cifar-10-batches-py", files | {"test_batch": b"damaged"})
    with pytest.raises(InputError) as caught:
        data.fetch("cifar10", data_dir=tmp_path)
    assert caught.value.what == f"cifar10: could not be fetched ({server.url}{TGZ}: HTTP Error 404: Not Found)"
    assert len(files_below(tmp_path)) == 7


def test_digits_have_nothing_to_fetch(tmp_path: Path) -> None:
    assert data.fetch("digits", data_dir=tmp_path) == "embedded"


def test_a_data_folder_that_is_a_file_is_refused(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little_mnist(monkeypatch, server.url)
    (tmp_path / "file").touch()
    assert refusal("mnist", tmp_path / "file") == (
        f"mnist: t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte missing in {tmp_path}/file/MNIST/raw; "
        f"could not be written to {tmp_path}/file (File exists)",
        "Make room, or name another folder with --data-dir or AWPBENCH_DATA.",
    )


def test_a_full_disk_is_reported_and_leaves_nothing(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, published = little_mnist(monkeypatch, server.url)
    server.update(published)

    def refuse(*streams: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", refuse)
    with pytest.raises(InputError) as caught:
        data.fetch("mnist", data_dir=tmp_path)
    assert caught.value.what == f"mnist: could not be written to {tmp_path} (No space left on device)"
    assert caught.value.mend == "Make room, or name another folder with --data-dir or AWPBENCH_DATA."
    assert list(tmp_path.iterdir()) == []
