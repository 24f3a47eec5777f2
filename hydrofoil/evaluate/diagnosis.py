"""What learning curves show, from the log alone: each finding a sentence with its figures.

The rules and their thresholds are described in docs/diagnosis.md, with the trainings that they were
held against. They need no weights and no images: an epoch's losses, counts and predicted classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import log, sqrt
from statistics import mean, median
from typing import Any, Literal

from hydrofoil.evaluate.metrics import Scores, mean_share, wilson
from hydrofoil.evaluate.result import Epoch
from hydrofoil.recipe.schema import Recipe
from hydrofoil.wording import isolated, percent, plural

Kind = Literal[
    "diverging", "learning rate too high", "learning rate too low", "not learning",
    "class never predicted", "overfitting", "underfitting", "plateau", "best epoch early",
    "validation too small", "classes learned late",
]  # fmt: skip
GAP = 0.03  # accuracy: a smaller gap between training and validation is no finding
ROOM = 0.04  # of errors: where fewer are left, a loss that still falls is no finding
LEFT = 0.10  # of errors: where fewer are left, a level curve is success and no plateau
EXCESS = 0.003  # nats above the loss at chance level: steps that are too large cost as much
FEW = 8  # epochs: with fewer, a loss that still falls has not had time to fall further
VAGUE = 0.05  # half an interval of the validation accuracy: beyond it, it decides little


@dataclass(frozen=True)
class Finding:
    """One thing that the curves show.

    Args:
        kind: What it is called.
        text: A sentence or two, with the figures that it rests on.
        advice: What usually helps, with the fields to set.
    """

    kind: Kind
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind.capitalize()}: {self.text} {self.advice}".rstrip()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON's own types."""
        return asdict(self)


def diagnose(
    epochs: Sequence[Epoch],
    recipe: Recipe,
    counts: Mapping[str, Sequence[int]] | None = None,
    classes: Sequence[str] = (),
    not_finite: tuple[int, int] | None = None,
) -> list[Finding]:
    """Return what a training's curves show, the most serious first; nothing for a healthy one.

    Args:
        epochs: The epochs, as logged.
        recipe: Names the fields that advice is about.
        counts: Images of each class in "train" and "valid", as the log has them.
        classes: The names of the classes.
        not_finite: Epoch and step at which the loss was not finite, if that ended the training.
    """
    if not_finite:
        at = f"the loss was not finite at step {not_finite[1]:,} of epoch {not_finite[0]}."
        return [Finding("diverging", at, _smaller_steps(recipe))]
    if not epochs:
        return []
    curves = Curves(epochs, recipe, counts or {}, classes)
    if first := _too_small(curves) or _too_large(curves) or _at_chance(curves):
        return first
    never, typical = _never_predicted(curves)
    found = _overfitting(curves) or _underfitting(curves) or ([] if never else _plateau(curves))
    # Among classes that are well recognized it is the first thing to know, and makes a gap by
    # itself; in a network that is poor as yet it follows from that.
    found = [*never, *found] if typical >= 0.9 else [*(found or _plateau(curves)), *never]
    return [*found, *_best_early(curves), *_small_validation(curves), *_late(curves)]


