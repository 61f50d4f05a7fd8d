"""`awpbench zoo` and `--ckpt zoo:NAME`: publish a net, use it from the zoo, and find whatever was changed since."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awpbench import checkpoints, rundir
from awpbench.cli import main
from awpbench.evaluation.results import Result, digest
from awpbench.leaderboard import store
from awpbench.zoo import cards, checking

TRAIN = [
    "train", "small-cnn", "--dataset", "digits", "--method", "at", "--awp", "--width", "4", "--epochs", "1",
    "--steps", "1", "--train-examples", "200", "--track-steps", "1", "--track-examples", "20",
]  # fmt: skip
EVAL = ["eval", "--suite", "quick", "--n-examples", "50", "--no-audit", "--file", "board.json"]
PUBLISHED = {
    "README.md", "card.json", "config.json", "provenance.json", "metrics.jsonl", "best.safetensors",
    "best.safetensors.sha256", "last.safetensors", "last.safetensors.sha256", "eval/best-quick-v1.0/result.json",
    "eval/best-quick-v1.0/per_image.npz", "eval/last-quick-v1.0/result.json", "eval/last-quick-v1.0/per_image.npz",
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, both of whose checkpoints were evaluated, their rows, and a zoo with it."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AWPBENCH_ZOO", raising=False)
        assert main([*TRAIN, "--out", "runs/net"]) == 0
        for which in ("best", "last"):
            assert main([*EVAL, "--ckpt", f"runs/net/{which}.pt"]) == 0
        assert main(["zoo", "add", "runs/net"]) == 0
    return folder


@pytest.fixture
def here(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWPBENCH_ZOO", raising=False)
    return tmp_path


@pytest.fixture
def told(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Run a command; return its exit code and the lines of both streams."""

    def run(*words: str) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


Told = Callable[..., tuple[int, list[str], list[str]]]
NET = Path("model_zoo/net")


def refusal(told: Told, *words: str) -> tuple[int, str, str]:
    code, out, err = told(*words)
    assert out == []
    what, mend = err[-2:]
    return code, what.removeprefix("error: "), mend.removeprefix("mend:  ")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def result(folder: str | Path) -> dict[str, Any]:
    document = json.loads((Path(folder) / "result.json").read_text())
    assert isinstance(document, dict)
    return document


# Publishing


@pytest.mark.usefixtures("here")
def test_a_published_net_is_its_checkpoints_what_made_them_and_their_results() -> None:
    assert files(NET) == PUBLISHED
    for name in ("config.json", "provenance.json", "metrics.jsonl", "eval/last-quick-v1.0/result.json"):
        assert (NET / name).read_bytes() == Path("runs/net", name).read_bytes()
    digest = rundir.sha256(NET / "best.safetensors")
    assert (NET / "best.safetensors.sha256").read_text() == f"{digest}  best.safetensors\n"


@pytest.mark.usefixtures("here")
def test_a_card_says_what_results_rows_and_the_run_say() -> None:
    card = json.loads((NET / "card.json").read_text())
    assert card["name"] == "net"
    assert card["training"] == json.loads(Path("runs/net/config.json").read_text())
    assert card["provenance"] == json.loads(Path("runs/net/provenance.json").read_text())
    assert card["command"] == card["provenance"]["command"]
    assert card["files"] == {name: rundir.sha256(NET / name) for name in PUBLISHED - {"card.json", "README.md"}}
    rows = {row.awpbench.model: row.document() for row in store.read(Path("board.json")).measured}
    for which in ("best", "last"):
        net = card["checkpoints"][which]
        (label,) = net["evaluations"]
        found = result(f"runs/net/eval/{label}")
        assert net["weights"] == found["hashes"]["weights"]
        evaluation = net["evaluations"][label]
        for attack, measured in found["attacks"].items():
            for key in ("n", "correct", "accuracy", "interval"):
                assert evaluation["accuracies"][attack][key] == measured[key]
        row = rows[f"net/{which}"]
        del row["awpbench"]
        assert evaluation["row"] == row


