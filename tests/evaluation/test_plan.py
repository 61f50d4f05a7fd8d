from __future__ import annotations

from typing import Any

import pytest

from awpbench.errors import UsageError
from awpbench.evaluation.plan import definition, read_limits, resolve_evaluation
from awpbench.evaluation.suites import SUITES

THREAT = {"dataset": "cifar10", "norm": "Linf", "eps": "8/255"}
CHECKPOINT = {"dataset": "digits", "norm": "L2", "eps": "0.5"}


def test_clean_predictions_cannot_be_limited() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_evaluation({**THREAT, "suite": "quick", "limits": {"clean": 5}})
    assert caught.value.mend == "Limit the attacks, or give --n-examples."


def test_a_budget_is_not_inherited_under_another_norm() -> None:
    brings = {"dataset": "cifar10", "norm": "Linf", "eps": "8/255"}
    with pytest.raises(UsageError, match="nothing names the data and the threat to evaluate on: --eps missing"):
        resolve_evaluation({"suite": "quick", "norm": "L2"}, checkpoint=brings)
    assert resolve_evaluation({"suite": "quick", "norm": "Linf"}, checkpoint=brings)[0].eps.text == "8/255"


def test_a_step_beyond_all_images_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_evaluation({**THREAT, "suite": "quick", "step_size": "2"})
    assert caught.value.mend == "Write it as a fraction of 255: 2/255."


def test_a_budget_of_0_needs_no_step() -> None:
    assert resolve_evaluation({**THREAT, "eps": "0", "suite": "quick"})[0].step_size.value == 0


def test_the_suites_are_those_of_version_1_0() -> None:
    assert {suite.name: (suite.version, suite.attacks) for suite in SUITES.values()} == {
        "quick": ("1.0", ("clean", "fgsm", "pgd-20")),
        "standard": ("1.0", ("clean", "autoattack")),
        "full": ("1.0", ("clean", "fgsm", "pgd-20", "pgd-100", "cw-inf", "spsa", "autoattack")),
    }


def test_a_flag_wins_over_the_file_over_the_checkpoint_over_the_default() -> None:
    config, sources = resolve_evaluation(
        {"eps": "0.1", "seed": None}, file={"seed": 3, "eps": "0.2", "norm": "Linf"}, checkpoint=CHECKPOINT
    )
    assert (config.eps.text, config.seed, config.norm, config.dataset, config.kappa) == ("0.1", 3, "Linf", "digits", 0)
    assert [sources[key] for key in ("eps", "seed", "norm", "dataset", "kappa", "step_size", "attacks")] == [
        "flag",
        "file",
        "file",
        "checkpoint",
        "default",
        "dialect awp",
        "suite quick 1.0",
    ]


@pytest.mark.parametrize(
    ("dialect", "norm", "eps", "step"),
    [
        ("awp", "Linf", "8/255", "2/255"),
        ("awp", "L2", "128/255", "15/255"),
        ("trades", "Linf", "0.031", "0.003"),
        ("mart", "Linf", "0.031", "0.0031"),
        ("mart-wrn", "Linf", "0.031", "0.0031"),
        ("mart-rn18", "Linf", "0.031", "0.003"),
    ],
)
def test_a_dialect_is_a_ratio_of_eps(dialect: str, norm: str, eps: str, step: str) -> None:
    config, _ = resolve_evaluation({**THREAT, "dialect": dialect, "norm": norm, "eps": eps})
    assert config.step_size.text == step


def test_only_the_awp_dialect_clamps_its_start() -> None:
    starts = {
        dialect: definition(resolve_evaluation({**THREAT, "dialect": dialect})[0], "pgd-20", 10)["start"]
        for dialect in ("awp", "trades", "mart-wrn", "mart-rn18")
    }
    loose = "uniform in the ball, not clamped to the box"
    assert starts == {"awp": "uniform in the ball", "trades": loose, "mart-wrn": loose, "mart-rn18": loose}


def test_every_attack_is_defined_completely() -> None:
    config, _ = resolve_evaluation({**THREAT, "suite": "full", "kappa": 50.0})
    pgd = {"step_size": "2/255", "start": "uniform in the ball", "dialect": "awp", "scored": "last"}
    found = {attack: definition(config, attack, 10) for attack in config.attacks}
    assert found["pgd-100"] == {"loss": "cross-entropy", "steps": 100, **pgd}
    assert found["cw-inf"] == {"loss": "margin", "kappa": 50.0, "steps": 100, **pgd}
    assert found["fgsm"] == {"loss": "cross-entropy", "step_size": "8/255", "start": "clean", "scored": "last"}
    assert found["spsa"] == {
        "loss": "margin",
        "steps": 100,
        "samples": 256,
        "forwards_per_step": 512,
        "delta": 0.001,
        "lr": 0.01,
        "optimizer": "adam",
        "start": "clean",
        "scored": "any",
    }
    halved, _ = resolve_evaluation({**THREAT, "suite": "full", "precision": "bf16-attack"})
    told = {"stops_at": "the fp32 net's word", "precision": "bf16-attack"}
    assert definition(halved, "spsa", 10) == {**found["spsa"], **told}
    assert found["autoattack"]["version"] == "standard"
    assert found["autoattack"]["implementation"].startswith("pyautoattack 0.")


def test_a_confidence_without_its_attack_is_refused() -> None:
    with pytest.raises(UsageError, match="--kappa is the confidence of cw-inf, which does not run"):
        resolve_evaluation({**THREAT, "suite": "quick", "kappa": 50.0})


