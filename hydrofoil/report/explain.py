"""Explains one image's prediction in numbers, text and a figure: Grad-CAM and occlusion.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.evaluate.explain import (
    GradCam,
    Occlusion,
    feature_maps,
    first_filters,
    grad_cam,
    occlusion,
)
from hydrofoil.models.classifier import Classifier
from hydrofoil.report import explanations, text
from hydrofoil.ship.inputs import Source
from hydrofoil.ship.predict import classify, to_model_input
from hydrofoil.ship.prepare import Preparation
from hydrofoil.wording import percent

LITTLE = 0.0005  # a smaller change of probability is invisible in a percentage with one decimal


@dataclass(frozen=True)
class Explained:
    """One image, explained.

    Args:
        text: For the terminal.
        content: For JSON.
        png: The figure.
    """

    text: str
    content: dict[str, Any]
    png: bytes


def explain(
    model: Classifier,
    picture: Source,
    class_name: str = "",
    how: Preparation | None = None,
    name: str = "",
) -> Explained:
    """Explain a model's prediction for one image, as `predict` prepares it.

    Args:
        model: The classifier.
        picture: A path or another source of one image.
        class_name: Explain this class; default: the predicted one.
        how: What is requested of the preparation.
        name: What the image is called; default: its path.

    Raises:
        HydrofoilError: The image cannot be read, or the class is unknown.
    """
    if class_name and class_name not in model.classes:
        raise HydrofoilError(f"unknown class '{class_name}'. {nearest(class_name, model.classes)}")
    prepared = to_model_input(model, picture, how, name)
    picture_CHW = prepared.picture_CHW
    (prediction,) = classify(model, [prepared])
    label = prediction.most_probable
    class_name = class_name or label
    wanted = model.classes.index(class_name)
    hidden = occlusion(model, picture_CHW, wanted)
    cam, why_not = _grad_cam(model, picture_CHW, wanted)
    name = name or (str(picture) if isinstance(picture, str | Path) else "image")
    lines = [
        text.prediction_lines(name, prediction),
        f"  {hidden_line(hidden, model.classes, label)}",
        f"  {heat_line(cam, class_name) if cam else why_not}",
    ]
    content = {
        "picture": name,
        **prediction.as_dict(),
        "explained": class_name,
        "occlusion": _hidden_content(hidden, model.classes),
        "grad_cam": _heat_content(cam) if cam else None,
    } | ({"no_grad_cam": why_not} if why_not else {})
    ranked = list(prediction.probabilities.items())[:2]
    png = explanations.explanation(
        picture_CHW.cpu(),
        ", ".join(f"{name} {percent(probability, 1)}" for name, probability in ranked),
        class_name,
        cam,
        hidden,
        feature_maps(model, picture_CHW),
        Path(name).name,
    )
    return Explained("\n".join(lines), content, png)


def _grad_cam(model: Classifier, picture_CHW: Tensor, wanted: int) -> tuple[GradCam | None, str]:
    """Return Grad-CAM for a class, or why there is none."""
    try:
        return grad_cam(model, picture_CHW, torch.tensor([wanted])), ""
    except HydrofoilError as error:
        return None, str(error).splitlines()[0]


def filters_figure(model: Classifier) -> tuple[str, bytes]:
    """Return the first layer's name, and its filters as a figure."""
    found = first_filters(model)
    return found.layer, explanations.filters(found, f"filters of {found.layer}")


def figure_names(pictures: Sequence[Path]) -> list[str]:
    """Return a file name for each image's figure; images of one name are numbered.

    >>> figure_names([Path("a/cat.png"), Path("b/cat.jpg"), Path("dog.png")])
    ['explain-cat.png', 'explain-cat-2.png', 'explain-dog.png']
    """
    names: list[str] = []
    for path in pictures:
        name, number = f"explain-{path.stem}.png", 1
        while name in names:
            number += 1
            name = f"explain-{path.stem}-{number}.png"
        names.append(name)
    return names


def hidden_line(hidden: Occlusion, classes: Sequence[str], label: str) -> str:
    """Describe how covering the most important patch changes the probability and the prediction.

    Args:
        hidden: The occlusion's result.
        classes: The model's classes.
        label: The prediction for the complete image.
    """
    name, (height, width) = classes[hidden.class_index], hidden.patch
    if hidden.before - hidden.after < LITTLE:
        return (
            f"covering any {height}×{width} patch does not lower the probability of {name}, "
            f"{percent(hidden.before, 1)}"
        )
    predicted = classes[hidden.answer]
    then = "" if predicted == label else f"; the prediction becomes {predicted}"
    return (
        f"covering {_place(hidden.rows, hidden.columns)} lowers the probability of {name} "
        f"from {percent(hidden.before, 1)} to {percent(hidden.after, 1)}{then}"
    )


def heat_line(cam: GradCam, class_name: str) -> str:
    """Describe where Grad-CAM's heat lies: the smallest area with half of it."""
    height, width = cam.coarse_NHW.shape[1:]
    begin = f"Grad-CAM (layer {cam.layer}, {height}×{width})"
    found = _heat_content(cam)
    if found["half_of_heat"] is None:
        return f"{begin}: no positive evidence for {class_name}"
    return (
        f"{begin}: hottest at row {found['row']}, column {found['column']}; half of the heat "
        f"lies on {percent(found['half_of_heat'], 0)} of the image"
    )


def _hidden_content(hidden: Occlusion, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "patch": list(hidden.patch),
        "stride": list(hidden.stride),
        "rows": list(hidden.rows),
        "columns": list(hidden.columns),
        "before": hidden.before,
        "after": hidden.after,
        "class_after": classes[hidden.answer],
    }


def _heat_content(cam: GradCam) -> dict[str, Any]:
    """Return the layer, the hottest pixel, and the smallest share of pixels with half the heat."""
    heat_HW = cam.heat_NHW[0].cpu().double()
    content: dict[str, Any] = {"layer": cam.layer, "maps": list(cam.coarse_NHW.shape[1:])}
    if not bool(heat_HW.any()):
        return content | {"row": None, "column": None, "half_of_heat": None}
    row, column = divmod(int(heat_HW.argmax()), heat_HW.shape[1])
    summed = heat_HW.flatten().sort(descending=True).values.cumsum(0)
    pixels = int((summed < summed[-1] / 2).sum()) + 1
    return content | {"row": row, "column": column, "half_of_heat": pixels / heat_HW.numel()}


def _place(rows: tuple[int, int], columns: tuple[int, int]) -> str:
    return f"rows {rows[0]}–{rows[1]}, columns {columns[0]}–{columns[1]}"
