from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.config import TrainConfig
from awpbench.errors import CheckError, InputError
from awpbench.leaderboard.columns import _awp
from awpbench.leaderboard.details import ID, PERCENT, Card, checked
from awpbench.leaderboard.row import Row, board_of, json_schema
from tests.leaderboard import crafted

SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "leaderboard.schema.json"
CARD = {
    "link": "https://arxiv.org/abs/2004.05884",
    "name": "Adversarial Weight Perturbation Helps Robust Generalization",
    "authors": "Dongxian Wu, Shu-tao Xia, Yisen Wang",
    "venue": "NeurIPS 2020",
}


def built(**changes: Any) -> Row:
    return crafted.built(crafted.result(**changes))


def failure(error: InputError | CheckError) -> tuple[str, str]:
    return error.what, error.mend


def test_a_row_carries_the_keys_of_robustbench_in_its_style() -> None:
    document = crafted.built(crafted.result(training=crafted.config()), CARD).document()
    document.pop("awpbench")
    assert document == {
        "link": "https://arxiv.org/abs/2004.05884",
        "name": "Adversarial Weight Perturbation Helps Robust Generalization",
        "authors": "Dongxian Wu, Shu-tao Xia, Yisen Wang",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar10",
        "venue": "NeurIPS 2020",
        "architecture": "PreActResNet-18 (width 16)",
        "eps": "8/255",
        "clean_acc": "81.33",
        "reported": "18.33",
        "autoattack_acc": "18.33",
        "footnote": "Measured on part of the test set: clean, fgsm, pgd-20 on 10000 images; "
        "pgd-100, cw-inf, autoattack on 300 images; spsa on 60 images.",
    }


def test_a_row_says_how_we_trained_the_net() -> None:
    details = crafted.built({**crafted.result(), "training": crafted.config()}).document()["awpbench"]
    assert details["defense"] == "at"
    assert details["awp"] == {"gamma": 0.01, "warmup": 0}
    assert details["selection"] == "validation"
    assert details["train"] == {
        "architecture": "prn18",
        "beta": None,
        "dataset": "cifar10",
        "epochs": 150,
        "eps": "8/255",
        "norm": "Linf",
        "seed": 0,
        "steps": 10,
        "train_examples": 1000,
        "width": 16,
    }


def test_a_row_keeps_the_size_of_a_random_perturbation_and_its_table_names_it() -> None:
    config = crafted.config(awp=False, rwp=True, awp_gamma=0.6, awp_warmup=2)
    row = crafted.built({**crafted.result(), "training": config})
    details = row.document()["awpbench"]
    assert details["awp"] is None
    assert {key: details["train"][key] for key in ("rwp", "awp_gamma", "awp_warmup")} == {
        "rwp": True,
        "awp_gamma": 0.6,
        "awp_warmup": 2,
    }
    assert _awp(row.awpbench) == "no (RWP)"


def test_a_net_that_we_did_not_train_has_no_training_and_empty_bibliography() -> None:
    document = built().document()
    assert [document[key] for key in ("link", "name", "authors", "venue")] == ["", "", "", ""]
    assert [document["awpbench"][key] for key in ("defense", "awp", "selection", "train")] == [None] * 4


@pytest.mark.parametrize(
    ("name", "select_on", "selection"),
    [
        ("run/best", "test", "test"),
        ("run/best", "validation", "validation"),
        ("run/last", "test", "last"),
        ("run-last", "validation", "last"),
        ("run/best.pt", "test", "test"),
        ("run/blast", "test", None),
    ],
)
def test_a_row_declares_which_images_chose_the_checkpoint(name: str, select_on: str, selection: str | None) -> None:
    row = crafted.built({**crafted.named(name), "training": crafted.config(select_on=select_on)})
    assert row.awpbench.selection == selection


def test_the_keys_lifted_out_of_a_configuration_exist_there() -> None:
    fields = set(TrainConfig.model_fields)
    assert {"defense", "awp", "awp_gamma", "awp_warmup", "select_on"} <= fields


