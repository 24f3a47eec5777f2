"""Runs a run's model to explain it: Grad-CAM and occlusion of mistakes, filters, feature maps.

Axes: C channels, H rows, W columns.
"""

from dataclasses import dataclass, field

from torch import Tensor

from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.explain import (
    FeatureMaps,
    Filters,
    GradCam,
    Occlusion,
    feature_maps,
    first_filters,
    grad_cam,
    occlusion,
)
from hydrofoil.evaluate.result import Example
from hydrofoil.models.classifier import Classifier
from hydrofoil.report.gather import Gathered

EXPLAINED = 6  # mistakes; each costs about 200 forward passes, one per covered patch


@dataclass(frozen=True)
class ExplainedMistake:
    """A misclassified test image and the explanations of its predicted class.

    Args:
        example: Its numbers in test.json.
        picture_CHW: uint8.
        cam: None for a network without convolutions.
        hidden: Occlusion.
    """

    example: Example
    picture_CHW: Tensor
    cam: GradCam | None
    hidden: Occlusion


@dataclass
class Inspection:
    """What running the best weights shows.

    Args:
        mistakes: The most confident mistakes, explained.
        no_grad_cam: Why there is no Grad-CAM; empty where there is.
        filters: Of the first layer; None for a layer that does not see pixels.
        example: The test image of the feature maps.
        layers: Its feature maps.
    """

    mistakes: list[ExplainedMistake] = field(default_factory=list[ExplainedMistake])
    no_grad_cam: str = ""
    filters: Filters | None = None
    example: Example | None = None
    layers: list[FeatureMaps] = field(default_factory=list[FeatureMaps])


def inspect(run: Gathered) -> Inspection:
    """Explain the most confident mistakes, and compute the first filters and feature maps."""
    found, model = Inspection(), run.model
    if model is None:
        return found
    try:
        found.filters = first_filters(model)
    except HydrofoilError:
        pass  # the first layer does not see pixels: there are no filters to show
    examples = run.test.examples if run.test else None
    for example in examples.most_confident_mistakes[:EXPLAINED] if examples else ():
        _explain(run, model, example, found)
    for example in examples.random[:1] if examples else ():
        picture_CHW = _picture(run, model, example)
        if picture_CHW is not None:
            found.example, found.layers = example, feature_maps(model, picture_CHW)
    return found


def _picture(run: Gathered, model: Classifier, example: Example) -> Tensor | None:
    """Return an example's image where the run keeps it and the network takes its shape."""
    picture_CHW = run.shown.get(example.index)
    fits = picture_CHW is not None and tuple(picture_CHW.shape) == model.shape
    return picture_CHW if fits else None


def _explain(run: Gathered, model: Classifier, example: Example, found: Inspection) -> None:
    picture_CHW = _picture(run, model, example)
    if picture_CHW is None or example.predicted not in model.classes:
        return
    try:
        cam = grad_cam(model, picture_CHW)
    except HydrofoilError as error:
        cam, found.no_grad_cam = None, str(error).splitlines()[0]
    hidden = occlusion(model, picture_CHW, model.classes.index(example.predicted))
    found.mistakes.append(ExplainedMistake(example, picture_CHW, cam, hidden))
