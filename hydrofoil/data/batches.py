"""A batch is a row of indices into pictures that lie on the device.

Axes: N pictures.
"""

from torch import Tensor, randperm

from hydrofoil.randomness import generator


def epoch_order(index_N: Tensor, seed: int, epoch: int) -> Tensor:
    """Return the indices in the order of one epoch: a function of seed and epoch.

    The order is the same on any device and thread count.

    >>> import torch
    >>> epoch_order(torch.arange(5), seed=0, epoch=1).sort().values.tolist()
    [0, 1, 2, 3, 4]
    """
    return index_N[randperm(len(index_N), generator=generator(seed, "order", epoch))]
