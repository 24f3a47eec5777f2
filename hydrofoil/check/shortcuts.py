"""How well the labels are predicted without looking at the subject of the images.

A network takes the easiest way: where all photographs of dogs are JPEG and all of cats PNG, it
learns the traces of compression, and its test accuracy says nothing of cats and dogs.

Each cue gets a small decision tree of its own. Its accuracy is measured out of fold, on images that
the tree was not fitted to, and compared with the majority rate: what predicting the most frequent
class for every image gets.

A cue is strong if its tree makes at most half of the errors of the majority rate, or recognizes a
single class with precision and recall of 90% or more; and notable if it makes at most three
quarters of them. It must also be significant: a binomial test against the majority rate, at 1%
over all cues together (Bonferroni).

* File type, image size, JPEG quality and time stamp say nothing of a subject: strong is serious,
  notable a warning.
* File size depends on the subject too, as a 1 of MNIST takes fewer bytes than a 0: strong is a
  warning. What else makes a file larger is among the cues above.
* Border and mean color are pixels, and legitimate signals in many sets: ships are on blue. Strong
  is a warning. Only a border that predicts nearly everything (a twentieth of the errors) is
  serious.
* Everything else is a note.

Axes: N images, K classes, F features.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from hydrofoil.check.cues import Cue, find_cues
from hydrofoil.check.dealing import deal_folds
from hydrofoil.check.finding import Finding, Level, Row
from hydrofoil.data.facts import Facts
from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.metrics import wilson
from hydrofoil.randomness import key
from hydrofoil.wording import all_of, isolated, percent, percent_range

SAMPLE = 5000  # images: the interval is then at most 2.8 points wide
LEAST = 20  # images
FOLDS = 5
STRONG, NOTABLE, PERFECT = 0.5, 0.25, 0.95  # share of the majority rate's errors that is gone
KNOWN = 0.9  # precision and recall of a class that a cue recognizes
LEAST_OF_CLASS = 10  # images of such a class
SIGNIFICANT = 0.01  # over all cues together
EXAMPLES, SEPARATED = 3, 2  # images of a class, and classes, that a row shows
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Predicted:
    """How well a cue predicts the labels of a sample.

    Args:
        cue: The cue.
        predicted_N: The class that its tree predicts for each image, out of fold.
        correct: How many are the image's own.
        count: Images in the sample.
        majority: Those of the most frequent class.
        p: Of a binomial test of the accuracy against the majority rate, one-sided.
        classes: Those that it recognizes nearly without mistakes.
    """

    cue: Cue
    predicted_N: Array
    correct: int
    count: int
    majority: int
    p: float
    classes: tuple[int, ...]

    @property
    def gain(self) -> float:
        """The share of the majority rate's errors that the cue does not make."""
        return (self.correct - self.majority) / max(1, self.count - self.majority)


def check_shortcuts(pictures: Pictures, facts: Facts | None = None) -> list[Finding]:
    """Return at most one finding: the cues, each against the majority rate.

    Up to 5,000 images are looked at, which are the same each time; 2 s on one core.

    Args:
        pictures: The images.
        facts: What is known of their files; None: pixels are looked at alone.
    """
    label_N = pictures.labels_N.cpu().numpy()
    sample_N = _sample(label_N, pictures.K)
    if len(sample_N) < LEAST or len(np.unique(label_N[sample_N])) < 2:
        return []
    cues = find_cues(pictures, facts, sample_N)
    group_N = None if pictures.groups_N is None else pictures.groups_N.cpu().numpy()[sample_N]
    draw = np.random.default_rng(key(0, "shortcuts"))
    fold_N = deal_folds(label_N[sample_N], group_N, FOLDS, draw)
    found = [_predict(cue, label_N[sample_N], fold_N) for cue in cues]
    levels: list[Level] = [_level(one, len(found)) for one in found]
    return [_finding(pictures, sample_N, found, levels)] if found else []


def _sample(label_N: Array, classes: int) -> Array:
    """Return the indices of a stratified sample, evenly spaced; small classes are left out."""
    share = min(1.0, SAMPLE / max(1, len(label_N)))
    chosen: list[Array] = []
    for number in range(classes):
        at_N = np.flatnonzero(label_N == number)
        if len(at_N) >= FOLDS:
            count = max(FOLDS, round(share * len(at_N)))
            chosen.append(at_N[np.linspace(0, len(at_N) - 1, count).round().astype(int)])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, int)


def _predict(cue: Cue, label_N: Array, fold_N: Array) -> Predicted:
    from scipy.stats import binom
    from sklearn.tree import DecisionTreeClassifier

    features_NF = np.where(np.isnan(cue.features_NF), -1e9, cue.features_NF)
    predicted_N = np.full(len(label_N), -1)
    counts_K = np.bincount(label_N)
    leaf = max(3, ceil(0.002 * len(label_N)))
    for fold in range(FOLDS):
        held_N = fold_N == fold
        if held_N.any() and not held_N.all():
            tree = DecisionTreeClassifier(
                max_leaf_nodes=4 * len(counts_K) + 12, min_samples_leaf=leaf, random_state=0
            )
            tree.fit(features_NF[~held_N], label_N[~held_N])
            predicted_N[held_N] = tree.predict(features_NF[held_N])
    correct, count = int((predicted_N == label_N).sum()), len(label_N)
    majority = int(counts_K.max())
    p = float(binom.sf(correct - 1, count, majority / count))
    return Predicted(
        cue, predicted_N, correct, count, majority, p, _recognized(predicted_N, label_N)
    )