def test_publishing_twice_gives_the_same_bytes(here: Path, told: Told) -> None:
    assert told("zoo", "add", "runs/net", "--zoo", "other", "--json")[:2] == (
        0,
        json.dumps({"folder": "other/net", "name": "net", "checkpoints": ["best", "last"]}, indent=1).splitlines(),
    )
    for name in PUBLISHED:
        assert (here / "other/net" / name).read_bytes() == (NET / name).read_bytes(), name


def test_the_bibliography_comes_from_a_card_and_reaches_the_rows(here: Path, told: Told) -> None:
    (here / "card.toml").write_text('name = "A paper"\nvenue = "A venue"\nadditional_data = true\n')
    code, out, _ = told("zoo", "add", "runs/net", "--name", "cited", "--card", "card.toml", "--checkpoint", "last")
    assert (code, out) == (0, ["published last as cited in model_zoo/cited"])
    card = cards.read(here / "model_zoo" / "cited")
    row = card.checkpoints["last"].evaluations["last-quick-v1.0"].row
    assert (row["name"], row["venue"], row["additional_data"], row["authors"]) == ("A paper", "A venue", True, "")
    assert not (here / "model_zoo/cited/best.safetensors").exists()
    assert told("zoo", "check", "cited")[0] == 0


def test_only_checkpoints_with_an_evaluation_of_a_suite_are_published(here: Path, told: Told) -> None:
    shutil.rmtree("runs/net/eval/last-quick-v1.0")
    words = ["eval", "--ckpt", "runs/net/last.pt", "--attack", "fgsm", "--n-examples", "20", "--no-audit"]
    assert main(words) == 0
    assert told("zoo", "add", "runs/net", "--name", "half")[1] == ["published best as half in model_zoo/half"]
    assert refusal(told, "zoo", "add", "runs/net", "--name", "last", "--checkpoint", "last") == (
        3,
        "last.pt in runs/net has no finished evaluation with a named suite",
        "Evaluate it first: awpbench eval --ckpt runs/net/last.pt --suite full",
    )
    shutil.rmtree("runs/net/eval")
    assert refusal(told, "zoo", "add", "runs/net", "--name", "none") == (
        3,
        "no checkpoint in runs/net has a finished evaluation with a named suite",
        "Evaluate it first: awpbench eval --ckpt runs/net/best.pt --suite full",
    )
    assert not (here / "model_zoo/none").exists()


def test_a_name_that_is_taken_is_replaced_only_by_force(here: Path, told: Told) -> None:
    (NET / "notes.txt").write_text("mine")
    assert refusal(told, "zoo", "add", "runs/net") == (
        3,
        "model_zoo/net is there already",
        "Replace it with --force, or publish with another --name.",
    )
    assert told("zoo", "add", "runs/net", "--force")[0] == 0
    assert files(NET) == PUBLISHED
    (here / "model_zoo/notes").mkdir()
    assert refusal(told, "zoo", "add", "runs/net", "--name", "notes", "--force") == (
        3,
        "model_zoo/notes is no published net, and --force replaces nothing else",
        "Move it away, or publish with another --name.",
    )
    (here / "model_zoo/link").symlink_to(here / "model_zoo/net")
    assert refusal(told, "zoo", "add", "runs/net", "--name", "link", "--force")[:2] == (
        3,
        "model_zoo/link is a link or a file",
    )


def test_a_run_in_the_zoo_becomes_the_net_in_its_place_by_force_alone(here: Path, told: Told) -> None:
    shutil.rmtree(NET)
    shutil.move("runs/net", NET)
    assert refusal(told, "zoo", "add", str(NET)) == (
        3,
        "model_zoo/net is the run folder itself",
        "--force puts the net in its place and removes what is not published; or publish in another --zoo.",
    )
    assert told("zoo", "add", str(NET), "--force")[0] == 0
    assert files(NET) == PUBLISHED
    assert told("zoo", "check", "--no-clean")[1] == ["net: ok"]


