from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from awpbench import checkpoints, foreign, models
from awpbench.defaults import DATASETS
from awpbench.errors import InputError, UsageError
from tests.rules import fill, images

WRAPPED = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 200},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "model": lambda state: {"model": state},
    "net": lambda state: {"net": state, "acc": 50.0},
    "last": lambda state: {"last": state},
    "best": lambda state: {"best": {"state_dict": state}},
}
# name in golden/architectures.json -> (architecture, prefix, wrapper, --preprocessing, takes more than a few seconds)
REFERENCES: dict[str, tuple[str, str, str, str | None, bool]] = {
    "preactresnet18 (AT code)": ("prn18", "module.", "bare", None, False),
    "wideresnet-34-10 (AT code)": ("wrn-34-10", "module.", "state_dict", "none", True),
    "wideresnet-28-10 (AT code)": ("wrn-28-10", "", "last", None, True),
    "wideresnet-34-10 (TRADES code)": ("wrn-34-10", "module.module.", "bare", None, True),
    "wideresnet-10-1 (AT code)": ("wrn-10-1", "module.1.", "best", None, False),
    "preactresnet18-100classes": ("prn18", "1.", "net", None, False),
    "robustbench cifar10/Linf/Wu2020Adversarial": ("wrn-34-10", "model.", "model", None, True),
    "robustbench cifar10/Linf/Wu2020Adversarial_extra": ("wrn-28-10", "module.model.", "state_dict", None, True),
    "robustbench cifar10/L2/Wu2020Adversarial": ("wrn-34-10", "module.", "model_state_dict", None, True),
    "robustbench cifar100/Linf/Wu2020Adversarial": ("wrn-34-10", "module.", "bare", None, True),
    "robustbench cifar10/L2/Rice2020Overfitting": ("prn18", "model.module.", "state_dict", None, False),
    "robustbench cifar10/Linf/Rice2020Overfitting": ("wrn-34-20", "module.", "bare", None, True),
    "robustbench cifar10/Linf/Zhang2019Theoretically": ("wrn-34-10", "module.", "bare", None, True),
    "robustbench cifar10/Linf/Wang2020Improving": ("wrn-28-10", "module.", "bare", None, True),
    "robustbench cifar10/Linf/Carmon2019Unlabeled": ("wrn-28-10", "module.", "state_dict", None, True),
    "robustbench cifar10/Linf/Hendrycks2019Using": ("wrn-28-10", "module.", "bare", "plus-minus-1", True),
}


def small(width: int = 16, **changes: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return models.build("wrn-10-1", classes=10, shape=(3, 32, 32), width=width, **changes).state_dict()


def written(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def test_every_reference_architecture_is_listed_here(golden: dict[str, Any]) -> None:
    assert set(golden["architectures"]) == set(REFERENCES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if slow else name for name, (*_, slow) in REFERENCES.items()]
)
def test_a_published_checkpoint_is_recognised_and_gives_its_logits(
    golden: dict[str, Any], tmp_path: Path, name: str
) -> None:
    architecture, prefix, wrapper, preprocessing, _ = REFERENCES[name]
    reference = golden["architectures"][name]
    types = {True: torch.int64, False: torch.float64}
    state = fill(
        {
            key: torch.empty(shape, dtype=types[key.endswith("num_batches_tracked")], device="meta")
            for key, shape in reference["state_dict"]
        }
    )
    path = written(tmp_path / "x.pt", WRAPPED[wrapper](prefixed(state, prefix)))
    checkpoint = checkpoints.load(path, preprocessing=preprocessing)
    path.unlink()
    logits = torch.tensor(reference["logits_eval"], dtype=torch.float64)
    assert checkpoint.foreign
    assert (checkpoint.model_spec.architecture, checkpoint.model_spec.width) == (architecture, None)
    assert checkpoint.model_spec.classes == logits.shape[1]
    assert (checkpoint.model_spec.mean is not None) == ("mu" in state or preprocessing == "plus-minus-1")
    with torch.no_grad():
        ours = checkpoint.build(torch.float64)(images(2))
    assert (ours - logits).abs().max() <= 1e-6 * logits.abs().max()


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "1.", "module.model.", "module.1.", "model.module.module."]
)
def test_wrappers_and_repeated_prefixes_come_off(tmp_path: Path, wrapper: str, prefix: str) -> None:
    state = small()
    loaded = checkpoints.load(written(tmp_path / "x.pt", WRAPPED[wrapper](prefixed(state, prefix))))
    assert list(loaded.state_dict) == list(state)
    assert all(loaded.state_dict[key].equal(value) for key, value in state.items())


