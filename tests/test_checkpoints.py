from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awpbench import checkpoints, models, rundir
from awpbench.errors import InputError, UsageError
from tests.hostile import corpus

FETCH_AGAIN = "Copy or download the file again."
RESAVE = "Have someone who trusts it save only the weights: torch.save(model.state_dict(), 'x.pt')."
NOT_PLAIN = f"{FETCH_AGAIN} If it is whole: {RESAVE[0].lower()}{RESAVE[1:]}"
WRONG_ARCH = "Give the --arch and --width that it was trained with, or leave them out."
SPEC = {"architecture": "small-cnn", "width": 4, "classes": 10, "shape": [1, 8, 8], "mean": [0.25], "std": [0.5]}


def payload(seed: int = 0, **changes: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4, mean=[0.25], std=[0.5])
    return {
        "state_dict": model.state_dict(),
        "model": SPEC,
        "dataset": "digits",
        "threat": {"norm": "Linf", "eps": "0.15"},
        "config": {"lr": 0.1, "awp": False, "width": None},
        "epoch": 3,
        "step": 0,
        "best": {"epoch": 2, "robust": 0.5},
        "metrics": {"accuracy": 0.75},
        **changes,
    }


def without_sidecar(path: Path) -> Path:
    path.with_name(path.name + ".sha256").unlink()
    return path


def refusal(path: Path, **options: Any) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        checkpoints.load(path, **options)
    assert caught.value.exit_code == 4
    return caught.value.what, caught.value.mend


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoints.save(tmp_path / "x.pt", payload())
    return tmp_path / "x.pt"


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path, before = tmp_path / "run" / "last.pt", payload()
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    digest = checkpoints.save(path, before | {"optimizer": optimizer, "progress": {"loss": torch.tensor(2.5), "n": 7}})
    loaded = checkpoints.load(path)
    assert loaded.sha256 == digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.model_spec == checkpoints.ModelSpec("small-cnn", 4, 10, (1, 8, 8), (0.25,), (0.5,))
    assert (loaded.foreign, loaded.dataset, loaded.threat_norm, loaded.threat_eps) == (False, "digits", "Linf", "0.15")
    assert (loaded.config, loaded.epoch, loaded.step) == (before["config"], 3, 0)
    assert (loaded.best, loaded.metrics) == (before["best"], before["metrics"])
    assert loaded.optimizer is not None
    assert loaded.optimizer["state"][0]["momentum_buffer"].equal(torch.ones(3))
    assert loaded.progress == {"loss": torch.tensor(2.5), "n": 7}
    assert list(loaded.state_dict) == list(before["state_dict"])
    assert all(loaded.state_dict[key].equal(value) for key, value in before["state_dict"].items())


def test_the_built_net_is_the_saved_one_in_eval_mode_and_shares_no_memory(saved: Path) -> None:
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    net = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4, mean=[0.25], std=[0.5]).eval()
    net.load_state_dict(payload()["state_dict"])
    checkpoint = checkpoints.load(saved)
    first = checkpoint.build()
    assert not any(module.training for module in first.modules())
    assert all(parameter.requires_grad for parameter in first.parameters())
    assert first(x).equal(net(x))
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.zero_()
    assert checkpoint.build()(x).equal(net(x))


def test_building_a_net_draws_nothing_from_the_global_generator(saved: Path) -> None:
    checkpoint = checkpoints.load(saved)
    before = torch.get_rng_state()
    checkpoint.build()
    assert torch.get_rng_state().equal(before)


def test_half_precision_weights_become_a_single_precision_net(tmp_path: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in payload()["state_dict"].items()}
    checkpoints.save(tmp_path / "x.pt", payload(state_dict=half))
    net = checkpoints.load(tmp_path / "x.pt").build()
    assert net.conv1.weight.dtype == torch.float32
    assert net.conv1.weight.equal(half["conv1.weight"].float())


def test_the_hash_file_is_what_sha256sum_checks(saved: Path) -> None:
    assert (saved.parent / "x.pt.sha256").read_text() == f"{rundir.sha256(saved)}  x.pt\n"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "x.pt.sha256"], cwd=saved.parent, check=True)


def test_equal_payloads_give_equal_bytes(tmp_path: Path) -> None:
    assert checkpoints.save(tmp_path / "a.pt", payload()) == checkpoints.save(tmp_path / "b.pt", payload())


