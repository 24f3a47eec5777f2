"""Loss and accuracy as sums over pictures, the confusion matrix, and how sure a share is.

The device is read here and nowhere in the step: `Sums` stays there until the epoch's end.

Axes: N pictures, K classes (rows of a confusion matrix are the truth, columns the predictions).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from pydantic import computed_field
from torch import Tensor
from torch.nn.functional import cross_entropy

from hydrofoil.data.labels import as_labels
from hydrofoil.display import notebook_html
from hydrofoil.errors import InputError
from hydrofoil.wording import by, percent, percent_range

Z_95 = 1.959963984540054  # the normal distribution's 97.5% quantile


def wilson(correct: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return the interval of correct / count, after Wilson 1927; (0, 1) where count is 0.

    Unlike share ± 2 deviations it stays within [0, 1] and is not empty at 0 or 100%. It covers
    95%, or as much as the normal distribution has within ± z.

    >>> [round(bound, 4) for bound in wilson(98, 100)]
    [0.93, 0.9945]
    """
    if count == 0:
        return 0.0, 1.0
    share, z2 = correct / count, z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z * sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # Rounding may put a bound just beyond the share that it should touch at 0 and 100%.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


@dataclass(frozen=True)
class Share:
    """A number of correct predictions among so many.

    Args:
        correct: Predictions that are the true class.
        count: All of them.
    """

    correct: int
    count: int

    @computed_field
    @property
    def accuracy(self) -> float | None:
        """Fraction of correct predictions, from 0 to 1; None where there are none."""
        return self.correct / self.count if self.count else None

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95% interval (Wilson)."""
        return wilson(self.correct, self.count)


def mean_share(parts: Iterable[tuple[int, int]]) -> tuple[float, tuple[float, float]]:
    """Return the mean of correct / count over independent parts, and its 95% interval.

    Parts without images do not count. Over the classes this is the balanced accuracy. The interval
    is the stratified Wilson interval of Yan and Su 2010 (Statistics in Biopharmaceutical Research
    2, 329-335): the mean of the parts' Wilson intervals, each of a smaller z, so that the mean has
    95%. Of one part it is Wilson's. In simulations it covers 91 to 96%.

    >>> mean_share([(9, 10), (1, 2), (0, 0)])[0]
    0.7
    """
    seen = [(correct, count) for correct, count in parts if count]
    if not seen:
        return 0.0, (0.0, 1.0)
    # Half a picture of either kind is added, so that a share of 0 or 1 has a deviation, too.
    errors = [sqrt((c + 0.5) * (n - c + 0.5) / n) / (n + 1) for c, n in seen]
    z = Z_95 * sqrt(sum(error**2 for error in errors)) / sum(errors)
    lows, highs = zip(*(wilson(c, n, z) for c, n in seen), strict=True)
    mean = sum(c / n for c, n in seen) / len(seen)
    return mean, (sum(lows) / len(seen), sum(highs) / len(seen))


@dataclass(frozen=True)
class Scores:
    """A model's loss and accuracy on a number of pictures.

    Args:
        loss: Mean cross-entropy per picture, in nats.
        correct: Pictures whose most probable class is the true one.
        count: All pictures.
    """

    loss: float
    correct: int
    count: int

    def __repr__(self) -> str:
        accuracy = percent(self.accuracy) if self.count else "–"
        of = f"{accuracy} of {self.count:,}, {percent_range(self.interval)}"
        return f"{type(self).__name__}(loss {self.loss:.4f}, {of})"

    def _repr_html_(self) -> str:
        """Show loss and accuracy in a notebook."""
        return notebook_html("scores", self)

    @computed_field
    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions, from 0 to 1."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95% interval (Wilson)."""
        return wilson(self.correct, self.count)


