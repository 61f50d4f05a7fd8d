from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from awpbench.attacks.cw import margin
from awpbench.attacks.spsa import adam, estimate_gradient, spsa
from awpbench.randomness import ImageDraws
from awpbench.threat import ThreatModel

THREAT = ThreatModel("Linf", 0.1)


def all_directions(numbers: int) -> Tensor:
    """Every vector of +-1, shaped (2^numbers, 3, 2, 2)."""
    bits = torch.arange(2**numbers)[:, None].bitwise_and(2 ** torch.arange(numbers)).ne(0)
    return bits.double().mul(2).sub(1).view(-1, 3, 2, 2)


def test_over_all_directions_the_estimate_is_the_gradient(
    smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]
) -> None:
    """The mean of v v' over all sign vectors is the identity, so only the curvature (order delta squared) remains."""
    x, y = few_images[0][:1].requires_grad_(), few_images[1][:1]
    (true,) = torch.autograd.grad(margin(smooth_net(x), y).sum(), x)
    with torch.no_grad():
        found = estimate_gradient(smooth_net, x, y, all_directions(12), delta=1e-4)
    assert torch.allclose(found, true, rtol=1e-5, atol=1e-7)
    assert float(true.norm()) > 0.1


def test_a_sample_of_directions_points_along_the_gradient(
    smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]
) -> None:
    x, y = few_images[0][:1].requires_grad_(), few_images[1][:1]
    (true,) = torch.autograd.grad(margin(smooth_net(x), y).sum(), x)
    with torch.no_grad():
        directions = ImageDraws(0, "spsa", [0]).signs(x, 256)[0]
        found = estimate_gradient(smooth_net, x, y, directions, delta=0.001)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), true.flatten(), dim=0)
    assert float(cosine) > 0.95  # expected 1 / sqrt(1 + 11 / 256) = 0.98


def test_adam_is_torchs_own(few_images: tuple[Tensor, Tensor]) -> None:
    point = torch.nn.Parameter(few_images[0].clone())
    own, mean, square = few_images[0].clone(), torch.zeros_like(point), torch.zeros_like(point)
    official = torch.optim.Adam([point], lr=0.01)
    for step in range(1, 6):
        grad = torch.sin(step * few_images[0])
        point.grad = grad.clone()
        official.step()
        mean, square, change = adam(mean, square, grad, step=step, lr=0.01)
        own = own - change
    assert torch.allclose(own, point.detach(), rtol=1e-12, atol=0)


def run(net: nn.Module, x: Tensor, y: Tensor, images: list[int], max_batch: int = 512) -> Tensor:
    draws = ImageDraws(0, "spsa", images)
    return spsa(net, x, y, threat=THREAT, generator=draws, steps=6, samples=16, max_batch=max_batch)


def test_the_result_does_not_depend_on_the_size_of_the_chunks(
    smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]
) -> None:
    x, y = few_images[0], smooth_net(few_images[0]).argmax(1)
    whole = run(smooth_net, x, y, list(range(5)))
    assert not torch.equal(whole, x)
    for max_batch in (1, 2, 7, 10, 32):
        assert torch.allclose(run(smooth_net, x, y, list(range(5)), max_batch), whole, rtol=0, atol=1e-9)


def test_an_image_gets_the_same_result_whatever_its_neighbours(
    smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]
) -> None:
    x, y = few_images[0], smooth_net(few_images[0]).argmax(1)
    together = run(smooth_net, x, y, [10, 11, 12, 13, 14])
    for i in range(5):
        assert torch.equal(run(smooth_net, x[i : i + 1], y[i : i + 1], [10 + i]), together[i : i + 1])
    some = [3, 1]
    assert torch.equal(run(smooth_net, x[some], y[some], [13, 11]), together[some])


def test_no_forward_pass_takes_more_images_than_asked(smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]) -> None:
    sizes: list[int] = []

    def watched(x: Tensor) -> Tensor:
        sizes.append(len(x))
        assert not torch.is_grad_enabled()
        return smooth_net(x)

    x = few_images[0]
    spsa(
        watched,
        x,
        smooth_net(x).argmax(1),
        threat=ThreatModel("Linf", 0.0),
        generator=ImageDraws(0, "spsa", range(5)),
        steps=2,
        samples=20,
        max_batch=8,
    )
    assert max(sizes) == 8
    assert sum(sizes) == 5 * 2 * (1 + 2 * 20)  # per image and step: one look, and two passes per direction


def test_an_image_stops_as_soon_as_it_is_fooled(smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]) -> None:
    calls = 0

    def watched(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return smooth_net(x)

    x = few_images[0]
    wrong = (smooth_net(x).argmax(1) + 1) % 4
    x_adv = spsa(watched, x, wrong, threat=THREAT, generator=ImageDraws(0, "spsa", range(5)))
    assert torch.equal(x_adv, x)
    assert calls == 1  # the look at all five


def test_an_image_does_not_stop_at_the_word_of_an_imprecise_copy(
    smooth_net: nn.Module, few_images: tuple[Tensor, Tensor]
) -> None:
    """A copy that holds every image for fooled would leave all of them as they are."""
    x, y = few_images[0], smooth_net(few_images[0]).argmax(1)

    def wrong(x: Tensor) -> Tensor:
        return -smooth_net(x)

    settings = {"threat": THREAT, "steps": 6, "samples": 16, "near": lambda x: lambda d: smooth_net(x + d)}
    deceived = spsa(wrong, x, y, generator=ImageDraws(0, "spsa", range(5)), **settings)
    attacked = spsa(wrong, x, y, generator=ImageDraws(0, "spsa", range(5)), look=smooth_net, **settings)
    assert torch.equal(deceived, x)
    assert torch.equal(attacked, run(smooth_net, x, y, list(range(5))))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_it_lowers_the_margin_within_the_ball(norm: str, smooth_net: nn.Module) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    y = smooth_net(x).argmax(1)
    threat = ThreatModel(norm, 0.05)  # type: ignore[arg-type]
    x_adv = spsa(smooth_net, x, y, threat=threat, generator=ImageDraws(0, "spsa", range(4)), steps=20, samples=32)
    assert threat.violation(x_adv, x) is None
    assert bool((margin(smooth_net(x_adv), y) < margin(smooth_net(x), y)).all())


def test_one_step_runs_on_the_meta_device_with_noise_passed_in() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        x, y, directions = torch.empty(1, 1, 2, 2), torch.empty(1, dtype=torch.int64), torch.empty(6, 1, 2, 2)
        zero = torch.empty(1, 1, 2, 2)
    grad = estimate_gradient(net, x, y, directions, delta=0.001, max_batch=4)
    _, _, change = adam(zero, zero, grad, step=1, lr=0.01)
    assert THREAT.project(x - change, x).device.type == "meta"
