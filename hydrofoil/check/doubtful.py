"""Doubtful labels and overlapping classes, as findings.

Axes: N images, K classes, M pairs of an image and a class; of a joint, rows are the given label and
columns the true one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hydrofoil.check.finding import Change, Finding, Row
from hydrofoil.check.labels import (
    FEWEST,
    Bools,
    Floats,
    Ints,
    by_argmax,
    by_both,
    confident_joint,
    self_confidence,
)
from hydrofoil.check.overlap import overlap_finding
from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.metrics import wilson
from hydrofoil.wording import interval, isolated, percent, plural

SERIOUS = 0.03  # of all labels; the published CIFAR-10 and MNIST are far below
LEARNED = 0.25  # of the way from the majority rate to 100%: models below it say nothing
TRUSTED = 0.6  # of that way: the confident mistakes of models below it look like wrong labels
EXPLAINED = 0.2, 0.5  # of the disagreement: errors beyond it are serious; trusted in any case
QUANTILES = np.linspace(0.25, 0.9, 66)  # of what models think of wrong labels
LISTED = 100  # of the labels that models contradict, at least
MOST_PAIRS = 12  # of classes, in the figures


@dataclass(frozen=True, eq=False)
class Doubt:
    """How doubtful the labels of a set are.

    Args:
        labels_N: The given labels.
        guess_N: The most probable class of each image.
        confidence_N: The probability of its given label.
        likely_N: Whether the label is likely to be wrong.
        possible_N: Whether it is not, but is among the most doubtful or suspected by confident
            learning.
        rate: The estimated fraction of wrong labels.
        joint_KK: How many images have each given and true label, by confident learning.
    """

    labels_N: Ints
    guess_N: Ints
    confidence_N: Floats
    likely_N: Bools
    possible_N: Bools
    rate: float
    joint_KK: Floats

    @property
    def ranked(self) -> Ints:
        """The doubted images: the likely errors, then the possible ones, each by confidence."""
        order_N = np.lexsort((self.confidence_N, ~self.likely_N))
        return order_N[(self.likely_N | self.possible_N)[order_N]]


def doubt(probabilities_NK: Floats, labels_N: Ints) -> Doubt:
    """Return which labels are likely to be wrong, from out-of-fold probabilities.

    Confident learning counts each confident mistake of the models as an error of the labels: with
    models that are right in 9 of 10 images it suspects about as many again as there are errors. So
    its joint only says which classes are exchanged for which, and `_mixture` says how many labels
    are wrong. That many of the least self-confident ones are likely errors, and more as long as
    each is more likely wrong than right.

    Args:
        probabilities_NK: Of each class, by models that did not see the image.
        labels_N: The given labels.
    """
    joint_KK = confident_joint(probabilities_NK, labels_N)
    rate, bound = _mixture(probabilities_NK, labels_N, joint_KK)
    confidence_N = self_confidence(probabilities_NK, labels_N)
    suspected_N = by_argmax(probabilities_NK, labels_N) & _large_classes(labels_N, joint_KK)
    order_N = np.argsort(np.where(suspected_N, confidence_N, np.inf), kind="stable")
    likely_N = confidence_N <= bound
    likely_N[order_N[: round(rate * len(labels_N))]] = True
    likely_N &= suspected_N
    possible_N = by_both(probabilities_NK, labels_N)
    possible_N[order_N[:LISTED]] = suspected_N[order_N[:LISTED]]
    possible_N &= ~likely_N
    guess_N = probabilities_NK.argmax(1)
    return Doubt(labels_N, guess_N, confidence_N, likely_N, possible_N, rate, joint_KK)


def _large_classes(labels_N: Ints, joint_KK: Floats) -> Bools:
    """Tell which images are of classes that the models could learn."""
    return np.bincount(labels_N, minlength=len(joint_KK))[labels_N] > FEWEST


def _mixture(probabilities_NK: Floats, labels_N: Ints, joint_KK: Floats) -> tuple[float, float]:
    """Return the estimated fraction of wrong labels, and the confidence that they rarely exceed.

    What the models think of a wrong label is known: it is what they think of the classes that an
    image is not labeled as, weighted by how often such errors are (the joint). If a fraction q of
    that is below some bound, then at most (fraction of labels below the bound) / q of all labels
    are wrong; the least such quotient, over a range of bounds, is the estimate. That is the
    proportion of a known component in a mixture (Blanchard, Lee and Scott, JMLR 11, 2010,
    2973-3009). A label is more likely wrong than right up to the confidence where the expected
    wrong labels below exceed the expected right ones below by the most.
    """
    K, N = len(joint_KK), len(labels_N)
    weights_KK = joint_KK.T.copy()  # row: the true class; column: the label that it gets
    np.fill_diagonal(weights_KK, 0)
    weights_KK += weights_KK.sum() / (K * (K - 1)) + 1e-9  # any pair is possible
    np.fill_diagonal(weights_KK, 0)
    weights_KK /= np.maximum(np.bincount(labels_N, minlength=K), 1)[:, None]
    order_M = np.argsort(probabilities_NK, axis=None)
    sorted_M, wrong_M = probabilities_NK.ravel()[order_M], weights_KK[labels_N].ravel()[order_M]
    wrong_M = wrong_M.cumsum() / wrong_M.sum()
    bounds = sorted_M[np.searchsorted(wrong_M, QUANTILES).clip(max=len(sorted_M) - 1)]
    confidence_N = np.sort(self_confidence(probabilities_NK, labels_N))
    below = np.searchsorted(confidence_N, bounds, side="right") / N
    rate = float(min(1.0, (below / QUANTILES).min()))
    at_N = np.searchsorted(sorted_M, confidence_N, side="right")
    wrong_N = np.concatenate([[0.0], wrong_M])[at_N]
    gain_N = 2 * rate * wrong_N - np.arange(1, N + 1) / N
    best = int(gain_N.argmax())
    return rate, float(confidence_N[best]) if gain_N[best] > 0 else -1.0


# ── findings ─────────────────────────────────────────────────────────────────────────────────────


def doubtful_labels(
    pictures: Pictures, probabilities_NK: Floats, facts: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Return the findings of the kinds `labels` and `overlap`.

    Args:
        pictures: The set.
        probabilities_NK: Out of fold: see `folds.out_of_fold`; NaN: the image is not judged.
        facts: More figures for the JSON, such as how the models were trained.
    """
    judged = np.flatnonzero(~np.isnan(probabilities_NK).any(1))
    findings = _findings(
        probabilities_NK[judged],
        pictures.labels_N.cpu().numpy()[judged],
        pictures.classes,
        {**(facts or {}), "not_judged": len(pictures) - len(judged)},
    )
    return [_of_the_set(finding, judged) for finding in findings]


