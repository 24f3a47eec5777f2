"""reference.npz: statistics of the training images, with which new images are compared.

The statistics are written at the start of training, the features that novelty needs after its end.
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.data.statistics import Statistics, measure_statistics
from hydrofoil.evaluate.novelty import Novelty, calibrate_novelty
from hydrofoil.files import npz, read_npz
from hydrofoil.models.classifier import Classifier
from hydrofoil.run.files import Files

if TYPE_CHECKING:
    from hydrofoil.models.code import Network
    from hydrofoil.run.folder import Run

NAME = "reference.npz"


def keep_statistics(run: "Run", pictures: Pictures, split: Split) -> None:
    """Write reference.npz with the statistics of the training images."""
    run.files.write(NAME, _content(measure_statistics(pictures, split.train), None))


def keep_reference(
    run: "Run",
    device: torch.device,
    pictures: Pictures,
    split: Split,
    network: "Network | None" = None,
) -> None:
    """Write reference.npz for the run's best weights, unless it is there already.

    Takes a pass over up to 3,000 images: about 0.1 s for MNIST on two cores.
    """
    model, _ = run.weights.load(device, network)
    if model.novelty is None:
        statistics = model.statistics or measure_statistics(pictures, split.train)
        novelty = calibrate_novelty(model, pictures, split)
        run.files.write(NAME, _content(statistics, novelty))


def attach_reference(files: Files, model: Classifier) -> None:
    """Give a model with the run's best weights what the run knows of its training images.

    Novelty that was calibrated with other weights is left out.

    Raises:
        HydrofoilError: The file has changed since it was written.
    """
    if not (files.path / NAME).exists():
        return
    model.statistics, novelty = files.parse(NAME, _parsed)
    if novelty is not None and novelty.weights == model.weights_hash():
        model.novelty = novelty


def _parsed(content: bytes) -> tuple[Statistics, Novelty | None]:
    arrays = read_npz(content)
    statistics = Statistics.from_dict(json.loads(str(arrays["statistics"])))
    return statistics, Novelty.from_arrays(arrays) if "weights" in arrays else None


def _content(statistics: Statistics, novelty: Novelty | None) -> bytes:
    arrays: dict[str, Any] = {"statistics": np.array(json.dumps(statistics.as_dict()))}
    return npz(arrays | (novelty.arrays() if novelty else {}))
