"""The step: the only place where gradients are made.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.metrics import Metrics, Sums
from hydrofoil.evaluate.score import score
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import key_dropout


class Eager:
    """The executor that calls torch's operations one by one: the reference for all others.

    Args:
        model: Trained where it lies.
        optimizer: Of the model's parameters.
        pictures: The set, on the model's device.
        batch_size: Pictures per step.
        seed: Of dropout's masks.
        label_smoothing: The share of a label that is spread over all classes (Szegedy et al. 2016).
    """

    name = "eager"
    stride = 1  # steps a call

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        pictures: Pictures,
        *,
        batch_size: int,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        self.model, self.optimizer, self.pictures = model, optimizer, pictures
        self.batch_size, self.seed, self.label_smoothing = batch_size, seed, label_smoothing
        self.forward: Callable[[Tensor], Tensor] = model

    @property
    def threads(self) -> int:
        """CPU threads that work at a step."""
        return torch.get_num_threads()

    def train_steps(self, index_N: Tensor, epoch: int, step: int, sums: Sums) -> None:
        """Train on the indexed pictures, in order, a batch a step; nothing waits for the device.

        Args:
            index_N: A part of an epoch's order: whole batches, but for the epoch's last.
            epoch: Counted from 1.
            step: The number of the first batch in its epoch, counted from 1.
            sums: What the losses and right answers are added to.
        """
        for number, batch_N in enumerate(index_N.split(self.batch_size), start=step):
            self.key_dropout(epoch, number)
            labels_N = self.pictures.labels_N[batch_N]
            self.optimizer.zero_grad()
            logits_NK = self.forward(self.pictures.pictures_NCHW[batch_N])
            loss = cross_entropy(logits_NK, labels_N, label_smoothing=self.label_smoothing)
            loss.backward()
            self.optimizer.step()
            sums.add(loss, logits_NK, labels_N)

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        return score(self.model, self.pictures, index_N)

    def key_dropout(self, epoch: int, step: int) -> None:
        """Name the draw of this step's masks."""
        key_dropout(self.model.network, self.seed, epoch, step)
