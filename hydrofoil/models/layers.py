"""The layers that are our own, and small questions that are asked of any layer.

Axes: N images, L dropout layers, 2 halves of a key.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from math import prod
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
        kept = self.kept(input.numel(), input.device).view(input.shape)
        return input * kept * (1 / (1 - self.p))

    def kept(self, count: int, device: torch.device) -> Tensor:
        """Return `count` booleans of this step's mask, each true with probability 1 - p."""
        if self.draw is None:
            raise HydrofoilError(
                "dropout: in training mode without a draw: expected the key of this step's mask.\n"
                "Call model.eval() to predict; to train, use hydrofoil.fit, or set_draws before "
                "each forward pass."
            )
        return uniform_bits(self.draw, count, device) >= round(self.p * (1 << 24))


class DropPath(Dropout):
    """Stochastic depth: skips a residual branch for some images, by the key of each step.

    While training, the branch is set to zero for a fraction p of the images and divided by 1 - p
    for the others (Huang et al. 2016).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the branch, or zeros, for each image."""
        if not self.training or self.p == 0:
            return input
        kept_N = self.kept(len(input), input.device)
        return input * kept_N.view(-1, *[1] * (input.ndim - 1)) * (1 / (1 - self.p))


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Put a model into evaluation mode, and every layer back into its own afterwards."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def dropouts(network: nn.Module) -> list[Dropout]:
    """Return a network's dropout layers, in the order that their draws are numbered by."""
    return [layer for layer in network.modules() if isinstance(layer, Dropout)]


def set_draws(layers: Sequence[Dropout], draws_L2: Tensor | None) -> None:
    """Give each dropout layer the key of its next mask, as `halves`; None takes the keys away."""
    draws = [None] * len(layers) if draws_L2 is None else draws_L2.unbind()
    for layer, draw in zip(layers, draws, strict=True):
        layer.draw = draw


def windows(layer: nn.Module) -> list[tuple[int, int, int]]:
    """Return a layer's (kernel, stride, padding) along height and width; no plain window: nothing.

    They explain a size, they do not decide it: see trace.py.
    """
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return []
    if isinstance(layer.padding, str) or getattr(layer, "dilation", 1) not in (1, (1, 1)):
        return []
    numbers = (layer.kernel_size, layer.stride, layer.padding)
    pairs = [cast("Shape", n) if isinstance(n, tuple) else (n, n) for n in numbers]
    return [(pairs[0][axis], pairs[1][axis], pairs[2][axis]) for axis in (0, 1)]


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
MOST_GROUPS = 8  # of a group norm: 4 channels a group in 32, as far as the width can be divided


def activation(name: str, number: int) -> dict[str, nn.Module]:
    """Return a network's activation layer of a number, by its name in the network."""
    return {f"{name.replace('-', '_')}{number}": ACTIVATIONS[name]()}


def norm_of_maps(name: str, channels: int, number: int) -> dict[str, nn.Module]:
    """Return the norm after a convolution, by its name in the network; nothing for "none"."""
    groups = next(n for n in range(MOST_GROUPS, 0, -1) if channels % n == 0)
    made: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(channels),
        "group": lambda: nn.GroupNorm(groups, channels),
        "layer": lambda: nn.GroupNorm(1, channels),  # over channels, rows and columns
    }
    return {f"norm{number}": made[name]()} if name in made else {}


def norm_of_features(name: str, features: int, number: int) -> dict[str, nn.Module]:
    """Return the norm after a linear layer, by its name in the network; nothing for "none"."""
    made: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    return {f"norm{number}": made[name](features)} if name in made else {}


def flat_features(layers: dict[str, nn.Module], shape: Shape) -> int:
    """Return how many features one image has after the layers of a family in models/.

    It is arithmetic, because a forward pass of a blank image costs `predict` a tenth of a second.

    Raises:
        HydrofoilError: The image is so small that a window does not fit.
    """
    channels, *sizes = shape
    for name, layer in layers.items():
        channels = getattr(layer, "out_channels", channels)
        for axis, (kernel, stride, padding) in enumerate(windows(layer)):
            sizes[axis] = (sizes[axis] + 2 * padding - kernel) // stride + 1
        if min(sizes) < 1:
            raise HydrofoilError(
                f"model: images of {shape[1]}×{shape[2]} are too small for it: "
                f"nothing is left after {name}.\n"
                "Choose a model with fewer or smaller windows, such as model.name=cnn or mlp, or "
                "larger images: data.size=32."
            )
    return channels * prod(sizes)
