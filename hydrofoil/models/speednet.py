"""The network of the published speed records on CIFAR-10, in widths and depths of your choice.

A whitening stem, then groups of 3×3 convolutions: Keller Jordan, "94% on CIFAR-10 in 3.29 seconds
on a single A100" (2024, https://arxiv.org/abs/2404.00498), after David Page, "How to train your
ResNet 8: bag of tricks" (2019).

Axes: N images, C channels, H rows, W columns.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from hydrofoil.errors import HydrofoilError
from hydrofoil.models.layers import ACTIVATIONS, Dropout, DropPath
from hydrofoil.models.whitening import WhiteningConv2d
from hydrofoil.recipe.models import SpeedNet
from hydrofoil.wording import by

SMALLEST = 8  # pixels on a side: below that, three groups have nothing to pool


def speednet(spec: SpeedNet, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the stem, group1, group2, … and the linear layer.

    `initialize_from_images` sets the stem's filters when training begins.

    Raises:
        HydrofoilError: The images are smaller than 8 pixels on a side.
    """
    channels, *sizes = shape
    if min(sizes) < SMALLEST:
        raise HydrofoilError(
            f"model: images of {by(sizes)} are too small for speednet: expected at least "
            f"{SMALLEST}×{SMALLEST}.\nChoose model.name=cnn or mlp, or larger images: data.size=32."
        )
    stem = WhiteningConv2d(channels)
    layers: dict[str, nn.Module] = {"stem": stem, "activation": ACTIVATIONS[spec.activation]()}
    widths = (stem.out_channels, *spec.widths)
    for number, (before, width) in enumerate(pairwise(widths), start=1):
        skipped = spec.drop_path * number / len(spec.widths)
        layers[f"group{number}"] = Group(spec, before, width, skipped)
    layers |= {"pool": GlobalMaxPool2d(), "dropout": Dropout(spec.dropout)}
    layers["linear"] = nn.Linear(widths[-1], classes, bias=False)
    return layers | {"scale": Scale(spec.logit_scale)}


class Group(nn.Module):
    """3×3 convolutions, each with batch norm and activation; the first is pooled before its norm.

    Args:
        spec: Says depth, residual, activation and initialization.
        channels: That come in.
        width: That go out.
        drop_path: The fraction of images for which the residual convolutions are skipped.
    """

    def __init__(self, spec: SpeedNet, channels: int, width: int, drop_path: float) -> None:
        super().__init__()
        self.pool = HalvingMaxPool2d(kernel_size=2)
        self.residual = spec.residual
        for number in range(1, spec.depth + 1):
            inside = channels if number == 1 else width
            conv = nn.Conv2d(inside, width, 3, padding=1, bias=False)
            if spec.initialization == "dirac":
                nn.init.dirac_(conv.weight[:inside].detach())
            self.add_module(f"conv{number}", conv)
            self.add_module(f"norm{number}", nn.BatchNorm2d(width))
            self.add_module(f"activation{number}", ACTIVATIONS[spec.activation]())
        if spec.residual:
            self.drop_path = DropPath(drop_path)
        self.depth = spec.depth

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """Return maps of half the height and width."""
        first_NCHW = self._convolve(maps_NCHW, 1)
        maps_NCHW = first_NCHW
        for number in range(2, self.depth + 1):
            maps_NCHW = self._convolve(maps_NCHW, number)
        return first_NCHW + self.drop_path(maps_NCHW) if self.residual else maps_NCHW

    def _convolve(self, maps_NCHW: Tensor, number: int) -> Tensor:
        maps_NCHW = self.get_submodule(f"conv{number}")(maps_NCHW)
        if number == 1:
            maps_NCHW = self.pool(maps_NCHW)
        maps_NCHW = self.get_submodule(f"norm{number}")(maps_NCHW)
        return self.get_submodule(f"activation{number}")(maps_NCHW)


class HalvingMaxPool2d(nn.MaxPool2d):
    """Max-pooling that leaves maps of a single row or column as they are."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the largest of each 2×2 pixels."""
        return input if min(input.shape[2:]) < 2 else max_pool2d(input, 2)


class GlobalMaxPool2d(nn.Module):
    """The largest value of each channel, so that images of any size give as many features."""

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """Return features_NC."""
        return maps_NCHW.amax((2, 3))


class Scale(nn.Module):
    """Multiplies by a constant.

    Args:
        factor: The constant.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:
        """Return the multiple."""
        return input * self.factor

    def extra_repr(self) -> str:
        """Show the constant."""
        return f"{self.factor:g}"