def _findings(
    probabilities_NK: Floats, labels_N: Ints, classes: Sequence[str], figures: dict[str, Any]
) -> list[Finding]:
    """Return the findings, with the positions of the judged images as indices."""
    N, correct = len(labels_N), int((probabilities_NK.argmax(1) == labels_N).sum())
    if not N:
        title = "No label can be judged: no class has images in two parts of the set"
        return [Finding("labels", "note", title, figures=figures)]
    accuracy = correct / N
    majority = int(np.bincount(labels_N, minlength=len(classes)).max()) / N
    figures |= {
        "out_of_fold_accuracy": accuracy,
        "out_of_fold_interval": wilson(correct, N),
        "majority_rate": majority,
    }
    if wilson(correct, N)[0] <= majority + LEARNED * (1 - majority):
        return [_learned_too_little(figures)]
    found = doubt(probabilities_NK, labels_N)
    trusted = accuracy >= majority + TRUSTED * (1 - majority)
    if not trusted and found.rate < EXPLAINED[1] * (1 - accuracy):
        nothing_N = np.zeros(N, np.bool_)
        found = replace(found, likely_N=nothing_N, possible_N=found.likely_N)
    findings = [_labels_finding(found, probabilities_NK, classes, figures)]
    overlapping = overlap_finding(probabilities_NK, labels_N, classes, weak=not trusted)
    return [*findings, overlapping] if overlapping else findings


def _of_the_set(finding: Finding, judged: Ints) -> Finding:
    """Return a finding with the indices that its images have in the set."""
    rows = tuple(
        replace(
            row,
            images=tuple(int(judged[image]) for image in row.images),
            changes=tuple(
                replace(change, image=int(judged[change.image])) for change in row.changes
            ),
        )
        for row in finding.rows
    )
    return replace(finding, rows=rows)


