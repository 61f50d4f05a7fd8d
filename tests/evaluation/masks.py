"""Nets that look more robust than they are: each wraps a sound one and hides its gradients in one known way."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mask(nn.Module):
    """A sound net and what stands before, behind or around it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Quantised(Mask):
    """Pixels rounded to four levels: no gradient passes (shattered, Athalye et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.round(3 * x) / 3)


class Detached(Mask):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach())


class Remembering(Mask):
    """Knows some images, and has no gradient beyond a distance from all of them: a larger budget starts out there."""

    def __init__(self, net: nn.Module, known: Tensor, radius: float) -> None:
        super().__init__(net)
        self.register_buffer("known", known.flatten(1), persistent=False)
        self.radius = radius

    def forward(self, x: Tensor) -> Tensor:
        known = self.get_buffer("known")
        far = torch.cdist(x.detach().flatten(1), known, p=torch.inf).amin(1) > self.radius
        return self.net(torch.where(far.view(-1, 1, 1, 1), x.detach(), x))


class HardLabels(Mask):
    """Only the class is told."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(self.net(x).argmax(1), 10).to(x.dtype)


class Confident(Mask):
    """Logits so large that the softmax is exact in float32 (vanishing; Croce and Hein 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.net(x)


class Saturated(Mask):
    """A sigmoid before the last step, on its flat ends nearly everywhere (vanishing)."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.tanh(20 * logits) + 1e-3 * torch.tanh(logits).detach()


class Exploding(Mask):
    """The square root of what is zero: an infinite gradient times zero."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + (0 * x).sqrt())


class Rippled(Mask):
    """A ripple on the pixels, invisible and steeper than the net (shattered)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.02 * torch.sin(2000 * x))


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return -grad


class _Anywhere(_Backwards):
    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        noise = torch.Generator(device="cpu").manual_seed(0)
        return torch.randn(grad.shape, generator=noise, device="cpu").to(grad)


class Liar(Mask):
    """A gradient that points the wrong way."""

    function = _Backwards

    def forward(self, x: Tensor) -> Tensor:
        assert len(x.shape) == 4
        if bool(x.isnan().any()):  # a look at the values keeps torch.fx from tracing the function away
            return x.flatten(1)[:, :10]
        return self.net(self.function.apply(x))


class Guesser(Liar):
    """A gradient that points anywhere."""

    function = _Anywhere


class Foreign(Mask):
    """The gradient of another net."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net)
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        other = self.other(x)
        return self.net(x).detach() + other - other.detach()


class Noisy(Mask):
    """Noise on the pixels (stochastic)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.05 * torch.randn_like(x))


class Shifted(Mask):
    """Images moved up or down by a random pixel, as random resizing and padding do (stochastic; Xie et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        places = torch.randint(0, 3, (len(x),), device="cpu").tolist()
        moved = [
            image[:, place : place + x.shape[2]] for image, place in zip(F.pad(x, (0, 0, 1, 1)), places, strict=True)
        ]
        return self.net(torch.stack(moved))


class Hashed(Mask):
    """Noise that the image itself seeds: the same each time, and another one next to it."""

    def forward(self, x: Tensor) -> Tensor:
        seeds = [int(1e9 * image.sum(dtype=torch.float64)) % 2**31 for image in x]
        streams = [torch.Generator(device="cpu").manual_seed(seed) for seed in seeds]
        noise = [torch.randn(x.shape[1:], generator=stream, device="cpu") for stream in streams]
        return self.net(x + 0.1 * torch.stack(noise).to(x))


class Adapting(Mask):
    """Two steps down the entropy before the answer (dynamic; Wang et al. 2021, Croce et al. 2022)."""

    def forward(self, x: Tensor) -> Tensor:
        moved = x.detach()
        for _ in range(2):
            with torch.enable_grad():
                moved = moved.detach().requires_grad_()
                p = F.softmax(self.net(moved), dim=1)
                (grad,) = torch.autograd.grad(-(p * (p + 1e-9).log()).sum(), moved)
            moved = moved.detach() - 0.02 * grad.sign()
        return self.net(x + (moved - x).detach())


class Drifting(Mask):
    """A state that grows with every call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x + 0.01 * math.sin(self.calls))


class Aware(Mask):
    """Another answer where somebody asks for a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(1 - x) if torch.is_grad_enabled() else self.net(x)


class Secretive(Mask):
    """The same answer where somebody asks for a gradient, but without it."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits.detach() + 0 * x.mean((1, 2, 3))[:, None] if torch.is_grad_enabled() else logits


class BatchNormInTraining(Mask):
    """Batch norm that is never put in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
        return self.net(x)


class Probabilities(Mask):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.net(x), dim=1)


class Broken(Mask):
    """NaN for every image of class 3."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.where((logits.argmax(1) == 3)[:, None], math.nan, logits)


class Winners(nn.Module):
    """Keep only a layer's largest activations (k-winners-take-all; Xiao et al. 2020)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        lowest = x.topk(max(1, int(self.share * x.shape[1])), dim=1).values[:, -1:]
        return torch.where(x >= lowest, x, 0)