def test_a_prefix_is_only_taken_off_the_start_of_a_key() -> None:
    one = torch.zeros(1)
    keys = ["features.module.weight", "layer1.1.bn1.weight", "remodel.weight"]
    assert list(foreign.unwrap({f"module.{key}": one for key in keys}, "x.pt")) == keys


def test_of_two_nets_the_last_is_taken(tmp_path: Path) -> None:
    best, last = small(), {key: value + 1 for key, value in small().items()}
    loaded = checkpoints.load(written(tmp_path / "x.pt", {"best": best, "last": last}))
    assert loaded.state_dict["fc.bias"].equal(last["fc.bias"])


def test_two_nets_in_one_state_dict_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pt", small() | prefixed(small(), "module."))
    with pytest.raises(InputError) as caught:
        checkpoints.load(path)
    assert caught.value.what == f"{path} holds two nets whose keys differ only by a prefix"
    assert caught.value.mend == "Save the state dict of one of them."


def test_the_unused_sub_block_is_dropped(tmp_path: Path) -> None:
    state = small()
    extra = {key.replace("block1", "sub_block1"): value for key, value in state.items() if key.startswith("block1")}
    assert list(checkpoints.load(written(tmp_path / "x.pt", prefixed(state | extra, "module."))).state_dict) == list(
        state
    )


@pytest.mark.parametrize(
    ("mean_key", "std_key", "prefix"),
    [
        ("normalize.mean", "normalize.std", "model."),
        ("module.normalize.mean", "module.normalize.std", "module.model."),
        ("mu", "sigma", ""),
        ("module.mu", "module.sigma", "module."),
        ("mean", "std", ""),
        ("0.mean", "0.std", "1."),
        ("module.0.mean", "module.0.std", "module.1."),
    ],
)
@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
def test_normalisation_buffers_become_the_models_normalisation(
    tmp_path: Path, mean_key: str, std_key: str, prefix: str, shape: tuple[int, ...]
) -> None:
    mean, std = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.25, 0.5, 1.0])
    state = {mean_key: mean.view(shape), std_key: std.view(shape)} | prefixed(small(), prefix)
    checkpoint = checkpoints.load(written(tmp_path / "x.pt", state))
    assert (checkpoint.model_spec.mean, checkpoint.model_spec.std) == ((0.5, 0.25, 0.125), (0.25, 0.5, 1.0))
    plain = models.build("wrn-10-1", classes=10, shape=(3, 32, 32)).eval()
    plain.load_state_dict(small())
    x = images(2).float()
    assert checkpoint.build()(x).equal(plain((x - mean.view(3, 1, 1)) / std.view(3, 1, 1)))


def test_a_normalisation_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pt", {"mu": torch.ones(2), "sigma": torch.ones(2)} | small())
    with pytest.raises(InputError) as caught:
        checkpoints.load(path)
    assert caught.value.what == f"{path} holds no net that can be built: [1.0, 1.0] is no normalisation of 3 channels"


