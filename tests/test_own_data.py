"""A user's own data set at a path: what is read, what is refused, and all commands on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from awpbench import data, own_data
from awpbench.cli import main
from awpbench.defaults import facts_of, resolve_training
from awpbench.errors import InputError, UsageError

Arrays = dict[str, Any]
RUN = ["--method", "at", "--width", "2", "--epochs", "1", "--steps", "1", "--track-steps", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def arrays(n: int = 30, shape: tuple[int, ...] = (8, 9, 3), classes: int = 3) -> Arrays:
    """Images whose brightness tells their class, so that something can be learnt."""
    rng = np.random.RandomState(0)
    found: Arrays = {}
    for split, size in (("train", n), ("test", 12)):
        labels = np.arange(size) % classes
        noise = rng.randint(0, 256 // classes, (size, *shape))
        brightness = (labels * (256 // classes)).reshape(-1, *[1] * len(shape))
        found |= {f"x_{split}": (noise + brightness).astype(np.uint8), f"y_{split}": labels}
    return found


def npz(**changes: Any) -> str:
    np.savez("own.npz", **{key: value for key, value in (arrays() | changes).items() if value is not None})
    return "own.npz"


def folder(name: str = "pics", suffix: str = "png", shape: tuple[int, ...] = (8, 9, 3)) -> str:
    content = arrays(shape=shape, classes=2)
    for split in ("train", "test"):
        for k, (pixels, label) in enumerate(zip(content[f"x_{split}"], content[f"y_{split}"], strict=True)):
            path = Path(name) / split / ("ant", "bee")[label] / f"{k:03}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return name


def refusal(name: str) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        data.load(name, validation=0)
    return caught.value.what, caught.value.mend


def test_an_npz_is_read_with_keras_names_and_channels_last() -> None:
    content = arrays()
    found = data.load(npz())
    assert (found.classes, found.shape) == (3, (3, 8, 9))
    assert [len(split) for split in (found.train, found.validation, found.test)] == [27, 3, 12]
    assert torch.equal(found.test.images.permute(0, 2, 3, 1), torch.from_numpy(content["x_test"]))
    assert found.test.labels.tolist() == content["y_test"].tolist()
    assert sorted(found.validation.labels.tolist()) == [0, 1, 2]
    both = torch.cat([found.train.indices, found.validation.indices])
    assert sorted(both.tolist()) == list(range(30))


def test_grey_images_need_no_channel_and_labels_may_stand_in_a_column() -> None:
    content = arrays(shape=(8, 9))
    columns = {key: content[key].astype(np.uint8)[:, None] for key in ("y_train", "y_test")}
    found = data.load(npz(**content | columns))
    assert (found.shape, found.classes) == ((1, 8, 9), 3)
    assert torch.equal(found.test.images[:, 0], torch.from_numpy(content["x_test"]))


def test_mean_and_deviation_are_those_of_all_training_images() -> None:
    content = arrays()
    found = data.load(npz(), train_examples=5)
    pixels = content["x_train"] / 255
    assert found.normalization is not None
    mean, std = found.normalization
    assert mean == tuple(pixels.mean((0, 1, 2)).round(4).tolist())
    assert std == tuple(pixels.std((0, 1, 2)).round(4).tolist())


def test_a_channel_that_never_varies_has_deviation_1() -> None:
    images = np.full((4, 2, 2, 2), 51, dtype=np.uint8)
    images[0] = 255
    images[:, 1] = 51
    assert own_data.statistics(images) == ((0.4, 0.2), (0.3464, 1.0))


@pytest.mark.parametrize(
    ("changes", "what", "mend"),
    [
        ({"x_test": None}, "own.npz holds no x_test", own_data.NPZ),
        (
            {"x_train": np.zeros((30, 8, 9, 3))},
            "own.npz: x_train is float64 of shape (30, 8, 9, 3)",
            "Save images as uint8 of shape (N, H, W, C), or (N, H, W) where they are grey.",
        ),
        (
            {"x_train": np.zeros((30, 3, 8, 9), dtype=np.uint8)},
            "own.npz: x_train is uint8 of shape (30, 3, 8, 9), which are 9 channels",
            "Save the channels last: (N, H, W, C).",
        ),
        (
            {"y_train": np.zeros(29, dtype=int)},
            "own.npz: y_train is int64 of shape (29,)",
            "Save one whole number for each of the 30 images, the classes numbered from 0.",
        ),
        (
            {"y_train": np.eye(3)[np.arange(30) % 3]},
            "own.npz: y_train is float64 of shape (30, 3)",
            "Save one whole number for each of the 30 images, the classes numbered from 0.",
        ),
        (
            {"y_train": np.arange(30) % 3 + 1},
            "own.npz: y_train holds 3 classes numbered from 1 to 3",
            "Number the classes from 0; each needs a training image.",
        ),
        (
            {"y_train": np.zeros(30, dtype=int)},
            "own.npz has one class, and there is nothing to tell apart",
            "Give images of two classes.",
        ),
        (
            {"y_test": np.full(12, 3)},
            "own.npz: test labels from 3 to 3, not 0 to 2",
            "Number the classes from 0; each needs a training image.",
        ),
        (
            {"x_test": np.zeros((12, 8, 8, 3), dtype=np.uint8)},
            "own.npz: test images of shape (3, 8, 8), and training images of (3, 8, 9)",
            own_data.NPZ,
        ),
    ],
)
def test_an_npz_that_does_not_hold_what_it_should_is_refused(changes: Arrays, what: str, mend: str) -> None:
    assert refusal(npz(**changes)) == (what, mend)


def test_a_file_that_is_no_npz_and_one_that_is_missing_are_refused(tmp_path: Path) -> None:
    assert refusal("own.npz") == (
        f"there is no data set own.npz here ({tmp_path}): No such file or directory",
        "Give its path with --dataset, which eval and verify take too, or change into its folder.",
    )
    Path("own.npz").write_text("no archive")
    assert refusal("own.npz") == ("own.npz: x_train cannot be read (File is not a zip file)", own_data.NPZ)


def test_pickled_objects_in_an_npz_are_not_loaded() -> None:
    name = npz(y_train=np.array([None] * 30))
    assert refusal(name)[0].startswith("own.npz: y_train cannot be read (Object arrays cannot be loaded")


def test_a_folder_is_read_one_image_of_each_class_in_turn() -> None:
    found = data.load(folder(), validation=0)
    assert (found.classes, found.shape) == (2, (3, 8, 9))
    assert found.test.labels.tolist() == [0, 1] * 6  # ant, bee, ant, ...
    content = arrays(classes=2)
    assert torch.equal(found.test.images.permute(0, 2, 3, 1), torch.from_numpy(content["x_test"]))


@pytest.mark.parametrize(
    ("suffix", "shape"), [("bmp", (8, 9, 3)), ("tiff", (8, 9)), ("webp", (8, 9, 3)), ("png", (8, 9))]
)
def test_any_format_that_pillow_reads_will_do(suffix: str, shape: tuple[int, ...]) -> None:
    found = data.load(folder(suffix=suffix, shape=shape), validation=0)
    assert found.shape == ((1, 8, 9) if len(shape) == 2 else (3, 8, 9))
    if suffix != "webp":  # which loses something
        assert torch.equal(found.test.images[0], data.load(folder("again", shape=shape), validation=0).test.images[0])


def test_hidden_files_are_passed_over_and_others_are_refused() -> None:
    name = folder()
    Path("pics/train/ant/.DS_Store").write_text("x")
    assert len(data.load(name, validation=0).train) == 30
    Path("pics/train/ant/readme.txt").write_text("x")
    what, mend = refusal(name)
    assert what.startswith("pics/train/ant/readme.txt is no image that Pillow can read")
    assert mend == "Remove or replace it."


def test_images_of_two_sizes_or_of_another_depth_are_refused() -> None:
    name = folder()
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save("pics/train/bee/zzz.png")
    first = "and the first image 8x9 with 3 channel(s)"
    assert refusal(name) == (f"pics/train/bee/zzz.png is 9x9 with 3 channel(s), {first}", own_data.FOLDER)
    Image.fromarray(np.zeros((8, 9), dtype=np.uint16)).save("pics/train/bee/zzz.png")
    assert refusal(name) == (
        "pics/train/bee/zzz.png has more than 8 bits a channel (I;16)",
        "Convert it to 8 bits.",
    )


def test_a_grey_image_among_coloured_ones_has_three_equal_channels() -> None:
    name = folder()
    Image.fromarray(np.full((8, 9), 7, dtype=np.uint8)).save("pics/test/bee/zzz.png")
    assert (data.load_test(name).images[-1] == 7).all()


def test_a_coloured_image_among_grey_ones_is_refused_and_one_of_grey_colours_is_not() -> None:
    name = folder(shape=(8, 9))
    Image.fromarray(np.full((8, 9, 3), 7, dtype=np.uint8)).save("pics/test/bee/zzz.png")
    assert data.load_test(name).images[-1].unique().tolist() == [7]
    Image.fromarray(np.array([[[7, 7, 8]] * 9] * 8, dtype=np.uint8)).save("pics/test/bee/zzz.png")
    with pytest.raises(InputError) as caught:
        data.load_test(name)
    assert (
        caught.value.what == "pics/test/bee/zzz.png is 8x9 with 3 channel(s), and the first image 8x9 with 1 channel(s)"
    )


def test_folders_that_lack_something_are_refused() -> None:
    name = folder()
    Path("pics/test/wasp").mkdir()
    assert refusal(name) == ("pics/test has a class 'wasp', and pics/train has none", own_data.FOLDER)
    Path("pics/train/wasp").mkdir()
    assert refusal(name) == ("pics/train has no image of wasp", own_data.FOLDER)
    Path("empty").mkdir()
    assert refusal("empty") == ("empty/train cannot be read (No such file or directory)", own_data.FOLDER)


def test_a_built_in_name_wins_over_a_folder_of_that_name() -> None:
    Path("digits").mkdir()
    assert len(data.load_test("digits")) == 400
    assert resolve_training({"dataset": "digits"})[0].dataset == "digits"


def test_what_depends_on_the_data_set_follows_from_the_files() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_training({"dataset": npz()})
    assert caught.value.what == "there is no usual budget on own.npz in Linf"
    assert caught.value.mend == "Give one, such as --eps 8/255."
    config, sources = resolve_training({"dataset": folder(), "eps": "8/255"})
    assert (config.dataset, config.architecture, config.augmentation) == ("./pics", "small-cnn", "none")
    assert (config.validation_examples, config.name()) == (3, "pics-small-cnn-at-s0")
    assert sources["validation_examples"] == "data set ./pics"
    np.savez("big.npz", **arrays(shape=(32, 40, 3)))
    assert facts_of("big.npz").model == "prn18"


def test_a_path_is_never_shown_as_a_built_in_data_set() -> None:
    assert [own_data.shown(name) for name in ("cifar10", "x/cifar10.npz", "x/cifar10/", "./digits")] == [
        "cifar10", "cifar10.npz", "cifar10/", "digits/",
    ]  # fmt: skip
    assert [own_data.slug(name) for name in ("fashion-mnist", "../my data.npz", "x/pics/")] == [
        "fashion-mnist", "my-data", "pics",
    ]  # fmt: skip


@pytest.mark.parametrize("make", [npz, folder], ids=["npz", "folder"])
def test_every_command_takes_the_users_own_data(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name = make()
    words = ["train", "--dataset", name, "--eps", "8/255", "--out", "run", *RUN]
    assert main(words) == 0
    assert main(["resume", "run", "--device", "cpu"]) == 0
    mean = data.load(name).normalization
    assert mean is not None
    checkpoint = torch.load("run/best.pt", weights_only=True)
    assert (checkpoint["model"]["mean"], checkpoint["model"]["std"]) == mean
    evaluation = ["eval", "--ckpt", "run/best.pt", "--suite", "quick", "--evidence", "--device", "cpu"]
    assert main([*evaluation, "--file", "board.json"]) == 0
    folder = "run/eval/best-quick-v1.0"
    assert main(["verify", folder, "--reattack", "3", "--device", "cpu"]) == 0
    row = json.loads(Path("board.json").read_text())["rows"][0]
    shown = name if name.endswith(".npz") else f"{name}/"
    assert (row["dataset"], row["awpbench"]["dataset"], row["awpbench"]["train"]["dataset"]) == (shown,) * 3
    assert main(["data", "check", name]) == 0
    assert main(["data", "fetch", name]) == 0
    assert capsys.readouterr().out.endswith(f"{name}: your own, complete, nothing to fetch\n")
    Path("moved").mkdir()
    Path(name).rename(Path("moved") / name)
    assert main(["verify", folder, "--device", "cpu"]) == 4
    assert main(["verify", folder, "--dataset", f"moved/{name}", "--reattack", "3", "--device", "cpu"]) == 0
    assert main([*evaluation, "--dataset", f"moved/{name}", "--no-row", "--out", "again"]) == 0


def test_a_foreign_state_dict_is_normalised_as_the_users_own_images(capsys: pytest.CaptureFixture[str]) -> None:
    from awpbench import models

    torch.save(models.build("small-cnn", classes=3, shape=(3, 8, 9), width=2).state_dict(), "x.pt")
    words = ["eval", "--ckpt", "x.pt", "--preprocessing", "meanstd", "--dataset", npz(), "--norm", "Linf"]
    assert main([*words, "--eps", "8/255", "--attack", "fgsm", "--device", "cpu", "--out", "out"]) == 0
    told = json.loads(Path("out/result.json").read_text())["model"]["preprocessing"]
    mean = data.load("own.npz").normalization
    assert mean is not None
    assert (tuple(told["mean"]), tuple(told["std"])) == mean
