"""Applies an epoch's changes to uint8 images, in batches and on any device.

All arithmetic is in whole numbers, or in float32 in a fixed order: the bytes do not depend on how
many images are changed together. `native.augment` does most of it in C, with the same bytes.

Axes: N images, A numbers of an image's changes, C channels, H rows, W columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hydrofoil.data.augment_policy import apply_operations
from hydrofoil.data.changes import ONE, Column
from hydrofoil.data.moving import flipped_and_shifted, turned
from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.augment import Augment
from hydrofoil.wording import by

GRAY = (19589, 38470, 7471)  # shares of red, green and blue, of 1 << 16: as torchvision has them


def check_size(spec: Augment, shape: Sequence[int]) -> None:
    """Refuse a shift that images of a shape, C×H×W, cannot reflect.

    Raises:
        HydrofoilError: It is as large as a side.
    """
    most = min(shape[1:]) - 1
    if spec.shift > most:
        raise HydrofoilError(
            f"augment.shift = {spec.shift}: expected at most {most} for images of "
            f"{by(shape[1:])}, whose border is reflected."
        )


def fill_of(mean: Sequence[float] | None, channels: int) -> Tensor:
    """Return fill_C, uint8: the pixel nearest to the mean that normalization subtracts.

    >>> fill_of((0.5,), 3)
    tensor([128, 128, 128], dtype=torch.uint8)
    """
    values = [*(mean or (0.0,))]
    values *= channels // len(values)
    return torch.tensor([min(255, max(0, int(255 * value + 0.5))) for value in values]).to(
        torch.uint8
    )


def augmented(
    pictures_NCHW: Tensor, index_N: Tensor, changes_NA: Tensor, spec: Augment, fill_C: Tensor
) -> Tensor:
    """Return the indexed images with their changes, all but the mixing of pairs; see `mixed`.

    Args:
        pictures_NCHW: uint8, the whole set or a window of it.
        index_N: Which of them, in the order of the table's rows.
        changes_NA: The rows of `draw_changes`, on the same device.
        spec: The settings that the rows were drawn for.
        fill_C: What hides, uint8: of cutout and of the policy's operations.
    """
    moved_NCHW = flipped_and_shifted(pictures_NCHW, index_N, changes_NA)
    operated_NCHW = apply_operations(moved_NCHW, changes_NA, spec, fill_C)
    return finished(operated_NCHW, changes_NA, spec, fill_C)


def finished(pictures_NCHW: Tensor, changes_NA: Tensor, spec: Augment, fill_C: Tensor) -> Tensor:
    """Return images rotated and scaled, brighter or darker, with other contrast, partly hidden."""
    if spec.moves:
        pictures_NCHW = turned(pictures_NCHW, changes_NA)
    if spec.brightness:
        factor_N111 = changes_NA[:, Column.BRIGHTNESS, None, None, None]
        pictures_NCHW = (pictures_NCHW * factor_N111 >> 8).clamp_(max=255).to(torch.uint8)
    if spec.contrast:
        pictures_NCHW = _contrasted(pictures_NCHW, changes_NA[:, Column.CONTRAST])
    if spec.cutout:
        pictures_NCHW = _cut(pictures_NCHW, changes_NA, spec.cutout, fill_C)
    return pictures_NCHW


def gray_sums(pictures_NCHW: Tensor) -> tuple[Tensor, int]:
    """Return the sum of each image's gray values, int64, and how many values it has."""
    N, C, H, W = pictures_NCHW.shape
    if C != len(GRAY):
        return pictures_NCHW.reshape(N, -1).sum(1, dtype=torch.int64), C * H * W
    red, green, blue = (pictures_NCHW[:, i].to(torch.int32) * GRAY[i] for i in range(C))
    return (red + green + blue >> 16).reshape(N, -1).sum(1, dtype=torch.int64), H * W


def _contrasted(pictures_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Return images whose difference to their mean gray is multiplied."""
    sum_N, count = gray_sums(pictures_NCHW)
    added_N = ((ONE - factor_N).to(torch.int64) * ONE * sum_N).div(count, rounding_mode="floor")
    added_N111 = added_N.to(torch.int32)[:, None, None, None]
    scaled_NCHW = pictures_NCHW * (factor_N.to(torch.int32) * ONE)[:, None, None, None]
    return (scaled_NCHW + added_N111 >> 16).clamp_(0, 255).to(torch.uint8)


def _cut(pictures_NCHW: Tensor, changes_NA: Tensor, side: int, fill_C: Tensor) -> Tensor:
    """Return images with a square hidden, which may reach over the border."""
    height, width = pictures_NCHW.shape[2:]
    device = pictures_NCHW.device
    inside: list[Tensor] = []
    for size, column in ((height, Column.CUT_Y), (width, Column.CUT_X)):
        first_N1 = (changes_NA[:, column, None].to(torch.int64) * size >> 16) - side // 2
        at = torch.arange(size, device=device)
        inside.append((at >= first_N1) & (at < first_N1 + side))
    hidden_N1HW = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return torch.where(hidden_N1HW, fill_C.to(device)[:, None, None], pictures_NCHW)


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────


def partners(changes_NA: Tensor, batch_size: int) -> Tensor:
    """Return the place of each image's other in the rows, which begin with a batch."""
    count = len(changes_NA)
    at_N = torch.arange(count, device=changes_NA.device)
    start_N = at_N // batch_size * batch_size
    size_N = (count - start_N).clamp(max=batch_size)
    return start_N + (at_N - start_N + changes_NA[:, Column.PARTNER]) % size_N


def mixed(
    pictures_NCHW: Tensor, changes_NA: Tensor, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images mixed in pairs, the place of each one's partner, and its own share, float32.

    Args:
        pictures_NCHW: The images of whole batches, the last of which may be smaller, augmented.
        changes_NA: Their rows.
        batch_size: Images per step.
    """
    N, _, height, width = pictures_NCHW.shape
    partner_N = partners(changes_NA, batch_size)
    share_N = changes_NA[:, Column.SHARE]
    other_NCHW = pictures_NCHW[partner_N]
    part_N111 = share_N.to(torch.int32)[:, None, None, None]
    blended_NCHW = pictures_NCHW * part_N111 + other_NCHW * (ONE - part_N111) + ONE // 2 >> 8
    # A box has the proportions of the image and the other's share as its area.
    root_N = ((ONE - share_N).to("cpu", torch.float64) / ONE).sqrt()
    inside: list[Tensor] = []
    for size, column in ((height, Column.BOX_Y), (width, Column.BOX_X)):
        side_N1 = (root_N * size).to(torch.int64).to(changes_NA.device)[:, None]
        first_N1 = (changes_NA[:, column, None].to(torch.int64) * size >> 16) - side_N1 // 2
        at = torch.arange(size, device=changes_NA.device)
        inside.append((at >= first_N1) & (at < first_N1 + side_N1))
    in_box_NHW = inside[0][:, :, None] & inside[1][:, None, :]
    boxed_NCHW = torch.where(in_box_NHW[:, None], other_NCHW, pictures_NCHW)
    box_N = changes_NA[:, Column.BOX].bool()
    made_NCHW = torch.where(box_N[:, None, None, None], boxed_NCHW, blended_NCHW.to(torch.uint8))
    area_N = in_box_NHW.reshape(N, -1).sum(1).to(torch.float32) / (height * width)
    return made_NCHW, partner_N, torch.where(box_N, 1 - area_N, share_N.to(torch.float32) / ONE)
