"""Feeds of indices that a test chooses, for executors that are called directly.

Axes: N images, S steps, L dropout layers, 2 halves of a key.
"""

from typing import Any

import torch
from torch import Tensor

from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.layers import dropouts
from hydrofoil.train.feed import Feed, count_steps, dropout_draws


def made_feed(
    executor: Any, index_N: Tensor, epoch: int = 1, step: int = 1, *, lr: float | None = None
) -> Feed:
    """Return a feed whose first step has a number in its epoch, counted from 1, of seed 0."""
    model, optimizer = parts_of(executor)
    batch_size = executor.plan.batch if hasattr(executor, "plan") else executor.batch_size
    steps, layers = count_steps(len(index_N), batch_size), len(dropouts(model.network))
    rate = float(optimizer.param_groups[0]["lr"]) if lr is None else lr
    return Feed(
        epoch=epoch,
        order_N=index_N,
        batch_size=batch_size,
        rates_S=torch.full((steps,), rate, dtype=torch.float64),
        draws_SL2=dropout_draws(0, epoch, step - 1 + steps, layers)[step - 1 :],
    ).to(model.device)


def parts_of(executor: Any) -> tuple[Any, Any]:
    """Return an executor's model and optimizer."""
    step = executor if hasattr(executor, "model") else executor.step
    return step.model, step.optimizer


def take_steps(executor: Any, index_N: Tensor, epoch: int, step: int, sums: Sums) -> None:
    """Train on the indexed images, in order, beginning with a step of an epoch."""
    feed = made_feed(executor, index_N, epoch, step)
    executor.train_steps(feed, 0, feed.steps, sums)
