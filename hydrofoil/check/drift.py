"""Whether test and training images come from the same distribution.

A linear classifier tells them apart, from what a glance shows: a thumbnail of 4×4, brightness,
contrast, sharpness, color. Its AUC is measured out of fold; 0.5 means that it cannot, 1 that it
always can. A test accuracy then says how the network does on images unlike those it was trained on,
which may be what the user wants, or a fault of the split.

Both parts enter with equally many images of each class, so that different class frequencies are no
difference, and images that are in both parts are left out. Images of one group stay in one fold: to
recognize a patient is not to recognize a part.

A lower end of the 95% interval (DeLong and others 1988) above 0.75 is serious, above 0.6 a warning.
MNIST, whose test digits are by other writers than its training digits, has an AUC of 0.53, and
CIFAR-10 of 0.50 (n = 5,000 a part).

Axes: N images, C channels, H rows, W columns, F features.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch

from hydrofoil.check.copies import exact_groups
from hydrofoil.check.dealing import deal_folds
from hydrofoil.check.finding import Finding, Level, Row
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import PART_WORDS, Split
from hydrofoil.data.statistics import luminance
from hydrofoil.evaluate.metrics import Z_95
from hydrofoil.randomness import key

SAMPLE = 5000  # images of each part
LEAST = 40
FOLDS = 5
SERIOUS, NOTABLE = 0.75, 0.6  # the AUC's lower bound
THUMBNAIL = 4
CHUNK = 4096  # images compared at once
RIDGE = 0.01  # it is to see a difference of the parts, not single images
EXAMPLES = 4
Array = np.ndarray[Any, np.dtype[Any]]


def check_drift(pictures: Pictures, split: Split) -> list[Finding]:
    """Return at most one finding: how well test and training images are distinguished.

    Args:
        pictures: The images.
        split: Its parts; without test images, the validation images take their place.
    """
    part = "test" if len(split.test) else "valid"
    train_N, other_N = _matched(pictures, split.train, getattr(split, part))
    if min(len(train_N), len(other_N)) < LEAST:
        return []
    index_N = np.concatenate([train_N, other_N])
    truth_N = np.arange(len(index_N)) >= len(train_N)
    pictures_NCHW = pictures.pictures_NCHW[torch.from_numpy(index_N)].cpu().numpy()
    named, features_NF = _features(pictures_NCHW)
    group_N = None if pictures.groups_N is None else pictures.groups_N.cpu().numpy()[index_N]
    score_N = _scores(features_NF, truth_N, group_N)
    known_N = np.isfinite(score_N)
    if min(np.bincount(truth_N[known_N], minlength=2)) < LEAST:
        return []
    area, low, high = auc(score_N[known_N], truth_N[known_N])
    level: Level = "serious" if low > SERIOUS else "warning" if low > NOTABLE else "note"
    return [
        Finding(
            "drift",
            level,
            _title(part, area, level),
            _text(part, len(train_N), (low, high), level),
            _rows(index_N, score_N, truth_N, part) if level != "note" else (),
            {
                "auc": area,
                "auc_bounds": (low, high),
                "images_of_each_part": len(train_N),
                "statistics": _statistics(named, features_NF, truth_N, part),
            },
        )
    ]


def _title(part: str, area: float, level: Level) -> str:
    name = PART_WORDS[part].capitalize()
    if level == "note":
        return f"{name} and training images look alike (AUC {area:.2f})"
    return f"{name} and training images differ: a classifier tells them apart with AUC {area:.2f}"


def _text(part: str, count: int, bounds: tuple[float, float], level: Level) -> tuple[str, ...]:
    measured = (
        f"The 95% interval of the AUC is {bounds[0]:.2f} to {bounds[1]:.2f}, on {count:,} images "
        "of each part; 0.5 means no difference"
    )
    if level == "note":
        return (measured,)
    name = PART_WORDS[part]
    return (
        measured,
        f"The {name} accuracy measures performance on images unlike the training images",
        "If that is not what you want to know, draw a new split over all images",
    )


def _matched(
    pictures: Pictures, train_N: torch.Tensor, other_N: torch.Tensor
) -> tuple[Array, Array]:
    """Return indices of both parts, equally many of each class, without what both contain."""
    label_N = pictures.labels_N.cpu().numpy()
    train_at, other_at = train_N.cpu().numpy(), other_N.cpu().numpy()
    draw = np.random.default_rng(key(0, "drift"))
    share = min(1.0, SAMPLE / max(1, min(len(train_at), len(other_at))))
    chosen: list[tuple[Array, Array]] = []
    for number in range(pictures.K):
        ours, theirs = train_at[label_N[train_at] == number], other_at[label_N[other_at] == number]
        count = round(share * min(len(ours), len(theirs)))
        chosen.append((draw.permutation(ours)[:count], draw.permutation(theirs)[:count]))
    first_N = np.concatenate([one for one, _ in chosen])
    second_N = np.concatenate([one for _, one in chosen])
    held_out, trained = set(second_N.tolist()), set(train_at.tolist())
    common = [
        at
        for group in exact_groups(pictures)
        if not held_out.isdisjoint(group) and not trained.isdisjoint(group)
        for at in group
    ]
    return first_N[~np.isin(first_N, common)], second_N[~np.isin(second_N, common)]


def _features(pictures_NCHW: Array) -> tuple[dict[str, Array], Array]:
    """Return statistics of each image by name, and all features of it."""
    gray_NHW = luminance(pictures_NCHW)
    count, channels, height, width = pictures_NCHW.shape
    named = {"brightness": gray_NHW.mean((1, 2)), "contrast": gray_NHW.std((1, 2))}
    steps = [np.abs(np.diff(gray_NHW, axis=axis)).reshape(count, -1) for axis in (1, 2)]
    if min(height, width) > 1:
        named["sharpness"] = np.concatenate(steps, 1).mean(1)
    darkest_N, brightest_N = gray_NHW.min((1, 2)), gray_NHW.max((1, 2))
    named |= {"darkest pixel": darkest_N, "brightest pixel": brightest_N}
    color_NC = pictures_NCHW.mean((2, 3), dtype=np.float32)
    if channels == 3:
        for channel, name in enumerate(("red", "green", "blue")):
            named[name] = color_NC[:, channel] - named["brightness"]
        spread_NHW = pictures_NCHW.max(1).astype(np.float32) - pictures_NCHW.min(1)
        named["saturation"] = spread_NHW.mean((1, 2))
    values_NF = np.stack(list(named.values()), 1)
    thumbnail_NCHW = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(pictures_NCHW).float(), (min(THUMBNAIL, height), min(THUMBNAIL, width))
    ).numpy()
    features = [values_NF, np.log1p(np.maximum(values_NF, 0)), thumbnail_NCHW.reshape(count, -1)]
    return named, np.concatenate(features, 1).astype(np.float64)


def _scores(features_NF: Array, truth_N: Array, group_N: Array | None) -> Array:
    """Return how much each image looks like the second part, out of fold; NaN: unknown."""
    fold_N = deal_folds(truth_N, group_N, FOLDS, np.random.default_rng(key(0, "drift", 1)))
    score_N = np.full(len(truth_N), np.nan)
    for fold in range(FOLDS):
        held_N = fold_N == fold
        if held_N.any() and len(np.unique(truth_N[~held_N])) == 2:
            fit = _fit(features_NF[~held_N], truth_N[~held_N])
            score_N[held_N] = fit(features_NF[held_N])
    return score_N


def _fit(features_NF: Array, truth_N: Array) -> Callable[[Array], Array]:
    """Return a linear classifier: regularized least squares on standardized features."""
    mean_F, deviation_F = features_NF.mean(0), features_NF.std(0)
    deviation_F = np.where(deviation_F > 1e-9 * np.maximum(1, np.abs(mean_F)), deviation_F, np.inf)
    scaled_NF = (features_NF - mean_F) / deviation_F
    target_N = np.where(truth_N, 1.0, -1.0) - (2 * truth_N.mean() - 1)
    square_FF = scaled_NF.T @ scaled_NF + RIDGE * len(truth_N) * np.eye(len(mean_F))
    weight_F = np.linalg.solve(square_FF, scaled_NF.T @ target_N)

    def scores(given_NF: Array) -> Array:
        return (given_NF - mean_F) / deviation_F @ weight_F

    return scores


def auc(score_N: Array, truth_N: Array) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its 95% interval, after DeLong and others 1988.

    Args:
        score_N: The higher, the more likely positive.
        truth_N: Whether each is positive; both occur.

    >>> import numpy as np
    >>> auc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True]))[0]
    1.0
    """
    from scipy.stats import rankdata

    positive_N, negative_N = score_N[truth_N], score_N[~truth_N]
    m, n = len(positive_N), len(negative_N)
    rank_N = rankdata(np.concatenate([positive_N, negative_N]))
    # Of each positive, the share of negatives below it; of each negative, of positives above it.
    above_N = (rank_N[:m] - rankdata(positive_N)) / n
    below_N = 1 - (rank_N[m:] - rankdata(negative_N)) / m
    area = float(above_N.mean())
    variance = above_N.var(ddof=min(1, m - 1)) / m + below_N.var(ddof=min(1, n - 1)) / n
    half = Z_95 * sqrt(float(variance))
    return area, max(0.0, area - half), min(1.0, area + half)


def _statistics(
    named: dict[str, Array], features_NF: Array, truth_N: Array, part: str
) -> list[dict[str, Any]]:
    """Return the statistics that differ most, each with its means and an AUC of its own."""
    rows = [
        {
            "statistic": name,
            "train": round(float(value_N[~truth_N].mean()), 1),
            part: round(float(value_N[truth_N].mean()), 1),
            "auc_alone": auc(value_N, truth_N)[0],
        }
        for name, value_N in named.items()
    ]
    return sorted(rows, key=lambda row: -abs(float(row["auc_alone"]) - 0.5))[:5]


def _rows(index_N: Array, score_N: Array, truth_N: Array, part: str) -> tuple[Row, ...]:
    """Return the images of each part that the classifier takes for that part most surely."""
    rows: list[Row] = []
    for wanted, sign, name in ((False, 1, "training"), (True, -1, part)):
        at_N = np.flatnonzero((truth_N == wanted) & np.isfinite(score_N))
        most_N = at_N[np.argsort(sign * score_N[at_N], kind="stable")][:EXAMPLES]
        name = PART_WORDS.get(name, name)
        rows.append(Row(tuple(int(index_N[at]) for at in most_N), text=f"Typical {name} images"))
    return tuple(rows)