def test_a_kill_between_any_two_writes_leaves_a_checkpoint_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rundir.atomic_write
    epochs = []
    for survived in range(4):  # writes that happen before the kill
        path = tmp_path / str(survived) / "last.pt"
        checkpoints.save(path, payload(epoch=1))
        done: list[Path] = []

        def dying(target: Path, data: bytes, done: list[Path] = done, limit: int = survived) -> None:
            if len(done) == limit:
                raise KeyboardInterrupt
            done.append(target)
            write(target, data)

        monkeypatch.setattr(rundir, "atomic_write", dying)
        with suppress(KeyboardInterrupt):
            checkpoints.save(path, payload(epoch=2))
        monkeypatch.setattr(rundir, "atomic_write", write)
        epochs.append(checkpoints.load(path).epoch)
        checkpoints.save(path, payload(epoch=3))  # the next save finds its way from any of these states
        assert checkpoints.load(path).epoch == 3
        assert len((path.parent / "last.pt.sha256").read_text().splitlines()) == 1
    assert epochs == [1, 1, 2, 2]


def test_a_kill_while_a_file_without_hash_is_replaced_leaves_it_loadable(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_sidecar(saved)
    write = rundir.atomic_write

    def dying(target: Path, data: bytes) -> None:
        if target == saved:
            raise KeyboardInterrupt
        write(target, data)

    monkeypatch.setattr(rundir, "atomic_write", dying)
    with suppress(KeyboardInterrupt):
        checkpoints.save(saved, payload(epoch=9))
    assert checkpoints.load(saved).epoch == 3


def test_a_checkpoint_replaced_while_it_is_read_is_not_called_damaged(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def read_then_replace(path: Path) -> bytes:
        data = read(path)
        if path == saved:
            monkeypatch.setattr(Path, "read_bytes", read)
            checkpoints.save(saved, payload(epoch=4))
        return data

    monkeypatch.setattr(Path, "read_bytes", read_then_replace)
    assert checkpoints.load(saved).epoch == 3
    assert checkpoints.load(saved).epoch == 4


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.float64(0.5), "payload['metrics']['a'][1] is a float64, which a checkpoint cannot hold"),
        (Path("x"), "payload['metrics']['a'][1] is a PosixPath, which a checkpoint cannot hold"),
    ],
)
def test_a_value_that_a_safe_load_would_refuse_is_not_saved(tmp_path: Path, value: Any, what: str) -> None:
    with pytest.raises(TypeError) as caught:
        checkpoints.save(tmp_path / "x.pt", payload(metrics={"a": [1, value]}))
    assert str(caught.value) == what
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    mend = "Check the path; a run folder has best.pt and last.pt."
    assert refusal(path) == (f"there is no checkpoint {path}", mend)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path} is a folder, not a checkpoint",
        f"Name the file in it: {tmp_path / 'best.pt'}",
    )


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.touch()
    assert refusal(path) == (f"{path} is empty", FETCH_AGAIN)


def test_a_web_page_saved_as_a_checkpoint_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_text("\n<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>")
    mend = "Open its address in a browser and download the file itself."
    assert refusal(path) == (f"{path} is a web page, not a checkpoint", mend)


def test_some_text_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert refusal(path) == (f"{path} is no checkpoint of plain weights and was not loaded", NOT_PLAIN)


