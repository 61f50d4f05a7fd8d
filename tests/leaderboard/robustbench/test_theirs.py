"""RobustBench's own functions on its own files and one of ours: they accept it, and rank as we do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awpbench import robustbench_compat
from awpbench.errors import InputError
from awpbench.leaderboard.robustbench import bridge, files
from awpbench.leaderboard.robustbench.files import Entry
from awpbench.leaderboard.robustbench.ranking import accuracy, rank
from awpbench.leaderboard.row import board_of
from tests.leaderboard import crafted
from tests.leaderboard.test_submission import CARD, whole

pytestmark = pytest.mark.slow  # imports torch and timm
STUB = "{% for model in models %}{{ model | tojson }}\n{% endfor %}"  # PyPI's wheel lacks leaderboard.html.j2
NORMS = [("cifar10", "Linf"), ("cifar10", "L2"), ("cifar100", "Linf"), ("imagenet", "Linf")]
TABLES = [*NORMS, ("cifar10", "corruptions"), ("cifar100", "corruptions"), ("imagenet", "corruptions")]


def theirs(module: str) -> Any:
    try:
        return robustbench_compat.load(module)
    except InputError as error:
        pytest.skip(error.what)


@pytest.fixture
def tables(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], tuple[list[Entry], Entry | None]]:
    """A working folder with model_info: their files and, in L-inf and L2, an exported row of ours."""
    shutil.copytree(shared / "robustbench" / "model_info", tmp_path / "model_info")
    changes = {"cifar10 Linf": {}, "cifar10 L2": {"norm": "L2", "eps": "0.5"}, "cifar100 Linf": {"dataset": "cifar100"}}
    rows = tuple(crafted.built(whole(**each), CARD) for each in changes.values())
    ours, left_out = bridge.exported(board_of(rows))
    assert left_out == {}
    files.write(tmp_path / "model_info", ours)
    monkeypatch.chdir(tmp_path)

    def table(dataset: str, threat: str) -> tuple[list[Entry], Entry | None]:
        found = dict(files.tables(files.read(tmp_path / "model_info")))[dataset, threat]
        return found, next((each for each in ours if (each.dataset, each.threat) == (dataset, threat)), None)

    return table


@pytest.mark.parametrize(("dataset", "threat"), TABLES)
def test_their_table_has_our_order_and_our_row(
    tables: Any, dataset: str, threat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = theirs("robustbench.leaderboard.template")
    jinja2 = pytest.importorskip("jinja2")

    class Sorted(type(Path())):  # type: ignore[misc]
        """Lists a folder by name: where accuracies are equal, their order is that of the listing."""

        def glob(self, pattern: str) -> list[Path]:
            return sorted(super().glob(pattern), key=lambda path: path.stem)

    monkeypatch.setattr(template, "Path", Sorted)
    monkeypatch.setattr(template, "PackageLoader", lambda *_: jinja2.DictLoader({"leaderboard.html.j2": STUB}))
    entries, ours = tables(dataset, threat)
    lines = template.generate_leaderboard(dataset, threat, "model_info").splitlines()
    assert [json.loads(line) for line in lines] == [place.entry.document for place in rank(entries)]
    assert (ours is None) is ((dataset, threat) not in NORMS[:3])


@pytest.mark.parametrize(("dataset", "threat"), TABLES)
def test_their_list_of_models_has_our_order_and_our_row(
    tables: Any, dataset: str, threat: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    utils, enums = theirs("robustbench.utils"), theirs("robustbench.model_zoo.enums")
    entries, ours = tables(dataset, threat)
    zoo = utils.all_models[enums.BenchmarkDataset(dataset)][enums.ThreatModel(threat)]
    if ours is not None:
        monkeypatch.setitem(zoo, ours.model, {})  # they list what is in their zoo
    utils.list_available_models(dataset, threat)
    listed = [line.split("**")[3] for line in capsys.readouterr().out.splitlines()[2:]]
    listable = {entry.model: entry for entry in entries if entry.model in zoo}
    assert set(listed) == set(listable)
    accuracies = [accuracy(listable[model]) for model in listed]
    assert accuracies == [place.accuracy for place in rank(listable.values())]  # equal ones are in their zoo's order
    assert ours is None or ours.model in listed


@pytest.mark.parametrize(("dataset", "threat"), NORMS)
def test_their_latex_table_has_our_order_and_our_row(tables: Any, dataset: str, threat: str) -> None:
    utils = theirs("robustbench.utils")
    entries, ours = tables(dataset, threat)
    lines = utils.get_leaderboard_latex(dataset, threat).split("\\\\")[:-1]
    assert len(lines) == len(entries)
    assert [float(line.split(" & ")[2]) for line in lines] == [place.accuracy for place in rank(entries)]
    if ours is not None:
        cited = f"\\citet{{{ours.model.split('_')[0]}}} & 85.36 & 56.00 & Y & PreActRN-18 & NeurIPS 2020 & N/A"
        assert sum(cited in line for line in lines) == 1


@pytest.mark.parametrize(("dataset", "threat"), TABLES)
def test_their_bibliography_takes_our_row(tables: Any, dataset: str, threat: str) -> None:
    entries, ours = tables(dataset, threat)
    written, _ = theirs("robustbench.utils").get_leaderboard_bibtex(dataset, threat)
    assert 0 < len(written) <= len(entries)
    if ours is not None:
        authors = "Dongxian Wu and Shu-tao Xia and Yisen Wang"
        assert sum(f"@article{{{ours.model.split('_')[0]}," in each and authors in each for each in written) == 1
