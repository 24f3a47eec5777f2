"""Test-time augmentation: predictions averaged over changed copies of each image.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import torch
from torch import Tensor

from hydrofoil.data.moving import reflected
from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.score import BATCH, logits_of
from hydrofoil.models.classifier import Classifier

# Of each kind: how far copies are moved down and to the right, and the weight of each.
MOVES: dict[str, tuple[tuple[int, float], ...]] = {
    "flip": ((0, 1.0),),
    "flip-shift": ((0, 0.5), (1, 0.25), (-1, 0.25)),
}


def averaged_logits(
    model: Classifier, pictures: Pictures, index_N: Tensor, kind: str
) -> Tensor | None:
    """Return logits_NK averaged over copies of each image, on the CPU; None for the kind none.

    `flip` averages the image and its mirror image. `flip-shift` averages these, at half the weight,
    and both moved by one pixel down and right and up and left, as Jordan 2024 does
    (https://arxiv.org/abs/2404.00498). Logits are averaged, as there, and not probabilities: a copy
    on which the model is certain does not outvote the others' evidence against a class.

    Args:
        model: The classifier; its mode is left as it was.
        pictures: The set.
        index_N: Which of its pictures.
        kind: none, flip or flip-shift.
    """
    if kind == "none":
        return None
    index_N = index_N.to(pictures.pictures_NCHW.device)
    parts = [
        _averaged(model, pictures.pictures_NCHW[part_N], MOVES[kind])
        for part_N in index_N.split(BATCH)
    ]
    return torch.cat(parts).cpu()


def _averaged(
    model: Classifier, pictures_NCHW: Tensor, moves: tuple[tuple[int, float], ...]
) -> Tensor:
    parts: list[Tensor] = []
    for pixels, weight in moves:
        moved_NCHW = shifted(pictures_NCHW, pixels)
        both_NK = logits_of(model, moved_NCHW) + logits_of(model, moved_NCHW.flip(3))
        parts.append(weight / 2 * both_NK)
    return torch.stack(parts).sum(0)


def shifted(pictures_NCHW: Tensor, pixels: int) -> Tensor:
    """Return images moved down and to the right, with a reflected border."""
    if not pixels:
        return pictures_NCHW
    height, width = pictures_NCHW.shape[2:]
    device = pictures_NCHW.device
    rows = reflected(torch.arange(height, device=device) - pixels, height)
    columns = reflected(torch.arange(width, device=device) - pixels, width)
    return pictures_NCHW[:, :, rows][:, :, :, columns]
