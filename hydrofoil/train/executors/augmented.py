"""The steps of any executor over augmented images, which are made for some steps at a time.

Axes: N images, A numbers of an image's changes, C channels, H rows, W columns, S steps, L dropout
layers, 2 halves of a key.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hydrofoil.data.augment import augmented, check_size, fill_of, mixed
from hydrofoil.data.augment_policy import apply_operations
from hydrofoil.data.changes import columns_of
from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.metrics import Metrics, Sums, measure
from hydrofoil.evaluate.score import score
from hydrofoil.models.classifier import Classifier
from hydrofoil.native import Native, Unsupported
from hydrofoil.native.augment import NativePass
from hydrofoil.recipe.augment import Augment
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.feed import Feed, Pairs, count_steps
from hydrofoil.train.wrapper import ExecutorWrapper

if TYPE_CHECKING:
    from hydrofoil.train.executors import Executor

BYTES = 8 << 20  # of augmented images at a time, so that a CPU's cache holds most of them
ONE_PASS = {"rotate": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0, "cutout": 0}


class Augmenter:
    """Gathers images and changes them, on a CPU in C where there is a compiler.

    Args:
        spec: The settings.
        shape: Of the images, channels, height and width.
        mean: What normalization subtracts, which fills what is hidden.
        device: Where images and tables lie.
        threads: CPU threads.

    Attributes:
        note: Why torch does it on the CPU; empty: C does, or the images are on another device.

    Raises:
        HydrofoilError: The images are too small for the shift.
    """

    def __init__(
        self,
        spec: Augment,
        shape: tuple[int, int, int],
        mean: tuple[float, ...] | None,
        device: torch.device,
        threads: int,
    ) -> None:
        check_size(spec, shape)
        self.spec, self.note = spec, ""
        self.fill_C = fill_of(mean, shape[0]).to(device)
        parts = [spec]
        if spec.policy != "none":  # which torch applies between two passes
            rest = spec.model_copy(update={"flip": "none", "shift": 0})
            parts = [spec.model_copy(update=ONE_PASS), rest]
        self._passes: list[NativePass] = []
        if device.type == "cpu":
            try:
                self._passes = [NativePass(p, shape, columns_of(spec), threads) for p in parts]
            except (Unsupported, OSError) as error:
                self.note = f"torch augments the images ({error})"

    def fill(
        self, pictures_NCHW: Tensor, index_N: Tensor, changes_NA: Tensor, out_NCHW: Tensor
    ) -> None:
        """Write the indexed images, changed as the table says, to the first places of a tensor."""
        count, given = len(index_N), (pictures_NCHW, index_N, changes_NA)
        if not self._passes:
            out_NCHW[:count] = augmented(*given, self.spec, self.fill_C)
            return
        self._passes[0](*given, self.fill_C, out_NCHW)
        if self.spec.policy == "none":
            return
        made_NCHW = apply_operations(out_NCHW[:count], changes_NA, self.spec, self.fill_C)
        self._passes[1](made_NCHW, torch.arange(count), changes_NA, self.fill_C, out_NCHW)


class Augmented(ExecutorWrapper):
    """An executor whose steps read a buffer: the augmented images of some steps, in their order.

    What a step reads depends on the epoch and the step alone, so results do not depend on where
    calls begin and end.

    Args:
        inner: Takes the steps; made for the images of the buffer.
        model: Its model.
        source: The images as they are, on the model's device.
        buffer: Room for the images of whole batches.
        augmenter: Changes images.
    """

    def __init__(
        self,
        inner: "Executor",
        model: Classifier,
        source: Pictures,
        buffer: Pictures,
        augmenter: Augmenter,
    ) -> None:
        super().__init__(inner)
        self.model, self.source, self.buffer = model, source, buffer
        self.augmenter = augmenter
        self._source_NCHW = source.pictures_NCHW.contiguous()  # a window's stay where they are

    def train_steps(self, feed: Feed, first: int, stop: int, sums: Sums) -> None:
        """Take the steps of an epoch from `first` up to, not including, `stop`; add to the sums."""
        most = max(1, len(self.buffer) // feed.batch_size)
        while first < stop:
            count = min(stop - first, most)
            self.inner.train_steps(self._made(feed, first, first + count), 0, count, sums)
            first += count

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed images as they are."""
        if not isinstance(self.inner, Native):
            return score(self.model, self.source, index_N)
        return measure(self.logits(index_N), self.source.labels_N[index_N])

    def logits(self, index_N: Tensor) -> Tensor:
        """Return logits_NK of the indexed images as they are, by an inner executor in C."""
        if not isinstance(self.inner, Native):
            raise TypeError(f"logits by {self.name}: expected native")
        parts: list[Tensor] = []
        for part_N in index_N.split(len(self.buffer)):
            self.buffer.pictures_NCHW[: len(part_N)] = self._source_NCHW[part_N]
            parts.append(self.inner.logits(torch.arange(len(part_N))))
        return torch.cat(parts)

    def _made(self, feed: Feed, first: int, stop: int) -> Feed:
        """Make the images of some steps, and return the tables for them, numbered from 0."""
        if feed.changes_NA is None:
            raise ValueError("a feed without changes for an executor that augments")
        index_N, size = feed.span(first, stop), feed.batch_size
        changes_NA = feed.changes_NA[first * size : stop * size]
        count, images, labels_N = len(index_N), self.buffer.pictures_NCHW, self.buffer.labels_N
        self.augmenter.fill(self._source_NCHW, index_N, changes_NA, images)
        labels_N[:count] = self.source.labels_N[index_N]
        pairs: Pairs | None = None
        if self.augmenter.spec.mixes:
            images[:count], partner_N, shares_N = mixed(images[:count], changes_NA, size)
            pairs = Pairs(labels_N[:count][partner_N], shares_N)
        return replace(
            feed,
            order_N=torch.arange(count, device=index_N.device),
            rates_S=feed.rates_S[first:stop],
            draws_SL2=feed.draws_SL2[first:stop],
            changes_NA=None,
            pairs=pairs,
        )


def make_buffer(recipe: Recipe, source: Pictures, images: int) -> Pictures:
    """Return the images that steps read: the source, or room for the augmented ones of some steps.

    Args:
        recipe: Gives batch size and augmentation.
        source: The images as they are.
        images: How many of them train.
    """
    if not recipe.augment.active:
        return source
    size = min(recipe.train.batch_size, max(1, images))
    image = source.pictures_NCHW[0].numel()
    steps = min(count_steps(images, size), max(1, BYTES // (size * image)))
    return source.blank(steps * size, source.pictures_NCHW.device)


def augmenting(
    inner: "Executor",
    model: Classifier,
    recipe: Recipe,
    source: Pictures,
    buffer: Pictures,
    threads: int,
) -> Augmented:
    """Return an executor that was made for a buffer, for the augmented images of a source.

    Raises:
        HydrofoilError: The images are too small for the shift.
    """
    augmenter = Augmenter(
        recipe.augment,
        source.shape,
        tuple(model.mean_C11.flatten().tolist()),
        model.device,
        threads,
    )
    return Augmented(inner, model, source, buffer, augmenter)
