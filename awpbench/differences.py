"""The logits of many points around one image, from how they differ from it: finite differences that survive bfloat16.

With d of 0.001, f(x + d) - f(x - d) is far below the 8 bits that bfloat16 keeps of f. Here the image itself passes the
net once, in fp32, and what passes it in bfloat16 is how each activation of x + d differs from that of x. Convolutions
and sums are linear and take differences as they are; of a ReLU

    relu(a + d) - relu(a) = max(d + min(a, 0), -max(a, 0))

holds exactly, and rounding a matters only where |a| < |d|. So a difference keeps 8 bits of itself all the way.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from awpbench.models.layers import Affine, is_plain, layout

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
SUBTRACTIONS = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
SCALINGS = (operator.mul, operator.truediv, torch.mul, torch.div, "mul", "div")
RELUS = (F.relu, torch.relu, torch.relu_, "relu", "relu_")
SHAPINGS = (F.adaptive_avg_pool2d, F.avg_pool2d, torch.flatten, "flatten", "view", "reshape", "size", "contiguous")
SHAPING_LAYERS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity, nn.Dropout)


class Differences:
    """A frozen copy of a net that answers for the neighbourhood of an image."""

    def __init__(self, observed: fx.GraphModule, moved: fx.GraphModule) -> None:
        self._observed, self._moved, self._layout = observed, moved, layout(moved)

    @torch.no_grad()
    def near(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function from differences `(N, C, H, W)` to the logits of x + d; x is one image `(1, C, H, W)`."""
        logits, walls = self._observed(x.contiguous(memory_format=self._layout))

        @torch.no_grad()
        def near(d: Tensor) -> Tensor:
            moved: Tensor = logits + self._moved(d.contiguous(memory_format=self._layout), *walls)
            return moved

        return near


def differences(net: fx.GraphModule) -> Differences | None:
    """Make it from a net in eval mode with folded batch norms; None where a layer is neither linear nor a ReLU."""
    observed, moved = copy.deepcopy(net), copy.deepcopy(net)
    try:
        moved.graph = _Writer(moved).graph
    except _Unknown:
        return None
    _observe(observed)
    for module in moved.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.bias = None
        if isinstance(module, nn.Conv2d | Affine):
            module.to(torch.bfloat16)
    return Differences(observed, moved)


class _Unknown(Exception):
    """A layer is neither linear nor a ReLU."""


def _observe(net: fx.GraphModule) -> None:
    """Let a net return its logits and, in order, the walls of all its ReLUs."""
    walls: list[fx.Node] = []
    for node in list(net.graph.nodes):
        if node.op == "output":
            node.args = ((node.args[0], tuple(walls)),)
        elif _is_relu(net, node):
            with net.graph.inserting_before(node):  # which may work in place
                walls += [net.graph.call_function(wall, node.args[:1]) for wall in (_low, _high)]
    net.recompile()


def _low(a: Tensor) -> Tensor:
    return a.clamp(max=0).to(torch.bfloat16)


def _high(a: Tensor) -> Tensor:
    return -a.clamp(min=0).to(torch.bfloat16)


def _relu(d: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (d + low).clamp_(min=high)


def _scaled_relu(d: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.addcmul(low, d, scale).clamp_(min=high)


def _is_relu(net: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return is_plain(net.get_submodule(str(node.target)), nn.ReLU)
    return node.target in RELUS


class _Writer:
    """Writes the graph that takes an image's difference and the walls of all ReLUs to the difference of the logits."""

    def __init__(self, net: fx.GraphModule) -> None:
        self.net, self.graph = net, fx.Graph()
        self.written: dict[Any, fx.Node] = {}  # by the net's node: its difference, or a constant as it is
        self.constants: set[fx.Node] = set()
        nodes = list(net.graph.nodes)
        self.written[nodes[0]] = self.graph.placeholder("d")
        relus = [node for node in nodes if _is_relu(net, node)]
        self.walls = {
            node: [self.graph.placeholder(f"{node.name}_{wall}") for wall in ("low", "high")] for node in relus
        }
        for node in nodes[1:]:
            if node.op == "get_attr":
                self.constants.add(node)
                self.written[node] = self.graph.node_copy(node)
            elif node.op == "output":
                self.graph.output(self.written[node.args[0]])
            else:
                self.written[node] = self._write(node)

    def _write(self, node: fx.Node) -> fx.Node:
        first, *others = node.args
        if not isinstance(first, fx.Node) or first in self.constants:
            raise _Unknown
        d, target = self.written[first], node.target
        moving = [other for other in others if isinstance(other, fx.Node) and other not in self.constants]
        if node in self.walls:
            return self._relu(first, d, self.walls[node])
        if node.op == "call_module":
            return self._layer(node, d)
        if target in SHAPINGS or (target in SCALINGS and not moving):
            return self.graph.node_copy(node, lambda argument: self.written[argument])
        if node.kwargs or target not in (*ADDITIONS, *SUBTRACTIONS):
            raise _Unknown
        if not moving:
            return d
        return self.graph.call_function(torch.add if target in ADDITIONS else torch.sub, (d, self.written[moving[0]]))

    def _relu(self, source: fx.Node, d: fx.Node, walls: list[fx.Node]) -> fx.Node:
        if self._waits(source):
            return self.graph.call_function(_scaled_relu, (d, self._scale(source), *walls))
        return self.graph.call_function(_relu, (d, *walls))

    def _layer(self, node: fx.Node, d: fx.Node) -> fx.Node:
        layer = self.net.get_submodule(str(node.target))
        if is_plain(layer, nn.Conv2d) or is_plain(layer, Affine):
            d = self.graph.call_method("to", (d, torch.bfloat16))
        elif is_plain(layer, nn.Linear):
            d = self.graph.call_method("float", (d,))
        elif not any(is_plain(layer, kind) for kind in SHAPING_LAYERS):
            raise _Unknown
        if not isinstance(layer, Affine):
            return self.graph.call_module(str(node.target), (d,))
        return d if self._waits(node) else self.graph.call_function(torch.mul, (d, self._scale(node)))

    def _waits(self, node: fx.Node) -> bool:
        """Tell whether a node is an affine map that nothing but a ReLU sees, which then does its multiplication."""
        affine = node.op == "call_module" and isinstance(self.net.get_submodule(str(node.target)), Affine)
        return affine and len(node.users) == 1 and next(iter(node.users)) in self.walls

    def _scale(self, node: fx.Node) -> fx.Node:
        return self.graph.get_attr(f"{node.target}.scale")