def test_a_truncated_checkpoint_is_refused_and_says_how_to_mend_it(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    mend = f"{FETCH_AGAIN} If it was changed on purpose, delete x.pt.sha256."
    assert refusal(saved) == (f"{saved} does not match x.pt.sha256: it is damaged or was changed", mend)
    assert refusal(without_sidecar(saved)) == (f"{saved} is damaged, or no checkpoint at all", FETCH_AGAIN)


def test_a_checkpoint_with_another_ones_hash_is_refused(saved: Path) -> None:
    (saved.parent / "x.pt.sha256").write_text("0" * 64 + "  x.pt\n")
    what, mend = refusal(saved)
    assert what == f"{saved} does not match x.pt.sha256: it is damaged or was changed"
    assert mend == f"{FETCH_AGAIN} If it was changed on purpose, delete x.pt.sha256."


def test_an_empty_hash_file_vouches_for_nothing(saved: Path) -> None:
    (saved.parent / "x.pt.sha256").write_text("")
    assert refusal(saved)[0] == f"{saved} does not match x.pt.sha256: it is damaged or was changed"


def test_a_flipped_weight_is_found_without_a_hash_file(saved: Path) -> None:
    data = bytearray(without_sidecar(saved).read_bytes())
    weights = payload()["state_dict"]["conv2.weight"].numpy().tobytes()
    data[data.index(weights) + 5] ^= 4
    saved.write_bytes(data)
    what, mend = refusal(saved)
    assert what.startswith(f"{saved} is damaged: archive/data/")
    assert what.endswith(" does not match its check sum")
    assert mend == FETCH_AGAIN


def test_a_thousand_flips_and_truncations_never_give_a_wrong_number(saved: Path) -> None:
    """With the hash all are refused; without it nothing but a refusal or the very same weights comes out."""
    whole, original = saved.read_bytes(), payload()["state_dict"]
    digest = saved.parent / "x.pt.sha256"
    line = digest.read_text()
    draws = np.random.RandomState(0)
    for round_ in range(1000):
        data = bytearray(whole)
        if round_ % 4 == 0:
            del data[draws.randint(len(data)) :]
        else:
            data[draws.randint(len(data))] ^= 1 << draws.randint(8)
        saved.write_bytes(data)
        with pytest.raises(InputError):
            checkpoints.load(saved)
        if round_ % 4 == 1:
            digest.unlink()
            with suppress(InputError, UsageError):
                state = checkpoints.load(saved).state_dict
                assert all(state[key].equal(value) for key, value in original.items())
            digest.write_text(line)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_own_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for name in ("x.pt", "x.safetensors"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(data)
        with pytest.raises(InputError):
            checkpoints.load(path)


def unsafely(path: Path) -> None:
    with suppress(Exception):
        if path.name.startswith("pickle "):
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)


HOSTILE = sorted(corpus(Path("canary")))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # torch's own switch for the unsafe load
    canary, path = tmp_path / "canary", tmp_path / f"{name}.pt"
    path.write_bytes(corpus(canary)[name])
    what, mend = refusal(path)
    assert not canary.exists()
    assert what.startswith(str(path))
    assert what.endswith(("and was not loaded", "is damaged, or no checkpoint at all"))
    assert "\n" not in what + mend
    assert "False" not in mend  # torch's advice to load unsafely is not passed on
    unsafely(path)
    assert canary.exists(), "the file is harmless, so this test shows nothing"


def test_there_are_at_least_25_hostile_files() -> None:
    assert len(HOSTILE) >= 25


def test_code_in_a_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(corpus(tmp_path / "canary")["zip, one weight"])
    assert refusal(path) == (f"{path} holds code or objects (posix.system) and was not loaded", RESAVE)


def test_a_pickle_called_safetensors_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(corpus(tmp_path / "canary")["zip"])
    assert refusal(path) == (f"{path} is damaged, or no checkpoint at all", FETCH_AGAIN)
    assert not (tmp_path / "canary").exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    what = f"{path} holds code or objects (torch.nn.modules.linear.Linear) and was not loaded"
    assert refusal(path) == (what, RESAVE)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert refusal(path) == (f"{path} is no checkpoint of plain weights and was not loaded", NOT_PLAIN)


def test_an_older_awpbench_refuses_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    checkpoints.save(path, payload(format_version=2))
    assert refusal(path) == (f"{path} has checkpoint format 2, newer than 1", "Update awpbench.")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": {**SPEC, "classes": 0}}, "0 is no size"),
        ({"model": {**SPEC, "width": 10**9}}, "1000000000 is no size"),
        ({"model": {**SPEC, "shape": [8, 8]}}, "not enough values to unpack (expected 3, got 2)"),
        ({"model": {**SPEC, "mean": [0.1, 0.2]}}, "[0.1, 0.2] is no normalisation of 1 channels"),
        ({"model": {**SPEC, "std": [float("nan")]}}, "[nan] is no normalisation of 1 channels"),
        ({"model": {**SPEC, "architecture": "vit"}}, "there is no model called 'vit'"),
        ({"model": {}}, "'shape'"),
        ({"threat": None}, "'NoneType' object is not subscriptable"),
        ({"dataset": 3}, "3 is no text"),
        ({"state_dict": [1]}, "'list' object has no attribute 'items'"),
    ],
)
def test_a_checkpoint_that_lacks_or_garbles_a_part_is_refused(
    tmp_path: Path, changes: Mapping[str, Any], why: str
) -> None:
    path = tmp_path / "x.pt"
    checkpoints.save(path, payload(**changes))
    assert refusal(path) == (f"{path} lacks a part of a checkpoint, or has a bad one: {why}", FETCH_AGAIN)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    path, broken = tmp_path / "x.pt", payload()
    broken["state_dict"]["conv2.weight"][0, 0, 1, 1] = bad
    checkpoints.save(path, broken)
    mend = "Take an earlier checkpoint: this training had diverged."
    assert refusal(path) == (f"{path} holds NaN or infinity in conv2.weight", mend)


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (lambda w: w.to_sparse(), "torch.float32, torch.sparse_coo"),
        (lambda w: w.to(torch.complex64), "torch.complex64, torch.strided"),
        (lambda w: w.to("meta"), "torch.float32, torch.strided"),
        (lambda w: w[:1].clone().expand(10**9, -1, -1, -1), "torch.float32, torch.strided"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "torch.qint8, torch.strided"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_weights_in_a_form_that_no_net_uses_are_refused(
    tmp_path: Path, make: Callable[[torch.Tensor], torch.Tensor], form: str
) -> None:
    path, odd = tmp_path / "x.pt", payload()
    odd["state_dict"]["conv1.weight"] = make(odd["state_dict"]["conv1.weight"])
    torch.save(odd | {"format_version": 1}, path)
    assert refusal(path) == (f"{path} holds conv1.weight in a form that no net uses ({form})", RESAVE)


def test_the_wrong_architecture_is_refused_and_the_first_keys_are_named(saved: Path) -> None:
    assert refusal(saved, arch="prn18") == (
        f"{saved} does not hold the weights of PreActResNet-18: missing layer1.0.bn1.weight and 88 more; "
        "unexpected bn1.weight and 18 more; mis-shaped conv1.weight [4, 1, 3, 3] for [64, 1, 3, 3]",
        WRONG_ARCH,
    )


def test_the_wrong_width_is_refused(saved: Path) -> None:
    what, mend = refusal(saved, width=8)
    assert what == (
        f"{saved} does not hold the weights of SmallCNN (width 8): "
        "mis-shaped conv1.weight [4, 1, 3, 3] for [8, 1, 3, 3] and 15 more"
    )
    assert mend == WRONG_ARCH


def test_the_right_architecture_and_width_may_be_given(saved: Path) -> None:
    assert checkpoints.load(saved, arch="small-cnn", width=4).model_spec == checkpoints.load(saved).model_spec


def test_an_unknown_architecture_is_a_usage_error(saved: Path) -> None:
    with pytest.raises(UsageError) as caught:
        checkpoints.load(saved, arch="prn19")
    assert caught.value.what == "there is no model called 'prn19'"


def test_a_checkpoint_for_other_images_is_refused(saved: Path) -> None:
    assert checkpoints.load(saved, dataset="digits").dataset == "digits"
    assert refusal(saved, dataset="mnist") == (
        f"{saved} takes 1x8x8 images of 10 classes, and mnist has 1x28x28 images of 10 classes",
        "Choose another --dataset or checkpoint.",
    )


def test_our_own_checkpoint_needs_no_preprocessing(saved: Path) -> None:
    with pytest.raises(UsageError) as caught:
        checkpoints.load(saved, preprocessing="none")
    assert caught.value.what == f"{saved} says itself how it normalises its input"
    assert caught.value.mend == "Leave --preprocessing out."


def test_a_legacy_file_of_plain_weights_loads(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(payload()["state_dict"], path, _use_new_zipfile_serialization=False)
    assert checkpoints.load(path, dataset="digits").model_spec.width == 4


def test_a_safetensors_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(payload()["state_dict"], path)
    loaded = checkpoints.load(path, dataset="digits")
    assert loaded.foreign
    assert loaded.build().conv1.weight.equal(payload()["state_dict"]["conv1.weight"])


def test_a_file_of_no_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for value in ([1, 2], {}, {"epoch": 3}, {"state_dict": {}}):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        path.write_bytes(buffer.getvalue())
        mend = "Save the state dict: torch.save(model.state_dict(), 'x.pt')."
        assert refusal(path) == (f"{path} holds no weights", mend)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dataset": "imagenet"}, "there is no data set called 'imagenet'"),
        ({"threat": {"norm": "Linf", "eps": "8"}}, "eps is 8, but pixels are in [0, 1]"),
    ],
)
def test_a_checkpoint_that_names_no_possible_data_or_threat_is_refused(
    tmp_path: Path, changes: Mapping[str, Any], why: str
) -> None:
    path = tmp_path / "x.pt"
    checkpoints.save(path, payload(**changes))
    assert refusal(path) == (f"{path} cannot be what it says: {why}", FETCH_AGAIN)


def test_weights_of_whole_numbers_are_refused(tmp_path: Path) -> None:
    path, rounded = tmp_path / "x.pt", payload()
    rounded["state_dict"]["conv2.weight"] = rounded["state_dict"]["conv2.weight"].long()
    checkpoints.save(path, rounded)
    assert "wrongly typed conv2.weight (torch.int64)" in refusal(path)[0]
