"""Published nets: the file that describes itself, the folder that is there as a whole or not at all, and the card."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from awpbench import checkpoints, rundir
from awpbench.errors import InputError, RefusedError, UsageError
from awpbench.evaluation.subject import from_checkpoint
from awpbench.zoo import cards, placing
from awpbench.zoo.cards import ModelCard
from tests.test_checkpoints import FETCH_AGAIN, payload, refusal

CONFIG = {"dataset": "digits", "lr": 0.1, "eps": "0.15", "beta": None}
TENSORS = payload()["state_dict"]
TOLD = {
    "format_version": 1,
    "name": "run/best",
    "model": payload()["model"],
    "dataset": "digits",
    "threat": {"norm": "Linf", "eps": "0.15"},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A last.pt with an optimiser and averaged weights, which only resuming needs."""
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    extra = {"optimizer": optimizer, "progress": {"n": 7}, "averaged": payload(seed=1)["state_dict"]}
    checkpoints.save(tmp_path / "last.pt", payload(config=CONFIG, processes=2) | extra)
    return tmp_path / "last.pt"


def test_a_published_checkpoint_is_the_one_that_was_saved_without_what_resuming_needs(
    saved: Path, tmp_path: Path
) -> None:
    before = checkpoints.load(saved)
    path = tmp_path / "x.safetensors"
    path.write_bytes(checkpoints.publishable(before, "run/last"))
    after = checkpoints.load(path)
    same = ("foreign", "model_spec", "dataset", "threat_norm", "threat_eps", "config", "epoch", "step", "best")
    for field in (*same, "metrics", "processes"):
        assert getattr(after, field) == getattr(before, field), field
    assert (after.foreign, after.name, before.name) == (False, "run/last", None)
    assert (after.optimizer, after.progress, after.averaged) == (None, None, None)
    assert checkpoints.of_weights(after.build()) == checkpoints.of_weights(before.build())
    assert {key: value.dtype for key, value in after.state_dict.items()} == {
        key: value.dtype for key, value in before.state_dict.items()
    }


def test_equal_checkpoints_are_published_as_equal_bytes_with_one_key_of_metadata(saved: Path) -> None:
    data = [checkpoints.publishable(checkpoints.load(saved), "run/last") for _ in range(2)]
    assert data[0] == data[1]
    header = json.loads(data[0][8 : 8 + int.from_bytes(data[0][:8], "little")])
    assert list(header["__metadata__"]) == ["awpbench"]  # of several, safetensors would draw the order


def test_a_published_last_is_not_called_best_wherever_it_lies(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "x.safetensors"
    rundir.atomic_write(path, checkpoints.publishable(checkpoints.load(saved), "run/last"))
    found = from_checkpoint(path, arch=None, width=None, dataset=None, preprocessing=None)
    assert found.description["name"] == "run/last"
    assert (found.folder, found.prefix) == (Path("results/run-last"), "")
    assert found.training == CONFIG


def test_metrics_that_json_cannot_hold_are_not_published(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "x.pt", payload(metrics={"loss": float("nan")}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoints.publishable(checkpoints.load(tmp_path / "x.pt"), "run/best")


def with_metadata(path: Path, told: Any) -> Path:
    text = told if isinstance(told, str) else json.dumps(told)
    path.write_bytes(safetensors.torch.save(TENSORS, {"awpbench": text}))
    return path


@pytest.mark.parametrize(
    "told",
    ["no JSON", "[]", '"text"', "3", "null", "[" * 100_000, json.dumps({**TOLD, "metrics": {"loss": float("nan")}})],
    ids=["no JSON", "a list", "a text", "a number", "null", "deep", "NaN"],
)
def test_metadata_that_describe_nothing_are_refused(tmp_path: Path, told: str) -> None:
    path = with_metadata(tmp_path / "x.safetensors", told)
    assert refusal(path) == (f"{path} is damaged, or no checkpoint at all", FETCH_AGAIN)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "a\x1b[31m"}, r"'a\x1b[31m' is no name"),
        ({"name": ""}, "'' is no name"),
        ({"name": 3}, "3 is no text"),
        ({"model": None}, "'NoneType' object is not subscriptable"),
        ({"threat": {"norm": "Linf"}}, "'eps'"),
    ],
)
def test_metadata_with_a_bad_part_are_refused(tmp_path: Path, changes: Mapping[str, Any], why: str) -> None:
    path = with_metadata(tmp_path / "x.safetensors", {**TOLD, **changes})
    assert refusal(path) == (f"{path} lacks a part of a checkpoint, or has a bad one: {why}", FETCH_AGAIN)


