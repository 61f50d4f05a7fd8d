from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from awpbench import checkpoints, data, models
from awpbench.data.images import ImageSet
from awpbench.errors import UsageError
from awpbench.evaluation import preprocessing
from awpbench.evaluation.preprocessing import MEND, Trial, choose, classified, find
from awpbench.evaluation.subject import from_checkpoint, with_preprocessing

LABELS = np.repeat(np.arange(10), 100)  # a thousand images, a hundred of each class
CPU = torch.device("cpu")
ZOO = Path(__file__).parents[2] / "model_zoo"


def first(n: int, *, wrong: int = 0) -> preprocessing.Right:
    """The first n of a thousand images right, but for so many at their beginning."""
    return (np.arange(1000) < n) & (np.arange(1000) >= wrong)


def test_a_clear_winner_is_taken() -> None:
    found = choose({"none": first(150), "meanstd": first(600), "plus-minus-1": first(400)}, LABELS, "x.pt")
    assert found == Trial("meanstd", 1000, {"none": 150, "meanstd": 600, "plus-minus-1": 400})
    assert str(found) == "meanstd (none 15.0 %, meanstd 60.0 %, plus-minus-1 40.0 %)"
    assert found.document() == {
        "source": "trial",
        "n": 1000,
        "correct": {"none": 150, "meanstd": 600, "plus-minus-1": 400},
    }


# Only the better one gets 11 images right that the other misses: p = 2 / 2^11 < 0.001; with 10 it is 2 / 2^10 > 0.001.
@pytest.mark.parametrize(("more", "clear"), [(11, True), (10, False)])
def test_better_means_a_p_below_a_thousandth_on_the_same_images(more: int, clear: bool) -> None:
    right = {"none": first(500 + more), "meanstd": first(500), "plus-minus-1": first(100)}
    if clear:
        assert choose(right, LABELS, "x.pt").name == "none"
    else:
        with pytest.raises(UsageError):
            choose(right, LABELS, "x.pt")


def test_an_equal_difference_of_accuracies_is_not_clear_where_the_images_differ() -> None:
    right = {"none": first(511), "meanstd": ~first(500), "plus-minus-1": first(100)}
    assert [each.sum() for each in right.values()] == [511, 500, 100]
    with pytest.raises(UsageError) as caught:
        choose(right, LABELS, "x.pt")
    assert caught.value.what == (
        "the preprocessing of x.pt may be none or meanstd on the first 1000 test images: "
        "none 51.1 %, meanstd 50.0 %, plus-minus-1 10.0 %"
    )
    assert caught.value.mend == "Give --preprocessing none, meanstd or plus-minus-1."


def test_every_candidate_that_may_be_it_is_named() -> None:
    with pytest.raises(UsageError, match="may be plus-minus-1 or none or meanstd on"):
        choose({"none": first(500), "meanstd": first(501), "plus-minus-1": first(502)}, LABELS, "x.pt")


@pytest.mark.parametrize(("correct", "clear"), [(118, False), (119, True)])  # Wilson's lower bounds: 9.94, 10.04 %
def test_the_best_must_be_better_than_chance(correct: int, clear: bool) -> None:
    right = {"none": first(20), "meanstd": first(correct), "plus-minus-1": first(20)}
    if clear:
        assert choose(right, LABELS, "x.pt").name == "meanstd"
        return
    with pytest.raises(UsageError) as caught:
        choose(right, LABELS, "x.pt")
    assert caught.value.what == (
        "no preprocessing makes x.pt better than chance (10.0 %) on the first 1000 test images: "
        "none 2.0 %, meanstd 11.8 %, plus-minus-1 2.0 %"
    )
    assert caught.value.mend == f"Check --dataset and --arch. {MEND}"


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    labels = np.where(np.arange(1000) < 900, 0, 1)  # a net that always says 0 gets 90 % right
    with pytest.raises(UsageError, match=r"better than chance \(90.0 %\)"):
        choose({"none": first(900), "meanstd": first(100), "plus-minus-1": first(100)}, labels, "x.pt")


