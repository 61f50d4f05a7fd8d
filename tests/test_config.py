"""Values as written, their defaults and their sources."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench import defenses
from awpbench.config import Ratio, TrainConfig
from awpbench.defaults import read_config_file, resolve_training
from awpbench.errors import InputError, UsageError


def resolve(**flags: Any) -> tuple[TrainConfig, dict[str, str]]:
    return resolve_training(flags)


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.031", 0.031), ("1", 1.0), (" 2/255 ", 2 / 255)])
def test_a_ratio_keeps_its_text_beside_its_value(text: str, value: float) -> None:
    ratio = Ratio.parse(text)
    assert (ratio.text, ratio.value, str(ratio)) == (text.strip(), value, text.strip())


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("3/20", "0.15"),
        ("16/510", "8/255"),
        ("1e-3", "0.001"),
        ("8.0/255", "8/255"),
        ("255/255", "1"),
        ("2/6", "85/255"),
        ("0.8/255", "0.8/255"),
        ("1/7", "1/7"),
        ("0.150", "0.15"),
        ("0", "0"),
        ("100", "100"),
    ],
)
def test_a_ratio_has_one_spelling(text: str, spelling: str) -> None:
    assert Ratio.parse(text).text == spelling
    assert Ratio.parse(spelling) == Ratio.parse(text)


def test_an_unspellable_ratio_stays_exact() -> None:
    assert Ratio.parse("8/255").times(3, 31).text == "8/2635"
    assert Ratio.parse("0.031").times(3, 31).text == "0.003"


@pytest.mark.parametrize("text", ["eight", "8/", "8/0", "1/2/3", "", "nan", "inf", "1e-9999999", "1e-400", "1_0", "٣"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Ratio.parse(text)
    assert refused.value.mend == "Write a decimal such as 0.031 or a fraction such as 8/255."


@given(top=st.integers(0, 1000), bottom=st.integers(1, 1000), by=st.integers(1, 64))
def test_scaling_a_ratio_scales_its_value_and_its_text_alike(top: int, bottom: int, by: int) -> None:
    scaled = Ratio.parse(f"{top}/{bottom}").times(1, by)
    assert scaled.value == pytest.approx(top / bottom / by, rel=1e-15)
    assert Ratio.parse(scaled.text) == scaled


def test_a_quarter_of_8_over_255_is_2_over_255() -> None:
    assert Ratio.parse("8/255").times(1, 4).text == "2/255"
    assert Ratio.parse("128/255").times(15, 128).text == "15/255"


def test_a_config_survives_json() -> None:
    config, _ = resolve(architecture="wrn-34-10", defense="trades", awp=True, eps="8/255")
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_the_first_command_resolves_to_the_published_protocol_of_trades_awp() -> None:
    config, sources = resolve(architecture="wrn-34-10", defense="trades", awp=True)
    expected: dict[str, Any] = {
        "dataset": "cifar10",
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "schedule": "piecewise",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "beta": 6.0,
        "awp_gamma": 0.005,
        "awp_warmup": 10,
        "steps": 10,
        "normalization": "none",
        "padding": "zero",
        "validation_examples": 1000,
        "select_on": "validation",
    }
    assert {key: getattr(config, key) for key in expected} == expected
    assert (config.eps.text, config.step_size.text) == ("8/255", "2/255")
    assert sources["awp_gamma"] == "defense trades"
    assert sources["eps"] == "data set cifar10"
    assert sources["awp"] == "flag"


def test_a_random_perturbation_takes_the_size_and_the_warm_up_of_its_defense() -> None:
    config, sources = resolve(defense="trades", rwp=True, epochs=40)
    assert (config.awp, config.awp_gamma, config.awp_warmup) == (False, 0.005, 2)
    assert (sources["awp_gamma"], sources["awp_warmup"]) == ("defense trades", "defense trades")
    assert (sources["rwp"], sources["awp_steps"]) == ("flag", "default")


def test_l2_takes_the_place_of_the_weight_decay() -> None:
    config, sources = resolve(l2=5e-3)
    assert (config.l2, config.weight_decay, sources["weight_decay"]) == (5e-3, 0.0, "l2")
    config, sources = resolve()
    assert (config.l2, config.weight_decay, sources["weight_decay"]) == (0.0, 5e-4, "default")


def test_a_configuration_without_flags_is_held_to_the_same_rules() -> None:
    values = resolve()[0].model_dump()
    with pytest.raises(UsageError, match="a size of the weights' perturbation is given, but there is none"):
        TrainConfig(**(values | {"awp_steps": 2}))


def test_at_resolves_to_the_published_protocol_of_at_awp() -> None:
    config, _ = resolve(defense="at", awp=True)
    assert (config.awp_gamma, config.awp_warmup) == (0.01, 0)
    assert (config.normalization, config.padding) == ("meanstd", "reflect")


@pytest.mark.parametrize(
    ("dataset", "norm", "eps"),
    [
        ("cifar10", "Linf", "8/255"),
        ("cifar10", "L2", "128/255"),
        ("cifar100", "Linf", "8/255"),
        ("svhn", "L2", "128/255"),
        ("mnist", "Linf", "0.3"),
        ("fashion-mnist", "Linf", "0.1"),
        ("digits", "Linf", "0.15"),
    ],
)
def test_the_budget_depends_on_the_data_set_and_the_norm(dataset: str, norm: str, eps: str) -> None:
    assert resolve(dataset=dataset, norm=norm)[0].eps.text == eps


def test_at_on_svhn_takes_smaller_steps_a_lower_rate_and_a_warm_up() -> None:
    config, sources = resolve(dataset="svhn", defense="at", awp=True)
    assert (config.step_size.text, config.lr, config.awp_warmup) == ("1/255", 0.01, 5)
    assert (config.augmentation, config.architecture) == ("none", "prn18")
    told = [sources[key] for key in ("step_size", "lr", "awp_warmup", "augmentation")]
    assert told == ["dialect awp, data set svhn", "data set svhn", "defense at on data set svhn", "data set svhn"]
    assert resolve(dataset="svhn", norm="L2")[0].step_size.text == "15/255"
    assert resolve(dataset="svhn", defense="trades", awp=True)[0].awp_warmup == 10
    assert resolve(dataset="svhn", lr=0.1)[0].lr == 0.1


def test_cifar100_is_shifted_flipped_and_turned_with_zeros_outside() -> None:
    config, sources = resolve(dataset="cifar100")
    assert (config.augmentation, config.padding, config.step_size.text) == ("crop-flip-rotate", "zero", "2/255")
    assert sources["augmentation"] == "data set cifar100"


def test_the_model_of_a_data_set_is_one_that_fits_its_images() -> None:
    models = [resolve(dataset=name)[0].architecture for name in ("cifar10", "cifar100", "svhn", "mnist", "digits")]
    assert models == ["prn18", "prn18", "prn18", "small-cnn", "small-cnn"]


def test_l2_steps_are_15_over_255_at_the_budget_128_over_255() -> None:
    assert resolve(norm="L2")[0].step_size.text == "15/255"


def test_a_flag_wins_over_the_file_and_the_file_over_the_default() -> None:
    config, sources = resolve_training({"epochs": 7, "lr": None}, {"epochs": 9, "lr": 0.2})
    assert (config.epochs, config.lr) == (7, 0.2)
    assert (sources["epochs"], sources["lr"], sources["seed"]) == ("flag", "file", "default")


def test_selection_on_test_sets_no_images_aside() -> None:
    assert resolve(select_on="test")[0].validation_examples == 0


@pytest.mark.parametrize(
    ("flags", "what", "mend"),
    [
        (
            {"defense": "tardes"},
            "there is no defense called 'tardes'",
            "Did you mean 'trades'? Known: standard, at, trades, mart, finetuning, rst.",
        ),
        (
            {"dataset": "cifar-10"},
            "there is no data set called 'cifar-10'",
            "Did you mean 'cifar10'? Known: cifar10, cifar100, svhn, mnist, fashion-mnist, digits.",
        ),
        (
            {"awp": True, "epochs": 5, "awp_warmup": 5},
            "AWP would start after epoch 5, but the run has 5 epochs",
            "Give a smaller --awp-warmup or more --epochs.",
        ),
        (
            {"awp_gamma": 0.01},
            "--awp-gamma would do nothing: AWP and RWP are off",
            "Add --awp or --rwp, or leave them out.",
        ),
        (
            {"awp_steps": 1, "awp_size": "l2"},
            "--awp-steps, --awp-size would do nothing: AWP and RWP are off",
            "Add --awp or --rwp, or leave them out.",
        ),
        (
            {"awp": True, "rwp": True},
            "a perturbation of the weights is adversarial or random",
            "Give --awp or --rwp, not both.",
        ),
        (
            {"rwp": True, "awp_gamma": 0.0},
            "RWP with gamma 0 would never perturb anything",
            "Give an --awp-gamma above 0, or --no-rwp.",
        ),
        (
            {"rwp": True, "awp_warmup": 200},
            "RWP would start after epoch 200, but the run has 200 epochs",
            "Give a smaller --awp-warmup or more --epochs.",
        ),
        (
            {"rwp": True, "awp_steps": 2},
            "RWP draws once a step: it has no ascent steps and no alternations",
            "Leave --awp-steps and --awp-alternations out, or choose --awp.",
        ),
        (
            {"rwp": True, "awp_alternations": 2},
            "RWP draws once a step: it has no ascent steps and no alternations",
            "Leave --awp-steps and --awp-alternations out, or choose --awp.",
        ),
        (
            {"l2": 5e-3, "weight_decay": 5e-4},
            "--l2 takes the place of --weight-decay, which is 0.0005",
            "Leave --weight-decay or --l2 out.",
        ),
        *[
            (
                {"mixup": 1.4, "defense": defense},
                f"mixup mixes the labels that a cross-entropy is taken of, and {defense} needs whole ones",
                "Leave --mixup out, or choose --method at or standard.",
            )
            for defense in ("trades", "mart")
        ],
        *[
            (
                {"mixup": 1.4, kind: True},
                "mixup is defined without a perturbation of the weights, as in the public code",
                "Leave --mixup out, or --awp and --rwp.",
            )
            for kind in ("awp", "rwp")
        ],
        (
            {"label_smoothing": 0.1, "defense": "mart"},
            "MART's loss reads the probability of one label and has no place for smoothed ones",
            "Leave --label-smoothing out, or choose another --method.",
        ),
        ({"cutout": 33}, "--cutout is 33, and the images have 32x32 pixels", "Give a side that fits into them."),
        (
            {"nesterov": True, "momentum": 0.0},
            "--nesterov needs a momentum, which is 0",
            "Give a --momentum above 0, or --no-nesterov.",
        ),
        (
            {"lr_end": 0.001},
            "--lr-end is where the cosine ends, at most --lr: it is 0.001 of piecewise",
            "Give --schedule cosine and a smaller --lr-end, or leave it out.",
        ),
        (
            {"lr_end": 0.2, "schedule": "cosine"},
            "--lr-end is where the cosine ends, at most --lr: it is 0.2 of cosine",
            "Give --schedule cosine and a smaller --lr-end, or leave it out.",
        ),
        (
            {"validation_examples": 0},
            "the best checkpoint is chosen on validation images, but none are set aside",
            "Give --validation-examples, or --select-on test.",
        ),
        ({"beta": 6.0}, "the defense at has no beta", "Leave --beta out, or choose --method trades or mart."),
        ({"epochs": 0}, "--epochs is 0: Input should be greater than or equal to 1", "Give another --epochs."),
        (
            {"schedule": "cosin"},
            "there is no --schedule called 'cosin'",
            "Did you mean 'cosine'? Known: piecewise, cosine, cyclic, linear, one-drop, multi-decay.",
        ),
        ({"padding": 3}, "--padding is 3: Input should be 'reflect' or 'zero'", "Give another --padding."),
        ({"norm": "linf"}, "there is no norm called 'linf'", "Did you mean 'Linf'? Known: Linf, L2."),
        (
            {"norm": "L2", "eps": "128"},
            "eps is 128, but no two images are further than 55.43 apart",
            "Write it as a fraction of 255: 128/255.",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_way_to_mend_it(flags: dict[str, Any], what: str, mend: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve(**flags)
    assert (refused.value.what, refused.value.mend) == (what, mend)


def test_an_unknown_key_in_the_file_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UsageError) as refused:
        resolve_training({}, {"epoch": 3})
    assert refused.value.what == "there is no configuration value called 'epoch'"
    assert refused.value.mend.startswith("Did you mean 'epochs'?")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("epochs: 3")
    with pytest.raises(InputError, match="is not a TOML file"):
        read_config_file(tmp_path / "x.toml")
    with pytest.raises(InputError, match="there is no configuration file"):
        read_config_file(tmp_path / "missing.toml")


def test_the_name_of_a_run_says_what_it_is() -> None:
    assert resolve(architecture="wrn-34-10", defense="trades", awp=True)[0].name() == "cifar10-wrn-34-10-trades-awp-s0"
    assert resolve(width=16)[0].name() == "cifar10-prn18-w16-at-s0"
    assert resolve(rwp=True, seed=3)[0].name() == "cifar10-prn18-at-rwp-s3"


def test_no_default_is_nan() -> None:
    borrowing: dict[str, dict[str, Any]] = {"finetuning": {"init_from": "x.pt"}, "rst": {"unlabelled": "x.npz"}}
    for defense in defenses.DEFENSES:
        values = resolve(defense=defense, **borrowing.get(defense, {}))[0].model_dump().values()
        assert not any(isinstance(value, float) and math.isnan(value) for value in values)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"epochs": "many"}, "epochs is 'many' in the file: Input should be a valid integer"),
        ({"dataset": 5}, "dataset is 5 in the file: Input should be a valid string"),
    ],
)
def test_a_value_of_another_type_in_a_file_is_refused(values: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve_training({}, values)
    assert refused.value.what.startswith(what)


def test_awp_that_never_starts_is_refused() -> None:
    with pytest.raises(UsageError, match="AWP with gamma 0 would never perturb anything"):
        resolve(awp=True, awp_gamma=0.0)


def test_mart_weighs_its_robust_term_as_the_public_code_does_per_architecture() -> None:
    assert resolve(defense="mart", architecture="wrn-34-10")[0].beta == 6.0
    assert resolve(defense="mart", architecture="prn18")[0].beta == 5.0


def test_finetuning_takes_its_own_schedule_and_the_attack_and_loss_of_at() -> None:
    cfg, sources = resolve(defense="finetuning", init_from="x.pt", awp=True)
    values = (cfg.loss, cfg.epochs, cfg.batch_size, cfg.lr, cfg.schedule, cfg.lr_end, cfg.nesterov, cfg.weight_decay)
    assert values == ("at", 50, 128, 0.001, "cosine", 1e-6, True, 5e-4)
    assert (cfg.normalization, cfg.padding, cfg.steps, cfg.beta, cfg.awp_gamma) == ("meanstd", "zero", 10, None, 0.01)
    assert (sources["lr"], sources["loss"], sources["padding"]) == ("defense finetuning",) * 3
    assert (sources["steps"], sources["awp_gamma"]) == ("loss at", "loss at")


def test_rst_takes_its_own_schedule_and_the_attack_and_loss_of_trades() -> None:
    cfg, sources = resolve(defense="rst", unlabelled="x.npz", awp=True)
    values = (cfg.loss, cfg.epochs, cfg.batch_size, cfg.lr, cfg.schedule, cfg.lr_end, cfg.nesterov, cfg.weight_decay)
    assert values == ("trades", 200, 256, 0.1, "cosine", 0.0, True, 5e-4)
    assert (cfg.normalization, cfg.padding, cfg.beta, cfg.awp_gamma, cfg.awp_warmup) == ("none", "zero", 6.0, 0.005, 10)
    assert (cfg.unlabelled_fraction, cfg.unlabelled_weight) == (0.5, 1.0)
    assert (sources["batch_size"], sources["normalization"]) == ("defense rst", "defense rst")
    assert (sources["beta"], sources["awp_gamma"]) == ("loss trades", "loss trades")


def test_the_end_of_finetunings_cosine_goes_with_the_cosine() -> None:
    assert resolve(defense="finetuning", init_from="x.pt", schedule="piecewise")[0].lr_end == 0.0
    assert resolve(defense="finetuning", init_from="x.pt", lr=0.01)[0].lr_end == 1e-6


def test_a_borrowed_loss_brings_its_own_hyperparameters() -> None:
    cfg, sources = resolve(defense="rst", unlabelled="x.npz", loss="mart", architecture="wrn-28-10")
    assert (cfg.beta, sources["beta"]) == (6.0, "loss mart, wide residual network")
    assert resolve(defense="rst", unlabelled="x.npz", loss="at")[0].beta is None
    assert resolve(defense="finetuning", init_from="x.pt", loss="trades")[0].normalization == "none"


@pytest.mark.parametrize(
    ("flags", "what", "mend"),
    [
        (
            {"defense": "finetuning"},
            "finetuning starts from a pre-trained net, and none is given",
            "Add --init-from CHECKPOINT.",
        ),
        (
            {"defense": "rst"},
            "--method rst and --unlabelled FILE need each other",
            "Make the file with: awpbench data pseudolabel --ckpt CHECKPOINT --images FILE --out FILE.npz",
        ),
        (
            {"defense": "at", "unlabelled": "x.npz"},
            "--method rst and --unlabelled FILE need each other",
            "Make the file with: awpbench data pseudolabel --ckpt CHECKPOINT --images FILE --out FILE.npz",
        ),
        (
            {"defense": "rst", "unlabelled": "x.npz", "loss": "standard"},
            "rst takes attack and loss of another defense, and standard lends none",
            "Give --loss at, trades or mart.",
        ),
        (
            {"defense": "at", "loss": "trades"},
            "--loss trades is for finetuning and rst",
            "Leave it out, or --method trades.",
        ),
        (
            {"defense": "rst", "unlabelled": "x.npz", "unlabelled_fraction": 0.001},
            "of a batch of 256, 0.001 leaves one part without an image",
            "Give a larger --batch-size, or an --unlabelled-fraction nearer to 0.5.",
        ),
    ],
)
def test_what_finetuning_and_rst_need_is_said(flags: dict[str, Any], what: str, mend: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve(**flags)
    assert (refused.value.what, refused.value.mend) == (what, mend)


@pytest.mark.parametrize("flags", [{"unlabelled_fraction": 0.3}, {"unlabelled_weight": 3.0}])
def test_a_share_or_weight_of_pseudo_labels_without_any_is_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(defense="at", **flags)
    assert caught.value.what == (
        "--unlabelled-fraction and --unlabelled-weight would do nothing: there are no pseudo-labelled images"
    )
    assert caught.value.mend == "Leave them out, or choose --method rst."


def test_no_mistake_of_public_code_is_repeated_by_default() -> None:
    for defense, more in (("at", {}), ("finetuning", {"init_from": "x.pt"}), ("rst", {"unlabelled": "x.npz"})):
        assert resolve(defense=defense, **more)[0].compat == ()


@pytest.mark.parametrize(
    ("values", "what", "mend"),
    [
        (
            {"compat": ["hendrycks-attack-center"]},
            "there is no compat name called 'hendrycks-attack-center'",
            "Did you mean 'hendrycks-attack-centre'? Known: hendrycks-attack-centre, svhn-l2-start, first-batch-eval.",
        ),
        (
            {"compat": ["svhn-l2-start"]},
            "compat svhn-l2-start is a mistake of the attack of at in L2, which this run does not use",
            "Leave it out.",
        ),
        (
            {"compat": ["first-batch-eval"], "defense": "trades"},
            "compat first-batch-eval is a mistake of the attack of at, which this run does not use",
            "Leave it out.",
        ),
        (
            {"compat": ["first-batch-eval", "first-batch-eval"]},
            "a name stands twice in compat",
            "Leave one of them out.",
        ),
    ],
)
def test_a_mistake_that_is_unknown_or_cannot_occur_is_refused(values: dict[str, Any], what: str, mend: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve_training({}, values)
    assert (refused.value.what, refused.value.mend) == (what, mend)


def test_a_file_names_mistakes_to_repeat() -> None:
    cfg, sources = resolve_training({}, {"compat": ["hendrycks-attack-centre", "first-batch-eval"]})
    assert cfg.compat == ("hendrycks-attack-centre", "first-batch-eval")
    assert sources["compat"] == "file"


@pytest.mark.parametrize("precision", ["fp32", "bf16-attack", "bf16"])
@pytest.mark.parametrize("defense", list(defenses.DEFENSES))
def test_every_defense_has_every_precision(defense: str, precision: str) -> None:
    needs = {"finetuning": {"init_from": "x.pt"}, "rst": {"unlabelled": "x.npz"}}.get(defense, {})
    assert resolve_training({"defense": defense, "precision": precision, **needs})[0].precision == precision
