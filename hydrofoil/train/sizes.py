"""Progressive resizing: the first epochs are trained on smaller images, which cost less.

Axes: N images, C channels, H rows, W columns.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hydrofoil.errors import HydrofoilError
from hydrofoil.models.layers import evaluating
from hydrofoil.recipe.schema import Recipe, toml_value
from hydrofoil.wording import by

if TYPE_CHECKING:
    from hydrofoil.models.classifier import Classifier


def side_of(recipe: Recipe, epoch: int) -> int:
    """Return the longer side, in pixels, of the images of an epoch; 0: full size.

    Each of `train.sizes` has an equal part of the epochs, as far as they can be divided.

    Args:
        recipe: Gives sizes and epochs.
        epoch: Counted from 1.

    >>> from hydrofoil.recipe.read import read_recipe
    >>> recipe = read_recipe("digits", ["train.sizes=[4, 6, 8]", "train.epochs=5"])
    >>> [side_of(recipe, epoch) for epoch in range(1, 6)]
    [4, 4, 6, 6, 8]
    """
    sizes, epochs = recipe.train.sizes, recipe.train.epochs
    if not sizes:
        return 0
    return sizes[min((epoch - 1) * len(sizes) // epochs, len(sizes) - 1)]


def scaled(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Return rows and columns of an image whose longer side is scaled to so many pixels.

    >>> scaled((32, 32), 24), scaled((48, 32), 24), scaled((32, 32), 0)
    ((24, 24), (24, 16), (32, 32))
    """
    longer = max(shape)
    if side in (0, longer):
        return shape
    rows, columns = (max(1, round(pixels * side / longer)) for pixels in shape)
    return rows, columns


def shrink(pictures_NCHW: Tensor, side: int) -> Tensor:
    """Return uint8 images with a longer side of so many pixels, bilinear with antialiasing.

    On a CPU torch does so on bytes: a batch of 512 images, 3×32×32 to 24×24, takes 1 to 2 ms.

    Args:
        pictures_NCHW: uint8.
        side: In pixels; 0: as they are.
    """
    before = (pictures_NCHW.shape[2], pictures_NCHW.shape[3])
    after = scaled(before, side)
    if after == before:
        return pictures_NCHW
    if pictures_NCHW.device.type == "cpu" and after != (1, 1):  # torch fails on bytes to 1×1
        return interpolate(pictures_NCHW, after, mode="bilinear", antialias=True)
    smaller_NCHW = interpolate(pictures_NCHW.float(), after, mode="bilinear", antialias=True)
    return smaller_NCHW.round_().clamp_(0, 255).to(torch.uint8)


def check_sizes(recipe: Recipe, model: "Classifier") -> None:
    """Refuse sizes that the network or the images do not have.

    Raises:
        HydrofoilError: A size is larger than the images, or the network takes full size alone.
    """
    channels, *full = model.shape
    sizes, longer = recipe.train.sizes, max(full)
    name = f"train.sizes = {toml_value(list(sizes))}"
    for side in sorted(set(sizes)):
        if side > longer:
            raise HydrofoilError(
                f"{name}: expected at most {longer}, the longer side of the images.\n"
                "For larger images, read them so: data.size."
            )
        rows, columns = scaled((full[0], full[1]), side)
        blank_NCHW = torch.zeros(2, channels, rows, columns, dtype=torch.uint8, device=model.device)
        try:
            with torch.no_grad(), evaluating(model):
                model(blank_NCHW)
        except (RuntimeError, ValueError) as error:
            raise HydrofoilError(
                f"{name}: the network does not take {by((channels, rows, columns))} images, only "
                f"{by(model.shape)}: expected a network with global pooling.\n"
                "Leave train.sizes empty, or choose such a network."
            ) from error
