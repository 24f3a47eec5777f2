"""How unusual an image is for a model: the distance to its nearest training images.

The distance is measured between features, the input of the network's last linear layer scaled to
length 1, and it is the fifth smallest one to a sample of training images. It is then compared with
the same distances of validation images: 0.996 means "more unusual than 99.6% of them".

Axes: N images, C channels, H rows, W columns, M training images, D features, K classes, Q
calibration images.

Source: Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors",
https://arxiv.org/abs/2204.06507.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.score import BATCH, evaluating
from hydrofoil.models.classifier import Classifier

TRAINING = 1000  # training images that are compared with: 1.6 MB of 784 features
CALIBRATION = 2000  # images whose distances are known: shares to within 0.05 points
NEIGHBOR = 5  # the distance to the fifth nearest is less noisy than to the nearest
UNUSUAL = 0.995  # of calibration images are less unusual: from here it is worth a sentence


@dataclass(frozen=True, eq=False)
class Novelty:
    """What the novelty of images is measured against.

    Args:
        training_MD: Features of training images, float16, each of length 1.
        distances_Q: Distances of the calibration images, ascending.
        calibrated_on: "validation", or "training" where no validation split exists: those images
            were trained on, so that new ones look a little more unusual than they are.
        weights: Hash of the weights that these features come from.
    """

    training_MD: Tensor
    distances_Q: Tensor
    calibrated_on: str
    weights: str

    def of(self, features_ND: Tensor) -> Tensor:
        """Return for each image the share of calibration images that are less unusual, novelty_N.

        It is 1.0 where the image is more unusual than every one of them.

        Raises:
            HydrofoilError: The features are another network's.
        """
        if features_ND.shape[1] != self.training_MD.shape[1]:
            raise HydrofoilError(
                f"reference.npz: holds {self.training_MD.shape[1]} features of each image, "
                f"expected {features_ND.shape[1]}."
            )
        distance_N = _distances(features_ND, self.training_MD)
        below_N = torch.searchsorted(self.distances_Q, distance_N.cpu().contiguous())
        return below_N.double() / len(self.distances_Q)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the fields as arrays, to be stored."""
        return {
            "training_MD": self.training_MD.numpy(),
            "distances_Q": self.distances_Q.numpy(),
            "calibrated_on": np.array(self.calibrated_on),
            "weights": np.array(self.weights),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Return what `arrays` gave.

        Raises:
            KeyError, TypeError, ValueError: They are something else.
        """
        training_MD, distances_Q = arrays["training_MD"], arrays["distances_Q"]
        if training_MD.dtype != np.float16 or training_MD.ndim != 2 or len(training_MD) < 1:
            raise ValueError("features are float16 M×D")
        if distances_Q.dtype != np.float32 or distances_Q.ndim != 1 or len(distances_Q) < 1:
            raise ValueError("distances are float32")
        words = str(arrays["calibrated_on"]), str(arrays["weights"])
        return cls(torch.from_numpy(training_MD), torch.from_numpy(distances_Q), *words)


def calibrate_novelty(model: Classifier, pictures: Pictures, split: Split) -> Novelty | None:
    """Return what the model's novelty is measured against; None where the split is too small.

    Takes about 0.1 s for MNIST: the features of 1,000 training and 2,000 validation images. Without
    a validation split other training images take their place.
    """
    compared, rest = _every_other(split.train, TRAINING)
    held_out = split.valid if len(split.valid) else rest
    calibration = _evenly(held_out, CALIBRATION)
    if len(compared) < NEIGHBOR or not len(calibration):
        return None
    device = pictures.pictures_NCHW.device
    _, training_MD = answer_with_features(model, pictures.pictures_NCHW[compared.to(device)])
    _, features_QD = answer_with_features(model, pictures.pictures_NCHW[calibration.to(device)])
    training_MD = _unit(training_MD).cpu().half()
    distances_Q = _distances(features_QD, training_MD).cpu().float().sort().values
    calibrated_on = "validation" if len(split.valid) else "training"
    return Novelty(training_MD, distances_Q, calibrated_on, model.weights_hash())


@torch.no_grad()
def answer_with_features(model: Classifier, pictures_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits_NK and features_ND of uint8 images, on the model's device.

    The features are what the last linear layer takes; without such a layer, the logits.
    """
    linear = [layer for layer in model.network.modules() if isinstance(layer, nn.Linear)]
    seen: list[Tensor] = []
    hook = (
        linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
        if linear
        else None
    )
    try:
        with evaluating(model):
            logits = [model(part.to(model.device)) for part in pictures_NCHW.split(BATCH)]
    finally:
        if hook is not None:
            hook.remove()
    logits_NK = torch.cat(logits)
    return logits_NK, torch.cat(seen) if seen else logits_NK


def _distances(features_ND: Tensor, training_MD: Tensor) -> Tensor:
    """Return each image's distance to its fifth nearest training image."""
    training_MD = _unit(training_MD.to(features_ND.device))  # float16 rounded their length
    # Of unit vectors the nearest are those with the largest product: one matrix product.
    product_NM = (_unit(features_ND) @ training_MD.T).clamp(-1, 1)
    nearest_N = product_NM.topk(min(NEIGHBOR, len(training_MD)), dim=1).values[:, -1]
    return (2 - 2 * nearest_N).clamp_min(0).sqrt()


def _unit(features_ND: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features_ND.float().nan_to_num(), dim=1)


def _evenly(index_N: Tensor, most: int) -> Tensor:
    """Return up to so many of the indices, evenly spaced."""
    places = torch.linspace(0, max(len(index_N) - 1, 0), min(len(index_N), most))
    return index_N[places.round().long()]


def _every_other(index_N: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return up to so many of the even places, and the odd places."""
    return _evenly(index_N[::2], most), index_N[1::2]
