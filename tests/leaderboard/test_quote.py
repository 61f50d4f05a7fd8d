from __future__ import annotations

import time
from pathlib import Path

import pytest

from awpbench.errors import InputError
from awpbench.leaderboard.quote import quoted

MEND = "docs/leaderboard.md shows such a file, under: Quote a paper."
AWP = """
source = "https://arxiv.org/abs/2004.05884"
model = "AT-AWP (PreAct ResNet-18)"
dataset = "cifar10"
threat = "Linf"
eps = "8/255"
architecture = "PreActResNet-18"
clean_acc = 82
robust_acc = "55.394 %"
attack = "PGD-20"
"""


def write(folder: Path, text: str = AWP, **changes: str) -> Path:
    """Write a quotation; `changes` are TOML values, `""` leaves the key out."""
    lines = [line for line in text.strip().splitlines() if line.split(" = ")[0] not in changes]
    path = folder / "quote.toml"
    path.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in changes.items() if value)]))
    return path


def test_a_quotation_becomes_a_reported_row_in_robustbenchs_keys(tmp_path: Path) -> None:
    row = quoted(write(tmp_path))
    assert list(row.keys.items()) == [
        ("link", "https://arxiv.org/abs/2004.05884"),
        ("name", ""),
        ("authors", ""),
        ("additional_data", None),
        ("number_forward_passes", None),
        ("dataset", "cifar10"),
        ("venue", ""),
        ("architecture", "PreActResNet-18"),
        ("eps", "8/255"),
        ("clean_acc", "82.00"),
        ("reported", "55.39"),
    ]
    own = row.awpbench
    assert (own.kind, own.model, own.dataset, own.threat, own.eps) == (
        "reported", "AT-AWP (PreAct ResNet-18)", "cifar10", "Linf", "8/255",
    )  # fmt: skip
    assert own.source.model_dump() == {
        "kind": "paper",
        "reference": "https://arxiv.org/abs/2004.05884",
        "attack": "PGD-20",
    }
    assert own.id.startswith("paper.cifar10.Linf.AT-AWP-PreAct-ResNet-18-.")


def test_the_example_in_the_documentation_is_a_quotation(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "leaderboard.md").read_text()
    example = page.split("## Quote a paper")[1].split("```toml\n")[1].split("```")[0]
    row = quoted(write(tmp_path, example))
    assert (row.awpbench.model, row.keys["clean_acc"], row.keys["autoattack_acc"]) == ("AT-AWP", "85.57", "54.04")


@pytest.mark.parametrize("attack", ["AutoAttack", "auto-attack", "AA"])
def test_autoattack_is_what_robustbench_ranks_by(tmp_path: Path, attack: str) -> None:
    keys = quoted(write(tmp_path, attack=f'"{attack}"', footnote='"mean of 3"')).keys
    assert (keys["reported"], keys["autoattack_acc"], keys["footnote"]) == ("55.39", "55.39", "mean of 3")


def test_corruptions_need_no_budget(tmp_path: Path) -> None:
    row = quoted(write(tmp_path, threat='"corruptions"', eps=""))
    assert (row.awpbench.eps, row.keys["corruptions_acc"]) == (None, "55.39")


def test_a_citation_is_no_link(tmp_path: Path) -> None:
    assert quoted(write(tmp_path, source='"Wu et al. (2020), Table 2"')).keys["link"] == ""


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ('"0"', "0.00"),
        ("0.005", "0.01"),
        ('"100.00%"', "100.00"),
        ("56.1", "56.10"),
        ("56", "56.00"),
        ('"9.994"', "9.99"),
    ],
)
def test_numbers_get_two_decimals(tmp_path: Path, written: str, normalised: str) -> None:
    assert quoted(write(tmp_path, robust_acc=written)).keys["reported"] == normalised


def test_a_correction_has_the_same_id_and_another_attack_another(tmp_path: Path) -> None:
    first = quoted(write(tmp_path)).awpbench.id
    assert quoted(write(tmp_path, robust_acc="55.4", clean_acc="81.0")).awpbench.id == first
    for changes in (
        {"attack": '"CW"'},
        {"eps": '"0.031"'},
        {"source": '"x"'},
        {"model": '"AT-AWP  (PreAct ResNet-18)"'},
    ):
        assert quoted(write(tmp_path, **changes)).awpbench.id != first


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"robust_acc": "100.01"}, "robust_acc: Value error, '100.01' is no percentage from 0 to 100"),
        ({"robust_acc": "-0.1"}, "robust_acc: Value error, '-0.1' is no percentage from 0 to 100"),
        ({"robust_acc": "true"}, "robust_acc: Value error, 'True' is no percentage from 0 to 100"),
        ({"robust_acc": '"1e1"'}, "robust_acc: Value error, '1e1' is no percentage from 0 to 100"),
        ({"robust_acc": '"\u0665\u0665"'}, "robust_acc: Value error, '\u0665\u0665' is no percentage from 0 to 100"),
        ({"robust_acc": "[55]"}, "robust_acc: Value error, '[55]' is no percentage from 0 to 100"),
        ({"clean_acc": "0.82"}, "Value error, clean_acc 0.82 is a fraction, not a percentage"),
        ({"eps": ""}, "Value error, eps is missing, and Linf has one"),
        ({"eps": '"<script>"'}, "eps: Value error, '<script>' is not a number"),
        ({"eps": "-0.1"}, "eps: Value error, '-0.1' is negative"),
        ({"source": ""}, "source: Field required"),
        ({"attack": ""}, "attack: Field required"),
        ({"architecture": ""}, "architecture: Field required"),
        ({"source": '""'}, "source: String should have at least 1 character"),
        ({"threat": '"L1"'}, "threat: Input should be 'Linf', 'L2' or 'corruptions'"),
        ({"link": '"javascript:alert(1)"'}, "link: Value error, 'javascript:alert(1)' is no http(s) address"),
        ({"autoattack_acc": "5"}, "autoattack_acc: Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, str], what: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        quoted(path)
    assert (caught.value.what, caught.value.mend) == (f"{path} does not fit: {what}", MEND)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("nan", "{} holds a value that JSON cannot: NaN, infinity or a date"),
        ("2020-01-01", "{} holds a value that JSON cannot: NaN, infinity or a date"),
        ("1" * 5000, "{} is not a TOML file: "),
        ('"' + "x" * 70_000 + '"', "{} is larger than 64 KiB"),
        ("[" * 5000, "{} is not a TOML file: "),
        ("=", "{} is not a TOML file: "),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, value: str, what: str) -> None:
    path = write(tmp_path, clean_acc=value)
    with pytest.raises(InputError) as caught:
        quoted(path)
    assert caught.value.what.startswith(what.format(path))
    assert caught.value.mend == MEND


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        quoted(tmp_path / "x.toml")
    assert (caught.value.what, caught.value.mend) == (f"there is no file {tmp_path / 'x.toml'}", MEND)


def test_long_blanks_take_no_time(tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(InputError):
        quoted(write(tmp_path, clean_acc='"1' + " " * 60_000 + 'x"'))
    assert time.process_time() - start < 1
