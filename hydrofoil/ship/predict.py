"""Predictions for images from anywhere: files of many formats, arrays, tensors, of any size.

Axes: N images, C channels, H rows, W columns, K classes, D features, Q calibration images.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hydrofoil.data.decode import Decoded, decode
from hydrofoil.display import brief, notebook_html
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.novelty import UNUSUAL, answer_with_features
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.given import as_classifier
from hydrofoil.ship.inputs import Source, to_decoded, to_sources
from hydrofoil.ship.prepare import Preparation, Prepared, check_input, prepare
from hydrofoil.wording import percent

if TYPE_CHECKING:
    from hydrofoil.run.folder import Run

BATCH = 64  # images that are answered together
WAIT = 0.25  # seconds after which fewer are answered: predictions appear as they come


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one image.

    Args:
        label: The most probable class; None: none of them, its probability is below the threshold.
        probabilities: Class name to probability, most probable first.
        done: What was done to the image before the network saw it, in words.
        notes: What the check of the prepared image found, a sentence each.
        novelty: Share of the validation images that are less unusual for this model; None: not
            calibrated.
        picture_CHW: What the network saw, uint8.
    """

    label: str | None
    probabilities: dict[str, float]
    done: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    novelty: float | None = None
    picture_CHW: Tensor | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        label = "none of these" if self.label is None else brief(self.label)
        return f"Prediction({label}, {percent(self.probability, 1)})"

    def _repr_html_(self) -> str:
        """Show the image and the most probable classes in a notebook."""
        return notebook_html("prediction", self)

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as `predict --json` prints it."""
        return {
            "class": self.label,
            "probabilities": self.probabilities,
            "novelty": self.novelty,
            "done": list(self.done),
            "notes": list(self.notes),
        }

    @property
    def most_probable(self) -> str:
        """The most probable class, whatever the threshold."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return self.probabilities[self.most_probable]


@dataclass(frozen=True)
class Answer:
    """The result for one source in a stream.

    Args:
        name: What the source is called.
        prediction: The prediction; None: there is an error instead.
        picture_CHW: What the network saw.
        error: Why there is no prediction.
    """

    name: str
    prediction: Prediction | None = None
    picture_CHW: Tensor | None = None
    error: HydrofoilError | None = None


@overload
def predict(
    model: "Classifier | Run | str | Path",
    images: str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image,
    *,
    invert: bool = False,
    as_is: bool = False,
    background: str | None = None,
    center: bool = False,
    threshold: float | None = None,
) -> Prediction: ...
@overload
def predict(
    model: "Classifier | Run | str | Path",
    images: list[Any] | tuple[Any, ...],
    *,
    invert: bool = False,
    as_is: bool = False,
    background: str | None = None,
    center: bool = False,
    threshold: float | None = None,
) -> list[Prediction]: ...
@overload
def predict(  # one image or several: the number of axes decides
    model: "Classifier | Run | str | Path",
    images: "Tensor | np.ndarray[Any, Any]",
    *,
    invert: bool = False,
    as_is: bool = False,
    background: str | None = None,
    center: bool = False,
    threshold: float | None = None,
) -> Any: ...
def predict(
    model: "Classifier | Run | str | Path",
    images: Any,
    *,
    invert: bool = False,
    as_is: bool = False,
    background: str | None = None,
    center: bool = False,
    threshold: float | None = None,
) -> Prediction | list[Prediction]:
    """Classify one image, or several.

    An image is prepared as the training images were, where the model comes from a run that keeps
    their statistics: see `docs/predict.md`. A tensor of the model's own shape is used unchanged,
    unless `invert` or `center` is requested.

    Args:
        model: The classifier, or a run or its folder, whose best weights are then loaded.
        images: One image: a path, bytes, a binary file, a Pillow image, an array (H×W or H×W×C) or
            a tensor (C×H×W), of uint8 or of float from 0 to 1. Or several: a list of these, an
            array N×H×W×C or a tensor N×C×H×W; or a `DataLoader`, torch dataset or `Pictures`.
        invert: Exchange dark and bright.
        as_is: Choose no preparation by the training images.
        background: What transparency is composed onto: white, black or #rrggbb.
        center: Cut out, scale and center the drawing in any case; not together with `as_is`.
        threshold: Below this probability the label is None: none of the classes.

    Returns:
        One `Prediction`, or for several images a list of them.

    Raises:
        HydrofoilError: A file is missing or not an image; an array is of another type, shape or
            range.
    """
    classifier = _loaded(model) if isinstance(model, str | Path) else as_classifier(model)
    how = Preparation(invert, as_is, background, center)
    sources, several = to_sources(images, classifier.shape)
    predictions: list[Prediction] = []
    for answer in predict_stream(classifier, (("", source) for source in sources), how, threshold):
        if answer.prediction is None:
            raise answer.error or AssertionError("an answer is a prediction or an error")
        predictions.append(answer.prediction)
    return predictions if several else predictions[0]


