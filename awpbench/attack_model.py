"""The callable that eval-mode attacks take: a frozen copy of the net with batch norm folded, in channels_last."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

TOLERANCE = 1e-4  # largest change of a logit that folding may make


class _Affine(nn.Module):
    """Batch norm in eval mode: one scale and one shift per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        self.register_buffer("scale", scale.view(-1, 1, 1))
        self.register_buffer("shift", shift.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        scale = norm.weight * scale
    shift = -norm.running_mean * scale
    return scale.detach(), (shift + norm.bias if norm.affine else shift).detach()


class AttackModel:
    """`attacked(x)` are the logits of a fast, frozen, eval-mode copy of the net, differentiable in x; `verify` is the net itself."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._convolutions: list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]] = []
        self._norms: list[tuple[nn.BatchNorm2d, _Affine]] = []
        self._fast = self._fold()
        self.refresh()

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self._fast(x.contiguous(memory_format=torch.channels_last))
        return logits

    def verify(self, x: Tensor) -> Tensor:
        """Return the logits of the net itself in eval mode."""
        mode = self._net.training
        self._net.eval()
        with torch.no_grad():
            logits: Tensor = self._net(x)
        self._net.train(mode)
        return logits

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the net's present weights and running statistics."""
        live = dict(self._net.state_dict(keep_vars=False))
        for key, value in self._fast.state_dict().items():
            if key in live:
                value.copy_(live[key])
        for conv, norm, folded in self._convolutions:
            scale, shift = _affine(norm)
            folded.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
            assert folded.bias is not None
            folded.bias.copy_(shift if conv.bias is None else conv.bias * scale + shift)
        for norm, affine in self._norms:
            scale, shift = _affine(norm)
            affine.scale.copy_(scale.view(-1, 1, 1))
            affine.shift.copy_(shift.view(-1, 1, 1))

    def _fold(self) -> nn.Module:
        graph = fx.Tracer().trace(self._net)
        root = copy.deepcopy(self._net).eval().requires_grad_(False)
        live, modules = dict(self._net.named_modules()), dict(root.named_modules())
        for node in list(graph.nodes):
            if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
                continue
            before = node.args[0]
            norm = live[node.target]
            source = live.get(before.target) if before.op == "call_module" else None
            if isinstance(source, nn.Conv2d) and len(before.users) == 1:
                folded = nn.utils.skip_init(
                    nn.Conv2d,
                    source.in_channels,
                    source.out_channels,
                    source.kernel_size,
                    source.stride,
                    source.padding,
                    source.dilation,
                    source.groups,
                    True,
                    device=source.weight.device,
                    dtype=source.weight.dtype,
                ).requires_grad_(False)
                root.set_submodule(before.target, folded)
                root.set_submodule(node.target, nn.Identity())
                self._convolutions.append((source, norm, folded))
            else:
                affine = _Affine(norm)
                root.set_submodule(node.target, affine)
                self._norms.append((norm, affine))
        return fx.GraphModule(root, graph).to(memory_format=torch.channels_last)