@pytest.mark.parametrize(
    ("architecture", "width", "published"),
    [
        ("prn18", None, "PreActResNet-18"),
        ("wrn-34-10", None, "WideResNet-34-10"),
        ("wrn-28-10", 32, "WideResNet-28-10 (width 32)"),
        ("someone's net", None, "someone's net"),
        (None, None, ""),
    ],
)
def test_architectures_are_spelled_as_robustbench_does(
    architecture: str | None, width: int | None, published: str
) -> None:
    model = {"source": "model", "name": "m", "architecture": architecture, "width": width}
    assert built(model=model).architecture == published


def incomplete() -> dict[str, Any]:
    return {**crafted.result()["attacks"], "autoattack": crafted.attack("autoattack", 60, 300, complete=False)}


def test_without_a_complete_autoattack_the_row_reports_its_strongest_attack_and_no_autoattack() -> None:
    document = built(attacks=incomplete()).document()
    assert "autoattack_acc" not in document
    assert document["reported"] == "23.33"
    assert document["awpbench"]["attacks"]["autoattack"]["complete"] is False


def test_an_autoattack_that_does_not_say_it_is_complete_is_not() -> None:
    silent = crafted.result()["attacks"] | {"autoattack": crafted.attack("autoattack", 55, 300)}
    assert built(attacks=silent).autoattack_acc is None


def test_an_attack_below_autoattack_on_the_same_images_is_the_external_accuracy() -> None:
    attacks = crafted.result()["attacks"]
    assert built().external is None
    assert built(attacks={**attacks, "cw-inf": crafted.attack("cw-inf", 54, 300)}).external == "18.00"
    assert built(attacks={**attacks, "cw-inf": crafted.attack("cw-inf", 54, 400)}).external is None


@pytest.mark.parametrize(("verdict", "unreliable"), [("reliable", False), ("suspicious", True), (None, None)])
def test_unreliable_is_what_the_audit_found_and_absent_without_one(
    verdict: str | None, unreliable: bool | None
) -> None:
    document = built(audit={"verdict": verdict, "findings": [{"check": "zero-gradients", "ok": True}]}).document()
    assert document.get("unreliable") is unreliable


def test_a_whole_evaluation_has_no_footnote() -> None:
    attacks = {"clean": crafted.attack("clean", 8000, 10000)}
    assert "footnote" not in built(partial=False, attacks=attacks).document()


# Identity


def identity(config: dict[str, Any] | None = None, **changes: Any) -> str:
    return crafted.built(crafted.result(**changes, training=config)).awpbench.id


def test_an_id_reads_as_model_suite_and_a_digest() -> None:
    assert re.fullmatch(r"cifar10-prn18-w16-at-awp-s0-best\.full-v1\.0\.[0-9a-f]{12}", identity(crafted.config()))


def test_the_same_measurement_keeps_its_id_whatever_came_out() -> None:
    attacks = crafted.result()["attacks"] | {"fgsm": crafted.attack("fgsm", 4099, 10000)}
    assert identity() == identity(attacks=attacks, seed=3, suite_version="1.0.7")


def test_another_measurement_has_another_id() -> None:
    hashes = crafted.result()["hashes"]
    attacks = crafted.result()["attacks"]
    others: list[dict[str, Any]] = [
        {"suite": "other"},
        {"suite_version": "1.1"},
        {"dataset": "mnist"},
        {"norm": "L2"},
        {"eps": "0.031"},
        {"dialect": "trades"},
        {"hashes": hashes | {"weights": "0" * 64}},
        {"hashes": hashes | {"data": "0" * 64}},
        {"hashes": hashes | {"indices": "0" * 64}},
        {"attacks": attacks | {"fgsm": crafted.attack("fgsm", 41, 100)}},
        {"attacks": attacks | {"fgsm": crafted.attack("fgsm", 4100, 10000, definition={"steps": 2})}},
    ]
    assert len({identity(), *(identity(**other) for other in others)}) == 1 + len(others)


def test_training_again_with_the_same_configuration_keeps_the_id() -> None:
    again = crafted.result()["hashes"] | {"weights": "0" * 64, "checkpoint": "0" * 64}
    assert identity(crafted.config()) == identity(crafted.config(), hashes=again)
    assert identity(crafted.config()) != identity(crafted.config(epochs=151))


def test_best_and_last_of_one_run_are_two_rows() -> None:
    names = ("run/best", "run/last")
    rows = [crafted.built({**crafted.named(name), "training": crafted.config()}) for name in names]
    assert len({row.awpbench.id for row in rows}) == 2


