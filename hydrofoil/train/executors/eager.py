"""The reference executor: torch's operations, one call each.

Axes: K classes.
"""

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.models.classifier import Classifier
from hydrofoil.train.step import Step


class Eager(Step):
    """`Step` as an executor; all others are compared with it.

    Args:
        model: Trained in place.
        optimizer: Of the model's parameters.
        pictures: The dataset, on the model's device.
        batch_size: Images per step; feeds of other sizes work, too.
        label_smoothing: The share of a label that is spread over all classes.
        class_weights_K: Of the loss, as torch's cross-entropy takes them; default: none.
    """

    name = "eager"
    steps_per_call = 1

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        pictures: Pictures,
        *,
        batch_size: int,
        label_smoothing: float = 0.0,
        class_weights_K: Tensor | None = None,
    ) -> None:
        super().__init__(model, optimizer, pictures, label_smoothing, class_weights_K)
        self.batch_size = batch_size

    @property
    def threads(self) -> int:
        """CPU threads that work at a step."""
        return torch.get_num_threads()
