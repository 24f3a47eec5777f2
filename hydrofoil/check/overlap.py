"""Classes that models cannot separate by their images.

Axes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hydrofoil.check.finding import Finding, Row
from hydrofoil.check.labels import FEWEST, Floats, Ints
from hydrofoil.evaluate.metrics import wilson
from hydrofoil.wording import interval, isolated, percent, plural

OVERLAP = 0.2  # error and doubt of a pair from here on; guessing has 0.5
WEAK_OVERLAP = 0.35  # the same of models that separate few classes well
SHARED = 0.05  # mean probability of the one class, in images of the other, of pairs to look at
EXAMPLES = 4  # rows of images for each pair


@dataclass(frozen=True)
class Overlap:
    """Two classes that models cannot separate.

    Args:
        a: One class's number.
        b: The other's.
        correct: Images of the two that get the higher probability for their own class.
        images: All images of the two.
        error: The mean error of both classes, from 0 to 1.
        doubt: The mean probability of the less probable of the two, if there were only these two:
            high if the images are ambiguous, low if the labels are wrong.
    """

    a: int
    b: int
    correct: int
    images: int
    error: float
    doubt: float


def overlaps(probabilities_NK: Floats, labels_N: Ints, least: float = OVERLAP) -> list[Overlap]:
    """Return the pairs of classes that out-of-fold models cannot separate, the worst first.

    Between two classes, exchanged labels make errors of which the models are sure, while images
    that look alike make errors and doubt.

    Args:
        probabilities_NK: Of each class, by models that did not see the image.
        labels_N: The given labels.
        least: The error and the doubt of the pairs returned.

    >>> labels_N = np.array([0, 1, 1, 0] * 10)
    >>> overlaps(np.array([[0.6, 0.4], [0.55, 0.45]] * 20), labels_N)[0].error
    0.5
    """
    K = probabilities_NK.shape[1]
    counts_K = np.bincount(labels_N, minlength=K)
    mean_KK = np.zeros((K, K))
    np.add.at(mean_KK, labels_N, probabilities_NK)
    mean_KK /= np.maximum(counts_K, 1)[:, None]
    large_K = counts_K > FEWEST
    shared_KK = np.triu(mean_KK + mean_KK.T >= 2 * SHARED, 1) & large_K & large_K[:, None]
    found = [_pair(probabilities_NK, labels_N, int(a), int(b)) for a, b in np.argwhere(shared_KK)]
    sure = [pair for pair in found if _is_overlap(pair, least)]
    return sorted(sure, key=lambda pair: -min(pair.error, pair.doubt))


def _pair(probabilities_NK: Floats, labels_N: Ints, a: int, b: int) -> Overlap:
    own_N = np.flatnonzero((labels_N == a) | (labels_N == b))
    share_N = _share(probabilities_NK[own_N, a], probabilities_NK[own_N, b])
    is_b_N = labels_N[own_N] == b
    wrong_N = (share_N > 0.5) != is_b_N
    return Overlap(
        a, b, int((~wrong_N).sum()), len(own_N),
        error=float((wrong_N[is_b_N].mean() + wrong_N[~is_b_N].mean()) / 2),
        doubt=float(np.minimum(share_N, 1 - share_N).mean()),
    )  # fmt: skip


def _share(of_a_N: Floats, of_b_N: Floats) -> Floats:
    """Return the probability of b, if there were only a and b."""
    return of_b_N / np.maximum(of_a_N + of_b_N, 1e-12)


def _is_overlap(pair: Overlap, least: float) -> bool:
    low = wilson(pair.images - pair.correct, pair.images)[0]
    return min(pair.error, pair.doubt) >= least and low >= least / 2


def overlap_finding(
    probabilities_NK: Floats, labels_N: Ints, classes: Sequence[str], *, weak: bool = False
) -> Finding | None:
    """Return the finding of the kind `overlap`; None: the models separate all classes.

    Args:
        probabilities_NK: Of each class, by models that did not see the image.
        labels_N: The given labels.
        classes: The class names.
        weak: The models separate few classes well: only the worst pairs are named.
    """
    found = overlaps(probabilities_NK, labels_N, WEAK_OVERLAP if weak else OVERLAP)
    if not found:
        return None
    names = [f"{isolated(classes[pair.a])} and {isolated(classes[pair.b])}" for pair in found]
    more = f", and {plural(len(found) - 3, 'more pair')}" if len(found) > 3 else ""
    worst = found[0]
    return Finding(
        "overlap",
        "warning",
        f"{plural(len(found), 'pair')} of classes overlap{'s' if len(found) == 1 else ''}: "
        f"{'; '.join(names[:3])}{more}",
        (
            f"Of {worst.images:,} images of {names[0]}, models that did not see them assign "
            f"{percent(worst.correct / worst.images, 1)} to the right one "
            f"({interval(wilson(worst.correct, worst.images))}); guessing would reach 50%. They "
            "are unsure in most of these images, so wrong labels are not the reason.",
            "Collect more images of them, make their difference visible (larger images, another "
            "crop), or merge the classes.",
        ),
        tuple(row for pair in found for row in _rows(probabilities_NK, labels_N, classes, pair)),
        {
            "pairs": [
                {
                    "classes": [classes[pair.a], classes[pair.b]],
                    "images": pair.images,
                    "separated": pair.correct / pair.images,
                    "separated_interval": wilson(pair.correct, pair.images),
                    "error": pair.error,
                    "doubt": pair.doubt,
                }
                for pair in found
            ]
        },
    )


def _rows(
    probabilities_NK: Floats, labels_N: Ints, classes: Sequence[str], pair: Overlap
) -> list[Row]:
    """Return images of both classes side by side, the most ambiguous first."""
    share_N = _share(probabilities_NK[:, pair.a], probabilities_NK[:, pair.b])
    known_N = probabilities_NK[:, [pair.a, pair.b]].sum(1) >= 0.5  # no third class is likelier
    sides: list[list[int]] = []
    for label in (pair.a, pair.b):
        own_N = np.flatnonzero((labels_N == label) & known_N)
        order_N = np.argsort(np.abs(share_N[own_N] - 0.5), kind="stable")
        sides.append(own_N[order_N[:EXAMPLES]].tolist())
    text = f"{isolated(classes[pair.a])} or {isolated(classes[pair.b])}?"
    return [Row(images, text=text) for images in zip(*sides, strict=False)]
