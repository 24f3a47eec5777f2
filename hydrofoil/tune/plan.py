"""What is searched, and when a search ends."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.schema import Recipe
from hydrofoil.tune.result import Goal
from hydrofoil.tune.space import Space

TRIALS, SEEDS = 30, 5
FEWEST_SEEDS = 2  # one seed says nothing about a recipe


@dataclass(frozen=True)
class Plan:
    """What every process that works at a study has to agree on.

    Args:
        recipe: Whose fields are chosen; its train.seed also seeds the search.
        space: What may be chosen.
        goal: The figure by which trials are judged.
        prune: Whether bad trials are stopped early.
    """

    recipe: Recipe
    space: Space
    goal: Goal
    prune: bool = True

    @property
    def seed(self) -> int:
        """The seed of the search."""
        return self.recipe.train.seed

    @property
    def epochs(self) -> int:
        """The epochs of a complete trial; the most, where they are chosen."""
        dimension = next((d for d in self.space.dimensions if d.field == "train.epochs"), None)
        return max([self.recipe.train.epochs, *(dimension.samples() if dimension else ())])

    def document(self) -> dict[str, Any]:
        """Return the plan as study.json has it."""
        fields = self.recipe.affecting("weights", "results")
        return {"recipe": fields, "space": self.space.texts, "prune": self.prune}

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of the plan."""
        text = json.dumps(self.document(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def folder(self) -> Path:
        """Return the folder of the study where none is given."""
        return Path("runs/tune") / f"{self.recipe.name}-{self.digest()[:8]}"


@dataclass(frozen=True)
class Limits:
    """When a search ends.

    Args:
        trials: This many have begun, in all processes.
        budget: Seconds for search and comparison together; None: any number.
        seeds: Fresh seeds of the comparison that follows; 0: none.
    """

    trials: int | None
    budget: float | None
    seeds: int

    @classmethod
    def of(cls, trials: int | None, budget: float | None, seeds: int) -> "Limits":
        """Return limits, checked; without a budget and a number, 30 trials.

        Raises:
            HydrofoilError: A number is too small.
        """
        for name, value, least in (("trials", trials, 1), ("seeds", seeds, 0)):
            if value is not None and (isinstance(value, bool) or value < least):
                raise HydrofoilError(f"{name} = {value}: expected at least {least}.")
        if seeds == 1:
            raise HydrofoilError(
                "seeds = 1: expected at least 2: one seed says nothing about a recipe.\n"
                "To leave out the comparison, set it to 0."
            )
        if budget is not None and not budget > 0:
            raise HydrofoilError(f"budget = {budget}: expected seconds, above 0.")
        return cls(TRIALS if trials is None and budget is None else trials, budget, seeds)
