"""A network layer by layer: what comes out, by which arithmetic, at what cost."""

from dataclasses import dataclass
from math import prod

from torch import nn

from hydrofoil.models.layers import Dropout, Shape, output_shape, sizes


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


def summarise(network: nn.Sequential, shape: Shape) -> list[LayerSummary]:
    """Return a line for each layer of a network that takes pictures of C×H×W.

    >>> network = nn.Sequential(nn.Conv2d(3, 6, 5), nn.MaxPool2d(2))
    >>> [line.arithmetic for line in summarise(network, (3, 32, 32))]
    ['(32 - 5 + 2·0) / 1 + 1 = 28', '(28 - 2 + 2·0) / 2 + 1 = 14']
    """
    lines: list[LayerSummary] = []
    for name, layer in network.named_children():
        output = output_shape(layer, shape)
        cost, formula = _weights(layer)
        lines.append(
            LayerSummary(
                name=name,
                kind=_kind(layer),
                output=output,
                arithmetic=_arithmetic(layer, shape, output),
                parameters=sum(parameter.numel() for parameter in layer.parameters()),
                parameter_arithmetic=formula,
                # A convolution's weights work once at each position, a linear layer's once.
                multiply_adds=cost * (prod(output[1:]) if isinstance(layer, nn.Conv2d) else 1),
            )
        )
        shape = output
    return lines


def total_multiply_adds(network: nn.Sequential, shape: Shape) -> int:
    """Return the multiplications with an addition that one picture costs, forward."""
    return sum(line.multiply_adds for line in summarise(network, shape))


def _divided(text: str, value: int, stride: int) -> str:
    """Return a division as text, in the brackets of rounding down where it leaves a rest."""
    return f"⌊{text} / {stride}⌋" if value % stride else f"{text} / {stride}"


def _weights(layer: nn.Module) -> tuple[int, str]:
    """Return the number of multiplying weights and the arithmetic of all parameters."""
    if isinstance(layer, nn.Conv2d):
        inputs = layer.in_channels // layer.groups
        kernel = "·".join(map(str, layer.kernel_size))
        bias = " + 1" if getattr(layer, "bias", None) is not None else ""
        return layer.weight.numel(), f"{layer.out_channels}·({inputs}·{kernel}{bias})"
    if isinstance(layer, nn.Linear):
        bias = " + 1" if getattr(layer, "bias", None) is not None else ""
        return layer.weight.numel(), f"{layer.out_features}·({layer.in_features}{bias})"
    return 0, ""


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        kernel = "×".join(map(str, layer.kernel_size))
        return f"convolution {kernel}, {layer.in_channels} → {layer.out_channels}"
    if isinstance(layer, nn.MaxPool2d):
        return f"max-pool {'×'.join(str(kernel) for kernel, _, _ in sizes(layer))}"
    if isinstance(layer, nn.Linear):
        return f"linear {layer.in_features} → {layer.out_features}"
    if isinstance(layer, Dropout):
        return f"dropout {layer.p:g}"
    return type(layer).__name__


def _arithmetic(layer: nn.Module, shape: Shape, output: Shape) -> str:
    if isinstance(layer, nn.Flatten):
        return f"{'·'.join(map(str, shape))} = {output[0]}"
    windows = sizes(layer)
    if not windows:
        return ""
    axes = [
        f"{_divided(f'({size} - {kernel} + 2·{padding})', size - kernel + 2 * padding, stride)}"
        f" + 1 = {after}"
        for size, after, (kernel, stride, padding) in zip(
            shape[1:], output[1:], windows, strict=True
        )
    ]
    return ", ".join(
        dict.fromkeys(axes)
    )  # height and width differ only where the pictures are not square