def test_two_files_of_one_name_with_other_weights_are_two_rows() -> None:
    other = crafted.result()["hashes"] | {"weights": "0" * 64}
    assert identity() != identity(hashes=other)


@given(st.text(min_size=1), st.sampled_from(["full", "a" * 32]))
def test_every_name_gives_a_valid_id(name: str, suite: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    assert re.fullmatch(ID.strip("^$"), crafted.row(name, suite=suite).awpbench.id)


# What is refused


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_never_enters(value: float) -> None:
    with pytest.raises(CheckError) as caught:
        built(attacks={"clean": crafted.attack("clean", 1, 2) | {"definition": {"steps": [value]}}})
    assert failure(caught.value) == (
        "the result holds NaN or infinity",
        "Evaluate again, and look for the attack that broke down.",
    )


AGAIN = "Evaluate again with this version of awpbench."
CLEAN = crafted.attack("clean", 150, 300)


@pytest.mark.parametrize(
    ("changes", "what", "mend"),
    [
        ({"schema_version": 2}, "the result has schema version 2; this awpbench reads 1", "Update awpbench."),
        (
            {"schema_version": None},
            "the result is no result.json of awpbench",
            "Name the folder that awpbench eval wrote.",
        ),
        (
            {"suite": None},
            "the result belongs to no named suite",
            "Evaluate with --suite quick, standard or full.",
        ),
        ({"attacks": {}}, "the result does not fit: Value error, the clean accuracy is missing", AGAIN),
        ({"attacks": []}, "the result does not fit: Value error, the clean accuracy is missing", AGAIN),
        (
            {"attacks": {"clean": [1]}},
            "the result does not fit: attacks.clean.n: Input should be a valid integer",
            AGAIN,
        ),
        (
            {"attacks": {"clean": CLEAN | {"accuracy": 0.6}}},
            "the result does not fit: attacks.clean: Value error, accuracy is 0.6, but 150 of 300 is 0.5000",
            AGAIN,
        ),
        (
            {"attacks": {"clean": CLEAN | {"correct": 301}}},
            "the result does not fit: attacks.clean: Value error, 301 of 300 images are correct",
            AGAIN,
        ),
        (
            {"attacks": {"clean": CLEAN | {"interval": [0, 0.1]}}},
            "the result does not fit: attacks.clean: Value error, "
            "the interval is [0.0, 0.1], but that of 150 of 300 is [0.4438, 0.5562]",
            AGAIN,
        ),
        ({"eps": "eight"}, "the result does not fit: eps: Value error, 'eight' is not a number", AGAIN),
        ({"eps": "-1/255"}, "the result does not fit: eps: Value error, '-1/255' is negative", AGAIN),
        ({"norm": "L1"}, "the result does not fit: norm: Input should be 'Linf' or 'L2'", AGAIN),
        ({"n": "300"}, "the result does not fit: n: Input should be a valid integer", AGAIN),
        ({"hashes": {}}, "the result does not fit: Value error, the hash of the data is missing", AGAIN),
    ],
)
def test_a_result_that_does_not_fit_is_refused(changes: dict[str, Any], what: str, mend: str) -> None:
    with pytest.raises(InputError) as caught:
        built(**changes)
    assert failure(caught.value) == (what, mend)


@pytest.mark.parametrize(
    ("card", "what"),
    [
        ({"clean_acc": "99.00"}, "the card does not fit: clean_acc: Extra inputs are not permitted"),
        ({"additional_data": "no"}, "the card does not fit: additional_data: Input should be a valid boolean"),
        (
            {"link": "javascript:alert(1)"},
            "the card does not fit: link: Value error, 'javascript:alert(1)' is no http(s) address",
        ),
    ],
)
def test_a_card_holds_bibliography_and_nothing_else(card: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError) as caught:
        crafted.built(crafted.result(), card)
    mend = "A card holds link, name, authors, additional_data, venue and nothing else."
    assert failure(caught.value) == (what, mend)


@pytest.mark.parametrize(
    ("key", "typed", "derived"),
    [("clean_acc", "99.00", "81.33"), ("autoattack_acc", "56.17", "18.33"), ("eps", "0", "8/255")],
)
def test_a_number_that_was_typed_by_hand_is_found_out(key: str, typed: str, derived: str) -> None:
    document = {**built().document(), key: typed}
    with pytest.raises(InputError) as caught:
        checked(Row, document, "the row", "Undo it.")
    what = f"the row does not fit: Value error, {key} is '{typed}', but the awpbench object makes it '{derived}'"
    assert failure(caught.value) == (what, "Undo it.")


def test_two_rows_of_one_id_are_no_leaderboard() -> None:
    with pytest.raises(ValueError, match=r"two rows have the id a\.full-v1\.0\."):
        board_of((crafted.row(), crafted.row()))


# The published schema


def test_the_published_schema_is_that_of_the_code() -> None:
    # docs/leaderboard.md has the line that publishes it again
    assert SCHEMA.read_text() == json.dumps(json_schema(), indent=1) + "\n"


def test_a_row_obeys_the_published_schema_and_a_broken_one_does_not() -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = {"schema_version": 2, "rows": [crafted.row().document()]}
    jsonschema.validate(document, schema)
    document["rows"][0]["clean_acc"] = 81.33
    (found,) = jsonschema.Draft202012Validator(schema).iter_errors(document)
    assert "81.33 is not of type 'string'" in [error.message for error in found.context or []]


# RobustBench's own files


def own_keys(document: dict[str, Any]) -> list[str]:
    return [key for key in document if key != "awpbench"]


def test_keys_types_and_order_are_those_of_robustbench(shared: Path) -> None:
    files = sorted((shared / "robustbench" / "model_info").glob("*/L*/*.json"))
    assert len(files) == 188
    curated = [json.loads(file.read_text()) for file in files]
    spelled = {key for document in curated for key in document}
    assert set(own_keys(Row.model_json_schema()["properties"])) == spelled
    ours = crafted.built(crafted.result(audit={"verdict": "reliable", "findings": []}), CARD).document()
    for key in own_keys(ours):
        assert any(type(ours[key]) is type(document[key]) for document in curated if key in document), key
    plain = next(
        document for document in curated if document["name"] == CARD["name"] and document["dataset"] == "cifar10"
    )
    ours.pop("footnote")  # a whole evaluation has none
    assert own_keys(ours) == list(plain)


def test_robustbenchs_own_values_fit_our_fields_but_for_accuracies_of_one_decimal(shared: Path) -> None:
    unfit = set()
    for file in sorted((shared / "robustbench" / "model_info").glob("*/L*/*.json")):
        document = json.loads(file.read_text())
        Card.model_validate({key: document[key] for key in Card.model_fields})
        numbers = {document[key] for key in ("clean_acc", "autoattack_acc", "external") if key in document}
        unfit |= {number for number in numbers if not re.fullmatch(PERCENT, number)}
    assert unfit == {"0.0"}


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("architecture", "WideResNet-70-16", "architecture is 'WideResNet-70-16', but"),
        ("footnote", None, "footnote is None, but"),
        ("number_forward_passes", 2, "number_forward_passes is 2, but"),
        ("awpbench.id", "anything", "the id is 'anything', but"),
        ("awpbench.worst_case", {"n": 60, "correct": 99, "accuracy": 0.1, "interval": [0.9, 0.95]}, "99 of 60"),
        ("awpbench.attacks.autoattack.interval", [0.1833, 0.1834], "the interval is"),
    ],
)
def test_what_contradicts_itself_is_found_without_a_digest(key: str, value: Any, what: str) -> None:
    document = built().document()
    document["awpbench"]["digest"] = None
    *path, last = key.split(".")
    place = document
    for each in path:
        place = place[each]
    place[last] = value
    with pytest.raises(InputError, match=re.escape(what)):
        checked(Row, document, "the row", "Undo it.")


def test_pseudo_labelled_images_are_extra_data_whatever_the_card_says() -> None:
    config = crafted.config(defense="rst", unlabelled="images.npz")
    assert crafted.built({**crafted.result(), "training": config}, {"additional_data": False}).additional_data


def test_a_row_without_the_hash_of_a_configuration_is_that_of_a_foreign_net() -> None:
    document = crafted.row("a").document()
    del document["awpbench"]["hashes"]["config"]
    document["awpbench"]["digest"] = None
    assert checked(Row, document, "the row", "Undo it.").awpbench.hashes.get("config") is None
