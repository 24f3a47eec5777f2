"""What `train.balance` does about classes of different sizes: weights of the loss, or the draw.

Axes: N images in the order of an epoch, K classes.
"""

import torch
from torch import Tensor

from hydrofoil.data.batches import epoch_order
from hydrofoil.randomness import generator


def class_weights(labels_N: Tensor, classes: int) -> Tensor:
    """Return weights_K, float32, that make all classes count the same in the sum over all images.

    The weight of a class is N / (C n) for n of the N images and C classes that occur, so that the
    mean over the images is 1: scikit-learn's "balanced". A class without images has weight 0.

    Args:
        labels_N: The labels of the training images.
        classes: The model's classes, K.

    >>> class_weights(torch.tensor([0, 0, 0, 2]), classes=3).tolist()
    [0.6666666865348816, 0.0, 2.0]
    """
    counts_K = labels_N.bincount(minlength=classes).to("cpu", torch.float64)
    weights_K = len(labels_N) / (int((counts_K > 0).sum()) * counts_K.clamp(min=1))
    return (weights_K * (counts_K > 0)).to(torch.float32)


def balanced_order(
    index_N: Tensor, labels_N: Tensor, seed: int, epoch: int, window: int = 0
) -> Tensor:
    """Return as many indices as given, drawn equally often from each class, in random order.

    The C classes that occur take turns through all epochs, and so do the images of each class. In
    an epoch, a class is drawn N // C times or once more. After any number of epochs, the draws of
    two images of a class differ by one at most. An epoch does not reach all images of a class with
    more than N / C of them. A pure function of its arguments.

    Args:
        index_N: The training images.
        labels_N: The label of each of them.
        seed: Of the run.
        epoch: Counted from 1.
        window: See `epoch_order`.

    >>> balanced_order(torch.arange(6), torch.tensor([0, 0, 0, 0, 0, 1]), 0, 1).eq(5).sum().item()
    3
    """
    N = len(index_N)
    shuffled_N = torch.randperm(N, generator=generator(seed, "balance"))
    labels_N = labels_N.cpu()[shuffled_N]
    members_N = index_N[shuffled_N[labels_N.argsort(stable=True)]]  # class by class, each shuffled
    counts = labels_N.unique(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    turns_N = torch.arange((epoch - 1) * N, epoch * N)
    class_N, turn_N = turns_N % len(counts), turns_N // len(counts)
    drawn_N = members_N[starts[class_N] + turn_N % counts[class_N]]
    return epoch_order(drawn_N, seed, epoch, window)
