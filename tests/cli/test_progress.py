"""What a training run says of its time."""

from __future__ import annotations

from typing import Any

import pytest

from awpbench.cli.progress import spent


@pytest.mark.parametrize(
    ("timing", "line"),
    [
        (
            {"train_seconds": 60.0, "attack_seconds": 48.0, "ascent_seconds": 4.5, "update_seconds": 6.0},
            "in 60 s (attack 80%, weight perturbation 8%)",
        ),
        ({"train_seconds": 1.5, "attack_seconds": 1.2, "ascent_seconds": 0.0}, "in 1.5 s (attack 80%)"),
        ({"train_seconds": 1.5}, "in 1.5 s"),
        ({"train_seconds": 0.0, "attack_seconds": 0.0, "ascent_seconds": 0.0}, "in 0 s"),
    ],
)
def test_an_epoch_says_how_long_it_took_and_what_took_most_of_it(timing: dict[str, Any], line: str) -> None:
    assert spent(timing) == line
