"""Confident learning: which labels a model that never saw them contradicts, and how noisy they are.

Pure functions of out-of-fold probabilities and given labels, after Northcutt, Jiang and Chuang,
"Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021), 1373-1411
(https://arxiv.org/abs/1911.00068), whose section each docstring names.

Axes: N images, K classes; of a joint, rows are the given label and columns the true one.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FEWEST = 5  # images of a class that are never pruned: a smaller class is left alone
SLACK = 1e-6  # by which a probability may miss its class's threshold


def self_confidence(probabilities_NK: Floats, labels_N: Ints) -> Floats:
    """Return each image's probability of its given label; the least are the most doubtful.

    >>> self_confidence(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1])).tolist()
    [0.9, 0.2]
    """
    return probabilities_NK[np.arange(len(labels_N)), labels_N]


def normalized_margin(probabilities_NK: Floats, labels_N: Ints) -> Floats:
    """Return the given label's probability minus the largest other one, from -1 to 1; section 3.2.

    >>> normalized_margin(np.array([[0.75, 0.25]]), np.array([1])).tolist()
    [-0.5]
    """
    others_NK = probabilities_NK.copy()
    others_NK[np.arange(len(labels_N)), labels_N] = -np.inf
    return self_confidence(probabilities_NK, labels_N) - others_NK.max(1)


def thresholds(probabilities_NK: Floats, labels_N: Ints) -> Floats:
    """Return for each class the mean probability of it among the images that are labeled so.

    Equation 2. A class without any image has infinity, which no probability reaches.
    """
    K = probabilities_NK.shape[1]
    sums_K = np.bincount(labels_N, self_confidence(probabilities_NK, labels_N), minlength=K)
    counts_K = np.bincount(labels_N, minlength=K)
    return np.where(counts_K > 0, sums_K / np.maximum(counts_K, 1), np.inf)


def confident_class(probabilities_NK: Floats, labels_N: Ints) -> Ints:
    """Return the class that each image is confidently counted in; -1: in none.

    Equation 1: the most probable of the classes whose probability reaches their threshold.
    """
    reached_NK = probabilities_NK >= thresholds(probabilities_NK, labels_N) - SLACK
    best_N = np.where(reached_NK, probabilities_NK, -1.0).argmax(1)
    return np.where(reached_NK.any(1), best_N, -1)


def confident_joint(probabilities_NK: Floats, labels_N: Ints, *, calibrated: bool = True) -> Floats:
    """Return how many images have each given label and, confidently, each true one: K×K counts.

    Equations 1 and 3. Calibrated, each row sums to the images that are labeled so, and the whole to
    N: then joint / N estimates the joint distribution of given and true labels.
    """
    K = probabilities_NK.shape[1]
    class_N = confident_class(probabilities_NK, labels_N)
    sure_N = class_N >= 0
    cells_N = labels_N[sure_N] * K + class_N[sure_N]
    joint_KK = np.bincount(cells_N, minlength=K * K).reshape(K, K).astype(np.float64)
    np.fill_diagonal(joint_KK, joint_KK.diagonal().clip(min=1))
    if not calibrated:
        return joint_KK
    counts_K = np.bincount(labels_N, minlength=K)
    return joint_KK * (counts_K / joint_KK.sum(1))[:, None]


def _prunable(joint_KK: Floats) -> Ints:
    """Return the joint as whole counts that leave each true class some images.

    Where the diagonal has fewer than `FEWEST`, the rest of the column is lowered for it.
    """
    diagonal_K = joint_KK.diagonal()
    kept_K = np.maximum(diagonal_K, FEWEST)
    others_K = np.maximum(np.count_nonzero(joint_KK, axis=1) - 1, 1)
    lowered_KK = joint_KK - ((kept_K - diagonal_K) / others_K)[:, None]
    np.fill_diagonal(lowered_KK, kept_K)
    return np.rint(lowered_KK.clip(min=0)).astype(np.int64)


def by_argmax(probabilities_NK: Floats, labels_N: Ints) -> Bools:
    """Flag every image whose most probable class is another one: the paper's baseline C_confusion.

    >>> by_argmax(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1])).tolist()
    [False, True]
    """
    return probabilities_NK.argmax(1) != labels_N


def by_confident_joint(probabilities_NK: Floats, labels_N: Ints) -> Bools:
    """Flag the images off the diagonal of the uncalibrated joint: section 3.2, method 2."""
    class_N = confident_class(probabilities_NK, labels_N)
    return (class_N >= 0) & (class_N != labels_N)


def by_class(probabilities_NK: Floats, labels_N: Ints) -> Bools:
    """Flag in each class the least self-confident images, as many as it has errors: method PBC.

    Section 3.2. Images whose most probable class is their label are never flagged.
    """
    joint_KK = _prunable(confident_joint(probabilities_NK, labels_N))
    flagged_N = np.zeros(len(labels_N), np.bool_)
    for label in range(probabilities_NK.shape[1]):
        own_N = np.flatnonzero(labels_N == label)
        errors = len(own_N) - joint_KK[label, label]
        if len(own_N) > FEWEST and errors > 0:
            confidence_N = probabilities_NK[own_N, label]
            flagged_N[own_N[confidence_N < np.partition(confidence_N, errors)[errors]]] = True
    return flagged_N & by_argmax(probabilities_NK, labels_N)


def by_noise_rate(probabilities_NK: Floats, labels_N: Ints) -> Bools:
    """Flag for each pair of given and true class as many images as the joint has: method PBNR.

    Section 3.2. Those are taken whose true class's probability exceeds the label's the most.
    """
    joint_KK = _prunable(confident_joint(probabilities_NK, labels_N))
    flagged_N = np.zeros(len(labels_N), np.bool_)
    for label, row_K in enumerate(joint_KK):
        own_N = np.flatnonzero(labels_N == label)
        if len(own_N) <= FEWEST:
            continue
        for true in np.flatnonzero(row_K):
            if true != label:
                margin_N = probabilities_NK[own_N, true] - probabilities_NK[own_N, label]
                count = min(int(row_K[true]), len(own_N))
                flagged_N[own_N[margin_N >= -np.partition(-margin_N, count - 1)[count - 1]]] = True
    return flagged_N & by_argmax(probabilities_NK, labels_N)


def by_both(probabilities_NK: Floats, labels_N: Ints) -> Bools:
    """Flag what `by_class` and `by_noise_rate` both flag: method C+NR, section 3.2."""
    return by_class(probabilities_NK, labels_N) & by_noise_rate(probabilities_NK, labels_N)


METHODS: dict[str, Callable[[Floats, Ints], Bools]] = {
    "argmax": by_argmax,
    "confident joint": by_confident_joint,
    "class": by_class,
    "noise rate": by_noise_rate,
    "both": by_both,
}
