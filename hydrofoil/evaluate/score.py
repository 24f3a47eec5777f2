"""One pass of a model over indexed pictures, in evaluation mode and large batches.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.convert import as_pictures
from hydrofoil.data.labels import as_indices
from hydrofoil.errors import InputError
from hydrofoil.evaluate.metrics import Metrics, measure, picture_losses, probabilities
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.given import as_classifier
from hydrofoil.models.layers import evaluating
from hydrofoil.wording import by

BATCH = 250  # pictures a forward pass: as fast as 500, in half the memory; changes no score


@torch.no_grad()
def logits_of(model: Classifier, pictures_NCHW: Tensor) -> Tensor:
    """Return logits_NK for uint8 pictures, on the model's device.

    Dropout is off meanwhile, and the model's mode is left as it was.
    """
    with evaluating(model):
        parts = [model(batch_NCHW.to(model.device)) for batch_NCHW in pictures_NCHW.split(BATCH)]
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answered to indexed pictures of a set.

    Args:
        index_N: Which pictures.
        labels_N: Their true classes.
        logits_NK: The model's logits.
    """

    index_N: Tensor
    labels_N: Tensor
    logits_NK: Tensor

    def __repr__(self) -> str:
        N, K = self.logits_NK.shape
        return f"Answers({N:,} images, {K} classes)"

    @property
    def predicted_N(self) -> Tensor:
        """The most probable class of each picture."""
        return self.logits_NK.argmax(1)

    def metrics(self) -> Metrics:
        """Return loss, accuracy and confusion; one wait for the device."""
        return measure(self.logits_NK, self.labels_N)

    @property
    def losses_N(self) -> Tensor:
        """Each picture's cross-entropy, in float64."""
        return picture_losses(self.logits_NK, self.labels_N)

    @property
    def confidences_N(self) -> Tensor:
        """The probability of each picture's predicted class."""
        return probabilities(self.logits_NK).amax(1)

    def highest_loss(self, count: int) -> Tensor:
        """Return positions of the pictures whose true class was given the least probability."""
        return self.losses_N.argsort(descending=True, stable=True)[:count]

    def most_confident_mistakes(self, count: int) -> Tensor:
        """Return positions of misclassified pictures, the most confident first."""
        missed = (self.predicted_N != self.labels_N).nonzero()[:, 0]
        order = self.confidences_N[missed].argsort(descending=True, stable=True)
        return missed[order[:count]]

    def least_confident_correct(self, count: int) -> Tensor:
        """Return positions of correct predictions, the least confident first."""
        hit = (self.predicted_N == self.labels_N).nonzero()[:, 0]
        return hit[self.confidences_N[hit].argsort(stable=True)[:count]]

    def cpu(self) -> "Answers":
        """Return the same answers on the CPU."""
        return Answers(self.index_N.cpu(), self.labels_N.cpu(), self.logits_NK.cpu())


def answer(model: Any, pictures: Any, index: Any = None) -> Answers:
    """Return a model's answers to the indexed pictures, on its device.

    Args:
        model: A classifier, or a run, whose best weights are then loaded.
        pictures: The set, in any form that `hf.Pictures` takes without labels.
        index: Which of its pictures, such as `split.valid`: a list, an array, a tensor, a mask;
            default: all.

    Raises:
        InputError: No picture is indexed, or the pictures do not fit the model.
    """
    model = as_classifier(model)
    pictures = as_pictures(pictures, model.classes)
    if pictures.shape != model.shape:
        raise InputError(
            f"images of {by(pictures.shape)}: expected {by(model.shape)}, as the model takes them."
        )
    index_N = as_indices(slice(None) if index is None else index, len(pictures))
    if not len(index_N):
        raise InputError("index: no image is indexed: expected one at least.")
    index_N = index_N.to(pictures.pictures_NCHW.device)
    parts = [  # a copy of all of them might not fit in memory
        logits_of(model, pictures.pictures_NCHW[part_N]) for part_N in index_N.split(BATCH)
    ]
    logits_NK = torch.cat(parts)
    return Answers(index_N.to(model.device), pictures.labels_N[index_N].to(model.device), logits_NK)


def score(model: Any, pictures: Any, index: Any = None) -> Metrics:
    """Return loss, accuracy and confusion of a model on the indexed pictures.

    Args:
        model: The classifier, evaluated where it lies, its mode left as it was; or a run, whose
            best weights are then loaded.
        pictures: The set, in any form that `hf.Pictures` takes without labels: a `DataLoader`, say,
            or (images, labels).
        index: Which of its pictures, such as `split.valid`: a list, an array, a tensor, a mask;
            default: all.

    Raises:
        InputError: No picture is indexed, or the pictures do not fit the model.
    """
    return answer(model, pictures, index).metrics()
