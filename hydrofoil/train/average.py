"""Averaged weights beside the trained ones: over steps (EMA) or over epochs (SWA).

EMA: Polyak & Juditsky (1992); SWA: Izmailov et al. (2018), "Averaging Weights Leads to Wider Optima
and Better Generalization". Both as torch.optim.swa_utils.AveragedModel computes them.

Axes: N images, C channels, H rows, W columns.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import evaluating
from hydrofoil.recipe.schema import Train
from hydrofoil.train.wrapper import ExecutorWrapper

if TYPE_CHECKING:
    from hydrofoil.evaluate.metrics import Metrics, Sums
    from hydrofoil.train.executors import Executor
    from hydrofoil.train.feed import Feed

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage] - of 1 to 3 axes


@dataclass
class Average:
    """The mean of a network's weights so far; empty until the first is added.

    Args:
        spec: Says train.average, train.ema_decay and train.swa_start.
        tensors: As in the network's state dict.
        count: How many weights it averages.
    """

    spec: Train
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    count: int = 0

    @property
    def is_ema(self) -> bool:
        """Whether it averages over steps."""
        return self.spec.average == "ema"

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Add the present weights.

        Means and variances of batch norm are averaged as weights are; SWA computes them again, see
        `renew_statistics`. What is not a floating-point number, such as a count, is copied.
        """
        keep = self.spec.ema_decay if self.is_ema else self.count / (self.count + 1)
        for name, tensor in network.state_dict().items():
            if not self.count:
                self.tensors[name] = tensor.detach().clone()
            elif tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - keep)
            else:
                self.tensors[name].copy_(tensor)
        self.count += 1


def end_epoch(
    average: Average | None,
    model: Classifier,
    executor: "Executor",
    pictures: Pictures,
    split: Split,
    epoch: int,
) -> "Metrics | None":
    """Complete an average after an epoch, and return its scores on the validation images.

    Args:
        average: None: nothing is averaged.
        model: With the trained weights, which it has afterwards, too.
        executor: Scores.
        pictures: The dataset.
        split: Its training images give the statistics of batch norm.
        epoch: Counted from 1.
    """
    if average is None or epoch <= average.spec.swa_after:
        return None
    # A copy, which replaces the average when all is done: an interrupt leaves that as it was.
    renewed = average
    if not average.is_ema:
        own = {name: tensor.clone() for name, tensor in average.tensors.items()}
        renewed = replace(average, tensors=own)
        renewed.add(model.network)
    with exchanged(model.network, renewed.tensors):
        if not average.is_ema:
            renew_statistics(model, pictures, split.train, average.spec.batch_size)
            for name, tensor in model.network.state_dict().items():
                renewed.tensors[name].copy_(tensor)
        valid = executor.score(split.valid) if len(split.valid) else None
    average.tensors, average.count = renewed.tensors, renewed.count
    return valid


@contextmanager
def exchanged(network: nn.Module, tensors: Mapping[str, Tensor]) -> Generator[None]:
    """Let a network have other weights, in place, and its own again afterwards."""
    own = network.state_dict()
    before = {name: tensor.detach().clone() for name, tensor in own.items()}
    with torch.no_grad():
        try:
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
            yield
        finally:
            for name, tensor in own.items():
                tensor.copy_(before[name])


@torch.no_grad()
def renew_statistics(
    model: Classifier, pictures: Pictures, train_N: Tensor, batch_size: int
) -> None:
    """Compute means and variances of batch norm again, as torch.optim.swa_utils.update_bn does.

    They are the means over batches of training images. Other layers run as in evaluation; frozen
    ones keep their statistics.
    """
    model.train()  # all but frozen layers
    layers = [
        layer
        for layer in model.network.modules()
        if isinstance(layer, BATCH_NORM) and layer.track_running_stats and layer.training
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    with evaluating(model):
        try:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # the mean over all batches
                layer.train()
            parts = -(-len(train_N) // batch_size)
            for batch_N in train_N.chunk(parts):  # of nearly one size: none has a single image
                batch_N = batch_N.to(pictures.pictures_NCHW.device)
                model(pictures.pictures_NCHW[batch_N].to(model.device))
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum


class Averaging(ExecutorWrapper):
    """An executor whose every step is followed by an update of the moving average.

    Args:
        inner: Takes the steps.
        model: Its model.
        average: Of the model's weights.
    """

    def __init__(self, inner: "Executor", model: Classifier, average: Average) -> None:
        super().__init__(inner)
        self.model, self.average = model, average

    def train_steps(self, feed: "Feed", first: int, stop: int, sums: "Sums") -> None:
        """Take the steps of an epoch from `first` up to, not including, `stop`; add to the sums."""
        for step in range(first, stop):
            self.inner.train_steps(feed, step, step + 1, sums)
            self.average.add(self.model.network)

    def score(self, index_N: Tensor) -> "Metrics":
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        return self.inner.score(index_N)


def make_average(spec: Train) -> Average | None:
    """Return the average that a recipe names, before its first weights; None: it names none."""
    return None if spec.average == "none" else Average(spec)