class Sums:
    """Loss and correct predictions, summed on the device, so that a step never waits for it.

    The loss is summed in float64 (float32 on mps, which has no wider type): 50,000 terms in float32
    would lose its last digits.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros(
            (), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device
        )
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.count = 0

    def add(self, loss: Tensor, logits_NK: Tensor, labels_N: Tensor) -> None:
        """Add a batch: its mean loss, weighted by its size, and its correct predictions."""
        self.loss += loss.detach().to(self.loss.dtype) * len(labels_N)
        self.correct += (logits_NK.detach().argmax(1) == labels_N).sum()
        self.count += len(labels_N)

    def read(self) -> Scores:
        """Return the means so far; waits for the device."""
        loss, correct, count = self.totals()
        return Scores(loss / max(count, 1), correct, count)

    def totals(self) -> tuple[float, int, int]:
        """Return summed loss, correct predictions and pictures so far; waits for the device."""
        return self.loss.item(), int(self.correct.item()), self.count

    def set_totals(self, loss: float, correct: int, count: int) -> None:
        """Continue from what `totals` returned, bit-identically."""
        self.loss.fill_(loss)
        self.correct.fill_(correct)
        self.count = count


@dataclass(frozen=True)
class ClassScores:
    """A model's scores on one class; None where the denominator is 0.

    Args:
        name: The class.
        count: Pictures of this class.
        correct: Those that were predicted as this class.
        predicted: Pictures of any class that were predicted as this class.
    """

    name: str
    count: int
    correct: int
    predicted: int

    @computed_field
    @property
    def recall(self) -> float | None:
        """Fraction of the class's pictures that were predicted correctly: its accuracy."""
        return self.correct / self.count if self.count else None

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """The recall's 95% interval (Wilson)."""
        return wilson(self.correct, self.count)

    @computed_field
    @property
    def precision(self) -> float | None:
        """Fraction of the predictions of this class that were correct."""
        return self.correct / self.predicted if self.predicted else None

    @computed_field
    @property
    def precision_interval(self) -> tuple[float, float]:
        """The precision's 95% interval (Wilson)."""
        return wilson(self.correct, self.predicted)

    @computed_field
    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        both = self.count + self.predicted
        return 2 * self.correct / both if both else None

    @computed_field
    @property
    def f1_interval(self) -> tuple[float, float]:
        """The 95% interval of F1, which is not a proportion itself.

        F1 = 2 J / (1 + J) rises with J, the correct ones among all pictures that are of the class
        or were predicted as it: a proportion, whose Wilson bounds are carried over (Lam, Gopal and
        Qian 2023, arXiv:2309.14621, the indirect interval).
        """
        low, high = wilson(self.correct, self.count + self.predicted - self.correct)
        return 2 * low / (1 + low), 2 * high / (1 + high)


@dataclass(frozen=True)
class ByClass:
    """Predictions counted by class, in the dataset's order.

    Args:
        correct: Images of each class that were predicted as it.
        predicted: Images that were predicted as each class.
    """

    correct: tuple[int, ...]
    predicted: tuple[int, ...]


@dataclass(frozen=True)
class Average:
    """Scores averaged over classes.

    Args:
        precision: The mean precision.
        recall: The mean recall.
        f1: The mean F1.
    """

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Averages:
    """Scores averaged over classes in two ways, as scikit-learn does.

    Args:
        macro: Each class counts alike.
        weighted: Each class counts by its pictures.
    """

    macro: Average
    weighted: Average