@pytest.mark.parametrize("name", ["../net", "a/b", "/net", ".net", "-net", "a b", "nét"])
def test_a_name_cannot_lead_out_of_the_zoo(told: Told, name: str) -> None:
    assert refusal(told, "zoo", "add", "runs/net", f"--name={name}") == (
        2,
        f"{name!r} is no name of a net",
        "Use letters, digits and . _ + -, a letter or digit first, at most 128: --name NAME",
    )


def test_an_old_result_is_refused_by_name(told: Told) -> None:
    old = Path("runs/net/eval/best-quick-v1.0/result.json")
    document = result(old.parent)
    del document["hashes"]["document"]
    rundir.write_json(old, document)
    assert refusal(told, "zoo", "add", "runs/net", "--name", "old") == (
        4,
        "runs/net/eval/best-quick-v1.0: the result was written before results held a hash of themselves",
        "Evaluate again.",
    )


def edited(change: Callable[[dict[str, Any]], None]) -> None:
    """Change a result and put its own hash right."""
    path = Path("runs/net/eval/best-quick-v1.0/result.json")
    document = result(path.parent)
    change(document)
    document["hashes"]["document"] = digest(document)
    rundir.write_json(path, document)


def test_a_result_that_was_changed_is_not_published(told: Told) -> None:
    path = Path("runs/net/eval/best-quick-v1.0/result.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    code, what, _ = refusal(told, "zoo", "add", "runs/net", "--name", "changed")
    assert (code, what) == (5, "runs/net/eval/best-quick-v1.0: result.json is not as it was written")


def test_a_result_of_another_training_is_not_published(told: Told) -> None:
    edited(lambda document: document["training"].update(seed=7))
    assert refusal(told, "zoo", "add", "runs/net", "--name", "other") == (
        5,
        "runs/net/best.pt is not the net that eval/best-quick-v1.0 is about",
        "Evaluate it again: awpbench eval --ckpt RUN/best.pt --suite full --force",
    )


def test_a_result_of_other_weights_is_not_published(told: Told) -> None:
    raw, _ = checkpoints.read(Path("runs/net/best.pt"))
    raw["state_dict"]["fc.bias"] += 1
    checkpoints.save(Path("runs/net/best.pt"), raw)
    code, what, _ = refusal(told, "zoo", "add", "runs/net", "--name", "other")
    assert (code, what) == (5, "runs/net/best.pt is not the net that eval/best-quick-v1.0 is about")


def test_the_result_of_another_checkpoint_is_not_published(told: Told) -> None:
    shutil.copytree("runs/net/eval/best-quick-v1.0", "runs/net/eval/last-quick-v2.0")
    code, what, _ = refusal(told, "zoo", "add", "runs/net", "--name", "other", "--checkpoint", "last")
    assert (code, what) == (5, "eval/last-quick-v2.0 calls its net net/best, which is not net/last")


def test_a_configuration_that_is_not_the_checkpoints_is_not_published(told: Told) -> None:
    path = Path("runs/net/config.json")
    rundir.write_json(path, {**json.loads(path.read_text()), "seed": 7})
    code, what, _ = refusal(told, "zoo", "add", "runs/net", "--name", "other")
    assert (code, what) == (5, "runs/net/best.pt was trained with another configuration than config.json says")


@pytest.mark.parametrize("name", ["config.json", "provenance.json", "metrics.jsonl", "best.pt"])
def test_a_run_that_lacks_a_file_is_not_published(told: Told, name: str) -> None:
    Path("runs/net", name).unlink()
    code, what, _ = refusal(told, "zoo", "add", "runs/net", "--name", "lacking")
    assert code == 4
    assert f"runs/net/{name}" in what
    assert not Path("model_zoo/lacking").exists()


def test_a_folder_that_is_not_there_is_no_run(told: Told) -> None:
    assert refusal(told, "zoo", "add", "nowhere") == (
        4,
        "there is no run folder nowhere",
        "Name a folder that awpbench train wrote.",
    )


# Using a net of the zoo


def test_a_net_of_the_zoo_is_evaluated_as_the_runs_own(here: Path, told: Told) -> None:
    code, _, err = told(*EVAL, "--ckpt", "zoo:net")
    assert code == 0
    assert err[-1].startswith("superseded the row net-best.quick-v1.0.")  # the one of the run
    ours, theirs = result("results/net-best/quick-v1.0"), result("runs/net/eval/best-quick-v1.0")
    for key in ("model", "training", "tracked", "attacks", "worst_case", "counts"):
        assert ours[key] == theirs[key], key
    for key in ("weights", "data", "indices", "answers", "per_image"):
        assert ours["hashes"][key] == theirs["hashes"][key], key
    assert files(NET) == PUBLISHED  # nothing is written into the zoo


@pytest.mark.parametrize("way", ["flag", "environment", "default"])
def test_the_zoo_is_that_of_the_flag_else_the_environment_else_here(
    told: Told, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way != "default":
        shutil.move("model_zoo", "elsewhere")
    if way == "environment":
        monkeypatch.setenv("AWPBENCH_ZOO", "elsewhere")
    flag = ["--zoo", "elsewhere"] if way == "flag" else []
    code, out, _ = told("inspect", "--ckpt", "zoo:net/last", *flag, "--json")
    found = json.loads("\n".join(out))
    where = "model_zoo" if way == "default" else "elsewhere"
    assert (code, found["file"]) == (0, f"{where}/net/last.safetensors")
    assert found["weights"] == result("runs/net/eval/last-quick-v1.0")["hashes"]["weights"]
    assert found["run"]["evaluations"] == ["best-quick-v1.0", "last-quick-v1.0"]  # one epoch: they are the same


def test_without_a_best_the_only_checkpoint_is_taken(told: Told) -> None:
    assert told("zoo", "add", "runs/net", "--name", "only", "--checkpoint", "last")[0] == 0
    assert json.loads("\n".join(told("inspect", "--ckpt", "zoo:only", "--json")[1]))["file"].endswith(
        "only/last.safetensors"
    )


@pytest.mark.parametrize(
    ("words", "code", "what", "mend"),
    [
        (
            ["--ckpt", "zoo:nets"],
            2,
            "there is no net in the model zoo called 'nets'",
            "Did you mean 'net'? Known: net.",
        ),
        (
            ["--ckpt", "zoo:net/lst"],
            2,
            "there is no checkpoint of zoo:net called 'lst'",
            "Did you mean 'last'? Known: best, last.",
        ),
        (["--ckpt", "zoo:../runs/net"], 2, "there is no net in the model zoo called '..'", "Known: net."),
        (
            ["--ckpt", "zoo:net", "--zoo", "nowhere"],
            2,
            "there is no net in nowhere",
            "Publish one with: awpbench zoo add RUN, or name another zoo with --zoo or AWPBENCH_ZOO.",
        ),
        (
            ["--ckpt", "runs/net/best.pt", "--zoo", "model_zoo"],
            2,
            "--zoo says where zoo:NAME lies, and no such net is named",
            "Leave it out, or name one.",
        ),
    ],
)
def test_a_net_that_is_not_there_is_answered_with_the_nearest(
    told: Told, words: list[str], code: int, what: str, mend: str
) -> None:
    assert refusal(told, "eval", *words, "--suite", "quick") == (code, what, mend)


def test_a_file_that_is_not_the_published_one_is_not_used(told: Told) -> None:
    shutil.copy(NET / "last.safetensors", NET / "best.safetensors")  # the hash beside it put right, too
    (NET / "best.safetensors.sha256").write_text(f"{rundir.sha256(NET / 'best.safetensors')}  best.safetensors\n")
    assert refusal(told, "eval", "--ckpt", "zoo:net", "--suite", "quick") == (
        4,
        "model_zoo/net/best.safetensors is not the file that model_zoo/net/card.json names: it is damaged or was "
        "changed",
        "Restore it from version control, or copy it again.",
    )
    (NET / "best.safetensors").unlink()
    assert refusal(told, "eval", "--ckpt", "zoo:net", "--suite", "quick")[:2] == (
        4,
        "there is no file model_zoo/net/best.safetensors",
    )


def test_every_command_that_takes_a_checkpoint_takes_one_of_the_zoo(told: Told) -> None:
    words = ["data", "pseudolabel", "--ckpt", "zoo:net", "--images", "digits", "--out", "labels.npz"]
    assert told(*words)[0] == 0
    warm = [*TRAIN, "--init-from", "zoo:net/last", "--out", "runs/warm"]
    assert told(*warm)[0] == 0
    config = json.loads(Path("runs/warm/config.json").read_text())
    assert config["init_from"] == "model_zoo/net/last.safetensors"
    assert config["init_weights"] == result("runs/net/eval/last-quick-v1.0")["hashes"]["weights"]
    kept = ["eval", "--ckpt", "zoo:net", "--attack", "fgsm", "--n-examples", "20", "--no-audit", "--evidence"]
    assert told(*kept, "--out", "kept")[0] == 0
    assert told("verify", "kept", "--ckpt", "zoo:net")[0] == 0


# List


def test_the_list_has_a_line_for_every_evaluation(told: Told) -> None:
    code, out, _ = told("zoo", "list")
    assert code == 0
    heads = ("name", "checkpoint", "suite", "architecture", "data set", "threat", "defense", "AWP")
    assert out[0].split() == " ".join([*heads, "clean", "ranked by", "accuracy"]).split()
    assert [line.split()[:2] for line in out[2:]] == [["net", "best"], ["net", "last"]]
    scores = result("runs/net/eval/best-quick-v1.0")["attacks"]
    texts = [
        f"{100 * scores[attack]['correct'] / 50:.2f} [{100 * scores[attack]['interval'][0]:.2f}, "
        f"{100 * scores[attack]['interval'][1]:.2f}] n=50"
        for attack in ("clean", "pgd-20")
    ]
    told_of = ["net", "best", "quick 1.0", "small-cnn (width 4)", "digits", "Linf 0.15", "at", "0.01"]
    assert out[2].split() == " ".join([*told_of, texts[0], "pgd-20", texts[1]]).split()
    document = json.loads("\n".join(told("zoo", "list", "--json")[1]))
    assert [line["checkpoint"] for line in document["nets"]] == ["best", "last"]
    first = document["nets"][0]
    assert (first["ranked_by"], first["clean"]["correct"]) == ("pgd-20", scores["clean"]["correct"])


def test_an_empty_zoo_is_said_to_be_empty(told: Told) -> None:
    assert told("zoo", "list", "--zoo", "nowhere") == (
        0,
        [],
        ["there is no net in nowhere yet: awpbench zoo add RUN publishes one"],
    )


def test_a_broken_card_hides_no_other_net_from_the_list(told: Told) -> None:
    for name in ("damaged", "later"):
        shutil.copytree(NET, f"model_zoo/{name}")
    Path("model_zoo/damaged/card.json").write_text("[]")
    newer(Path("model_zoo/later"))
    code, out, err = told("zoo", "list")
    assert (code, [line.split()[:2] for line in out[2:]]) == (4, [["net", "best"], ["net", "last"]])
    assert err == [
        "model_zoo/damaged/card.json holds no JSON object: Restore it from version control, or publish the net again: "
        "awpbench zoo add RUN --force",
        "model_zoo/later/card.json has schema version 2; this awpbench reads 1: Update awpbench.",
        "error: not listed, for their cards cannot be read: damaged, later",
        "mend:  See the lines above, one for each card.",
    ]
    code, out, _ = told("zoo", "list", "--json")
    assert (code, [line["name"] for line in json.loads("\n".join(out))["nets"]]) == (4, ["net", "net"])


# Check


def test_a_check_measures_the_clean_accuracies_again(told: Told) -> None:
    correct = result("runs/net/eval/best-quick-v1.0")["attacks"]["clean"]["correct"]
    percent = f"{2 * correct:.2f} %"
    assert told("zoo", "check")[:2] == (
        0,
        ["net: ok"]
        + [
            f"  {which}-quick-v1.0: clean accuracy {percent} ({correct} of 50 images), on the card {percent}"
            for which in ("best", "last")
        ],
    )
    document = json.loads("\n".join(told("zoo", "check", "net", "--json")[1]))
    (found,) = document["nets"]
    assert found["findings"] == []
    assert found["clean"][0] == {"evaluation": "best-quick-v1.0", "n": 50, "claimed": correct, "found": correct}


@pytest.mark.parametrize(
    ("n", "off", "holds"), [(10_000, 5, True), (10_000, 6, False), (1999, 1, False), (50, 0, True)]
)
def test_the_clean_accuracy_may_differ_by_a_twentieth_of_a_point(n: int, off: int, holds: bool) -> None:
    assert checking.Clean("best-full-v1.0", n, 30, 30 + off).holds is holds
    assert checking.Clean("best-full-v1.0", n, 30 + off, 30).holds is holds


def test_a_clean_accuracy_that_is_not_met_is_a_finding(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    from awpbench.evaluation import verify

    monkeypatch.setattr(verify, "misclassified", lambda logits, labels: labels < 0)  # everything is right
    code, out, err = told("zoo", "check")
    correct = result("runs/net/eval/best-quick-v1.0")["attacks"]["clean"]["correct"]
    assert (code, out[0]) == (5, "net: not what its card says")
    assert out[1] == (f"- best-quick-v1.0: clean accuracy 100.00 % (50 of 50 images), on the card {2 * correct:.2f} %")
    assert err[-2] == "error: 2 findings in model_zoo: net"
    assert told("zoo", "check", "--no-clean")[0] == 0


def test_another_test_set_is_a_finding(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    from awpbench import data

    load = data.load_test
    monkeypatch.setattr(data, "load_test", lambda name, **options: load(name, **options).first(60))
    code, out, _ = told("zoo", "check")
    assert code == 5
    assert out[1] == "- eval/best-quick-v1.0: the test set is not the one that was evaluated"


@pytest.mark.parametrize("name", sorted(PUBLISHED - {"card.json"}))
def test_a_missing_file_is_named(told: Told, name: str) -> None:
    (NET / name).unlink()
    code, out, err = told("zoo", "check")
    assert (code, out[1:]) == (4, [f"- {name} is missing"])
    assert err[-2:] == [
        "error: 1 findings in model_zoo: net",
        "mend:  Restore the files from version control, or publish from the run: awpbench zoo add RUN --force",
    ]


def test_a_missing_card_is_found_beside_a_net_that_has_its_own(told: Told) -> None:
    shutil.copytree(NET, "model_zoo/cardless")
    Path("model_zoo/cardless/card.json").unlink()
    code, out, err = told("zoo", "check", "--no-clean")
    assert (code, out) == (4, ["cardless: not what its card says", "- card.json is missing", "net: ok"])
    assert err[-2] == "error: 1 findings in model_zoo: cardless"


@pytest.mark.parametrize(
    "part", ["best.safetensors", "last.safetensors.sha256", "config.json", "metrics.jsonl", "eval"]
)
def test_a_folder_with_anything_of_a_net_lacks_its_card(told: Told, part: str) -> None:
    Path("model_zoo/left").mkdir()
    shutil.move(NET / part, Path("model_zoo/left", part))
    code, out, _ = told("zoo", "check", "left", "--no-clean")
    assert (code, out) == (4, ["left: not what its card says", "- card.json is missing"])


def test_other_folders_of_a_zoo_are_no_nets(told: Told) -> None:
    for name in ("docs", ".hidden"):
        Path("model_zoo", name).mkdir()
    Path("model_zoo/docs/README.md").write_text("x")
    Path("model_zoo/.hidden/config.json").write_text("{}")
    assert told("zoo", "check", "--no-clean")[:2] == (0, ["net: ok"])
    shutil.rmtree(NET)
    assert refusal(told, "zoo", "check")[:2] == (2, "there is no net in model_zoo")


def test_files_and_links_that_do_not_belong_are_findings(told: Told, here: Path) -> None:
    (NET / "notes.txt").write_text("x")
    target = here / "config.json"
    shutil.move(NET / "config.json", target)
    (NET / "config.json").symlink_to(target)
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, out[1:3]) == (5, ["- config.json is a link", "- notes.txt is not on the card"])


def newer(net: Path) -> None:
    text = (net / "card.json").read_text()
    (net / "card.json").write_text(text.replace('"schema_version": 1', '"schema_version": 2'))


def test_a_card_of_a_newer_schema_is_refused_and_the_other_nets_are_checked(told: Told) -> None:
    shutil.copytree(NET, "model_zoo/later")
    newer(Path("model_zoo/later"))
    code, out, err = told("zoo", "check", "--no-clean")
    finding = "- model_zoo/later/card.json has schema version 2; this awpbench reads 1"
    assert (code, out) == (4, ["later: refused, update awpbench", finding, "net: ok"])
    assert err[-2:] == ["error: 1 findings in model_zoo: later", "mend:  Update awpbench."]
    (NET / "config.json").unlink()
    assert told("zoo", "check", "--no-clean")[0] == 4
    (NET / "config.json").write_text("{}")
    assert told("zoo", "check", "--no-clean")[0] == 5


def test_a_net_that_is_a_link_is_a_finding(told: Told, here: Path) -> None:
    shutil.move(NET, here / "elsewhere")
    NET.symlink_to(here / "elsewhere")
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, out) == (5, ["net: not what its card says", "- the folder is a link"])


def test_empty_folders_pipes_and_links_to_folders_are_findings(told: Told, here: Path) -> None:
    (NET / "empty/inner").mkdir(parents=True)
    os.mkfifo(NET / "eval/pipe")
    (NET / "link").symlink_to(here / "runs")
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, out[1:]) == (
        5,
        ["- empty/inner is an empty folder", "- eval/pipe is no plain file", "- link is a link"],
    )


@pytest.mark.parametrize(
    ("name", "lines"), [("README.md", 2), ("eval/best-quick-v1.0/result.json", 2), ("card.json", 1)]
)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(told: Told, name: str, lines: int) -> None:
    (NET / name).unlink()
    os.mkfifo(NET / name)
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, len(out[1:])) == (5, lines)
    assert out[1].endswith(f"{name} is no plain file")


