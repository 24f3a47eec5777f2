"""The operations of RandAugment and TrivialAugment, as torchvision defines them, for many images.

Cubuk et al. 2020 (https://arxiv.org/abs/1909.13719), Müller & Hutter 2021
(https://arxiv.org/abs/2103.10158). Images are grouped by operation; within a group each has its own
magnitude. Colors are computed in the order in which torchvision's functions round; geometry is
nearest-neighbor in fixed-point numbers.

Axes: N images, A numbers of an image's changes, C channels, H rows, W columns, V values of a pixel,
P pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hydrofoil.data.changes import LEVELS, PLACES, Column, policy_operations
from hydrofoil.data.moving import middles, picked
from hydrofoil.recipe.augment import Augment

WIDEST = 32.0  # pixels that TrivialAugment moves an image by, whatever its size
# The magnitude of each operation at the highest level, in RandAugment and in TrivialAugment.
SHEAR, ROTATE, COLOR, LOST_BITS = (0.3, 0.99), (30.0, 135.0), (0.9, 0.99), (4, 6)
TRANSLATE = 150 / 331  # of a side, in RandAugment


def apply_operations(
    pictures_NCHW: Tensor, changes_NA: Tensor, spec: Augment, fill_C: Tensor
) -> Tensor:
    """Return images with all operations of the policy applied, one after the other.

    Args:
        pictures_NCHW: uint8.
        changes_NA: The rows of `draw_changes`, on the same device.
        spec: The settings that the rows were drawn for.
        fill_C: What shows beyond the border, uint8.
    """
    for number in range(policy_operations(spec)):
        pairs_NA = changes_NA[:, len(Column) + 2 * number :]
        pictures_NCHW = apply_policy(
            pictures_NCHW, pairs_NA[:, 0], pairs_NA[:, 1], spec.policy, fill_C
        )
    return pictures_NCHW


def apply_policy(
    pictures_NCHW: Tensor, operation_N: Tensor, level_N: Tensor, policy: str, fill_C: Tensor
) -> Tensor:
    """Return images, each with one operation applied.

    Args:
        pictures_NCHW: uint8.
        operation_N: A number in OPERATIONS for each image.
        level_N: -30 to 30; where an operation has no direction, the sign does not count.
        policy: randaugment or trivialaugment, whose magnitudes differ.
        fill_C: What shows beyond the border, uint8.
    """
    wide = policy == "trivialaugment"
    changed_NCHW = pictures_NCHW.clone()
    for number, apply in enumerate(OPERATIONS.values()):
        chosen_N = (operation_N == number).nonzero()[:, 0]
        if len(chosen_N):
            group = Group(pictures_NCHW[chosen_N], level_N[chosen_N], wide, fill_C)
            changed_NCHW[chosen_N] = apply(group)
    return changed_NCHW


class Group:
    """Images that get the same operation.

    Args:
        pictures_NCHW: uint8.
        level_N: -30 to 30.
        wide: The magnitudes of TrivialAugment.
        fill_C: What shows beyond the border, uint8.
    """

    def __init__(self, pictures_NCHW: Tensor, level_N: Tensor, wide: bool, fill_C: Tensor) -> None:
        self.pictures_NCHW, self.level_N = pictures_NCHW, level_N.to("cpu", torch.int64)
        self.wide, self.fill_C = wide, fill_C.to(pictures_NCHW.device)

    def signed(self, most: float) -> Tensor:
        """Return magnitude_N, float64 on the CPU: of float32 steps up to the highest."""
        steps = torch.linspace(0.0, most, LEVELS).to(torch.float64)
        return steps[self.level_N.abs()] * self.level_N.sign()

    def warped(self, map_N6: Tensor) -> Tensor:
        """Return the images, each pixel taken from the nearest place that a linear map gives.

        Args:
            map_N6: float64 on the CPU: how far from the middle the source of a pixel lies, in
                double pixels, across and down: by the pixel's own distance across, down, and fixed.
        """
        H, W = self.pictures_NCHW.shape[2:]
        device = self.pictures_NCHW.device
        whole_N6 = (map_N6 * PLACES).round().to(torch.int64).to(device)
        xu, xv, x0, yu, yv, y0 = whole_N6[:, :, None, None].unbind(1)
        u_1W, v_H1 = middles(W, device)[None, :], middles(H, device)[:, None]
        column_NHW = xu * u_1W + xv * v_H1 + x0 + ((W - 1) << 16) + PLACES >> 17
        row_NHW = yu * u_1W + yv * v_H1 + y0 + ((H - 1) << 16) + PLACES >> 17
        outside_NHW = (column_NHW < 0) | (column_NHW >= W) | (row_NHW < 0) | (row_NHW >= H)
        place_NHW = row_NHW.clamp(0, H - 1) * W + column_NHW.clamp(0, W - 1)
        fill_C11 = self.fill_C[:, None, None]
        return torch.where(outside_NHW[:, None], fill_C11, picked(self.pictures_NCHW, place_NHW))

    def blended(self, other_NCHW: Tensor, magnitude_N: Tensor) -> Tensor:
        """Return the images times 1 + magnitude, and others times its negative."""
        device = self.pictures_NCHW.device  # MPS has no float64
        ratio_N = (1 + magnitude_N).to(torch.float32).to(device)
        rest_N = (-magnitude_N).to(torch.float32).to(device)
        mine_NCHW = ratio_N[:, None, None, None] * self.pictures_NCHW
        sum_NCHW = mine_NCHW + rest_N[:, None, None, None] * other_NCHW
        return sum_NCHW.clamp_(0, 255).to(torch.uint8)

    def gray(self) -> Tensor:
        """Return the images without color, N×1×H×W; of other than three channels, themselves."""
        if self.pictures_NCHW.shape[1] != 3:
            return self.pictures_NCHW
        red, green, blue = self.pictures_NCHW.unbind(1)
        return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8)[:, None]


# ── geometry ─────────────────────────────────────────────────────────────────────────────────────


def _shear_x(group: Group) -> Tensor:
    shear_N = group.signed(SHEAR[group.wide])
    return group.warped(_map(shear_N, xv=shear_N, x0=shear_N * group.pictures_NCHW.shape[2]))


def _shear_y(group: Group) -> Tensor:
    shear_N = group.signed(SHEAR[group.wide])
    return group.warped(_map(shear_N, yu=shear_N, y0=shear_N * group.pictures_NCHW.shape[3]))


def _translate_x(group: Group) -> Tensor:
    most = WIDEST if group.wide else TRANSLATE * group.pictures_NCHW.shape[3]
    pixels_N = group.signed(most).trunc()
    return group.warped(_map(pixels_N, x0=-2 * pixels_N))


def _translate_y(group: Group) -> Tensor:
    most = WIDEST if group.wide else TRANSLATE * group.pictures_NCHW.shape[2]
    pixels_N = group.signed(most).trunc()
    return group.warped(_map(pixels_N, y0=-2 * pixels_N))


def _rotate(group: Group) -> Tensor:
    angle_N = torch.deg2rad(group.signed(ROTATE[group.wide]))
    cos_N, sin_N = angle_N.cos(), angle_N.sin()
    return group.warped(_map(cos_N, xu=cos_N, xv=-sin_N, yu=sin_N, yv=cos_N))


def _map(like_N: Tensor, **given: Tensor) -> Tensor:
    """Return map_N6 of `Group.warped`; where nothing is given, a pixel stays in its place."""
    still = {"xu": 1.0, "xv": 0.0, "x0": 0.0, "yu": 0.0, "yv": 1.0, "y0": 0.0}
    columns = [given.get(name, torch.full_like(like_N, value)) for name, value in still.items()]
    return torch.stack(columns, 1)


# ── colors ───────────────────────────────────────────────────────────────────────────────────────


def _identity(group: Group) -> Tensor:
    return group.pictures_NCHW


def _brightness(group: Group) -> Tensor:
    black_NCHW = torch.zeros_like(group.pictures_NCHW)
    return group.blended(black_NCHW, group.signed(COLOR[group.wide]))


def _color(group: Group) -> Tensor:
    if group.pictures_NCHW.shape[1] != 3:
        return group.pictures_NCHW
    return group.blended(group.gray(), group.signed(COLOR[group.wide]))


def _contrast(group: Group) -> Tensor:
    # Sums of whole numbers below 2**24 are exact in float32, in any order.
    mean_N111 = group.gray().to(torch.float32).mean((1, 2, 3), keepdim=True)
    return group.blended(mean_N111, group.signed(COLOR[group.wide]))


def _sharpness(group: Group) -> Tensor:
    if min(group.pictures_NCHW.shape[2:]) <= 2:
        return group.pictures_NCHW
    whole_NCHW = group.pictures_NCHW.to(torch.int32)
    wide_NCHW = whole_NCHW[..., :-2] + whole_NCHW[..., 1:-1] + whole_NCHW[..., 2:]
    sum_NCHW = wide_NCHW[..., :-2, :] + wide_NCHW[..., 1:-1, :] + wide_NCHW[..., 2:, :]
    sum_NCHW = sum_NCHW + 4 * whole_NCHW[..., 1:-1, 1:-1]
    blurred_NCHW = group.pictures_NCHW.clone()
    # Rounded; 13 is odd, so that no quotient lies halfway.
    blurred_NCHW[..., 1:-1, 1:-1] = ((2 * sum_NCHW + 13) // 26).to(torch.uint8)
    return group.blended(blurred_NCHW, group.signed(COLOR[group.wide]))


def _posterize(group: Group) -> Tensor:
    steps = (LEVELS - 1) / LOST_BITS[group.wide]
    lost_N = (group.level_N.abs() / steps).round().to(torch.int64).to(group.pictures_NCHW.device)
    lost_N111 = lost_N[:, None, None, None]
    return (group.pictures_NCHW.to(torch.int64) >> lost_N111 << lost_N111).to(torch.uint8)


def _solarize(group: Group) -> Tensor:
    threshold_N = torch.linspace(255.0, 0.0, LEVELS)[group.level_N.abs()]
    threshold_N111 = threshold_N.to(group.pictures_NCHW.device)[:, None, None, None]
    bright_NCHW = group.pictures_NCHW >= threshold_N111
    return torch.where(bright_NCHW, 255 - group.pictures_NCHW, group.pictures_NCHW)


def _autocontrast(group: Group) -> Tensor:
    least_NC11 = group.pictures_NCHW.amin((2, 3), keepdim=True).to(torch.float32)
    most_NC11 = group.pictures_NCHW.amax((2, 3), keepdim=True).to(torch.float32)
    even_NC11 = least_NC11 == most_NC11
    scale_NC11 = torch.where(even_NC11, 1.0, 255 / (most_NC11 - least_NC11))
    least_NC11 = torch.where(even_NC11, 0.0, least_NC11)
    return ((group.pictures_NCHW - least_NC11) * scale_NC11).clamp_(0, 255).to(torch.uint8)


def _equalize(group: Group) -> Tensor:
    N, C, H, W = group.pictures_NCHW.shape
    values_NCP = group.pictures_NCHW.reshape(N, C, H * W).to(torch.int64)
    counts_NCV = torch.zeros(N, C, 256, dtype=torch.int64, device=values_NCP.device)
    counts_NCV.scatter_add_(2, values_NCP, torch.ones_like(values_NCP))
    brightest_NC1 = counts_NCV.gather(2, values_NCP.amax(2, keepdim=True))
    step_NC1 = (H * W - brightest_NC1) // 255
    below_NCV = counts_NCV.cumsum(2) - counts_NCV
    table_NCV = (below_NCV + step_NC1 // 2) // step_NC1.clamp(min=1)
    table_NCV[..., 0] = 0
    equal_NCP = table_NCV.clamp(0, 255).gather(2, values_NCP)
    return torch.where(step_NC1 > 0, equal_NCP, values_NCP).to(torch.uint8).view(N, C, H, W)


# In torchvision's order.
OPERATIONS: dict[str, Callable[[Group], Tensor]] = {
    "Identity": _identity,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
