from __future__ import annotations

from typing import Any

from awpbench.leaderboard.submission import submission
from tests.leaderboard import crafted

CARD = {
    "link": "https://arxiv.org/abs/2004.05884",
    "name": "Adversarial Weight Perturbation Helps Robust Generalization",
    "authors": "Dongxian Wu, Shu-tao Xia, Yisen Wang",
    "venue": "NeurIPS 2020",
    "additional_data": True,
}
ZOO = """
# Model Zoo:

- [ ] I want to add my models to the Model Zoo (check if true)
- [ ] I use an architecture that is included among those [here](https://github.com/RobustBench/robustbench/tree/master/robustbench/model_zoo/architectures) or in `timm`. If not, I added the link to the architecture implementation so that it can be added.
- [ ] I agree to release my model(s) under MIT license (check if true) **OR** under a custom license, located here: FILL IN: the license's URL, if it is not MIT
"""  # noqa: E501 - the template's own lines


def whole(**changes: Any) -> dict[str, Any]:
    """A result of the whole test set, audited, in which CW found less than AutoAttack."""
    attacks = {
        "clean": crafted.attack("clean", 8536, 10000),
        "cw-inf": crafted.attack("cw-inf", 5600, 10000),
        "autoattack": crafted.attack("autoattack", 5617, 10000, complete=True, parts={}),
    }
    audit = {"verdict": "reliable", "findings": []}
    return crafted.named("a", **{"attacks": attacks, "partial": False, "audit": audit, **changes})


def test_a_complete_row_fills_robustbenchs_template() -> None:
    row = crafted.built(whole(), CARD)
    made = submission(row)
    assert made.title == "[New Model] Wu2020Adversarial"
    method = (
        f"autoattack on 10000 images: version standard; awpbench {row.awpbench.tool_version}, suite full 1.0, "
        f"row {row.awpbench.id}; another attack left 56.00"
    )
    code = "FILL IN: the URL of the checkpoint and of the code, or a mail to adversarial.benchmark@gmail.com"
    assert (
        made.text
        == f"""# Paper Information

- **Paper Title**: Adversarial Weight Perturbation Helps Robust Generalization
- **Paper URL**: <https://arxiv.org/abs/2004.05884>
- **Paper authors**: Dongxian Wu, Shu-tao Xia, Yisen Wang

# Leaderboard Claim(s)

## Model 1

- **Architecture**: PreActResNet-18
- **Threat Model**: Linf
- **eps**: 8/255
- **Clean accuracy**: 85.36
- **Robust accuracy**: 56.17
- **Additional data**: true
- **Evaluation method**: {method}
- **Checkpoint and code**: {code}
{ZOO}"""
    )
    assert made.doubts == ()
    assert made.to_fill == ("Checkpoint and code",)


def test_what_nobody_knows_says_what_to_fill_in() -> None:
    made = submission(crafted.built(whole()))
    assert made.title == "[New Model] <NameYearFirstWordOfTitle>"
    assert "- **Paper Title**: FILL IN: the paper's title\n- **Paper URL**: FILL IN: where the paper is\n" in made.text
    assert made.to_fill == ("the title", "Paper Title", "Paper URL", "Paper authors", "Checkpoint and code")


def test_what_speaks_against_a_submission_is_said() -> None:
    incomplete = {**whole()["attacks"]}
    incomplete["autoattack"] = crafted.attack("autoattack", 5617, 10000, complete=False)
    audit = {"verdict": "suspicious", "findings": []}
    made = submission(crafted.built(whole(attacks=incomplete, partial=True, audit=audit), CARD))
    assert made.doubts == (
        "AutoAttack is not complete, by which RobustBench ranks",
        "only a part of the test set was attacked; RobustBench asks for all of it",
        "the audit found it suspicious",
    )
    assert "- **Robust accuracy**: 56.00\n" in made.text
    assert "- **Evaluation method**: cw-inf (not AutoAttack) on 10000 images: " in made.text
    unaudited = submission(crafted.built(whole(audit={"verdict": None, "findings": []}), CARD))
    assert unaudited.doubts == ("the evaluation was not audited",)


def test_a_table_that_robustbench_does_not_have_and_another_budget_speak_against_it_too() -> None:
    elsewhere = submission(crafted.built(whole(dataset="cifar100", norm="L2"), CARD))
    assert elsewhere.doubts == ("RobustBench has no table of cifar100, L2",)
    smaller = submission(crafted.built(whole(eps="4/255"), CARD))
    assert smaller.doubts == ("no row of RobustBench's table has eps 4/255; most have 8/255",)


def test_text_from_a_card_stays_text() -> None:
    card = {**CARD, "name": "<script>x</script>\n# y [z](http://a)\x1b[31m", "link": 'https://a/"> <b>'}
    made = submission(crafted.built(whole(), card))
    assert "- **Paper Title**: &lt;script&gt;x&lt;/script&gt; \\# y \\[z\\](http\\://a) \\[31m\n" in made.text
    assert "- **Paper URL**: <https://a/%22%3E%20%3Cb%3E>\n" in made.text
    assert made.title == "[New Model] Wu2020scriptxscript"