def test_a_pipe_where_a_result_would_be_is_not_waited_for(told: Told) -> None:
    (NET / "eval/best-more-v1.0").mkdir()
    os.mkfifo(NET / "eval/best-more-v1.0/result.json")
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, out[1:]) == (5, ["- eval/best-more-v1.0/result.json is no plain file"])


def test_of_an_emptied_folder_only_the_files_are_missing(told: Told) -> None:
    for path in (NET / "eval/best-quick-v1.0").iterdir():
        path.unlink()
    code, out, _ = told("zoo", "check", "--no-clean")
    missing = [f"- eval/best-quick-v1.0/{name} is missing" for name in ("per_image.npz", "result.json")]
    assert (code, out[1:]) == (4, missing)


def test_a_renamed_net_is_a_finding(told: Told) -> None:
    shutil.move(NET, "model_zoo/better")
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, out[1:]) == (5, ["- card.json: name is 'net', but the files make it 'better'"])


def test_a_key_with_nothing_under_it_counts_too(told: Told) -> None:
    path = NET / "card.json"
    path.write_text(path.read_text().replace('"init_from": null', '"init_grom": null'))
    assert told("zoo", "check", "--no-clean")[1][1:] == [
        "- card.json: training.init_grom is None, but the files make it absent",
        "- card.json: training.init_from is absent, but the files make it None",
    ]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"ranked_by": "pgd-20"', '"ranked_by": "pgd-21"', "the accuracy under pgd-21 is missing"),
        ('"eps": "0.15"', '"epz": "0.15"', "Field required"),
    ],
)
def test_a_card_that_lacks_what_is_listed_cannot_be_read(told: Told, old: str, new: str, why: str) -> None:
    path = NET / "card.json"
    path.write_text(path.read_text().replace(old, new))
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, out[1].endswith(why), len(out)) == (5, True, 2)
    assert refusal(told, "zoo", "list")[0] == 4


