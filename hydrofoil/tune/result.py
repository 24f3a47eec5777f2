"""What a search found: its trials, the winner, and what became of it on fresh seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hydrofoil.compare.verdict import Comparison, Part
from hydrofoil.display import notebook_html
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.evaluate.result import Epoch
from hydrofoil.recipe.schema import Recipe
from hydrofoil.tune.space import Space
from hydrofoil.wording import percent, plural

State = Literal["complete", "pruned", "diverged", "impossible", "running"]


@dataclass(frozen=True)
class Goal:
    """The figure by which trials are judged: that of the weights which the recipe selects.

    Args:
        select: The recipe's train.select.
    """

    select: str

    @property
    def metric(self) -> Literal["loss", "accuracy"]:
        """Which figure of the validation split it is."""
        return "accuracy" if self.select == "valid.accuracy" else "loss"

    @property
    def words(self) -> str:
        """The figure in words."""
        which = "last" if self.select == "last" else "best"
        return f"validation {self.metric} of the {which} epoch"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether a smaller or a larger figure is better, as Optuna calls it."""
        return "maximize" if self.metric == "accuracy" else "minimize"

    def scores(self, epochs: Sequence[Epoch]) -> Scores | None:
        """Return the validation scores of the selected epoch so far; None before the first."""
        return next((epoch.selected for epoch in reversed(epochs) if epoch.best), None)

    def value(self, scores: Scores) -> float:
        """Return the figure."""
        return getattr(scores, self.metric)

    def shown(self, value: float | None) -> str:
        """Return the figure as text.

        >>> Goal("valid.loss").shown(0.12345), Goal("valid.accuracy").shown(0.9876)
        ('0.1235', '98.76%')
        """
        if value is None:
            return "–"
        return percent(value) if self.metric == "accuracy" else f"{value:.4f}"


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Args:
        number: Counted from 1.
        state: How it ended. pruned: it was stopped since others were better after as many epochs;
            diverged: a loss was not finite; impossible: its values do not fit together.
        values: What was chosen, by dotted name.
        run: Its run folder.
        epochs: That it completed.
        value: The figure that the search compares; None: no epoch is complete.
        loss: Validation loss of the same epoch.
        accuracy: Its validation accuracy.
        seconds: That it took, all its sessions together.
        note: Why it is diverged or impossible.
        default: Whether its values are the recipe's own.
    """

    number: int
    state: State
    values: dict[str, Any]
    run: str
    epochs: int = 0
    value: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    seconds: float = 0.0
    note: str = ""
    default: bool = False


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Args:
        study: Its folder.
        space: What was chosen.
        goal: The figure by which trials were judged.
        trials: In the order in which they began.
        recipe: As it was given.
        winner: The recipe with the best trial's values; None: no trial is complete.
        on: The part of the split on which the winner was compared with the recipe.
        comparison: Of the recipe (A) and the winner (B) on fresh seeds; None: it was not made.
        importance: The share of the variance of the figure that each field explains, by dotted
            name; empty: too few trials.
        notes: What the user should know.
        seconds: Wall-clock time of the search.
        command: The command line; empty for a call in Python.
    """

    study: str
    space: Space
    goal: Goal
    trials: tuple[Trial, ...]
    recipe: Recipe
    winner: Recipe | None = None
    on: Part = "valid"
    comparison: Comparison | None = None
    importance: dict[str, float] = field(default_factory=dict[str, float])
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    command: str = ""

    @property
    def best(self) -> Trial | None:
        """The trial with the best figure of those that were trained to their end."""
        return best_of(self.trials, self.goal)

    @property
    def default(self) -> Trial | None:
        """The trial of the recipe's own values; None: they are not in the space."""
        return next((trial for trial in self.trials if trial.default), None)

    def counts(self) -> dict[State, int]:
        """Return how many trials ended in each state."""
        counts: dict[State, int] = {}
        for trial in self.trials:
            counts[trial.state] = counts.get(trial.state, 0) + 1
        return counts

    def __repr__(self) -> str:
        best = self.best
        found = f"best {self.goal.shown(best.value)}, trial {best.number}" if best else "none done"
        return f"Tuning({self.recipe.name}: {plural(len(self.trials), 'trial')}, {found})"

    def _repr_html_(self) -> str:
        """Show the verdict and the best trials in a notebook."""
        return notebook_html("tuning", self)

    def as_dict(self) -> dict[str, Any]:
        """Return every figure, ready for JSON."""
        best = self.best
        return {
            "study": self.study,
            "recipe": self.recipe.name,
            "space": self.space.texts,
            "metric": self.goal.words,
            "direction": self.goal.direction,
            "trials": [asdict(trial) for trial in self.trials],
            "best": best.number if best else None,
            "values": best.values if best else None,
            "importance": self.importance,
            "compared_on": self.on,
            "comparison": self.comparison.as_dict() if self.comparison else None,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def best_of(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """Return the best complete trial; of equal ones the first."""
    done = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    sign = -1 if goal.direction == "maximize" else 1
    return min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)
