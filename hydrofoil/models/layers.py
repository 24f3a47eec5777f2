"""The layers that are our own, and the output size of every layer that a network here may hold.

Axes: L dropout layers, 2 halves of a key.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hydrofoil.errors import HydrofoilError
from hydrofoil.randomness import uniform_bits

Shape = tuple[int, ...]


class Dropout(nn.Dropout):
    """torch's dropout, but its mask is a function of the key that each step draws.

    While training, each activation is set to zero with probability p and the others are divided by
    1 - p (Srivastava et al. 2014).

    Raises:
        HydrofoilError: The layer is in training mode and no draw was set: see `set_draws`.
    """

    draw: int | Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Return the input, thinned out while training."""
        if not self.training or self.p == 0:
            return input
        if self.draw is None:
            raise HydrofoilError(
                "dropout: in training mode without a draw: expected the key of this step's mask.\n"
                "Call model.eval() to predict; to train, use hydrofoil.fit, or set_draws before "
                "each forward pass."
            )
        bits = uniform_bits(self.draw, input.numel(), input.device).view(input.shape)
        kept = bits >= round(self.p * (1 << 24))
        return input * kept * (1 / (1 - self.p))


def dropouts(network: nn.Module) -> list[Dropout]:
    """Return a network's dropout layers, in the order that their draws are numbered by."""
    return [layer for layer in network.modules() if isinstance(layer, Dropout)]


def set_draws(layers: Sequence[Dropout], draws_L2: Tensor | None) -> None:
    """Give each dropout layer the key of its next mask, as `halves`; None takes the keys away."""
    draws = [None] * len(layers) if draws_L2 is None else draws_L2.unbind()
    for layer, draw in zip(layers, draws, strict=True):
        layer.draw = draw


def sizes(layer: nn.Module) -> list[tuple[int, int, int]]:
    """Return a layer's (kernel, stride, padding) along height and width; no window: nothing."""
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return []
    numbers = (layer.kernel_size, layer.stride, layer.padding)
    pairs = [cast("Shape", n) if isinstance(n, tuple) else (cast("int", n),) * 2 for n in numbers]
    return [(pairs[0][axis], pairs[1][axis], pairs[2][axis]) for axis in (0, 1)]


def output_shape(layer: nn.Module, shape: Shape) -> Shape:
    """Return the shape of one picture's activations after a layer: C, H, W or a feature count.

    A window's output size is (in - kernel + 2·padding) / stride + 1, rounded down.

    >>> output_shape(nn.Conv2d(3, 6, 5), (3, 32, 32))
    (6, 28, 28)
    """
    if isinstance(layer, nn.Flatten):
        return (int(torch.Size(shape).numel()),)
    if isinstance(layer, nn.Linear):
        return (*shape[:-1], layer.out_features)
    windows = sizes(layer)
    if not windows:
        return shape
    channels = layer.out_channels if isinstance(layer, nn.Conv2d) else shape[0]
    height, width = (
        (size - kernel + 2 * padding) // stride + 1
        for size, (kernel, stride, padding) in zip(shape[1:], windows, strict=True)
    )
    return (channels, height, width)


def flat_features(layers: dict[str, nn.Module], shape: Shape) -> int:
    """Return how many features one picture has after the layers.

    Raises:
        HydrofoilError: The picture is so small that a window finds no place.
    """
    _, height, width = shape
    for name, layer in layers.items():
        shape = output_shape(layer, shape)
        if min(shape) < 1:
            raise HydrofoilError(
                f"model: pictures of {height}×{width} are too small for it: "
                f"nothing is left after {name}.\n"
                "Choose a model with fewer or smaller windows, such as model.name=cnn or mlp."
            )
    return shape[0]
