"""The fast callable of a trained net that every eval-mode attack takes.

Batch norm in eval mode is an affine map per channel. Where it follows a convolution whose output nothing else uses, it
is folded into it; elsewhere one fused multiply-add replaces it (on a CPU faster than the native batch norm). Weights
and images are channels_last inside. The normalisation of the input is not folded: the first convolution pads with
zeros after it, so the two do not commute at the border.

In bf16 the folded copy computes all but its first convolution and its last linear layer in bfloat16: the first sees
differences between images that bfloat16 cannot hold (TRADES' attack starts 0.001 away), the last decides. The gradient
with respect to the images, of which attacks take the direction, leaves the first convolution in bfloat16 all the same.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from awpbench.config import Precision
from awpbench.differences import Differences, differences
from awpbench.errors import UsageError
from awpbench.models.layers import Affine, FirstConv2d, is_plain, layout

TOLERANCE = 1e-4  # on logits; folding is exact up to rounding
GRADIENT_TOLERANCE = 0.5  # relative; rounding turns some ReLUs, and bfloat16 more
BF16_TOLERANCE = 0.1  # on logits, relative to the largest; bfloat16 holds 8 bits


class AttackModel:
    """A frozen copy of a net in eval mode, `am(x) -> logits`, differentiable in x; the net itself is never changed.

    A net that torch.fx cannot trace, or whose logits folding would change by more than 1e-4 on random images (looked
    at in the first call), is copied as it is. After the net's weights changed, call `refresh`; after it moved to
    another device or dtype, make a new AttackModel. With `compile`, torch.compile makes the copy faster, for one batch
    size after another. With precision `bf16-attack` the first call raises UsageError for
    a net that cannot be folded and lowered to bfloat16.
    """

    def __init__(self, net: nn.Module, precision: Precision = "fp32", *, compile: bool = False) -> None:
        self._net = net
        self._precision = precision
        self._compile = compile
        self._live = _alias(net)
        self._plain: nn.Module | None = copy.deepcopy(self._live)  # None once the folded copy has been compared with it
        self._fast, self._folds = _trace_and_fold(copy.deepcopy(self._live))
        if self._fast is not None:
            _lay_out(self._fast, layout(net), precision)
        self._settled = False
        self._differences: Differences | None = None
        self._differences_settled = False
        self.refresh()

    @property
    def folded(self) -> bool:
        """Whether the folded copy is in use, or still to be compared with the plain one in the first call."""
        return self._fast is not None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits `(N, classes)` of images `(N, C, H, W)`; contiguous images get a contiguous gradient."""
        self.settle(x)
        logits: Tensor
        if self._fast is not None:
            logits = self._fast(x)
        else:
            assert self._plain is not None
            logits = self._plain(x)
        return logits.contiguous()

    def verify(self, x: Tensor) -> Tensor:
        """Return the logits of the untouched net in eval mode with its weights of this moment, without a gradient."""
        with torch.no_grad():
            logits: Tensor = self._live(x)
            return logits

    def near(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function from differences `(N, C, H, W)` to the logits of x + d; x is one image `(1, C, H, W)`.

        It is for finite differences, without a gradient. In bf16 it is that of `awpbench.differences`; a net that this
        cannot take apart is asked itself, in fp32.
        """
        if self._precision == "fp32":
            return lambda d: self(x + d)
        if not self._differences_settled:
            self._settle_differences(x)
        if self._differences is None:
            return lambda d: self.verify(x + d)
        return self._differences.near(x)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the net's weights of this moment."""
        self._differences_settled = False
        live = dict(_tensors(self._net))
        folded = {fold.conv for fold in self._folds}
        for module in (self._plain, self._fast):
            for name, tensor in _tensors(module) if module is not None else ():
                if name in live and not (module is self._fast and name.rpartition(".")[0] in folded):
                    tensor.copy_(live[name])
        for fold in self._folds:
            fold.refresh(self._net)

    def settle(self, x: Tensor) -> None:
        """Keep the faster of the two copies that gives the right logits; in bf16 there is only one that will do.

        The first call does so by itself; whoever watches calls does it before. Of the images only the shape matters.
        """
        if self._settled:
            return
        if self._precision == "bf16-attack":
            self._lower()
        change = math.inf if self._fast is None else 0.0 if x.is_meta else self._change(x)
        if change <= (TOLERANCE if self._precision == "fp32" else BF16_TOLERANCE):
            self._plain = None
        elif self._precision == "fp32":
            self._fast, self._folds = None, []
        else:
            raise UsageError("the logits in bf16 are not those of the net", "Attack it with --precision fp32.")
        chosen = self._fast or self._plain
        if self._compile and chosen is not None:
            chosen.compile(dynamic=False)
        self._settled = True

    def _change(self, x: Tensor) -> float:
        """Return how far the fast copy's logits are from the plain one's on random images: in fp32 absolutely, in bf16
        relative to the largest; infinity where it cannot run.
        """
        assert self._fast is not None
        assert self._plain is not None
        draws = torch.Generator(device="cpu").manual_seed(0)
        images = torch.rand((8, *x.shape[1:]), generator=draws, device="cpu").to(x)
        with torch.no_grad():
            expected = self._plain(images)
            try:
                change = (self._fast(images) - expected).abs().max()
            except RuntimeError:  # a net that takes views refuses channels_last, one that shares layers bf16
                return math.inf
        if self._turns_gradient(images):
            return math.inf
        return float(change if self._precision == "fp32" else change / expected.abs().max())

    def _turns_gradient(self, x: Tensor) -> bool:
        """Tell whether the copies differ in their gradient: tracing loses a net's own backward pass."""
        gradients: list[Tensor | None] = []
        for net in (self._plain, self._fast):
            assert net is not None
            images = x.detach().clone().requires_grad_()
            with torch.enable_grad():
                top = net(images).amax(1).sum()
                if not top.requires_grad:
                    return bool(gradients)
                gradients.append(torch.autograd.grad(top, images, allow_unused=True)[0])
        expected, found = gradients
        if expected is None or found is None:
            return expected is not found
        return bool((found - expected).norm() > GRADIENT_TOLERANCE * expected.norm())

    @torch.no_grad()
    def _settle_differences(self, x: Tensor) -> None:
        """Make the copy that answers for differences; keep it if it is right about a random image's neighbours."""
        traced, folds = _trace_and_fold(copy.deepcopy(self._live))
        for fold in folds:
            fold.refresh(self._net)
        self._differences = None if traced is None else differences(traced)
        if self._differences is not None and not x.is_meta:
            draws = torch.Generator(device="cpu").manual_seed(0)
            image, *others = torch.rand((8, 1, *x.shape[1:]), generator=draws, device="cpu").to(x).unbind()
            d = (torch.cat(others) - image) / 10
            expected = self._live(image + d) - self._live(image)
            try:
                error = (self._differences.near(image)(d) - self._live(image) - expected).abs().max()
            except RuntimeError:  # a net that takes views refuses channels_last
                error = expected.new_tensor(math.inf)
            if not error <= BF16_TOLERANCE * expected.abs().max():
                self._differences = None
        self._differences_settled = True

    def _lower(self) -> None:
        if self._fast is None or not _lower_to_bf16(self._fast):
            what = "bf16 needs a net that torch.fx can trace, with a convolution to start from"
            raise UsageError(what, "Attack it with --precision fp32.")
        self._folds = [_standing_in(self._fast, fold.norm, fold.conv) for fold in self._folds]


@dataclass(frozen=True)
class _Fold:
    """A batch norm of the net, the convolution before it (or ""), and the weight and bias that stand in for both."""

    norm: str
    conv: str
    weight: Tensor
    bias: Tensor

    def refresh(self, net: nn.Module) -> None:
        norm: Any = net.get_submodule(self.norm)
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        if not self.conv:
            self.weight.copy_(scale.view(-1, 1, 1))
            self.bias.copy_(shift.view(-1, 1, 1))
            return
        conv: Any = net.get_submodule(self.conv)
        torch.mul(conv.weight, scale.view(-1, 1, 1, 1), out=self.weight)
        self.bias.copy_(shift if conv.bias is None else shift + conv.bias * scale)


def _alias(net: nn.Module) -> nn.Module:
    """Copy the module tree and put it in eval mode; its frozen tensors share the memory of the net's."""
    memo: dict[int, Any] = {}
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for tensor in [*module.buffers(recurse=False), *vars(module).values()]:
            if isinstance(tensor, Tensor):
                memo[id(tensor)] = tensor.detach()
    return copy.deepcopy(net, memo).eval()


def _trace_and_fold(net: nn.Module) -> tuple[fx.GraphModule | None, list[_Fold]]:
    """Turn a net, which is consumed, into its folded graph; None where torch.fx cannot follow its forward."""
    try:
        traced = fx.symbolic_trace(net)
    except (Exception, SystemExit):  # a foreign forward that is given proxies for tensors may raise anything
        return None, []
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    folds = []
    for node in list(traced.graph.nodes):
        norm: Any = modules.get(str(node.target)) if node.op == "call_module" else None
        if not (is_plain(norm, nn.BatchNorm2d) or is_plain(norm, nn.SyncBatchNorm)) or norm.running_mean is None:
            continue
        (source,) = node.all_input_nodes
        conv: Any = modules.get(str(source.target)) if source.op == "call_module" else None
        if is_plain(conv, nn.Conv2d) and len(source.users) == 1 and calls[source.target] == 1:
            conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels), requires_grad=False)
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
            folds.append((str(node.target), str(source.target)))
        else:
            traced.set_submodule(str(node.target), Affine(norm.running_mean))
            folds.append((str(node.target), ""))
    traced.delete_all_unused_submodules()
    traced.recompile()
    traced.to(memory_format=layout(traced))
    return traced, [_standing_in(traced, norm, conv) for norm, conv in folds]