def _learned_too_little(figures: dict[str, Any]) -> Finding:
    accuracy, majority = figures["out_of_fold_accuracy"], figures["majority_rate"]
    return Finding(
        "labels",
        "note",
        "The labels cannot be judged: models trained on the other images do not learn the classes",
        (
            f"They agree with {percent(accuracy, 1)} of the labels "
            f"({interval(figures['out_of_fold_interval'])}); always naming the largest class "
            f"agrees with {percent(majority, 1)}.",
            "There are too few images, the classes look alike at this size, or most labels are "
            "wrong.",
        ),
        figures=figures,
    )


def _labels_finding(
    found: Doubt, probabilities_NK: Floats, classes: Sequence[str], figures: dict[str, Any]
) -> Finding:
    N, likely, possible = (
        len(found.labels_N),
        int(found.likely_N.sum()),
        int(found.possible_N.sum()),
    )
    low, high = wilson(likely, N)
    explained = found.rate / max(1 - figures["out_of_fold_accuracy"], 1e-9)
    serious = low > SERIOUS and explained >= EXPLAINED[0]
    level = "serious" if serious else "warning" if likely else "note"
    given_learning = float(1 - np.trace(found.joint_KK) / N)
    accuracy = percent(figures["out_of_fold_accuracy"], 1)
    rows = tuple(_row(found, probabilities_NK, classes, image) for image in found.ranked.tolist())
    text = [
        f"Models that did not see an image agree with {accuracy} of the labels; "
        "these are the labels that they contradict most, the most doubtful first."
        if rows
        else f"Models that did not see an image agree with {accuracy} of the labels and "
        "confidently contradict none.",
    ]
    if likely and possible:
        text.append(
            f"{plural(possible, 'more label')} that the models contradict follow; most of them are "
            "probably correct labels of difficult images."
        )
    elif possible:
        text.append(
            "Most of these labels are probably right: the models make mistakes of their own."
        )
    if figures["not_judged"]:
        text.append(
            f"{plural(figures['not_judged'], 'image')} cannot be judged: their class has no other "
            "image outside their group."
        )
    if rows:
        text.append(
            "Look at them before changing anything: --review estimates the fraction of wrong "
            "labels from a random sample."
        )
    return Finding(
        "labels",
        level,
        _title(likely, possible, N),
        tuple(text),
        rows,
        {
            **figures,
            "likely_errors": likely,
            "possible_errors": possible,
            "estimated_noise_rate": found.rate,
            "likely_interval": (low, high),
            "confident_learning_noise_rate": given_learning,
            "noise_by_pair": noise_by_pair(classes, found),
        },
    )


def _title(likely: int, possible: int, count: int) -> str:
    if likely:
        return (
            f"{plural(likely, 'label')} of {count:,} ({percent(likely / count, 1)}) "
            f"{'is' if likely == 1 else 'are'} probably wrong"
        )
    if possible:
        verb = "is" if possible == 1 else "are"
        return f"{plural(possible, 'label')} of {count:,} {verb} worth a look"
    return f"No label of {count:,} looks wrong"


def _row(found: Doubt, probabilities_NK: Floats, classes: Sequence[str], image: int) -> Row:
    guess, likely = int(found.guess_N[image]), bool(found.likely_N[image])
    probability = float(probabilities_NK[image, guess])
    caption = f"looks like {isolated(classes[guess])} ({probability:.2f})"
    changes = (Change(image, "label", classes[guess]),) if likely else ()
    return Row((image,), (caption,), "likely error" if likely else "possible error", changes)


def noise_by_pair(classes: Sequence[str], found: Doubt) -> list[dict[str, Any]]:
    """Return the pairs of given and guessed class with the most likely errors.

    Each has the names, the likely errors, the images with that label, and how many of these
    confident learning counts in the other class.
    """
    K = len(classes)
    cells_N = found.labels_N[found.likely_N] * K + found.guess_N[found.likely_N]
    counts_KK = np.bincount(cells_N, minlength=K * K).reshape(K, K)
    labeled_K = np.bincount(found.labels_N, minlength=K)
    off_KK = found.joint_KK.copy()
    np.fill_diagonal(off_KK, 0)
    order = np.lexsort((-off_KK.ravel(), -counts_KK.ravel()))[:MOST_PAIRS]
    pairs = [divmod(int(cell), K) for cell in order]
    return [
        {
            "given": classes[given],
            "looks_like": classes[other],
            "likely_errors": int(counts_KK[given, other]),
            "images": int(labeled_K[given]),
            "confident_learning": round(float(off_KK[given, other]), 1),
        }
        for given, other in pairs
        if counts_KK[given, other] or off_KK[given, other] >= 1
    ]