@dataclass(frozen=True, repr=False)
class Metrics(Scores):
    """Scores with the confusion matrix they come from.

    Args:
        confusion: Row i, column k: pictures of class i that were predicted as class k.
        correct_in_top_5: Pictures whose class is among the five most probable; None for ten classes
            or fewer, of which any five would be half.
    """

    confusion: tuple[tuple[int, ...], ...]
    correct_in_top_5: int | None = None

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}; balanced {percent(self.balanced_accuracy)})"

    @computed_field
    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have pictures, from 0 to 1."""
        return mean_share((row[i], sum(row)) for i, row in enumerate(self.confusion))[0]

    @property
    def balanced_interval(self) -> tuple[float, float]:
        """The balanced accuracy's 95% interval: see `mean_share`."""
        return mean_share((row[i], sum(row)) for i, row in enumerate(self.confusion))[1]

    def per_class(self, classes: Sequence[str]) -> list[ClassScores]:
        """Return the scores of each class, in the set's order."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        return [
            ClassScores(name, sum(row), row[i], predicted[i])
            for i, (name, row) in enumerate(zip(classes, self.confusion, strict=True))
        ]

    def by_class(self) -> ByClass:
        """Return the correct predictions of each class, and all predictions of it."""
        correct = tuple(row[i] for i, row in enumerate(self.confusion))
        return ByClass(correct, tuple(map(sum, zip(*self.confusion, strict=True))))

    def averages(self) -> Averages:
        """Return precision, recall and F1 averaged over classes, as scikit-learn does.

        Over classes that have pictures or predictions; an undefined score counts as 0.
        """
        seen = [
            one for one in self.per_class([""] * len(self.confusion)) if one.count or one.predicted
        ]

        def average(weights: Sequence[int]) -> Average:
            pairs, total = list(zip(weights, seen, strict=True)), sum(weights)
            return Average(
                precision=sum(w * (one.precision or 0.0) for w, one in pairs) / total,
                recall=sum(w * (one.recall or 0.0) for w, one in pairs) / total,
                f1=sum(w * (one.f1 or 0.0) for w, one in pairs) / total,
            )

        return Averages(average([1] * len(seen)), average([one.count for one in seen]))

    def confused(self, most: int = 10) -> list[tuple[int, int]]:
        """Return the pairs of classes (i < k) that are confused with each other most often."""
        classes = range(len(self.confusion))
        pairs = [(i, k) for i in classes for k in classes if i < k and self.mixed_up(i, k)]
        return sorted(pairs, key=lambda pair: -self.mixed_up(*pair))[:most]

    def mixed_up(self, i: int, k: int) -> int:
        """Return how many pictures of either class were predicted as the other."""
        return self.confusion[i][k] + self.confusion[k][i]


def wide(logits_NK: Tensor) -> Tensor:
    """Return the same logits in float64 (float32 on mps, which has no wider type)."""
    return logits_NK.to(torch.float32 if logits_NK.device.type == "mps" else torch.float64)


def picture_losses(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return each picture's cross-entropy, in float64."""
    return cross_entropy(wide(logits_NK), labels_N, reduction="none")


def probabilities(logits_NK: Tensor) -> Tensor:
    """Return each picture's probability of each class, in float64."""
    return wide(logits_NK).softmax(1)


def measure(logits: Any, labels: Any) -> Metrics:
    """Return every metric of a pass from its logits.

    Args:
        logits: A row of K for each picture: a tensor, an array or lists.
        labels: The true class of each, by number.

    Raises:
        InputError: There are no pictures, or not as many labels as logits; or no logits.

    >>> measure(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])).confusion
    ((1, 0), (1, 0))
    """
    logits_NK = logits if isinstance(logits, Tensor) else torch.as_tensor(np.asarray(logits))
    if logits_NK.ndim != 2 or not logits_NK.is_floating_point():
        raise InputError(
            f"logits of {logits_NK.dtype} {by(logits_NK.shape)}: expected float N×K, "
            "a row for each image.\nhf.answer(model, pictures, split.valid).logits_NK has them."
        )
    if not len(logits_NK) or len(labels) != len(logits_NK):
        raise InputError(
            f"{len(logits_NK)} logits for {len(labels)} labels: expected as many, and one at least."
        )
    labels_N, _ = as_labels(labels, len(logits_NK), range(logits_NK.shape[1]))
    labels_N = labels_N.to(logits_NK.device)
    classes = logits_NK.shape[1]
    cells = torch.bincount(labels_N * classes + logits_NK.argmax(1), minlength=classes**2)
    confusion_KK = cells.view(classes, classes).tolist()
    correct_in_top_5 = None
    if classes > 10:
        five_N5 = logits_NK.topk(5, dim=1).indices
        correct_in_top_5 = int((five_N5 == labels_N[:, None]).any(1).sum().item())
    return Metrics(
        loss=picture_losses(logits_NK, labels_N).mean().item(),
        correct=sum(confusion_KK[i][i] for i in range(classes)),
        count=len(labels_N),
        confusion=tuple(tuple(row) for row in confusion_KK),
        correct_in_top_5=correct_in_top_5,
    )