class Mean(nn.Module):
    """Class 1 for bright images, 0 for dark ones, NaN for white ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x.mean((1, 2, 3))
        logits = torch.stack([torch.full_like(bright, 0.5), bright], 1)
        return logits.masked_fill((bright == 1)[:, None], float("nan"))


def test_images_are_classified_in_their_order_and_logits_that_are_not_finite_are_wrong() -> None:
    values = torch.tensor([0, 200, 255, 10] * 60, dtype=torch.uint8)  # more than a batch
    labels = torch.tensor([0, 1, 0, 1] * 60)
    images = ImageSet(values[:, None, None, None].expand(-1, 1, 8, 8).contiguous(), labels, torch.arange(240))
    assert classified(Mean(), images, CPU).tolist() == [True, True, False, False] * 60


def test_the_trial_sees_the_first_thousand_images_and_settles_the_net_and_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4, mean=(0.3057,), std=(0.3761,)).eval()
    path, images = tmp_path / "x.pt", data.load_test("digits")
    with torch.no_grad():  # many classes, and the net is right by definition
        fc = net.get_submodule("fc")
        assert isinstance(fc, nn.Linear)
        fc.bias -= net(images.images.float() / 255).mean(0)
        images = replace(images, labels=net(images.images.float() / 255).argmax(1))
    torch.save(net.state_dict(), path)
    subject = from_checkpoint(path, arch=None, width=None, dataset="digits", preprocessing=None)
    assert "preprocessing" not in subject.description
    monkeypatch.setattr(preprocessing, "EXAMPLES", 300)
    found, trial = with_preprocessing(subject, "digits", images, CPU)
    assert trial is not None
    assert (trial.name, trial.n, trial.correct["meanstd"]) == ("meanstd", 300, 300)
    assert found.description["preprocessing"] == {
        "mean": [0.3057],
        "std": [0.3761],
        "source": "trial",
        "n": 300,
        "correct": trial.correct,
    }
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert found.net(x).equal(net(x))
    assert with_preprocessing(found, "digits", images, CPU) == (found, None)


BUFFERS = {"mu": torch.tensor([0.25]), "sigma": torch.tensor([2.0])}


@pytest.mark.parametrize(
    ("extra", "given", "described"),
    [
        ({}, "none", {"mean": None, "std": None, "source": "flag"}),
        ({}, "plus-minus-1", {"mean": [0.5], "std": [0.5], "source": "flag"}),
        (BUFFERS, None, {"mean": [0.25], "std": [2.0], "source": "file"}),
    ],
)
def test_a_preprocessing_that_is_given_or_in_the_file_is_not_tried(
    tmp_path: Path, extra: dict[str, torch.Tensor], given: str | None, described: dict[str, object]
) -> None:
    net = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=2)
    torch.save(net.state_dict() | extra, tmp_path / "x.pt")
    subject = from_checkpoint(tmp_path / "x.pt", arch=None, width=None, dataset="digits", preprocessing=given)
    assert subject.description["preprocessing"] == described
    assert with_preprocessing(subject, "digits", data.load_test("digits"), CPU) == (subject, None)


@pytest.mark.slow
@pytest.mark.skipif(not ZOO.is_dir(), reason="the source distribution leaves model_zoo out")
@pytest.mark.parametrize("run", ["cifar10-prn18-w16-at-s0", "cifar10-prn18-w16-at-awp-s0"])
def test_the_preprocessing_of_our_own_nets_is_found_in_their_bare_weights(
    run: str, tmp_path: Path, cifar_root: Path
) -> None:
    own = checkpoints.load(ZOO / run / "best.safetensors")
    torch.save(own.state_dict, tmp_path / "bare.pt")
    foreign = checkpoints.load(tmp_path / "bare.pt", dataset="cifar10")
    trial = find(foreign, "cifar10", data.load_test("cifar10", data_dir=cifar_root, offline=True), CPU)
    assert (trial.name, trial.n) == ("meanstd", 1000)
    assert foreign.preprocessed("meanstd", "cifar10").model_spec == own.model_spec