def _lower_to_bf16(traced: fx.GraphModule) -> bool:
    """Let everything between the first convolution and the last linear layer compute in bfloat16, in place.

    Returns False for a graph without convolution.
    """
    nodes, modules = list(traced.graph.nodes), dict(traced.named_modules())

    def is_a(node: fx.Node, kind: type[nn.Module]) -> bool:
        return node.op == "call_module" and isinstance(modules.get(str(node.target)), kind)

    convolutions = [i for i, node in enumerate(nodes) if is_a(node, nn.Conv2d)]
    if not convolutions:
        return False
    first = nodes[convolutions[0]]
    if not is_plain(modules[str(first.target)], nn.Conv2d):
        return False
    traced.set_submodule(str(first.target), FirstConv2d(modules[str(first.target)]))
    last = next((node for node in reversed(nodes) if is_a(node, nn.Linear)), None)
    for node in nodes[convolutions[0] + 1 :]:
        if node.op == "call_module" and node is not last:
            modules[str(node.target)].to(torch.bfloat16)
        elif node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            module = traced.get_submodule(owner)
            setattr(module, name, _cast(getattr(module, name), torch.bfloat16))
    for node in (last, nodes[-1]):
        if node is not None:
            (value,) = node.all_input_nodes
            with traced.graph.inserting_before(node):
                node.replace_input_with(value, traced.graph.call_method("float", (value,)))
    traced.recompile()
    return True


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.detach().to(dtype)
    return nn.Parameter(cast, requires_grad=False) if isinstance(tensor, nn.Parameter) else cast


