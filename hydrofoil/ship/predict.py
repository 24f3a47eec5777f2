"""Answers to pictures from anywhere: any format that Pillow opens, grey or colour, of any size.

Axes: C channels, H rows, W columns, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hydrofoil.data.decode import decode
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.score import logits_of
from hydrofoil.models.classifier import Classifier


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture.

    Args:
        label: The most probable class.
        probabilities: Class name to probability, most probable first.
        done: What was done to the picture before the model saw it, in words.
    """

    label: str
    probabilities: dict[str, float]
    done: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as `predict --json` prints it."""
        return {
            "class": self.label,
            "probabilities": self.probabilities,
            "done": list(self.done),
        }

    @property
    def probability(self) -> float:
        """The label's probability."""
        return self.probabilities[self.label]


def predict(model: Classifier, picture: str | Path | Tensor, *, invert: bool = False) -> Prediction:
    """Classify one picture: a file, or a uint8 tensor of the model's own shape.

    Args:
        model: The classifier.
        picture: A path, or uint8 picture_CHW.
        invert: Exchange dark and bright: MNIST's digits are white on black, and ink is not.

    Raises:
        HydrofoilError: The file is missing or no picture; the tensor is of another type or shape.
    """
    picture_CHW, done = taken(model, picture, invert=invert)
    probabilities_K = logits_of(model, picture_CHW[None])[0].cpu().double().softmax(0).tolist()
    probability = dict(zip(model.classes, probabilities_K, strict=True))
    ranked = sorted(probability, key=probability.__getitem__, reverse=True)
    return Prediction(ranked[0], {name: probability[name] for name in ranked}, done)


def taken(
    model: Classifier, picture: str | Path | Tensor, *, invert: bool = False
) -> tuple[Tensor, tuple[str, ...]]:
    """Return picture_CHW as `predict` gives it to the model, and in words what was done to it.

    Raises:
        HydrofoilError: As `predict`.
    """
    done: tuple[str, ...] = ()
    if isinstance(picture, Tensor):
        picture_CHW = picture
    else:
        picture_CHW, done = read_picture(Path(picture), model.shape)
    if picture_CHW.dtype != torch.uint8 or tuple(picture_CHW.shape) != model.shape:
        raise HydrofoilError(
            f"a picture of {picture_CHW.dtype} {'×'.join(map(str, picture_CHW.shape))}: "
            f"expected torch.uint8 {'×'.join(map(str, model.shape))}."
        )
    if invert:
        picture_CHW, done = 255 - picture_CHW, (*done, "inverted")
    return picture_CHW, done


def read_picture(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, tuple[str, ...]]:
    """Return a file's picture as the model takes it, picture_CHW, and in words what that took.

    It is uint8. In this order: turned as its EXIF tag says; transparency laid on white; made grey
    or colour; cut to the model's proportions around the middle; resized with an antialiasing
    bilinear filter.

    Raises:
        HydrofoilError: The file is missing, unreadable, no picture, or so large that decoding it
            could be an attack (Pillow's limit).
    """
    decoded = decode(path, target=(shape[2], shape[1]))
    pixels_HWC = decoded.pixels_HWC
    gray = pixels_HWC.shape[2] == 1
    return _fitted(Image.fromarray(pixels_HWC[..., 0] if gray else pixels_HWC), shape, decoded.done)


def _fitted(
    image: Image.Image, shape: tuple[int, int, int], decoded: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...]]:
    """Bring a decoded picture to the model's channels and size."""
    channels, height, width = shape
    done = list(decoded)
    if image.mode in ("RGBA", "LA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        done.append("transparency → white")
    grey = image.mode == "L"
    if channels == 1 and not grey:
        done.append("colour → grey")
    if channels == 3 and grey:
        done.append("grey → colour")
    image = image.convert("L" if channels == 1 else "RGB")
    scale = min(image.width / width, image.height / height)
    cut = max(1, round(width * scale)), max(1, round(height * scale))
    if cut != image.size:
        done.append(f"cut from {image.width}×{image.height} to {cut[0]}×{cut[1]} around the middle")
        left, top = (image.width - cut[0]) // 2, (image.height - cut[1]) // 2
        image = image.crop((left, top, left + cut[0], top + cut[1]))
    if image.size != (width, height):
        done.append(f"resized from {image.width}×{image.height} to {width}×{height}")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.array(image, dtype=np.uint8).reshape(height, width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), tuple(done)
