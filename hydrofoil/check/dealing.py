"""Folds for the small classifiers of a check.

Axes: N images, G groups.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def deal_folds(
    label_N: Array, group_N: Array | None, folds: int, draw: np.random.Generator
) -> Array:
    """Return the fold of each image: stratified by label, and groups stay together.

    Args:
        label_N: What the classifier predicts.
        group_N: What each image belongs to; a group counts as the label of its first image. None:
            each image is alone.
        folds: How many.
        draw: Deals images of one label at random.
    """
    group_N = np.arange(len(label_N)) if group_N is None else group_N
    _, first_G, number_N = np.unique(group_N, return_index=True, return_inverse=True)
    label_G, fold_G = label_N[first_G], np.empty(len(first_G), int)
    for label in np.unique(label_G):
        at_G = np.flatnonzero(label_G == label)
        fold_G[draw.permutation(at_G)] = np.arange(len(at_G)) % folds
    return fold_G[number_N]
