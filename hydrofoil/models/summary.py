"""A network layer by layer: what comes out, by which arithmetic, at what cost."""

from dataclasses import dataclass

from torch import nn

from hydrofoil.errors import InputError
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import Dropout, DropPath, Shape, windows
from hydrofoil.models.trace import Call, trace


@dataclass(frozen=True)
class LayerSummary:
    """One line of the table.

    Args:
        name: The layer's name in the network.
        kind: What it is, in words.
        output: Shape of one picture's activations after it.
        arithmetic: How that size comes about; empty where nothing changes.
        parameters: Numbers that are learned.
        parameter_arithmetic: How that count comes about.
        multiply_adds: Multiplications with an addition for one picture, forward.
    """

    name: str
    kind: str
    output: Shape
    arithmetic: str
    parameters: int
    parameter_arithmetic: str
    multiply_adds: int


def summarize(network: nn.Module, shape: Shape | None = None) -> list[LayerSummary]:
    """Return a line for each layer of any network that takes images of C×H×W.

    A `Classifier` is summarized as its network, and knows the shape.

    The layers are the modules that hold no others, as a blank image calls them, and a module that
    computes or learns something beside those inside it. What one number costs or counts stands in
    one line alone, so that the columns add up to the whole network.

    >>> network = nn.Sequential(nn.Conv2d(3, 6, 5), nn.MaxPool2d(2))
    >>> [line.arithmetic for line in summarize(network, (3, 32, 32))]
    ['(32 - 5 + 2·0) / 1 + 1 = 28', '(28 - 2 + 2·0) / 2 + 1 = 14']
    """
    if isinstance(network, Classifier):
        network, shape = network.network, shape or network.shape
    if shape is None:
        raise InputError(
            "shape: None: expected channels, height and width of the images.\n"
            "Type hf.summarize(network, pictures.shape)."
        )
    return [
        LayerSummary(
            name=call.name or "network",
            kind=_kind(call.layer),
            output=call.after,
            arithmetic=_arithmetic(call),
            parameters=call.parameters,
            parameter_arithmetic=_parameter_arithmetic(call),
            multiply_adds=call.multiply_adds,
        )
        for call in trace(network, shape)
        if call.is_leaf or call.parameters or call.multiply_adds
    ]


def total_multiply_adds(network: nn.Module, shape: Shape) -> int:
    """Return the multiplications with an addition that one image costs, forward."""
    return sum(call.multiply_adds for call in trace(network, shape))


def _divided(text: str, value: int, stride: int) -> str:
    """Return a division as text, in the brackets of rounding down where it leaves a rest."""
    return f"⌊{text} / {stride}⌋" if value % stride else f"{text} / {stride}"


def _parameter_arithmetic(call: Call) -> str:
    """Return how the number of a layer's parameters comes about; empty where others share them."""
    layer = call.layer
    if not call.parameters or not isinstance(layer, nn.Conv2d | nn.Linear):
        return ""
    if "weight" not in dict(layer.named_parameters(recurse=False)):  # only its biases are learned
        return ""
    bias = "" if layer.bias is None else " + 1"
    if isinstance(layer, nn.Linear):
        return f"{layer.out_features}·({layer.in_features}{bias})"
    kernel = "·".join(map(str, layer.kernel_size))
    return f"{layer.out_channels}·({layer.in_channels // layer.groups}·{kernel}{bias})"


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        kernel = "×".join(map(str, layer.kernel_size))
        return f"convolution {kernel}, {layer.in_channels} → {layer.out_channels}"
    if isinstance(layer, nn.MaxPool2d):
        kernel = layer.kernel_size
        return (
            f"max-pool {'×'.join(map(str, kernel if isinstance(kernel, tuple) else [kernel] * 2))}"
        )
    if isinstance(layer, nn.Linear):
        return f"linear {layer.in_features} → {layer.out_features}"
    if isinstance(layer, DropPath):
        return f"stochastic depth {layer.p:g}"
    if isinstance(layer, Dropout):
        return f"dropout {layer.p:g}"
    return type(layer).__name__


def _arithmetic(call: Call) -> str:
    """Return how a layer's size comes about, where a window's formula or flattening gives it."""
    before, after = call.before, call.after
    if isinstance(call.layer, nn.Flatten) and len(after) == 1:
        return f"{'·'.join(map(str, before))} = {after[0]}"
    if len(before) != 3 or len(after) != 3:
        return ""
    axes: list[str] = []
    for size, result, (kernel, stride, padding) in zip(
        before[1:], after[1:], windows(call.layer), strict=False
    ):
        span = size - kernel + 2 * padding
        if span // stride + 1 != result:  # rounded up, or more padding on one side
            return ""
        axes.append(
            f"{_divided(f'({size} - {kernel} + 2·{padding})', span, stride)} + 1 = {result}"
        )
    return ", ".join(dict.fromkeys(axes))  # one for both where the image is square
