"""A batch is a row of indices into a set of images.

Axes: N images.
"""

import torch
from torch import Tensor, randperm

from hydrofoil.randomness import generator

BLOCK = 256  # images at most that are read from a file in a row
BLOCKS = 1024  # of a window, if it is that large: a file is often sorted by class


def epoch_order(index_N: Tensor, seed: int, epoch: int, window: int = 0) -> Tensor:
    """Return the indices in the order of one epoch: a function of the arguments alone.

    The order is the same on any device and thread count.

    With a window, blocks of neighboring indices are shuffled, and then the images within each
    window, so that the images of a window can be read from a file nearly in a row.

    Args:
        index_N: The indices; in any order, if a window is given.
        seed: The recipe's.
        epoch: Counted from 1.
        window: Images that are shuffled together; 0: all.

    >>> epoch_order(torch.arange(5), seed=0, epoch=1).sort().values.tolist()
    [0, 1, 2, 3, 4]
    >>> epoch_order(torch.arange(9), seed=0, epoch=1, window=4).sort().values.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    random = generator(seed, "order", epoch)
    if not 0 < window < len(index_N):
        return index_N[randperm(len(index_N), generator=random)]
    block = max(1, min(BLOCK, window // BLOCKS))
    places_N = torch.arange(len(index_N)) // block
    ranks_N = randperm(-(-len(index_N) // block), generator=random)[places_N]
    mixed_N = index_N.sort().values[ranks_N.argsort(stable=True)]
    return torch.cat(
        [part_N[randperm(len(part_N), generator=random)] for part_N in mixed_N.split(window)]
    )
