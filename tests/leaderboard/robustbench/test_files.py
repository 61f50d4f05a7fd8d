from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awpbench.errors import InputError, RefusedError
from awpbench.leaderboard.robustbench import files
from awpbench.leaderboard.robustbench.files import Entry
from tests.leaderboard.robustbench.crafted import AWP, CORRUPTIONS, put

ROOT = Path(__file__).parents[3]
NAME = "A name has letters, digits and . _ + - only."
KNOWN = "Known: Linf, L2, corruptions."


def entry(model: str = "Wu2020Adversarial", dataset: str = "cifar10", threat: str = "Linf", **changes: Any) -> Entry:
    return Entry(dataset, threat, model, {**AWP, **changes})


# Their own files


def test_all_files_come_back_with_equal_values_order_and_forms(shared: Path, tmp_path: Path) -> None:
    theirs = shared / "robustbench" / "model_info"
    entries = files.read(theirs)
    assert files.write(tmp_path, entries) == {"written": 236, "replaced": 0, "unchanged": 0}
    for each in entries:
        first, second = (json.loads(each.path(folder).read_bytes()) for folder in (theirs, tmp_path))
        assert json.dumps(first) == json.dumps(second)
    assert files.read(tmp_path) == entries


def test_files_in_their_commonest_form_come_back_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    theirs = shared / "robustbench" / "model_info"
    entries = files.read(theirs)
    files.write(tmp_path, entries)
    # the others have no line end at their end, four blanks, raw accents or broken indentation
    assert sum(each.path(tmp_path).read_bytes() == each.path(theirs).read_bytes() for each in entries) == 151


def test_their_files_written_over_themselves_are_left_as_they_are(shared: Path) -> None:
    theirs = shared / "robustbench" / "model_info"
    assert files.write(theirs, files.read(theirs)) == {"written": 0, "replaced": 0, "unchanged": 236}


def test_all_files_fit_the_published_schema(shared: Path) -> None:
    schema = json.loads((ROOT / "docs" / "schema" / "robustbench-model.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    entries = files.read(shared / "robustbench" / "model_info")
    assert len(entries) == 236
    assert [each.model for each in entries if not validator.is_valid(each.document)] == []


def test_the_published_schema_is_the_codes() -> None:
    published = json.loads((ROOT / "docs" / "schema" / "robustbench-model.schema.json").read_text())
    assert published == files.json_schema()
    jsonschema.Draft202012Validator.check_schema(published)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"eps": 0.03137254901960784, "name": None, "footnote": None, "corruptions_acc": None}, True),  # update_json
        ({"reported": None, "new key": [1, {"a": None}]}, True),
        ({"clean_acc": "0.0", "autoattack_acc": "100.00"}, True),
        ({"clean_acc": 85.36}, False),
        ({"clean_acc": "100.01"}, False),
        ({"clean_acc": "-1.00"}, False),
        ({"clean_acc": "nan"}, False),
        ({"clean_acc": None}, False),
        ({"clean_acc": "\u0661\u0662.00"}, False),  # digits, but not RobustBench's
        ({"external": None}, False),
        ({"unreliable": None}, False),
        ({"additional_data": "false"}, False),
        ({"number_forward_passes": 1.5}, False),
        ({"name": ["a"]}, False),
        ({"eps": True}, False),
        ({"eps": "<script>"}, False),
        ({"eps": "8/0"}, False),
        ({"eps": -0.1}, False),
    ],
)
def test_schema_and_reader_agree(changes: dict[str, Any], fits: bool) -> None:
    document = {**AWP, **changes}
    assert jsonschema.Draft202012Validator(files.json_schema()).is_valid(document) is fits
    if fits:
        assert files.parse(document, "it") is document
    else:
        with pytest.raises(InputError):
            files.parse(document, "it")


# Reading


def test_the_folder_says_what_an_entry_is_and_the_file_keeps_its_word(tmp_path: Path) -> None:
    put(tmp_path, "cifar100/corruptions/A.b_c-d+1", CORRUPTIONS)  # names cifar10, as five of theirs do
    assert files.read(tmp_path) == [Entry("cifar100", "corruptions", "A.b_c-d+1", CORRUPTIONS)]


