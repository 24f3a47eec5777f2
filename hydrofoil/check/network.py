"""The network that judges labels: six 3×3 convolutions with batch norm, in bfloat16 where fast.

Its shape is that of Jordan's airbench94 (https://github.com/KellerJordan/cifar10-airbench, 2024)
with narrower layers, which reaches a given accuracy in the fewest multiplications we know of.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, pad

from hydrofoil.device import fast_bfloat16

SCALE = 0.125  # of the logits, as in Page's "How to train your ResNet" (2018)
BATCH_MEMORY = 0.4  # momentum of the running statistics: trainings have few steps
TURN = 0.2  # radians: 11 degrees
SCALED = 0.1  # of height and width
STEM = 24  # channels of the first convolution
LEAST_SIDE = 4  # rows or columns that are not pooled further


class LabelNetwork(nn.Module):
    """Takes normalized images N×C×H×W and returns a logit for each class.

    While training it shifts each image by a few pixels. It also mirrors half of them, or, where a
    mirrored image would not keep its class, turns and scales them a little. It draws from torch's
    global generator, which `fit` seeds in each step.

    Args:
        shape: Channels, height and width of the images.
        classes: How many there are.
        widths: Channels of each block: two convolutions, the first followed by 2×2 max-pooling.
        shift: The largest shift in pixels.
        mirror: Whether a mirrored image keeps its class.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        widths: Sequence[int],
        shift: int,
        mirror: bool,
    ) -> None:
        super().__init__()
        channels, *sides = shape
        self.shift, self.mirror = shift, mirror
        stride = max(1, round(min(sides) / 32))  # larger images are seen at about 32 pixels
        kernel = min(max(2, stride), *sides)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, STEM, kernel, stride=stride),
            nn.ReLU(inplace=True),
        ]
        channels, sides = STEM, [(side - kernel) // stride + 1 for side in sides]
        for width in widths:
            pooled = min(sides) >= LEAST_SIDE
            layers += [
                *_convolution(channels, width, nn.MaxPool2d(2) if pooled else nn.Identity()),
                *_convolution(width, width, nn.Identity()),
            ]
            channels, sides = width, [side // 2 if pooled else side for side in sides]
        self.layers = nn.Sequential(*layers)
        self.classify = nn.Linear(channels, classes, bias=False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Return logits_NK in float32."""
        if self.training:
            pictures_NCHW = self._varied(pictures_NCHW)
        pictures_NCHW = pictures_NCHW.contiguous(memory_format=torch.channels_last)
        kind = pictures_NCHW.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=fast_bfloat16(kind)):
            features_NC = self.layers(pictures_NCHW).amax((2, 3))
            logits_NK = self.classify(features_NC)
        return logits_NK.float() * SCALE

    def _varied(self, pictures_NCHW: Tensor) -> Tensor:
        """Return images that are changed at random."""
        if self.mirror:
            return self._shifted(_mirrored(pictures_NCHW))
        return _turned(pictures_NCHW, self.shift) if self.shift else pictures_NCHW

    def _shifted(self, pictures_NCHW: Tensor) -> Tensor:
        """Return shifted images; what a shift uncovers is reflected."""
        if not self.shift:
            return pictures_NCHW
        N, _, H, W = pictures_NCHW.shape
        device = pictures_NCHW.device
        padded_NCHW = pad(pictures_NCHW, (self.shift,) * 4, mode="reflect")
        offsets = torch.randint(0, 2 * self.shift + 1, (2, N)).to(device)
        rows_NH = offsets[0][:, None] + torch.arange(H, device=device)
        columns_NW = offsets[1][:, None] + torch.arange(W, device=device)
        at = torch.arange(N, device=device)[:, None, None]
        # Indexing around a slice puts the channels last, where the convolutions want them.
        taken = padded_NCHW[at, :, rows_NH[:, :, None], columns_NW[:, None, :]]
        return taken.permute(0, 3, 1, 2)


def _mirrored(pictures_NCHW: Tensor) -> Tensor:
    """Return images of which half are mirrored."""
    mirrored_N111 = (torch.rand(len(pictures_NCHW)) < 0.5).view(-1, 1, 1, 1)
    return torch.where(mirrored_N111.to(pictures_NCHW.device), pictures_NCHW.flip(3), pictures_NCHW)


def _turned(pictures_NCHW: Tensor, shift: int) -> Tensor:
    """Return images that are turned, scaled and shifted by bilinear interpolation."""
    N, _, H, W = pictures_NCHW.shape
    drawn = 2 * torch.rand(5, N) - 1
    angle_N, height_N, width_N = TURN * drawn[0], 1 + SCALED * drawn[1], 1 + SCALED * drawn[2]
    down_N, right_N = 2 * shift / H * drawn[3], 2 * shift / W * drawn[4]
    rows = [
        torch.stack([width_N * angle_N.cos(), -height_N * angle_N.sin(), right_N], 1),
        torch.stack([width_N * angle_N.sin(), height_N * angle_N.cos(), down_N], 1),
    ]
    matrices = torch.stack(rows, 1).to(pictures_NCHW.device)
    grid = affine_grid(matrices, list(pictures_NCHW.shape), align_corners=False)
    return grid_sample(pictures_NCHW, grid, padding_mode="border", align_corners=False)


def _convolution(channels: int, width: int, pool: nn.Module) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        pool,
        nn.BatchNorm2d(width, momentum=BATCH_MEMORY),
        nn.ReLU(inplace=True),
    ]


def network_of(
    widths: Sequence[int], shift: int, mirror: bool
) -> Callable[[tuple[int, int, int], int], nn.Module]:
    """Return a function that makes the network, as `models.build` takes it."""

    def label_network(shape: tuple[int, int, int], classes: int) -> nn.Module:
        return LabelNetwork(shape, classes, widths=widths, shift=shift, mirror=mirror)

    return label_network
