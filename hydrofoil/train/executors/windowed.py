"""The steps of any executor, over images that are read a window at a time.

Axes: N images, C channels, H rows, W columns, A numbers of an image's augmentation, S steps, L
dropout layers, 2 halves of a key.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.data.window import Window
from hydrofoil.evaluate.metrics import Metrics, Sums, measure
from hydrofoil.evaluate.score import score
from hydrofoil.models.classifier import Classifier
from hydrofoil.native import Native
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.executors.augmented import Augmented
from hydrofoil.train.feed import Feed, count_steps, order_of, window_of
from hydrofoil.train.wrapper import ExecutorWrapper

if TYPE_CHECKING:
    from hydrofoil.train.executors import Executor


class Windowed(ExecutorWrapper):
    """An executor whose steps read a window's images, which lie there in the order of the epoch.

    It is bit-identical to the same executor with all images in memory and the same order.

    Args:
        inner: Takes the steps; made for the images `window.held`.
        model: Its model.
        window: Where the images are read; room for whole batches.
        steps: Steps of a window.
        order: Returns an epoch's order, of which the first window is read before the epoch begins;
            empty: there is no such epoch.
    """

    def __init__(
        self,
        inner: "Executor",
        model: Classifier,
        window: Window,
        steps: int,
        order: Callable[[int], Tensor],
    ) -> None:
        super().__init__(inner)
        self.model, self.window = model, window
        self.steps, self.order = steps, order
        self._feed: Feed | None = None  # the epoch of the held window,
        self._number = -1  # the window's number in it, from 0,
        self._part: Feed | None = None  # and its own tables

    def train_steps(self, feed: Feed, first: int, stop: int, sums: Sums) -> None:
        """Take the steps of an epoch from `first` up to, not including, `stop`; add to the sums."""
        while first < stop:
            number, within = divmod(first, self.steps)
            count = min(stop - first, self.steps - within)
            self.inner.train_steps(self._hold(feed, number), within, within + count, sums)
            first += count

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        if not isinstance(self.inner, Native | Augmented) or self.name != "native":
            return score(self.model, self.window.pictures, index_N)  # which reads by batches
        self._feed = None  # other images take the window's place
        parts: list[Tensor] = []
        for part_N in index_N.split(self.window.size):
            self.window.hold(part_N)
            parts.append(self.inner.logits(torch.arange(len(part_N))))
        return measure(torch.cat(parts), self.window.pictures.labels_N[index_N])

    def _hold(self, feed: Feed, number: int) -> Feed:
        """Return the tables of an epoch's window whose images are held; begin to read the next."""
        if self._part is None or self._feed is not feed or self._number != number:
            images = self.steps * feed.batch_size
            windows = feed.order_N.cpu().split(images)
            self.window.hold(windows[number])
            last = number + 1 == len(windows)
            coming_N = self.order(feed.epoch + 1)[:images] if last else windows[number + 1]
            if len(coming_N):
                self.window.expect(coming_N)
            self._feed, self._number, self._part = feed, number, self._tables(feed, number)
        return self._part

    def _tables(self, feed: Feed, number: int) -> Feed:
        """Return an epoch's tables for one window, in which images are numbered from 0."""
        steps = slice(number * self.steps, (number + 1) * self.steps)
        images = slice(steps.start * feed.batch_size, steps.stop * feed.batch_size)
        count = len(feed.order_N[images])
        return replace(
            feed,
            order_N=torch.arange(count, device=feed.order_N.device),
            rates_S=feed.rates_S[steps],
            draws_SL2=feed.draws_SL2[steps],
            changes_NA=None if feed.changes_NA is None else feed.changes_NA[images],
        )


def make_window(
    recipe: Recipe, pictures: Pictures, split: Split, device: torch.device
) -> Window | None:
    """Return room for a window's images; None: all images are held in memory."""
    if recipe.data.resident is not False or pictures.pictures_NCHW.device.type != "cpu":
        return None
    batch_size = recipe.train.batch_size
    whole = count_steps(len(split.train), batch_size) * batch_size
    return Window(pictures, min(window_of(recipe) or whole, whole), device)


def windowed(
    inner: "Executor", model: Classifier, window: Window, recipe: Recipe, split: Split
) -> Windowed:
    """Return an executor that was made for a window's images, for all images of a split."""

    def order(epoch: int) -> Tensor:
        if epoch > recipe.train.epochs:
            return split.train[:0]
        return order_of(recipe, split.train, window.pictures.labels_N, epoch)

    return Windowed(inner, model, window, window.size // recipe.train.batch_size, order)