@pytest.mark.parametrize(
    ("preprocessing", "mean", "std"),
    [
        (None, None, None),
        ("none", None, None),
        ("plus-minus-1", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("meanstd", DATASETS["cifar10"].mean, DATASETS["cifar10"].std),
    ],
)
def test_what_the_keys_do_not_tell_of_the_normalisation_may_be_said(
    tmp_path: Path, preprocessing: str | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> None:
    path = written(tmp_path / "x.pt", small())
    checkpoint = checkpoints.load(path, dataset="cifar10", preprocessing=preprocessing)
    assert (checkpoint.model_spec.mean, checkpoint.model_spec.std) == (mean, std)
    assert checkpoint.dataset == "cifar10"


@pytest.mark.parametrize(
    ("state", "preprocessing", "what", "mend"),
    [
        ({}, "meanstd", "--preprocessing meanstd takes a data set's mean and std, and none is named", "Add --dataset."),
        (
            {"mu": torch.ones(3), "sigma": torch.ones(3)},
            "none",
            "{path} brings its own normalisation",
            "Leave --preprocessing out.",
        ),
        (
            {},
            "mean-std",
            "there is no preprocessing called 'mean-std'",
            "Did you mean 'meanstd'? Known: none, meanstd, plus-minus-1.",
        ),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_a_usage_error(
    tmp_path: Path, state: dict[str, Tensor], preprocessing: str, what: str, mend: str
) -> None:
    path = written(tmp_path / "x.pt", state | small())
    with pytest.raises(UsageError) as caught:
        checkpoints.load(path, preprocessing=preprocessing)
    assert (caught.value.what, caught.value.mend) == (what.format(path=path), mend)


@pytest.mark.parametrize(
    ("name", "width", "classes", "shape", "dataset", "recognised"),
    [
        ("prn18", None, 10, (3, 32, 32), None, ("prn18", None)),
        ("prn18", 16, 100, (3, 32, 32), None, ("prn18", 16)),
        ("prn18", 5, 10, (1, 28, 28), "mnist", ("prn18", 5)),
        ("wrn-10-2", None, 10, (3, 32, 32), "cifar10", ("wrn-10-2", None)),
        ("wrn-16-1", 24, 10, (3, 32, 32), None, ("wrn-16-1", 24)),
        ("wrn-34-10", 4, 43, (3, 32, 32), None, ("wrn-34-1", 4)),
        ("wrn-28-10", 32, 10, (3, 32, 32), None, ("wrn-28-2", None)),  # the same net as wrn-28-2
        ("resnet18", None, 10, (3, 32, 32), "cifar10", ("resnet18", None)),
        ("resnet18", 5, 10, (1, 28, 28), "mnist", ("resnet18", 5)),
        ("small-cnn", None, 10, (1, 28, 28), None, ("small-cnn", None)),
        ("small-cnn", 7, 10, (1, 8, 8), "digits", ("small-cnn", 7)),
        ("small-cnn-nobn", 7, 10, (1, 8, 8), "digits", ("small-cnn-nobn", 7)),
    ],
)
def test_architecture_width_and_classes_are_read_off_the_weights(
    tmp_path: Path,
    name: str,
    width: int | None,
    classes: int,
    shape: tuple[int, int, int],
    dataset: str | None,
    recognised: tuple[str, int | None],
) -> None:
    net = models.build(name, classes=classes, shape=shape, width=width).eval()
    path = written(tmp_path / "x.pt", prefixed(net.state_dict(), "module."))
    checkpoint = checkpoints.load(path, dataset=dataset)
    assert (checkpoint.model_spec.architecture, checkpoint.model_spec.width) == recognised
    assert (checkpoint.model_spec.classes, checkpoint.model_spec.shape) == (classes, shape)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    assert checkpoint.build()(x).equal(net(x))
    again = checkpoints.load(path, dataset=dataset, arch=name, width=width)
    assert again.model_spec.architecture == models.canonical(name)
    assert again.build()(x).equal(net(x))


def test_a_given_architecture_that_does_not_match_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pt", prefixed(small(), "module."))
    with pytest.raises(InputError) as caught:
        checkpoints.load(path, arch="prn18")
    assert caught.value.what == (
        f"{path} does not hold the weights of PreActResNet-18: missing layer1.0.bn1.weight and 88 more; "
        "unexpected block1.layer.0.bn1.weight and 44 more; mis-shaped conv1.weight [16, 3, 3, 3] for [64, 3, 3, 3]"
    )
    assert caught.value.mend == "Give the --arch and --width that it was trained with, or leave them out."


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    state = small()
    del state["block2.layer.0.bn2.bias"]
    path = written(tmp_path / "x.pt", state)
    with pytest.raises(InputError) as caught:
        checkpoints.load(path)
    assert caught.value.what == (
        f"{path} does not hold the weights of WideResNet-10-1: missing block2.layer.0.bn2.bias"
    )


# What the training scripts of the public repositories hand to torch.save; their nets are wrapped in DataParallel.
REPOSITORIES = {
    "AWP (AT), robust_overfitting: model_best.pth": lambda state: {
        "state_dict": prefixed(state, "module."), "test_robust_acc": 0.5, "test_robust_loss": 1.2, "test_acc": 0.8,
    },
    "AWP (AT), robust_overfitting: model_199.pth": lambda state: prefixed(state, "module."),
    "TRADES, MART, TRADES-AWP": lambda state: prefixed(
        state | {f"sub_{key}": value for key, value in state.items() if key.startswith("block1")}, "module."
    ),
    "RST": lambda state: {"num_classes": 10, "state_dict": prefixed(state, "module."), "normalize_input": False},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(7), **prefixed(state, "module.")},
}  # fmt: skip


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_what_the_public_repositories_save_is_recognised(tmp_path: Path, repository: str) -> None:
    loaded = checkpoints.load(written(tmp_path / "x.pt", REPOSITORIES[repository](small())))
    assert loaded.model_spec == checkpoints.ModelSpec("wrn-10-1", None, 10, (3, 32, 32), None, None)
    assert list(loaded.state_dict) == list(small())


def test_rsts_own_normalisation_comes_with_its_weights(tmp_path: Path) -> None:
    mean, std = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.25, 0.5, 1.0])
    buffers = {"0.mean": mean.view(1, 3, 1, 1), "0.std": std.view(1, 3, 1, 1)}
    state = prefixed(buffers | prefixed(small(), "1."), "module.")
    value = {"num_classes": 10, "state_dict": state, "normalize_input": True}
    spec = checkpoints.load(written(tmp_path / "x.pt", value)).model_spec
    assert (spec.mean, spec.std) == (tuple(mean.tolist()), tuple(std.tolist()))


def test_a_file_that_holds_itself_holds_no_weights(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["state_dict"] = endless
    with pytest.raises(InputError) as caught:
        checkpoints.load(written(tmp_path / "x.pt", endless))
    assert caught.value.what == f"{tmp_path / 'x.pt'} holds no weights"


UNKNOWN = {
    "resnet": ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.1.conv2.weight", "linear.weight"],
    "half a prn18": ["bn.weight", "layer4.1.conv2.weight"],
    "vgg": ["features.0.weight", "classifier.weight"],
    "flat": ["conv3.weight", "bn3.weight", "fc.weight", "conv1.weight"],
}


@pytest.mark.parametrize("keys", UNKNOWN.values(), ids=UNKNOWN)
def test_a_net_of_no_known_family_is_refused_unless_it_is_named(tmp_path: Path, keys: list[str]) -> None:
    path = written(tmp_path / "x.pt", {key: torch.zeros(2) for key in keys})
    with pytest.raises(InputError) as caught:
        checkpoints.load(path)
    assert caught.value.what == f"{path} holds the weights of no architecture known here"
    assert caught.value.mend == (
        "Known: prn18, wrn-34-10, wrn-28-10, resnet18, vgg19, small-cnn, small-cnn-nobn, wrn-D-W. For a net of "
        "RobustBench use --robustbench ID --weights FILE, for any other --model FILE.py:factory."
    )
    with pytest.raises(InputError) as caught:
        checkpoints.load(path, arch="wrn28", dataset="mnist")
    assert caught.value.what.startswith(f"{path} does not hold the weights of WideResNet-28-10: missing ")


def test_files_from_before_batch_norm_counted_its_batches_load(tmp_path: Path) -> None:
    state = {key: value for key, value in small().items() if not key.endswith("num_batches_tracked")}
    assert checkpoints.load(written(tmp_path / "x.pt", state)).build()(images(1).float()).shape == (1, 10)


def test_a_data_set_with_other_images_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pt", small())
    for preprocessing in (None, "meanstd"):
        with pytest.raises(InputError) as caught:
            checkpoints.load(path, dataset="mnist", preprocessing=preprocessing)
        assert caught.value.what == f"{path} takes images of 3 channels, and those of mnist have 1"
        assert caught.value.mend == "Choose another --dataset or checkpoint."


def test_a_foreign_safetensors_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(prefixed(small(), "module."), path)
    checkpoint = checkpoints.load(path)
    assert checkpoint.model_spec == checkpoints.ModelSpec("wrn-10-1", None, 10, (3, 32, 32), None, None)


def test_float64_normalisation_keeps_its_digits(tmp_path: Path) -> None:
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    path = written(tmp_path / "x.pt", {"mu": third, "sigma": third} | small())
    normalize = checkpoints.load(path).build(torch.float64).normalize
    assert isinstance(normalize, torch.nn.Module)
    out = normalize(torch.ones(1, 3, 1, 1, dtype=torch.float64))
    assert math.isclose(out[0, 0, 0, 0].item(), 2.0, rel_tol=1e-15)
