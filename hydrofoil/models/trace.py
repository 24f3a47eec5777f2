"""What a network does to one image: a blank one runs through it, and hooks write down each layer.

Nothing here knows a list of layers: shapes come from the tensors that pass, multiply-adds from the
matrix products and convolutions that are called, so blocks, branches and functions in a `forward`
count like any layer.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hydrofoil.models.layers import Shape, evaluating


@dataclass(eq=False)
class Call:
    """One call of one module.

    Args:
        name: The module's dotted name; empty for the network itself. Of several, the call's own.
        layer: The module.
        number: How often the module had been called before.
        before: Shape of one image's activations that go in; empty where no tensor does.
        after: Shape of what comes out.
        is_leaf: No other module was called inside.
        is_container: What comes out is what one of its own modules returned.
        follows: What goes in is what the leaf before it returned, or has its shape.
        parameters: Learned numbers that no call before this one, or inside it, has counted.
        multiply_adds: For one image, forward, without those of the modules called inside.
    """

    name: str
    layer: nn.Module
    number: int
    before: Shape
    after: Shape = ()
    is_leaf: bool = True
    is_container: bool = False
    follows: bool = True
    parameters: int = 0
    multiply_adds: int = 0

    @property
    def is_spatial(self) -> bool:
        """Whether maps of more than one pixel come out."""
        return len(self.after) == 3 and prod(self.after[1:]) > 1


def trace(network: nn.Module, shape: Shape) -> list[Call]:
    """Return every call that a network makes for one blank image, in the order in which they end.

    Costs one forward pass. The network's modes, weights and running statistics stay as they are.

    Args:
        network: Takes normalized float32 images.
        shape: Channels, height and width of an image.

    >>> [(call.name, call.after) for call in trace(nn.Sequential(nn.Conv2d(3, 6, 5)), (3, 32, 32))]
    [('0', (6, 28, 28)), ('', (6, 28, 28))]
    """
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    tracer = _Tracer(network)
    with evaluating(network), torch.no_grad(), tracer.hooks(), _Counter(tracer):
        network(torch.zeros(1, *shape, device=device))
    return tracer.calls


def leaves(calls: list[Call]) -> list[Call]:
    """Return the calls that called no other module."""
    return [call for call in calls if call.is_leaf]


@dataclass
class _Open:
    """A call that has not ended: its record, the leaf outputs seen inside, and what went in."""

    call: Call
    inside: list[int] = field(default_factory=list[int])


class _Tracer:
    """Keeps the calls of one forward pass."""

    def __init__(self, network: nn.Module) -> None:
        # A layer that stands under several names is called by one after the other.
        self.names = dict[nn.Module, list[str]]()
        for name, layer in network.named_modules(remove_duplicate=False):
            self.names.setdefault(layer, []).append(name)
        self.calls = list[Call]()
        self.stack = list[_Open]()
        self.counts = dict[nn.Module, int]()
        self.counted = set[int]()
        # Every tensor seen stays alive meanwhile, so that no two of them share an id.
        self.alive = list[Tensor]()
        self.last: tuple[int, Shape] | None = None

    def hooks(self) -> ExitStack:
        """Hook every module; leaving the context removes the hooks."""
        hooks = ExitStack()
        for layer in self.names:
            before = layer.register_forward_pre_hook(self._enter, with_kwargs=True)
            after = layer.register_forward_hook(self._leave)
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        return hooks

    def add(self, multiply_adds: int) -> None:
        """Count multiply-adds for the innermost call."""
        if self.stack:
            self.stack[-1].call.multiply_adds += multiply_adds

    def _enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = next(_tensors((args, kwargs)), None)
        before = () if value is None else tuple(value.shape[1:])
        number = self.counts.get(layer, 0)
        self.counts[layer] = number + 1
        names = self.names[layer]
        call = Call(names[min(number, len(names) - 1)], layer, number, before)
        if value is not None:
            self.alive.append(value)
            call.follows = self.last is None or self.last[0] == id(value) or self.last[1] == before
        for outer in self.stack:
            outer.call.is_leaf = False
        self.stack.append(_Open(call))

    def _leave(self, layer: nn.Module, args: tuple[Any, ...], output: object) -> None:
        opened = self.stack.pop()
        call, value = opened.call, next(_tensors(output), None)
        if value is not None:
            self.alive.append(value)
            call.after = tuple(value.shape[1:])
            call.is_container = not call.is_leaf and id(value) in opened.inside
            if call.is_leaf:
                self.last = id(value), call.after
            if self.stack:
                self.stack[-1].inside += [id(value), *opened.inside]
        for parameter in layer.parameters():
            if id(parameter) not in self.counted:
                self.counted.add(id(parameter))
                call.parameters += parameter.numel()
        self.calls.append(call)


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors in what a module takes or returns."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in cast("list[object]", value):
            yield from _tensors(part)
    elif isinstance(value, dict):
        for part in cast("dict[object, object]", value).values():
            yield from _tensors(part)


class _Counter(TorchFunctionMode):
    """Counts the multiply-adds of torch's functions where they are called, also inside a forward.

    On this level and not below: torch's dispatch modes import its compiler, which takes a second.
    """

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        count = COSTS.get(getattr(func, "__name__", ""))
        if count is not None:
            tensors = list(_tensors((args, kwargs)))
            result = next(_tensors(out), None)
            if result is not None and len(tensors) > 1:
                self.tracer.add(count(tensors, result))
        return out


def _convolution(tensors: list[Tensor], out: Tensor) -> int:
    return out.numel() * tensors[1][0].numel()


def _transposed(tensors: list[Tensor], _: Tensor) -> int:
    return tensors[0].numel() * tensors[1][0].numel()


def _linear(tensors: list[Tensor], out: Tensor) -> int:
    return out.numel() * tensors[1].shape[-1]


def _product(tensors: list[Tensor], out: Tensor) -> int:
    return out.numel() * tensors[-2].shape[-1]


def _attention(tensors: list[Tensor], _: Tensor) -> int:
    queries, keys = tensors[:2]
    return 2 * queries.numel() * keys.shape[-2]


def _multi_head(tensors: list[Tensor], _: Tensor) -> int:
    """Count projections and attention: rows first, as torch's own function takes them."""
    queries, keys, values = tensors[:3]
    width = queries.shape[-1]
    projected = 2 * queries.numel() + keys.numel() + values.numel()
    return projected * width + 2 * queries.numel() * keys.shape[0]


COSTS: dict[str, Callable[[list[Tensor], Tensor], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "mv"), _product),
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head,
}