class Curves:
    """A training's curves, and what the rules ask of them.

    Args:
        epochs: As logged, one at least.
        recipe: Of the training.
        counts: Images of each class in "train" and "valid".
        classes: Their names.
    """

    def __init__(
        self,
        epochs: Sequence[Epoch],
        recipe: Recipe,
        counts: Mapping[str, Sequence[int]],
        classes: Sequence[str],
    ) -> None:
        self.epochs, self.recipe, self.last = epochs, recipe, epochs[-1]
        self.train = [epoch.train.loss for epoch in epochs]
        self.valid = [epoch.valid.loss for epoch in epochs if epoch.valid]
        if len(self.valid) < len(epochs):
            self.valid = []
        self.third = max(1, len(epochs) // 3)
        self.held_out = counts.get("valid") or counts.get("train") or ()
        self.classes = classes or [str(number) for number in range(len(self.held_out))]
        total = sum(self.held_out)
        shares = [count / total for count in self.held_out if count]
        self.majority = max(shares, default=0.0)
        # Knowing only how frequent each class is costs the entropy of those shares.
        trained = [count for count in counts.get("train", ()) if count]
        if recipe.train.balance != "none":  # to a balanced training, all are equally frequent
            trained = [1] * len(trained)
        self.chance = -sum(n / sum(trained) * log(n / sum(trained)) for n in trained)

    @property
    def judged(self) -> Scores:
        """The last epoch's validation, or its training where there is none."""
        return self.last.valid or self.last.train

    @property
    def recalls_above_chance(self) -> bool:
        """Whether the mean recall of a balanced training is above that of one constant answer."""
        found, balanced = self.last.valid_by_class, self.recipe.train.balance != "none"
        if not balanced or not found or len(found.correct) != len(self.held_out):
            return False
        counted = zip(found.correct, self.held_out, strict=True)
        return mean_share(counted)[1][0] > 1 / sum(count > 0 for count in self.held_out)

    @property
    def name(self) -> str:
        """What `judged` is measured on."""
        kind = "validation" if self.last.valid else "training"
        return f"{self.judged.count:,} {kind} images"

    def late(self, losses: Sequence[float]) -> float:
        """Return the mean of the last third of a curve."""
        return mean(losses[-self.third :])

    def before(self, losses: Sequence[float]) -> float:
        """Return the mean of the third before the last; of the first epoch if too few."""
        return mean(losses[-2 * self.third : -self.third] or losses[:1])

    def fall(self, losses: Sequence[float]) -> float:
        """Return by which fraction a curve falls from the third before the last to the last."""
        before = self.before(losses)
        return (before - self.late(losses)) / before if before > 0 else 0.0


def noise(losses: Sequence[float]) -> float:
    """Return the standard deviation of a curve's noise, from its second differences (no trend).

    Those of independent noise have √6 times its standard deviation; the median magnitude of a
    normal distribution is 0.6745 standard deviations.

    >>> noise([3.0, 2.0, 1.0, 0.0])
    0.0
    """
    curved = [abs(a - 2 * b + c) for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    return median(curved) / (0.6745 * sqrt(6)) if curved else 0.0


def difference(more: Scores, less: Scores) -> tuple[float, float, float]:
    """Return a difference of two accuracies and its 95% interval.

    Newcombe's hybrid of two Wilson intervals (1998, method 10).
    """
    p, q = more.accuracy, less.accuracy
    (low_p, high_p), (low_q, high_q) = more.interval, less.interval
    gap = p - q
    return (
        gap,
        gap - sqrt((p - low_p) ** 2 + (high_q - q) ** 2),
        gap + sqrt((high_p - p) ** 2 + (q - low_q) ** 2),
    )


def _too_large(curves: Curves) -> list[Finding]:
    """Report steps that are too large: the loss rises, stays above chance, or swings."""
    losses, end = curves.train, curves.last.number
    low = min(range(len(losses)), key=losses.__getitem__)
    late = mean(losses[-min(3, len(losses)) :]) if low < len(losses) - 3 else losses[-1]
    if late >= max(1.1 * losses[low], losses[low] + 0.1):  # near zero, losses double by chance
        text = (
            f"the training loss rises from {losses[low]:.3f} in epoch {curves.epochs[low].number} "
            f"to {losses[-1]:.3f} in epoch {end}."
        )
        return [Finding("diverging", text, _smaller_steps(curves.recipe))]
    half = losses[len(losses) // 2 :]
    above = mean(half) - curves.chance
    lost = above > EXCESS if len(losses) > 2 else above > 0.1
    if curves.chance and lost and curves.judged.interval[0] <= curves.majority:
        text = (
            f"the training loss stays at {mean(half):.3f}, above the {curves.chance:.3f} of "
            f"chance level; accuracy {percent(curves.judged.accuracy)} on {curves.name}."
        )
        return [Finding("learning rate too high", text, _smaller_steps(curves.recipe))]
    level = curves.late(losses)
    if len(losses) < 5 or level < 0.15 * curves.chance or curves.fall(losses) > 0.03:
        return []
    rising = level > 1.03 * min(losses[: -curves.third])
    if not rising and noise(losses) < 0.04 * level:
        return []
    text = (
        f"the training loss no longer falls, and swings between {min(losses[-len(half) :]):.3f} "
        f"and {max(losses[-len(half) :]):.3f} in the last {len(half)} epochs; accuracy "
        f"{percent(curves.judged.accuracy)} on {curves.name}."
    )
    return [Finding("learning rate too high", text, _smaller_steps(curves.recipe))]


def _too_small(curves: Curves) -> list[Finding]:
    """Report a loss that falls slowly and evenly to the end."""
    losses = curves.valid or curves.train  # validation is free of the noise of batches
    if len(losses) < FEW or losses[-1] < 0.55 * losses[0]:
        return []
    middle = len(losses) // 2
    first, second = losses[0] - losses[middle], losses[middle] - losses[-1]
    falling = sum(after < before for before, after in pairwise(losses))
    if second <= 0 or second < 0.5 * first or falling < 0.85 * (len(losses) - 1):
        return []
    which = "validation" if curves.valid else "training"
    text = (
        f"the {which} loss falls slowly and evenly, from {losses[0]:.4f} to {losses[-1]:.4f} in "
        f"{len(losses)} epochs; accuracy {percent(curves.judged.accuracy)} on {curves.name}."
    )
    rate = curves.recipe.optimizer.lr
    return [Finding("learning rate too low", text, f"Try optimizer.lr={10 * rate:.3g}.")]


def _at_chance(curves: Curves) -> list[Finding]:
    """Report an accuracy that always answering the largest class would reach."""
    scores = curves.judged
    if len(curves.held_out) < 2 or scores.interval[0] > curves.majority:
        return []
    if curves.recalls_above_chance:  # such as a balanced training, which answers rare classes too
        return []
    if len(curves.epochs) > 1 and difference(curves.last.train, scores)[1] >= GAP:
        return []  # it learns the training images by heart, and that is said
    largest = curves.classes[max(range(len(curves.held_out)), key=curves.held_out.__getitem__)]
    low, high = scores.interval
    text = (
        f"accuracy {percent(scores.accuracy)} on {curves.name} (95% interval {100 * low:.1f}–"
        f"{percent(high, 1)}) is no better than always answering {isolated(largest)}: "
        f"{percent(curves.majority)}. The training loss is {curves.train[-1]:.3f}; chance "
        f"level is {curves.chance:.3f}."
    )
    more = "train longer, " if len(curves.epochs) < 6 else ""
    advice = (
        f"Check that images and labels belong together (hydrofoil show), {more}or try another "
        f"optimizer.lr than {curves.recipe.optimizer.lr:g}."
    )
    return [Finding("not learning", text, advice)]


def _overfitting(curves: Curves) -> list[Finding]:
    """Report a gap between training and validation, or a validation loss that rises."""
    train, valid = curves.last.train, curves.last.valid
    if valid is None or len(curves.epochs) < 2:
        return []
    gap, low, high = difference(train, valid)
    rise = curves.late(curves.valid) - _lowest_third(curves.valid, curves.third)
    error = 3 * noise(curves.valid) * sqrt(2 / curves.third)
    rises = rise > max(error, 0.2 * _lowest_third(curves.valid, curves.third)) and low > 0.01
    if low < GAP and not rises:
        return []
    text = (
        f"training accuracy {percent(train.accuracy)} against {percent(valid.accuracy)} on "
        f"{valid.count:,} validation images, a gap of {100 * gap:.1f} points (95% interval "
        f"{100 * low:.1f}–{100 * high:.1f}); the loss is {train.loss:.3f} against {valid.loss:.3f}."
    )
    model, optimizer = curves.recipe.model, curves.recipe.optimizer
    ways: list[str] = []
    if hasattr(model, "dropout"):
        dropout = getattr(model, "dropout", 0.0)
        ways.append(f"more dropout (model.dropout={min(0.6, round(dropout + 0.2, 2)):g})")
    decay = getattr(optimizer, "weight_decay", 0.0) or 1e-4
    ways.append(f"weight decay (optimizer.weight_decay={5 * decay:g})")
    advice = f"What usually helps: more images, augmentation, {', '.join(ways)}, a smaller network."
    return [Finding("overfitting", text, advice)]


def _lowest_third(losses: Sequence[float], third: int) -> float:
    """Return the lowest mean over so many epochs in a row."""
    return min(mean(losses[at : at + third]) for at in range(len(losses) - third + 1))


def _underfitting(curves: Curves) -> list[Finding]:
    """Report losses that both still fall at the end, where many errors are left."""
    if len(curves.epochs) < 2 or 1 - curves.judged.accuracy < ROOM:
        return []
    losses = [curves.train, *([curves.valid] if curves.valid else [])]
    start = curves.epochs[-1 - curves.third]
    before = start.valid or start.train
    gain, low, _ = difference(curves.last.train, start.train)
    if not _still_falls(losses, gain, low):
        return []
    scores = curves.judged
    text = (
        f"both losses still fall: from epoch {start.number} to {curves.last.number} training goes "
        f"from {start.train.loss:.3f} to {curves.last.train.loss:.3f}"
    )
    if curves.valid:
        text += f" and validation from {before.loss:.3f} to {scores.loss:.3f}"
    else:
        text = text.replace("both losses still fall", "the training loss still falls")
    text += f"; accuracy {percent(scores.accuracy)} on {curves.name}."
    epochs = 2 * curves.recipe.train.epochs
    advice = f"Train longer (train.epochs={epochs}), or with a larger learning rate."
    return [Finding("underfitting", text, advice)]


def _still_falls(losses: Sequence[Sequence[float]], gain: float, low: float) -> bool:
    """Return whether curves still fall, by so much that more epochs are worth their time.

    Args:
        losses: Of training, and of validation where there is one.
        gain: Of the training accuracy in the last third.
        low: The lower bound of its interval.
    """
    falls = [all(after < before for before, after in pairwise(one)) for one in losses]
    if 3 <= len(losses[0]) < FEW and all(falls):
        return True
    third = max(1, len(losses[0]) // 3)
    enough = [mean(one[-third:]) < 0.95 * mean(one[-2 * third : -third]) for one in losses]
    rises = [one[-1] >= one[-1 - third] for one in losses]
    return not any(rises) and low > 0 and gain >= 0.01 and (all(enough) or low >= GAP)


def _plateau(curves: Curves) -> list[Finding]:
    """Report losses that are level although many errors are left."""
    scores = curves.judged
    if len(curves.epochs) < 5 or scores.interval[1] > 1 - LEFT:
        return []
    losses = curves.valid or curves.train
    text = (
        f"the {'validation' if curves.valid else 'training'} loss has leveled off: "
        f"{curves.before(losses):.3f}, then {curves.late(losses):.3f} in the last "
        f"{plural(curves.third, 'epoch')}; accuracy {percent(scores.accuracy)} on {curves.name}."
    )
    advice = (
        "More epochs alone will not help: try a larger network, a smaller learning rate at the end "
        "(schedule=cosine), or look for wrong labels."
    )
    return [Finding("plateau", text, advice)]


def _best_early(curves: Curves) -> list[Finding]:
    """Report that the best validation lies long before the end."""
    if len(curves.valid) < 6:
        return []
    low = min(range(len(curves.valid)), key=curves.valid.__getitem__)
    number, end = curves.epochs[low].number, curves.last.number
    if number > end / 2 or curves.late(curves.valid) < 1.1 * curves.valid[low]:
        return []
    rise = curves.late(curves.valid) - curves.valid[low]
    if rise < max(3 * noise(curves.valid), 0.01):  # near zero, losses double by chance
        return []
    text = (
        f"the validation loss is lowest at epoch {number} of {end}, {curves.valid[low]:.3f}, and "
        f"{curves.valid[-1]:.3f} at the end."
    )
    advice = "The best weights are kept"
    if curves.recipe.train.select == "last":
        advice = "Keep the best weights (train.select=valid.loss)"
    enough = number + max(2, number // 4)
    return [Finding("best epoch early", text, f"{advice}; train.epochs={enough} is enough.")]


def _small_validation(curves: Curves) -> list[Finding]:
    """Report a validation split whose accuracy is too uncertain to choose by."""
    valid = curves.last.valid
    if valid is None:
        return []
    low, high = valid.interval
    half, even = (high - low) / 2, wilson(valid.count // 2, valid.count)
    if half <= VAGUE and (even[1] - even[0]) / 2 <= 2 * VAGUE:
        return []
    text = (
        f"{percent(valid.accuracy)} of {valid.count:,} images may be anything from "
        f"{100 * low:.1f} to {percent(high, 1)} (95% interval), which "
        "is too wide to rank epochs or settings by."
    )
    advice = "Hold out more images (data.valid), or compare over several seeds (hydrofoil compare)."
    return [Finding("validation too small", text, advice)]


def _never_predicted(curves: Curves) -> tuple[list[Finding], float]:
    """Report classes that are predicted for no validation image; and the median recall of all."""
    found = curves.last.valid_by_class
    if found is None or len(found.predicted) != len(curves.held_out):
        return [], 0.0
    recalls = [c / count for c, count in zip(found.correct, curves.held_out, strict=True) if count]
    typical = median(recalls)
    never = [
        f"{isolated(name)} ({count:,})"
        for name, count, times in zip(curves.classes, curves.held_out, found.predicted, strict=True)
        if count >= 5 and not times
    ]
    if not never or typical < 0.5:  # few classes are recognized at all: other findings say more
        return [], typical
    named = ", ".join(never[:8]) + (f" and {len(never) - 8} more" if len(never) > 8 else "")
    text = f"no validation image is predicted as {named}."
    advice = "Check its training images and how many there are (hydrofoil show), or train longer."
    return [Finding("class never predicted", text, advice)], typical


def _late(curves: Curves) -> list[Finding]:
    """Report classes that are learned only in the second half, when the others long are."""
    counts, found = curves.held_out, [epoch.valid_by_class for epoch in curves.epochs]
    right = [one.correct for one in found if one]
    if not 6 <= len(found) == len(right):
        return []
    seen = [k for k, count in enumerate(counts) if count >= 10]
    recalls = [[correct[k] / counts[k] for k in seen] for correct in right]
    half = len(recalls) // 2
    late: list[str] = []
    for place, k in enumerate(seen):
        when = next((at for at, one in enumerate(recalls) if one[place] >= 0.5), None)
        others = median(one for at, one in enumerate(recalls[half - 1]) if at != place)
        if when is not None and when >= half and others >= 0.8 and recalls[-1][place] >= 0.5:
            late.append(f"{isolated(curves.classes[k])} from epoch {curves.epochs[when].number}")
    if not late:
        return []
    text = f"recall reaches 50% only late in training: {', '.join(late)}."
    return [Finding("classes learned late", text, "Check how many training images they have.")]


def _smaller_steps(recipe: Recipe) -> str:
    return f"The steps are probably too large: try optimizer.lr={recipe.optimizer.lr / 10:.3g}."
