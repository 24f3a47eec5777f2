"""The learning-rate range test: the loss of training steps whose rate rises from tiny to too large.

Leslie Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3.

Axes: N images, S steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.convert import as_pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.device import exact, pick_device
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.code import Network
from hydrofoil.models.layers import dropouts
from hydrofoil.recipe.schema import Recipe
from hydrofoil.session.data import find_recipe, given_overrides, own_threads, resolve_data
from hydrofoil.session.start import untrained
from hydrofoil.train.executors import Executor, threads_of
from hydrofoil.train.feed import Feed, count_steps, make_feed

BELOW, ABOVE = 1e-3, 100.0  # the range, times optimizer.lr
IMAGES = 16_000  # that the steps see: the loss of a few small batches is mostly noise
FEWEST, MOST = 400, 4000  # steps
MEMORY = 0.95  # of the running mean of losses: it remembers some 20 steps
DIVERGED = 4.0  # times the least running mean
SHARE = 0.1  # of the rate at which the loss is lowest
RULE = "a tenth of the rate at which the smoothed loss is lowest"
LEAST_STEPS = 20
FIRST = 0.1  # of the steps, in which the running mean is still noisy


@dataclass(frozen=True)
class RateSearch:
    """What a range test has found.

    Args:
        recipe: What was trained, with the executor that ran the steps.
        rates: The learning rate of each step that was taken.
        losses: Each step's mean loss; the last may not be finite.
        smoothed: Their running mean, corrected for its beginning.
        lowest: The rate at which the running mean is lowest.
        suggestion: The suggested learning rate; see `RULE`.
        diverged: The rate at which the loss was no longer finite or too high; None: it never was.
        executor: What ran the steps.
    """

    recipe: Recipe
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float
    suggestion: float
    diverged: float | None
    executor: str

    def __repr__(self) -> str:
        return f"RateSearch({len(self.rates)} steps, suggests optimizer.lr={self.suggestion:g})"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON's own types; losses that are not finite are null."""
        losses = [loss if isfinite(loss) else None for loss in self.losses]
        rest = {name: value for name, value in vars(self).items() if name != "recipe"}
        return {"recipe": self.recipe.model_dump(mode="json"), **rest, "losses": losses,
                "rule": RULE}  # fmt: skip