def test_a_number_edited_everywhere_but_in_the_evidence_is_a_finding(told: Told) -> None:
    """Card and README agree with one another, and not with the result."""
    document = json.loads((NET / "card.json").read_text())
    score = document["checkpoints"]["best"]["evaluations"]["best-quick-v1.0"]["accuracies"]["pgd-20"]
    before = score["correct"]
    score.update(correct=40, accuracy=0.8, interval=[0.669629, 0.887562])
    card = cards.ModelCard.model_validate_json(json.dumps(document))
    for name, data in cards.written(card).items():
        (NET / name).write_bytes(data)
    code, out, _ = told("zoo", "check", "--no-clean")
    where = "checkpoints.best.evaluations.best-quick-v1.0.accuracies.pgd-20.correct"
    assert code == 5
    assert f"- card.json: {where} is 40, but the files make it {before}" in out


def test_a_flipped_bit_in_any_file_is_found(evaluated: Path, tmp_path: Path) -> None:
    net = tmp_path / "net"
    shutil.copytree(evaluated / "model_zoo/net", net)
    assert checking.files(net) == []

    @settings(max_examples=15, deadline=None)
    @given(st.sampled_from(sorted(PUBLISHED)), st.integers(0, 2**30), st.integers(0, 7))
    def flipped(name: str, place: int, bit: int) -> None:
        path = net / name
        data = path.read_bytes()
        changed = bytearray(data)
        changed[place % len(data)] ^= 1 << bit
        path.write_bytes(changed)
        try:
            assert checking.files(net) != []
        finally:
            path.write_bytes(data)

    flipped()


