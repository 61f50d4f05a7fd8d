from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from awpbench.evaluation.jobs import blocks, jobs
from tests.evaluation.conftest import settle


def test_pgd_with_any_number_of_steps_is_one_job() -> None:
    found = jobs(settle("pgd-100", "fgsm", "pgd-20", "cw-inf"), 10)
    assert [(job.name, job.attacks) for job in found] == [
        ("clean", ("clean",)),
        ("fgsm", ("fgsm",)),
        ("pgd-20+pgd-100", ("pgd-20", "pgd-100")),
        ("cw-inf", ("cw-inf",)),
    ]
    assert [(job.forward, job.backward) for job in found] == [(1, 0), (2, 1), (102, 100), (101, 100)]


def test_autoattack_is_a_job_per_part_and_its_batch_is_not_the_users() -> None:
    found = jobs(settle("autoattack", batch_size=5), 10)[1:]
    assert [job.part for job in found] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert {job.block for job in found} == {128}
    total = sum(job.forward + job.backward for job in found)
    assert 9700 <= total <= 10_000  # 9.7 thousand passes for an image that stands to the end
    assert [job.part for job in jobs(settle("autoattack"), 3)[1:]] == ["apgd-ce", "fab-t", "square"]


@given(st.integers(1, 60), st.integers(1, 9), st.lists(st.integers(1, 60), max_size=3))
def test_blocks_hold_every_position_once_in_order_and_no_end_falls_into_one(n: int, size: int, ends: list[int]) -> None:
    found = blocks(n, size, ends)
    assert [position for block in found for position in block] == list(range(n))
    assert all(1 <= len(block) <= size for block in found)
    assert not any(end in block[1:] for block in found for end in ends)


def test_blocks_of_more_images_begin_with_those_of_fewer() -> None:
    assert blocks(128, 64) == blocks(300, 64)[:2]
