"""What the steps of one epoch read, beside weights and images: one value for every executor.

Axes: N images in the order of the epoch, A numbers of an image's changes, S steps, K classes,
L dropout layers, 2 halves of a key.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from hydrofoil.data.batches import epoch_order
from hydrofoil.data.changes import draw_changes
from hydrofoil.randomness import halves, key
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.balance import balanced_order
from hydrofoil.train.schedules import rates
from hydrofoil.train.sizes import side_of


def count_steps(images: int, batch_size: int) -> int:
    """Return the steps of an epoch: whole batches, and one more for the rest.

    >>> count_steps(100, 32), count_steps(96, 32), count_steps(0, 32)
    (4, 3, 0)
    """
    return -(-images // batch_size)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The second label of images that are mixed in pairs.

    Args:
        labels_N: The label of each image's other.
        shares_N: The image's own share, float32, 0 to 1.
    """

    labels_N: Tensor
    shares_N: Tensor

    def larger(self, labels_N: Tensor) -> Tensor:
        """Return the label of the larger part of each image, given the images' own labels."""
        return torch.where(self.shares_N >= 0.5, labels_N, self.labels_N)

    def shares_NK(self, labels_N: Tensor, like_NK: Tensor) -> Tensor:
        """Return the share of each class in each image, with the type of logits."""
        shares_N1 = self.shares_N[:, None].to(like_NK.dtype)
        made_NK = torch.zeros_like(like_NK).scatter_(1, labels_N[:, None], shares_N1)
        return made_NK.scatter_add_(1, self.labels_N[:, None], 1 - shares_N1)


class Rows(Protocol):
    """What one step reads, by its number, counted from 0."""

    @property
    def side(self) -> int:
        """Longer side, in pixels, to which images are scaled down; 0: full size."""
        ...

    def batch(self, step: int) -> Tensor:
        """Return the indices of the step's images."""
        ...

    def rate(self, step: int) -> float | Tensor:
        """Return the step's learning rate."""
        ...

    def draws(self, step: int) -> Tensor:
        """Return draws_L2, the keys of the step's dropout masks."""
        ...

    def mixed(self, step: int) -> Pairs | None:
        """Return the second labels of the step's images; None: they are not mixed."""
        ...


@dataclass(frozen=True, eq=False)
class Feed:
    """The tables of one epoch, a row for each step: a pure function of recipe, seed and epoch.

    Args:
        epoch: Counted from 1.
        order_N: Indices of the training images, int64.
        batch_size: Images per step; the last step may have fewer.
        rates_S: Each step's learning rate, float64, on the CPU.
        draws_SL2: The key of each step's and dropout layer's mask, as two int32 halves.
        changes_NA: How each image is augmented, a row of `draw_changes`; None: not at all.
        pairs: The labels of images that are mixed in pairs; None: each has its own label alone.
        side: Longer side, in pixels, to which images are scaled down; 0: full size.
    """

    epoch: int
    order_N: Tensor
    batch_size: int
    rates_S: Tensor
    draws_SL2: Tensor
    changes_NA: Tensor | None = None
    pairs: Pairs | None = None
    side: int = 0

    @property
    def steps(self) -> int:
        """Steps of the epoch."""
        return count_steps(len(self.order_N), self.batch_size)

    def batch(self, step: int) -> Tensor:
        """Return the indices of one step's images; steps count from 0."""
        return self.span(step, step + 1)

    def span(self, first: int, stop: int) -> Tensor:
        """Return the indices of the images of steps `first` to `stop` - 1."""
        return self.order_N[first * self.batch_size : stop * self.batch_size]

    def rate(self, step: int) -> float:
        """Return a step's learning rate; steps count from 0."""
        return self.rates_S[step].item()  # of a tensor on the CPU: no device is waited for

    def draws(self, step: int) -> Tensor:
        """Return draws_L2, the keys of a step's dropout masks; steps count from 0."""
        return self.draws_SL2[step]

    def mixed(self, step: int) -> Pairs | None:
        """Return the second labels of one step's images; None: they are not mixed."""
        if self.pairs is None:
            return None
        rows = slice(step * self.batch_size, (step + 1) * self.batch_size)
        return Pairs(self.pairs.labels_N[rows], self.pairs.shares_N[rows])

    def to(self, device: torch.device) -> "Feed":
        """Return the feed with order, draws and augmentation on a device; rates stay on the CPU."""

        def moved(table: Tensor) -> Tensor:
            if device.type == "cuda":  # pinned, so that the host does not wait for the copy
                return table.pin_memory().to(device, non_blocking=True)
            # On MPS a copy that does not block may read memory that was freed (pytorch #139550).
            return table.to(device)

        changes_NA = None if self.changes_NA is None else moved(self.changes_NA)
        return replace(
            self,
            order_N=moved(self.order_N),
            draws_SL2=moved(self.draws_SL2),
            changes_NA=changes_NA,
        )


def make_feed(recipe: Recipe, index_N: Tensor, labels_N: Tensor, epoch: int, layers: int) -> Feed:
    """Return the feed of one epoch.

    Args:
        recipe: Gives seed, batch size, balance, learning rate, schedule, sizes and augmentation.
        index_N: The images of the training split.
        labels_N: The labels of all images of the dataset.
        epoch: Counted from 1.
        layers: Dropout layers of the network.
    """
    seed, batch_size = recipe.train.seed, recipe.train.batch_size
    steps = count_steps(len(index_N), batch_size)
    order_N = order_of(recipe, index_N, labels_N, epoch)
    epoch_steps = count_steps(len(order_N), batch_size)  # fewer in a last epoch that ends early
    return Feed(
        epoch=epoch,
        order_N=order_N,
        batch_size=batch_size,
        rates_S=torch.tensor(rates(recipe, steps, epoch)[:epoch_steps], dtype=torch.float64),
        draws_SL2=dropout_draws(seed, epoch, epoch_steps, layers),
        changes_NA=draw_changes(recipe.augment, seed, epoch, order_N, batch_size, len(labels_N)),
        side=side_of(recipe, epoch),
    )


def order_of(recipe: Recipe, index_N: Tensor, labels_N: Tensor, epoch: int) -> Tensor:
    """Return the indices of the training images in the order of one epoch: see `make_feed`.

    The last epoch may end early, after `train.last_steps`.
    """
    train, window = recipe.train, window_of(recipe)
    images = train.last_steps * train.batch_size if epoch == train.epochs else 0
    if train.balance == "sampling":
        of_these_N = labels_N[index_N.to(labels_N.device)]
        order_N = balanced_order(index_N, of_these_N, train.seed, epoch, window)
    else:
        order_N = epoch_order(index_N, train.seed, epoch, window)
    return order_N[:images] if images else order_N


def window_of(recipe: Recipe) -> int:
    """Return how many images' order is drawn together: whole batches; 0: all images."""
    return count_steps(recipe.data.window, recipe.train.batch_size) * recipe.train.batch_size


def dropout_draws(seed: int, epoch: int, steps: int, layers: int) -> Tensor:
    """Return the `halves` of the keys of all dropout masks of an epoch's first steps.

    In keys, epochs and steps count from 1 and layers from 0. About 4 µs a key.
    """
    keys = [
        halves(key(seed, "dropout", epoch, step, layer))
        for step in range(1, steps + 1)
        for layer in range(layers)
    ]
    return torch.tensor(keys, dtype=torch.int32).view(steps, layers, 2)
