"""Where the pixels of augmented images come from: reflection, mirroring, shifts and rotation.

In whole numbers, so that torch on any device and the C of `native.augment` give the same bytes.

Axes: N images, A numbers of an image's changes, C channels, H rows, W columns, P pixels.
"""

import torch
from torch import Tensor

from hydrofoil.data.changes import PLACES, SIZE, TURN, Column


def reflected(at: Tensor, side: int) -> Tensor:
    """Return coordinates reflected into 0 to side - 1; the border is not repeated.

    >>> reflected(torch.tensor([-2, -1, 0, 3, 4, 5]), 4).tolist()
    [2, 1, 0, 3, 2, 1]
    """
    period = max(1, 2 * (side - 1))
    at = at.remainder(period)
    return torch.minimum(at, period - at) if side > 1 else at


def flipped_and_shifted(pictures_NCHW: Tensor, index_N: Tensor, changes_NA: Tensor) -> Tensor:
    """Return the indexed images, mirrored and then moved as the table says."""
    _, channels, height, width = pictures_NCHW.shape
    device = pictures_NCHW.device
    moves_NA = changes_NA.to(torch.int64)
    rows_NH = torch.arange(height, device=device) - moves_NA[:, Column.DOWN, None]
    columns_NW = torch.arange(width, device=device) - moves_NA[:, Column.RIGHT, None]
    columns_NW = reflected(columns_NW, width)
    flip_N1 = moves_NA[:, Column.FLIP, None].bool()
    columns_NW = torch.where(flip_N1, width - 1 - columns_NW, columns_NW)
    return pictures_NCHW[
        index_N[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        reflected(rows_NH, height)[:, None, :, None],
        columns_NW[:, None, None, :],
    ]


def turns(changes_NA: Tensor) -> Tensor:
    """Return turn_N2, int64: cosine and sine of the rotation, divided by the enlargement.

    They are fractions of 1 << 16, computed on the CPU in float64, the same for every device.
    """
    table_NA = changes_NA.to("cpu", torch.float64)
    angle_N = torch.deg2rad(table_NA[:, Column.TURN] / TURN)
    scale_N = table_NA[:, Column.SIZE] / SIZE
    turn_N2 = torch.stack([angle_N.cos() / scale_N, angle_N.sin() / scale_N], 1)
    return (turn_N2 * PLACES).round().to(torch.int64).to(changes_NA.device)


def middles(side: int, device: torch.device) -> Tensor:
    """Return twice the distance of a side's pixels from its middle, int64."""
    return 2 * torch.arange(side, device=device) - (side - 1)


def turned(pictures_NCHW: Tensor, changes_NA: Tensor) -> Tensor:
    """Return images rotated and scaled around their middle: bilinear, with a reflected border."""
    height, width = pictures_NCHW.shape[2:]
    cos_N11, sin_N11 = turns(changes_NA)[:, :, None, None].unbind(1)
    u_1W = middles(width, pictures_NCHW.device)[None, :]
    v_H1 = middles(height, pictures_NCHW.device)[:, None]
    # Twice the coordinate that a pixel comes from, in units of 1/65536.
    x_NHW = cos_N11 * u_1W + sin_N11 * v_H1 + ((width - 1) << 16)
    y_NHW = cos_N11 * v_H1 - sin_N11 * u_1W + ((height - 1) << 16)
    left_NHW, top_NHW = x_NHW >> 17, y_NHW >> 17
    right_NHW, below_NHW = x_NHW >> 7 & 1023, y_NHW >> 7 & 1023  # shares, of 1024

    def at(down: int, across: int) -> Tensor:
        """Return the pixels around each source coordinate, N×C×H×W."""
        rows_NHW = reflected(top_NHW + down, height)
        columns_NHW = reflected(left_NHW + across, width)
        return picked(pictures_NCHW, rows_NHW * width + columns_NHW).to(torch.int32)

    right_N1HW, below_N1HW = (share.to(torch.int32)[:, None] for share in (right_NHW, below_NHW))
    above_NCHW = at(0, 0) * (1024 - right_N1HW) + at(0, 1) * right_N1HW
    under_NCHW = at(1, 0) * (1024 - right_N1HW) + at(1, 1) * right_N1HW
    sum_NCHW = above_NCHW * (1024 - below_N1HW) + under_NCHW * below_N1HW
    return ((sum_NCHW + (1 << 19)) >> 20).to(torch.uint8)


def picked(pictures_NCHW: Tensor, place_NHW: Tensor) -> Tensor:
    """Return the pixels at places of each image, counted row by row; the same in all channels."""
    N, C, H, W = pictures_NCHW.shape
    places_NCP = place_NHW.reshape(N, 1, H * W).expand(N, C, H * W)
    return pictures_NCHW.reshape(N, C, H * W).gather(2, places_NCP).view(N, C, H, W)
