"""The reference executor: torch's operations, one call each."""

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.models.classifier import Classifier
from hydrofoil.train.options import StepOptions
from hydrofoil.train.step import Step


class Eager(Step):
    """`Step` as an executor; all others are compared with it.

    Args:
        model: Trained in place.
        optimizer: Of the model's parameters.
        pictures: The dataset, on the model's device.
        batch_size: Images per step; feeds of other sizes work, too.
        options: What a step does beside these.
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
        options: StepOptions | None = None,
    ) -> None:
        super().__init__(model, optimizer, pictures, options)
        self.batch_size = batch_size

    @property
    def threads(self) -> int:
        """CPU threads that work at a step."""
        return torch.get_num_threads()