def test_what_is_no_json_file_of_a_table_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, "cifar10/Linf/a")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "cifar10" / "Linf" / "notes.txt").write_text("x")
    assert [each.model for each in files.read(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", " is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff", " is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[" * 60_000, " is nested too deeply"),
        (b"[]", " holds no JSON object"),
        (b'{"clean_acc": NaN}', " is not JSON: NaN is no number"),
        (json.dumps(AWP | {"more": 0}).replace(": 0}", ": 1e999}").encode(), " holds a value that JSON cannot: NaN, "
         "infinity or a date"),
        (json.dumps(AWP | {"name": 7}).encode(), " does not fit: name: Input should be a valid string"),
        (json.dumps(AWP | {"clean_acc": "85,36"}).encode(), " does not fit: clean_acc: String should match pattern "
         "'^(100(\\.0{1,6})?|[0-9]{1,2}(\\.[0-9]{1,6})?)$'"),
        (json.dumps({"name": "x"}).encode(), " does not fit: link: Field required"),
        (json.dumps(AWP | {"awpbench": {}}).encode(), " does not fit: Value error, the key awpbench is no key of "
         "RobustBench"),
        (json.dumps(AWP | {"name": "\ud800"}).encode(), " does not fit: Invalid JSON: unexpected end of hex "
         "escape at line 1 column"),
        (json.dumps(AWP | {"name": "x" * 10_000_000}).encode(), " is larger than 64 KiB"),
        (json.dumps({k: v for k, v in AWP.items() if k != "autoattack_acc"}).encode(), " has no autoattack_acc, which "
         "RobustBench ranks by"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes, what: str) -> None:
    path = put(tmp_path, "cifar10/Linf/broken", content)
    with pytest.raises(InputError) as caught:
        files.read(tmp_path)
    assert caught.value.what.startswith(f"{str(path)!r}{what}")
    assert caught.value.mend == "Take the file from RobustBench again, or out of the folder."


def test_deep_nesting_under_an_unknown_key_is_refused_and_not_a_crash(tmp_path: Path) -> None:
    for depth in (100, 900, 5000, 20_000):
        nested = b"[" * depth + b"]" * depth
        put(tmp_path, "cifar10/Linf/deep", json.dumps(AWP)[:-1].encode() + b', "x": ' + nested + b"}")
        if depth == 100:
            assert files.write(tmp_path / "out", files.read(tmp_path))["written"] == 1
            continue
        with pytest.raises(InputError) as caught:
            files.read(tmp_path)
        assert "cifar10/Linf/deep.json" in caught.value.what


@pytest.mark.parametrize(
    ("place", "named", "mend"),
    [
        ("cifar10/Linf/\x1b[31m", "'\\x1b[31m' is no name", NAME),
        ("cifar10/Linf/<script>", "'<script>' is no name", NAME),
        ("cifar10/Linf/..", "'..' is no name", NAME),
        ("-rf/Linf/x", "'-rf' is no name", NAME),
        ("cifar10/L1/x", "'L1' is no threat model", KNOWN),
    ],
)
def test_a_name_that_is_none_is_refused_without_printing_it_raw(
    tmp_path: Path, place: str, named: str, mend: str
) -> None:
    path = put(tmp_path, place)
    with pytest.raises(InputError) as caught:
        files.read(tmp_path)
    assert (caught.value.what, caught.value.mend) == (f"{str(path)!r}: {named}", mend)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    outside = put(tmp_path, "secret")
    folder = tmp_path / "model_info"
    (folder / "cifar10" / "Linf").mkdir(parents=True)
    (folder / "cifar10" / "Linf" / "x.json").symlink_to(outside)
    with pytest.raises(InputError) as caught:
        files.read(folder)
    assert caught.value.what == f"{str(folder / 'cifar10/Linf/x.json')!r} is a link that leaves the folder"


def test_a_pipe_with_the_name_of_a_file_does_not_hang(tmp_path: Path) -> None:
    path = put(tmp_path, "cifar10/Linf/a").with_name("pipe.json")
    os.mkfifo(path)
    with pytest.raises(InputError) as caught:
        files.read(tmp_path)
    assert caught.value.what == f"{str(path)!r} is no file"


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_files_is_an_error(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "x"
    if made:
        folder.mkdir()
    with pytest.raises(InputError) as caught:
        files.read(folder)
    what = f"{str(folder)!r} holds no file of RobustBench" if made else f"there is no folder {str(folder)!r}"
    mend = "Name RobustBench's folder model_info: model_info/<data set>/<threat model>/<model>.json."
    assert (caught.value.what, caught.value.mend) == (what, mend)


# Writing


def test_the_form_of_a_file_is_that_of_most_of_theirs(tmp_path: Path) -> None:
    files.write(tmp_path, [Entry("cifar10", "Linf", "a", {"name": "J\u00e9r\u00f4me", "eps": None, "x": "0.0"})])
    expected = b'{\n  "name": "J\\u00e9r\\u00f4me",\n  "eps": null,\n  "x": "0.0"\n}\n'
    assert (tmp_path / "cifar10" / "Linf" / "a.json").read_bytes() == expected


@pytest.mark.parametrize("there", [b"", b"{}", b"[" * 60_000, json.dumps(AWP | {"eps": "0.031"}).encode()])
def test_a_file_that_says_something_else_is_kept_unless_forced(tmp_path: Path, there: bytes) -> None:
    path = put(tmp_path, "cifar10/Linf/b", there)
    entries = [entry("a"), entry("b")]
    with pytest.raises(RefusedError) as caught:
        files.write(tmp_path, entries)
    what = f"{path} is there and says something else"
    assert (caught.value.what, caught.value.mend) == (what, "Name another folder, or replace it with --force.")
    assert path.read_bytes() == there
    assert not path.with_name("a.json").exists()  # all or nothing
    assert files.write(tmp_path, entries, force=True) == {"written": 1, "replaced": 1, "unchanged": 0}
    assert json.loads(path.read_bytes()) == AWP


def test_another_order_of_keys_or_another_type_is_something_else(tmp_path: Path) -> None:
    put(tmp_path, "cifar10/Linf/a", dict(reversed(AWP.items())))
    put(tmp_path, "cifar10/Linf/b", number_forward_passes=True)
    with pytest.raises(RefusedError) as caught:
        files.write(tmp_path, [entry("a"), entry("b")])
    assert caught.value.what.endswith("a.json is there and says something else, and 1 more")


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "/etc/x", "", "a\x00", ".hidden", "a\n", "x" * 129])
@pytest.mark.parametrize("part", ["model", "dataset"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str, part: str) -> None:
    with pytest.raises(InputError) as caught:
        files.write(tmp_path / "out", [entry(**{part: name})])
    assert (caught.value.what, caught.value.mend) == (f"{name!r} cannot be the name of a file", NAME)
    assert list(tmp_path.iterdir()) == []


def test_a_threat_model_cannot_leave_the_folder_either(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        files.write(tmp_path, [entry(threat="..")])
    assert (caught.value.what, caught.value.mend) == ("'..' is no threat model of RobustBench", KNOWN)


def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cifar10").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError) as caught:
        files.write(tmp_path / "out", [entry("a")], force=True)
    path = tmp_path / "out" / "cifar10" / "Linf" / "a.json"
    assert caught.value.what == f"{path} leads out of {tmp_path / 'out'} through a link"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_name_cannot_be_two_rows(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        files.write(tmp_path, [entry("a"), entry("a", eps="0.031")])
    what = f"two rows would be the file {tmp_path / 'cifar10' / 'Linf' / 'a.json'}"
    assert (caught.value.what, caught.value.mend) == (what, "Export them into two folders.")


HOSTILE = st.sampled_from(["<script>alert(1)</script>", "\x1b[31m\x07", "../x", "=1+1", "\u202e", "\\input{x}", "null"])
WORDS = st.one_of(HOSTILE, st.text(st.characters(codec="utf-8"), max_size=20))
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)
TEXT_KEYS = ("link", "name", "authors", "venue", "architecture", "reported", "footnote", "dataset")


@given(
    words=st.dictionaries(st.sampled_from(TEXT_KEYS), st.one_of(st.none(), WORDS)),
    unknown=st.dictionaries(WORDS.filter(lambda key: key not in files.ModelInfo.model_fields), ANYTHING, max_size=3),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_any_text_and_any_unknown_key_survive(
    tmp_path_factory: pytest.TempPathFactory, words: dict[str, Any], unknown: dict[str, Any], order: Any
) -> None:
    folder = tmp_path_factory.mktemp("model_info")
    items = list({**AWP, **words, **unknown}.items())
    order.shuffle(items)
    document = dict(items)
    files.write(folder, [Entry("cifar10", "L2", "a", document)])
    (back,) = files.read(folder)
    assert json.dumps(back.document) == json.dumps(document)
    assert jsonschema.Draft202012Validator(files.json_schema()).is_valid(back.document)
