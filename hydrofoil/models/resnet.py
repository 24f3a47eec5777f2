"""Residual networks for small images, with the parameter names of torchvision's.

He et al., "Deep Residual Learning for Image Recognition" (2016), and with preactivation Zagoruyko
and Komodakis, "Wide Residual Networks" (2016). Shortcuts between groups are 1×1 convolutions.

Axes: N images, C channels, H rows, W columns.
"""

from itertools import pairwise

from torch import Tensor, nn

from hydrofoil.models.layers import ACTIVATIONS, Dropout, DropPath
from hydrofoil.recipe.models import Residual


def resnet(spec: Residual, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return conv1, layer1, layer2, … of blocks, and the linear layer fc.

    Norm and activation stand after conv1, or with preactivation after the last block.
    """
    stem = spec.stem or spec.widths[0]
    make = PreactivatedBlock if spec.preactivation else Block
    around: dict[str, nn.Module] = {
        "bn1": nn.BatchNorm2d(spec.widths[-1] if spec.preactivation else stem),
        "relu": ACTIVATIONS[spec.activation](),
    }
    layers: dict[str, nn.Module] = {"conv1": _convolution(shape[0], stem)}
    layers |= {} if spec.preactivation else around
    blocks = len(spec.widths) * spec.depth
    for group, (before, width) in enumerate(pairwise((stem, *spec.widths)), start=1):
        made = nn.Sequential()
        for number in range(spec.depth):
            first = number == 0
            skipped = spec.drop_path * ((group - 1) * spec.depth + number + 1) / blocks
            channels, stride = (before if first else width), (2 if first and group > 1 else 1)
            made.append(make(spec, channels, width, stride, skipped))
        layers[f"layer{group}"] = made
    layers |= around if spec.preactivation else {}
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return layers | {"fc": nn.Linear(spec.widths[-1], classes)}


class Block(nn.Module):
    """Two 3×3 convolutions, each with batch norm, beside a shortcut; activation after the sum.

    Args:
        spec: Says activation and dropout.
        channels: That come in.
        width: That go out.
        stride: Of the first convolution.
        drop_path: The fraction of images that skip the convolutions.
    """

    def __init__(
        self, spec: Residual, channels: int, width: int, stride: int, drop_path: float
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(channels, width, stride), nn.BatchNorm2d(width)
        self.relu = ACTIVATIONS[spec.activation]()
        self.dropout = Dropout(spec.dropout)
        self.conv2, self.bn2 = _convolution(width, width), nn.BatchNorm2d(width)
        self.drop_path = DropPath(drop_path)
        self.downsample = (
            nn.Sequential(_convolution(channels, width, stride, kernel=1), nn.BatchNorm2d(width))
            if stride > 1 or channels != width
            else nn.Identity()
        )

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """Return maps of `width` channels."""
        inner_NCHW = self.dropout(self.relu(self.bn1(self.conv1(maps_NCHW))))
        inner_NCHW = self.drop_path(self.bn2(self.conv2(inner_NCHW)))
        return self.relu(inner_NCHW + self.downsample(maps_NCHW))


class PreactivatedBlock(nn.Module):
    """Batch norm and activation before each of two 3×3 convolutions, beside a shortcut.

    Args:
        spec: Says activation and dropout.
        channels: That come in.
        width: That go out.
        stride: Of the first convolution.
        drop_path: The fraction of images that skip the convolutions.
    """

    def __init__(
        self, spec: Residual, channels: int, width: int, stride: int, drop_path: float
    ) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), _convolution(channels, width, stride)
        self.relu = ACTIVATIONS[spec.activation]()
        self.dropout = Dropout(spec.dropout)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), _convolution(width, width)
        self.drop_path = DropPath(drop_path)
        self.shortcut = (
            _convolution(channels, width, stride, kernel=1)
            if stride > 1 or channels != width
            else None
        )

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """Return maps of `width` channels."""
        active_NCHW = self.relu(self.bn1(maps_NCHW))
        inner_NCHW = self.dropout(self.relu(self.bn2(self.conv1(active_NCHW))))
        inner_NCHW = self.drop_path(self.conv2(inner_NCHW))
        return inner_NCHW + (self.shortcut(active_NCHW) if self.shortcut else maps_NCHW)


def _convolution(channels: int, width: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    """Return a convolution without bias, with the initial weights of He et al. 2015."""
    layer = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