def test_two_limits_of_one_attack_are_refused() -> None:
    assert read_limits(["spsa=60", "SPSA=60"]) == {"spsa": 60}
    with pytest.raises(UsageError, match="--limit gives spsa two numbers of images"):
        read_limits(["spsa=60", "SPSA=70"])


def test_autoattack_is_called_standard_only_with_ten_classes() -> None:
    config, _ = resolve_evaluation({**THREAT, "suite": "standard"})
    four, three = (definition(config, "autoattack", classes) for classes in (4, 3))
    assert (four["version"], four["targets"], len(four["parts"])) == ("custom: 4 classes", 3, 4)
    assert (three["version"], three["targets"]) == ("custom: 3 classes", 2)
    assert three["parts"] == ["apgd-ce", "fab-t", "square"]


def test_every_attack_sees_the_same_first_images_unless_it_has_its_own_number() -> None:
    config, _ = resolve_evaluation({**THREAT, "suite": "full"})
    assert {each: config.examples(each, 10_000) for each in ("clean", "pgd-20", "spsa")} == {
        "clean": 10_000,
        "pgd-20": 10_000,
        "spsa": 1000,
    }
    assert not config.partial(10_000)
    config, _ = resolve_evaluation({**THREAT, "suite": "full", "n_examples": 300})
    assert {config.examples(each, 10_000) for each in config.attacks} == {300}
    assert config.partial(10_000)
    limits = {"pgd-100": 300, "spsa": 60}
    config, _ = resolve_evaluation({**THREAT, "suite": "full", "limits": limits})
    assert [config.examples(each, 10_000) for each in ("clean", "pgd-20", "pgd-100", "spsa")] == [
        10_000,
        10_000,
        300,
        60,
    ]
    assert config.partial(10_000)
    assert not resolve_evaluation({**THREAT, "suite": "full"})[0].partial(400)


def test_spsa_runs_on_more_than_a_thousand_images_when_asked() -> None:
    config, _ = resolve_evaluation({**THREAT, "attacks": ("spsa",), "limits": {"spsa": 2000}})
    assert config.examples("spsa", 10_000) == 2000


def test_more_images_than_there_are_is_an_error() -> None:
    config, _ = resolve_evaluation({**THREAT, "n_examples": 500})
    with pytest.raises(UsageError) as caught:
        config.check_examples(400)
    assert (caught.value.what, caught.value.mend) == (
        "--n-examples asks for 500 of 400 test images",
        "Ask for at most 400.",
    )


@pytest.mark.parametrize(
    ("flags", "what", "mend"),
    [
        (
            {},
            "nothing names the data and the threat to evaluate on: --dataset, --norm, --eps missing",
            "Add them, for example: --dataset cifar10 --norm Linf --eps 8/255.",
        ),
        ({**THREAT, "eps": "8"}, "eps is 8, but pixels are in [0, 1]", "Write it as a fraction of 255: 8/255."),
        ({**THREAT, "norm": "L1"}, "there is no norm called 'L1'", "Did you mean 'L2'? Known: Linf, L2."),
        (
            {**THREAT, "suite": "fulll"},
            "there is no suite called 'fulll'",
            "Did you mean 'full'? Known: quick, standard, full.",
        ),
        (
            {**THREAT, "dialect": "tradse"},
            "there is no dialect called 'tradse'",
            "Did you mean 'trades'? Known: awp, trades, mart-wrn, mart-rn18.",
        ),
        (
            {**THREAT, "norm": "L2", "dialect": "trades"},
            "the dialect trades has no step size in L2",
            "Give --step-size, or --dialect awp.",
        ),
        (
            {**THREAT, "suite": "full", "attacks": ("fgsm",)},
            "--suite and --attack exclude each other",
            "Leave one of them out.",
        ),
        (
            {**THREAT, "limits": {"spsa": 5}},
            "--limit names spsa, which does not run",
            "These run: clean, fgsm, pgd-20.",
        ),
        (
            {**THREAT, "n_examples": 0},
            "--n-examples is 0: Input should be greater than or equal to 1",
            "Give another --n-examples.",
        ),
    ],
)
def test_what_makes_no_sense_is_answered_by_two_lines(flags: dict[str, Any], what: str, mend: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_evaluation(flags)
    assert (caught.value.what, caught.value.mend) == (what, mend)


def test_single_attacks_come_once_each_after_the_clean_images() -> None:
    config, _ = resolve_evaluation({**THREAT, "attacks": ("PGD-7", "clean", "fgsm", "pgd-7")})
    assert (config.suite, config.suite_version, config.attacks) == (None, None, ("clean", "pgd-7", "fgsm"))


def test_limits_are_read() -> None:
    assert read_limits(["spsa=60", "PGD-100=300"]) == {"spsa": 60, "pgd-100": 300}
    for text in ("spsa", "spsa=", "spsa=0", "spsa=-3", "spsa=many"):
        with pytest.raises(UsageError) as caught:
            read_limits([text])
        assert caught.value.what == f"--limit {text} names no number of images"


def test_the_awp_dialect_steps_half_as_far_on_svhn_and_other_dialects_do_not() -> None:
    flags = {"dataset": "svhn", "norm": "Linf", "eps": "8/255"}
    config, sources = resolve_evaluation(flags)
    assert (config.step_size.text, sources["step_size"]) == ("1/255", "dialect awp, data set svhn")
    assert resolve_evaluation(flags | {"dialect": "mart-wrn"})[0].step_size.text == "0.8/255"
    assert resolve_evaluation(flags | {"norm": "L2", "eps": "128/255"})[0].step_size.text == "15/255"
    assert resolve_evaluation(flags | {"dataset": "cifar100"})[0].step_size.text == "2/255"
