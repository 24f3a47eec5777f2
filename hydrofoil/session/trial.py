"""Trains one trial of a search: from its beginning, or from its last checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydrofoil.errors import HydrofoilError
from hydrofoil.observe.observer import Observer, Start
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.folder import Run
from hydrofoil.session.data import read_pictures
from hydrofoil.session.resume import resume
from hydrofoil.session.train import train
from hydrofoil.train.guard import DivergedError
from hydrofoil.train.loop import Epoch
from hydrofoil.tune.result import Goal, Trial
from hydrofoil.tune.space import with_values
from hydrofoil.tune.study import Claim


class PrunedError(Exception):
    """A trial stops: others were better after as many epochs."""


class ImpossibleError(Exception):
    """A trial cannot begin: its values do not fit the images or the network."""


def train_trial(claim: Claim, **given: Any) -> Trial:
    """Train a trial to its end, from its last checkpoint if it has one, and return it.

    Args:
        claim: The trial.
        given: For `train` and `resume`: observers, model, pictures, device, data_root, watcher,
            command.

    Raises:
        HydrofoilError: It failed for another reason than its values.
        Stopped: A signal came; the trial can be claimed again.
    """
    claim.begin()
    try:
        _to_its_end(claim, given)
    except HydrofoilError as error:
        raise HydrofoilError(f"trial {claim.number + 1}: {error}") from error
    finally:
        claim.end()
    return claim.trial()


def _to_its_end(claim: Claim, given: Mapping[str, Any]) -> None:
    decided = claim.frozen.user_attrs.get("outcome")  # by a process that was then killed
    try:
        recipe = with_values(claim.study.plan.recipe, claim.values)
    except HydrofoilError as error:
        return claim.finish("impossible", note=str(error))
    try:
        if decided not in ("pruned", "diverged"):
            _continue(claim, recipe, given)
    except PrunedError:
        decided = "pruned"
    except ImpossibleError as error:
        return claim.finish("impossible", note=str(error))
    except DivergedError as error:
        return claim.finish("diverged", figures=_figures(claim), note=str(error))
    figures = _figures(claim)
    claim.finish(decided or "complete", value=figures.get("value"), figures=figures)


def _continue(claim: Claim, recipe: Recipe, given: Mapping[str, Any]) -> None:
    """Train what is missing of a trial.

    Raises:
        PrunedError: It is not worth more epochs.
        ImpossibleError: Its values do not fit the images or the network.
        DivergedError: A loss was not finite.
    """
    goal = claim.study.plan.goal
    options: dict[str, Any] = {**given, "observers": [*given["observers"], _Judge(claim, goal)]}
    command = options.pop("command")
    if not (claim.path / "recipe.toml").is_file():
        _begin(claim, recipe, command, options)
        return
    _report(claim, goal, Run.open(claim.path).epochs())
    resume(claim.path, **options)  # also where all epochs are done, but not what comes after them


def _begin(claim: Claim, recipe: Recipe, command: Sequence[str], options: dict[str, Any]) -> None:
    """Train a trial from its beginning.

    Raises:
        HydrofoilError: Its images cannot be read.
        ImpossibleError: Its values do not fit the images or the network.
        DivergedError: A loss was not finite.
    """
    if options["pictures"] is None:  # they depend on the values
        images, _ = read_pictures(recipe, options["data_root"], None, options["watcher"])
        options = {**options, "pictures": images}
    try:
        train(recipe, run=claim.path, command=command, **options)
    except HydrofoilError as error:
        if (claim.path / "recipe.toml").is_file():
            raise
        raise ImpossibleError(str(error)) from error


def _figures(claim: Claim) -> dict[str, Any]:
    """Return the figures of a trial's run, for the study."""
    goal = claim.study.plan.goal
    epochs = Run.open(claim.path).epochs()
    scores = goal.scores(epochs)
    if scores is None:
        return {}
    return {
        "epochs": len(epochs),
        "value": goal.value(scores),
        "loss": scores.loss,
        "accuracy": scores.accuracy,
    }


def _report(claim: Claim, goal: Goal, epochs: Sequence[Epoch]) -> None:
    """Report the epochs of an earlier session that the study has not seen."""
    for number in range(1, len(epochs) + 1):
        if scores := goal.scores(epochs[:number]):
            claim.report(number, goal.value(scores))


class _Judge(Observer):
    """Reports each epoch of a trial, and stops the trial if others were better by then.

    Args:
        claim: The trial.
        goal: The figure by which it is judged.
    """

    def __init__(self, claim: Claim, goal: Goal) -> None:
        self.claim, self.goal, self.epochs = claim, goal, 0
        self.value: float | None = None  # of the weights that would be selected now

    def prepared(self, start: Start) -> None:
        """Continue with what earlier sessions measured.

        Raises:
            PrunedError: It was killed before it was stopped.
        """
        self.epochs = start.run.recipe.train.epochs
        before = self.goal.scores(start.run.epochs()[: start.state.epoch])
        self.value = before and self.goal.value(before)
        if before and not start.state.step and start.state.epoch < self.epochs:
            self._check()

    def epoch(self, epoch: Epoch) -> None:
        """Report the figure of the best epoch so far.

        Raises:
            PrunedError: Others were better after as many epochs.
        """
        if epoch.best and epoch.selected:
            self.value = self.goal.value(epoch.selected)
        if self.value is None:
            return
        self.claim.report(epoch.number, self.value)
        if epoch.number < self.epochs:
            self._check()

    def _check(self) -> None:
        if self.claim.is_bad():
            raise PrunedError