def _recognized(predicted_N: Array, label_N: Array) -> tuple[int, ...]:
    """Return the classes with high precision and recall."""
    found: list[int] = []
    for number in np.unique(label_N).tolist():
        theirs_N, said_N = label_N == number, predicted_N == number
        both, enough = int((theirs_N & said_N).sum()), theirs_N.sum() >= LEAST_OF_CLASS
        if enough and both >= KNOWN * theirs_N.sum() and both >= KNOWN * said_N.sum():
            found.append(number)
    return tuple(found)


def _level(one: Predicted, cues: int) -> Level:
    """Return how serious a cue is; the rule is in the module's docstring."""
    cue = one.cue
    if one.p * cues > SIGNIFICANT:
        return "note"
    if cue.pixels:
        if cue.name == "border" and one.gain >= PERFECT:
            return "serious"
        return "warning" if one.gain >= STRONG else "note"
    strong = one.gain >= STRONG or bool(one.classes)
    if cue.trusted:
        return "serious" if strong else "warning" if one.gain >= NOTABLE else "note"
    return "warning" if strong else "note"


def _finding(
    pictures: Pictures, sample_N: Array, found: list[Predicted], levels: list[Level]
) -> Finding:
    ranks: list[Level] = ["serious", "warning", "note"]
    # Of cues that are about equally strong, the plainest one comes first, as `find_cues` has them.
    order = sorted(
        range(len(found)), key=lambda at: (ranks.index(levels[at]), -round(found[at].gain, 1))
    )
    found, levels = [found[at] for at in order], [levels[at] for at in order]
    worst, level = found[0], levels[0]
    majority = worst.majority / worst.count
    table = [
        {
            "cue": one.cue.name,
            "accuracy": one.correct / one.count,
            "interval": wilson(one.correct, one.count),
            "majority_rate": majority,
            "level": how,
        }
        for one, how in zip(found, levels, strict=True)
    ]
    notable = [one for one, how in zip(found, levels, strict=True) if how != "note"]
    return Finding(
        "shortcut",
        level,
        _title(pictures, worst, level),
        tuple(_text(worst, notable)),
        tuple(_row(pictures, sample_N, one) for one in notable),
        {"images": worst.count, "cues": table},
    )


def _title(pictures: Pictures, worst: Predicted, level: Level) -> str:
    accuracy, majority = worst.correct / worst.count, worst.majority / worst.count
    if level == "note":
        return (
            f"No shortcut found: the strongest cue, {worst.cue.name}, predicts "
            f"{percent(accuracy, 1)} of the labels (majority rate {percent(majority, 1)})"
        )
    if worst.gain < STRONG and worst.classes:
        names = [isolated(pictures.classes[number]) for number in worst.classes[:3]]
        more = len(worst.classes) - len(names)
        names += [f"{more:,} more"] if more else []
        return f"{_named(worst)} alone recognizes {all_of(names)}"
    return (
        f"{_named(worst)} alone predicts {percent(accuracy, 1)} of the labels "
        f"(majority rate {percent(majority, 1)})"
    )


def _text(worst: Predicted, notable: list[Predicted]) -> list[str]:
    bounds = percent_range(wilson(worst.correct, worst.count))
    measured = (
        f"Its accuracy was measured out of fold on {worst.count:,} images: 95% interval {bounds}"
    )
    if not notable:
        return [measured]
    lines = [
        "A network may learn this instead of the subject, and fail on images from elsewhere",
        measured,
    ]
    return lines + list(dict.fromkeys(f"{_named(one)}: {one.cue.advice}" for one in notable))


def _named(one: Predicted) -> str:
    return one.cue.name[:1].upper() + one.cue.name[1:]


def _row(pictures: Pictures, sample_N: Array, one: Predicted) -> Row:
    """Return images of the two classes that a cue separates best, each with its value."""
    label_N = pictures.labels_N.cpu().numpy()[sample_N]
    right_N = one.predicted_N == label_N
    counts_K = np.bincount(label_N, minlength=pictures.K)
    share_K = np.bincount(label_N[right_N], minlength=pictures.K) / np.maximum(counts_K, 1)
    best = np.argsort(-share_K, kind="stable")[:SEPARATED]
    shown = [
        at for number in best for at in np.flatnonzero(right_N & (label_N == number))[:EXAMPLES]
    ]
    names = [isolated(pictures.classes[number]) for number in best if share_K[number]]
    return Row(
        tuple(int(sample_N[at]) for at in shown),
        tuple(one.cue.shown(int(at)) for at in shown),
        f"{_named(one)} of {all_of(names)}" if names else _named(one),
    )