def test_metadata_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "x.safetensors", {**TOLD, "format_version": 2})
    assert refusal(path) == (f"{path} has checkpoint format 2, newer than 1", "Update awpbench.")


def test_metadata_cannot_bring_an_optimiser_or_other_weights(tmp_path: Path) -> None:
    smuggled = {"optimizer": {"a": 1}, "averaged": "x", "state_dict": {}}
    found = checkpoints.load(with_metadata(tmp_path / "x.safetensors", {**TOLD, **smuggled}))
    assert (found.optimizer, found.averaged, found.state_dict.keys()) == (None, None, TENSORS.keys())


# The folder

OLD = {"a": b"old", "eval/one/b": b"old"}
NEW = {"a": b"new", "eval/two/b": b"new", "c": b"new"}
ALL_NEW = {**NEW, "card": b"made of 3 files"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(target: Path) -> None:
    with placing.locked(target):
        placing.place(target, NEW, lambda new: {"card": f"made of {len(contents(new))} files".encode()})


def make(target: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        rundir.atomic_write(target / name, data)


def killed_at(target: Path, event: int) -> bool:
    """Put the folder in its place in a process that dies at the so-manieth thing it does to files; say if it died."""
    child = os.fork()
    if child == 0:
        left = iter(range(event))

        def hook(name: str, _: tuple[Any, ...]) -> None:
            if name in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and next(left, None) is None:
                os._exit(9)

        sys.addaudithook(hook)
        put(target)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("before", [{}, OLD], ids=["new", "replaced"])
def test_a_kill_at_any_moment_leaves_no_half_of_a_net_under_its_name(tmp_path: Path, before: dict[str, bytes]) -> None:
    event, seen = 0, []
    while True:
        target = tmp_path / str(event) / "net"
        make(target, before)
        died = killed_at(target, event)
        seen.append(contents(target) if target.exists() else None)
        with placing.locked(target):  # the next one to write puts back what was there
            assert contents(target) in ((before, ALL_NEW) if target.exists() else ({},))
            assert target.exists() or not before
        put(target)
        assert contents(target) == ALL_NEW
        assert [path.name for path in target.parent.iterdir() if path != target] in ([], [".net.lock"])
        if not died:
            break
        event += 1
    assert event > 10  # moments
    assert all(found in (None, before, ALL_NEW) for found in seen)
    assert seen.count(None) == (1 if before else seen.index(ALL_NEW))  # replaced: between two renames alone


def test_what_completes_a_folder_may_refuse_it_and_everything_stays(tmp_path: Path) -> None:
    make(tmp_path / "net", OLD)

    def refuse(new: Path) -> Mapping[str, bytes]:
        assert contents(new) == NEW
        raise InputError("no", "mend")

    with placing.locked(tmp_path / "net"), pytest.raises(InputError, match="no"):
        placing.place(tmp_path / "net", NEW, refuse)
    assert contents(tmp_path / "net") == OLD
    assert {path.name for path in tmp_path.iterdir()} <= {"net", ".net.lock"}


def test_two_do_not_publish_under_one_name_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "LOCK_SECONDS", 0.05)
    with FileLock(tmp_path / ".net.lock"), pytest.raises(RefusedError) as caught:
        put(tmp_path / "net")
    what = f"another process has been publishing {tmp_path / 'net'} for 0.05 s"
    assert (caught.value.what, caught.value.mend) == (what, "Wait until it ends, then give the command again.")


# Names, and the card


@given(st.text(max_size=8) | st.sampled_from(["..", ".", "a/b", "../a", "/a", "a\n", "", "-a", ".a", "a" * 129, "é"]))
def test_a_name_lies_directly_in_the_zoo_or_is_refused(name: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) and len(name) <= 128:
        assert cards.check_name(name) == name
        assert Path(os.path.normpath(Path("/zoo") / name)).parent == Path("/zoo")
        return
    with pytest.raises(UsageError) as caught:
        cards.check_name(name)
    assert caught.value.what == f"{name!r} is no name of a net"


HOSTILE = "<script>alert(1)</script>\n\n# not mine\n```\n[x](javascript:x) | a \x1b[31m \u202e\u2028 ![i](x)"


def crafted(**changes: Any) -> ModelCard:
    scores = {"n": 50, "correct": 25, "accuracy": 0.5, "interval": [0.3664, 0.6336]}
    beside = {"nan_logits": 0, "definition": {}, "complete": True, "parts": {}}
    evaluation = {
        **{"row": {}, "suite": "quick", "suite_version": "1.0", "dataset": "digits", "norm": "Linf", "eps": "0.15"},
        **{"dialect": "awp", "partial": True, "verdict": "reliable", "ranked_by": "clean", "worst_case": None},
        "accuracies": {"clean": {**scores, **beside}},
    }
    net = {
        **{"weights": "0" * 64, "model": "run/best", "architecture": "small-cnn", "width": 4, "epoch": 1},
        **{"defense": "at", "awp": {"gamma": 0.01, "warmup": 8}, "evaluations": {"best-quick-v1.0": evaluation}},
    }
    values = {
        **{"schema_version": 1, "name": "net", "bibliography": {}, "checkpoints": {"best": net}, "files": {}},
        **{
            "command": "awpbench train small-cnn",
            "training": {"norm": "Linf", "eps": "0.15", "seed": 0},
            "provenance": {},
        },
    }
    return ModelCard.model_validate_json(json.dumps({**values, **changes}))


def test_the_readme_says_what_the_card_says() -> None:
    assert cards.written(crafted(bibliography={"name": "A paper", "link": "https://x.org"}))["README.md"].decode() == (
        "# net\n\n"
        "Made by `awpbench zoo add` from the files in this folder; nothing in it is typed. Check it with "
        "`awpbench zoo check net`.\n\n"
        "    architecture     small-cnn (width 4)\n"
        "    data set         digits\n"
        "    defense          at\n"
        "    AWP              0.01 after 8 epochs\n"
        "    trained against  Linf 0.15\n"
        "    seed             0\n\n"
        "It follows\n\n"
        "    paper  A paper\n"
        "    link   https://x.org\n\n"
        "Trained with\n\n"
        "    awpbench train small-cnn\n\n"
        "Accuracy in percent, its 95 % Wilson interval, and n, the number of images:\n\n"
        "    checkpoint    suite      attack    accuracy\n"
        "    ------------  ---------  --------  -------------------------\n"
        "    best          quick 1.0  clean     50.00 [36.64, 63.36] n=50\n\n"
        "Use it:\n\n"
        "    awpbench eval --ckpt zoo:net/best --suite quick\n"
    )


def test_hostile_text_in_a_card_stays_text_in_the_readme() -> None:
    bibliography = {"name": HOSTILE, "authors": HOSTILE, "venue": HOSTILE}
    text = cards.written(crafted(command=HOSTILE, bibliography=bibliography))["README.md"].decode()
    own = [line for line in text.splitlines() if line and not line.startswith("    ")]
    assert own == [
        "# net",
        "Made by `awpbench zoo add` from the files in this folder; nothing in it is typed. Check it with "
        "`awpbench zoo check net`.",
        "It follows",
        "Trained with",
        "Accuracy in percent, its 95 % Wilson interval, and n, the number of images:",
        "Use it:",
    ]
    assert not set("\x1b\u202e\u2028") & set(text)
    assert text.count("<script>") == 4


def test_a_suspicious_evaluation_says_so() -> None:
    card = crafted()
    suspicious = card.checkpoints["best"].evaluations["best-quick-v1.0"].model_copy(update={"verdict": "suspicious"})
    net = card.checkpoints["best"].model_copy(update={"evaluations": {"best-quick-v1.0": suspicious}})
    changed = card.model_copy(update={"checkpoints": {"best": net}})
    assert "best (suspicious)  quick 1.0" in cards.written(changed)["README.md"].decode()
    assert [line["checkpoint"] for line in cards.listed(changed)] == ["best (suspicious)"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"schema_version": 2}', "{} has schema version 2; this awpbench reads 1"),
        ('{"schema_version": 1}', "{} does not fit: name: Field required"),
        ("[]", "{} holds no JSON object"),
        ("{", "{} is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(InputError) as caught:
        cards.read(tmp_path)
    assert caught.value.what == what.format(tmp_path / "card.json")