def _standing_in(traced: fx.GraphModule, norm: str, conv: str) -> _Fold:
    module: Any = traced.get_submodule(conv or norm)
    return _Fold(norm, conv, module.weight, module.bias) if conv else _Fold(norm, conv, module.scale, module.shift)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _lay_out(traced: fx.GraphModule, layout: torch.memory_format, precision: Precision) -> None:
    """Bring the images to a layout: in bf16 where the first convolution takes them, which makes a gradient 5 % cheaper
    (three channels are slow to normalise in channels_last); in fp32 at the entry, which measured 3 % cheaper there.
    """
    modules, nodes = dict(traced.named_modules()), list(traced.graph.nodes)
    source = nodes[0]
    if precision != "fp32":
        layers = (node for node in nodes if isinstance(modules.get(str(node.target)), nn.Conv2d))
        source = next((node.all_input_nodes[0] for node in layers), source)
    with traced.graph.inserting_after(source):
        laid_out = traced.graph.call_function(_laid_out, (source, layout))
    source.replace_all_uses_with(laid_out, delete_user_cb=lambda user: user is not laid_out)
    traced.recompile()


def _laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    """Return x in the layout; its gradient is handed back contiguous, since attacks take views of it."""
    if x.ndim != 4 or x.is_contiguous(memory_format=layout):
        return x
    inside: Tensor = _Layout.apply(x, layout)
    return inside


class _Layout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: torch.memory_format) -> Tensor:
        return x.contiguous(memory_format=layout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.contiguous(), None
