"""The step: the only place where gradients are made.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.classifier import Classifier


def train_step(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    pictures_NCHW: Tensor,
    labels_N: Tensor,
    sums: Sums,
) -> None:
    """Normalise, forward, backward, update, add to the sums; nothing here waits for the device."""
    optimizer.zero_grad()
    logits_NK = model(pictures_NCHW)
    loss = cross_entropy(logits_NK, labels_N)
    loss.backward()
    optimizer.step()
    sums.add(loss, logits_NK, labels_N)