def predict_stream(
    model: Classifier,
    sources: Iterable[tuple[str, Source | HydrofoilError]],
    how: Preparation | None = None,
    threshold: float | None = None,
) -> Iterator[Answer]:
    """Yield an answer for each named source, in order, in batches; an error stops none of the rest.

    Memory stays flat: 64 small images at most wait for their answer, and none for long.

    Args:
        model: The classifier.
        sources: Pairs of name and source; an error in a source's place is passed on.
        how: What is requested of the preparation.
        threshold: Below this probability the label is None.

    Raises:
        HydrofoilError: The threshold is not a probability.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise HydrofoilError(f"threshold = {threshold:g}: expected a probability from 0 to 1.")
    waiting: list[tuple[str, Prepared | HydrofoilError]] = []
    since = time.perf_counter()
    for name, source in sources:
        waiting.append((name, _prepared(model, name, source, how)))
        if len(waiting) >= BATCH or time.perf_counter() - since > WAIT:
            yield from _answers(model, waiting, threshold)
            waiting, since = [], time.perf_counter()
    yield from _answers(model, waiting, threshold)


def to_model_input(
    model: Classifier, source: Source, how: Preparation | None = None, name: str = ""
) -> Prepared:
    """Return an image as the network sees it.

    Raises:
        HydrofoilError: It cannot be read; a tensor is not uint8 of the model's shape.
    """
    how = how or Preparation()
    if not isinstance(source, Tensor):
        as_trained = _as_trained(model) and not how.center
        decoded = to_decoded(source, model.shape, name, as_trained=as_trained)
        return prepare(decoded, model.shape, model.statistics, how, model.fit, own=model.own)
    if source.dtype != torch.uint8 or tuple(source.shape) != model.shape:
        (source,) = to_sources(source, model.shape)[0]
        return to_model_input(model, source, how, name)
    if how.center:
        pixels_HWC = np.ascontiguousarray(source.permute(1, 2, 0).cpu().numpy())
        return to_model_input(model, Decoded(pixels_HWC, 1, pixels_HWC.shape[1::-1], ()), how, name)
    picture_CHW = 255 - source if how.invert else source
    done = ("inverted",) if how.invert else ()
    return Prepared(picture_CHW, done, check_input(picture_CHW, model.statistics))


def _as_trained(model: Classifier) -> bool:
    """Return whether files are read as the training images were, which were files as well.

    A drawing on a large page is cut out of it, for which it is read in more detail.
    """
    return model.own and not (model.statistics is not None and model.statistics.strokes)


def read_picture(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, tuple[str, ...]]:
    """Return a file's image as a model of that shape takes it, and in words what was done to it.

    It is uint8 picture_CHW. In this order: turned as its EXIF tag says; transparency composed onto
    white, or onto black where it would vanish; made gray or color; cropped to the model's
    proportions around the center; resized with an antialiasing bilinear filter.

    Raises:
        HydrofoilError: As `decode`.
    """
    prepared = prepare(decode(path, target=(shape[2], shape[1])), shape)
    return prepared.picture_CHW, prepared.done


def _loaded(path: str | Path) -> Classifier:
    from hydrofoil.run.folder import Run

    return as_classifier(Run.open(path))


def _prepared(
    model: Classifier, name: str, source: Source | HydrofoilError, how: Preparation | None
) -> Prepared | HydrofoilError:
    if isinstance(source, HydrofoilError):
        return source
    try:
        return to_model_input(model, source, how, name)
    except HydrofoilError as error:
        return error


def _answers(
    model: Classifier,
    waiting: Sequence[tuple[str, Prepared | HydrofoilError]],
    threshold: float | None,
) -> Iterator[Answer]:
    """Answer a batch with one pass through the network."""
    prepared = [item for _, item in waiting if isinstance(item, Prepared)]
    predictions = iter(classify(model, prepared, threshold) if prepared else [])
    for name, item in waiting:
        if isinstance(item, HydrofoilError):
            yield Answer(name, error=item)
        else:
            yield Answer(name, next(predictions), item.picture_CHW)


def classify(
    model: Classifier, prepared: Sequence[Prepared], threshold: float | None = None
) -> list[Prediction]:
    """Return a prediction for each prepared image, from one pass through the network."""
    pictures_NCHW = torch.stack([item.picture_CHW for item in prepared])
    logits_NK, features_ND = answer_with_features(model, pictures_NCHW)
    probabilities_NK = logits_NK.cpu().double().softmax(1)
    order_NK = probabilities_NK.sort(dim=1, descending=True, stable=True).indices.tolist()
    novelty_N = model.novelty.of(features_ND).tolist() if model.novelty else [None] * len(prepared)
    found: list[Prediction] = []
    for item, probabilities, order, novelty in zip(
        prepared, probabilities_NK.tolist(), order_NK, novelty_N, strict=True
    ):
        ranked = {model.classes[k]: probabilities[k] for k in order}
        notes = (*item.notes, *_unusual(model, novelty))
        picture_CHW = item.picture_CHW.cpu()
        prediction = Prediction(
            model.classes[order[0]], ranked, item.done, notes, novelty, picture_CHW
        )
        if threshold is not None and prediction.probability < threshold:
            prediction = replace(prediction, label=None)
        found.append(prediction)
    return found


def _unusual(model: Classifier, novelty: float | None) -> tuple[str, ...]:
    """Say that an image is unusual; nothing where it is not, or where that is unknown."""
    if novelty is None or model.novelty is None or novelty < UNUSUAL:
        return ()
    share = f"{int(1000 * novelty) / 10}% of the" if novelty < 1 else "all"
    count, kind = len(model.novelty.distances_Q), model.novelty.calibrated_on
    return (f"unlike the training images: more unusual than {share} {count:,} {kind} images",)