def leaves(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path of every plain value in a document of JSON."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*where, key))
    else:
        yield where


def another(value: Any) -> Any:
    if isinstance(value, bool | None):
        return not value
    return value + ("x" if isinstance(value, str) else 1)


def test_a_card_in_another_form_is_a_finding(told: Told) -> None:
    document = json.loads((NET / "card.json").read_text())
    (NET / "card.json").write_text(json.dumps(document))
    code, out, _ = told("zoo", "check", "--no-clean")
    assert (code, out[1:]) == (5, ["- card.json is not as awpbench writes it"])


def test_any_value_of_a_card_that_is_changed_is_found(evaluated: Path, tmp_path: Path) -> None:
    net = tmp_path / "net"
    shutil.copytree(evaluated / "model_zoo/net", net)
    text = (net / "card.json").read_text()

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(list(leaves(json.loads(text)))))
    def changed(where: tuple[Any, ...]) -> None:
        document = json.loads(text)
        parent = document
        for key in where[:-1]:
            parent = parent[key]
        value = parent[where[-1]]
        parent[where[-1]] = another(value)
        (net / "card.json").write_text(json.dumps(document, indent=1) + "\n")
        assert checking.files(net) != [], where

    changed()
    (net / "card.json").write_text(text)
    assert Result.read(net / "eval/best-quick-v1.0").contradiction() is None