@own_threads()
def find_lr(
    recipe: Any,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    lowest: float | None = None,
    highest: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    pictures: Any = None,
    split: Any = None,
    model: Network | None = None,
    watcher: Watcher | None = None,
    **fields: Any,
) -> RateSearch:
    """Train an untrained network on the training split with a rising rate; nothing is saved.

    The validation and test splits are not used, except that batches come from the training split as
    the recipe draws it. The rate rises by the same factor at each step, whatever the schedule.
    Images have full size, weights are not averaged.

    Args:
        recipe: A recipe, its name or file; or images to derive one from.
        overrides: Of its fields.
        lowest: The first step's rate; default: a thousandth of the recipe's.
        highest: The last step's rate; default: 100 times the recipe's.
        steps: At most so many; it ends where the loss diverges. Default: 16,000 images' steps, at
            least 400 and at most 4,000.
        seed: The recipe's train.seed.
        device: auto, cpu, cuda, cuda:1 or mps.
        data_root: The datasets' folder.
        pictures: The images, in place of the recipe's dataset.
        split: Which of them train.
        model: A network in place of the recipe's.
        watcher: Follows a download.
        fields: Of the recipe.

    Raises:
        HydrofoilError: The rates or steps make no sense, or the loss is never finite.
    """
    named = find_recipe(
        recipe, given_overrides(find_lr, overrides, fields), seed, pictures, split, data_root,
        model, watcher,
    )  # fmt: skip
    images, place = as_pictures(named.pictures), pick_device(device)
    resolved, split, _ = resolve_data(named.recipe, images, split, named.notes, device=place)
    if steps is None:
        steps = min(max(IMAGES // resolved.train.batch_size, FEWEST), MOST)
    rates_S = _rates(resolved.optimizer.lr, lowest, highest, steps)
    plain = _without_schedule(resolved, steps, len(split.train))
    classifier, state, prepared, _ = untrained(plain, images, split, place, model)
    layers = len(dropouts(classifier.network))
    feeds = _feeds(plain, split.train, images.labels_N, layers, rates_S, place)
    with exact(place, threads_of(prepared.recipe, classifier)):
        classifier.train()
        curve = _train(prepared.executor, feeds, state.sums)
    return _search(prepared.recipe, rates_S.tolist(), curve, prepared.executor.name)


class LossCurve:
    """The losses of the steps so far, and their running mean as far as they are finite.

    >>> curve = LossCurve()
    >>> for loss in (2.0, 2.0):
    ...     curve.add(loss)
    >>> curve.smoothed, curve.has_diverged
    ([2.0, 2.0], False)
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._mean, self._least = 0.0, float("inf")

    def add(self, loss: float) -> None:
        """Add the next step's loss; the mean is corrected for its beginning, as Adam's moments."""
        self.losses.append(loss)
        if not isfinite(loss):
            return
        self._mean = MEMORY * self._mean + (1 - MEMORY) * loss
        self.smoothed.append(round(self._mean / (1 - MEMORY ** (len(self.smoothed) + 1)), 10))
        self._least = min(self._least, self.smoothed[-1])

    @property
    def has_diverged(self) -> bool:
        """Whether the last loss is not finite, or far above the lowest running mean."""
        if not isfinite(self.losses[-1]):
            return True
        enough = len(self.losses) > LEAST_STEPS // 2
        return enough and self.smoothed[-1] > DIVERGED * self._least


def _train(executor: Executor, feeds: Iterator[tuple[Feed, int]], sums: Sums) -> LossCurve:
    """Take steps until the loss diverges, and return the mean loss of each."""
    curve = LossCurve()
    before = (0.0, 0)
    for feed, step in feeds:
        executor.train_steps(feed, step, step + 1, sums)
        total, _, count = sums.totals()
        curve.add((total - before[0]) / (count - before[1]))
        before = total, count
        if curve.has_diverged:
            break
    return curve


def _rates(base: float, lowest: float | None, highest: float | None, steps: int) -> Tensor:
    """Return each step's rate, rates_S; refuse rates and steps that make no curve."""
    lowest = BELOW * base if lowest is None else lowest
    highest = ABOVE * base if highest is None else highest
    if not 0 < lowest < highest < float("inf"):
        raise HydrofoilError(
            f"rates from {lowest:g} to {highest:g}: expected numbers above 0, the smaller first."
        )
    if steps < LEAST_STEPS:
        raise HydrofoilError(f"steps = {steps}: expected at least {LEAST_STEPS}.")
    factor = (highest / lowest) ** (1 / (steps - 1))
    return lowest * factor ** torch.arange(steps, dtype=torch.float64)


def _without_schedule(recipe: Recipe, steps: int, images: int) -> Recipe:
    """Return a recipe of enough epochs, without what changes over the epochs."""
    epochs = -(-steps // count_steps(images, recipe.train.batch_size)) + 1
    changes = {"epochs": epochs, "sizes": (), "average": "none", "patience": 0}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def _feeds(
    recipe: Recipe,
    train_N: Tensor,
    labels_N: Tensor,
    layers: int,
    rates_S: Tensor,
    device: torch.device,
) -> Iterator[tuple[Feed, int]]:
    """Yield each step's feed, and its number in it, epoch after epoch."""
    done, epoch = 0, 0
    while done < len(rates_S):
        epoch += 1
        feed = make_feed(recipe, train_N, labels_N, epoch, layers)
        count = min(feed.steps, len(rates_S) - done)
        rest_S = feed.rates_S.clone()
        rest_S[:count] = rates_S[done : done + count]
        feed = replace(feed, rates_S=rest_S).to(device)
        for step in range(count):
            yield feed, step
        done += count


def _search(recipe: Recipe, rates: Sequence[float], curve: LossCurve, executor: str) -> RateSearch:
    """Return what the losses of steps say; the lowest running mean is sought among finite ones."""
    losses, smoothed = curve.losses, curve.smoothed
    if len(smoothed) < 2:
        raise HydrofoilError(
            f"the loss is {losses[-1]} at a learning rate of {rates[len(losses) - 1]:g}: "
            "expected a finite number.\nStart with a smaller rate: --lowest"
        )
    first = min(int(FIRST * len(rates)), len(smoothed) - 1)
    lowest = rates[min(range(first, len(smoothed)), key=smoothed.__getitem__)]
    used = rates[: len(losses)]
    return RateSearch(
        recipe=recipe,
        rates=tuple(used),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        lowest=lowest,
        suggestion=float(f"{SHARE * lowest:.2g}"),
        diverged=used[-1] if curve.has_diverged else None,
        executor=executor,
    )
