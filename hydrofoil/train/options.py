"""What a training step does beside model, optimizer and images: one value for every executor.

Axes: N images, K classes.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.balance import class_weights


@dataclass(frozen=True, eq=False)
class StepOptions:
    """How a step computes its loss.

    Args:
        label_smoothing: The share of a label that is spread over all classes (Szegedy et al. 2016).
        class_weights_K: Of the loss, as torch's cross-entropy takes them; default: none.
    """

    label_smoothing: float = 0.0
    class_weights_K: Tensor | None = None

    @property
    def weighted(self) -> bool:
        """Whether the loss has class weights."""
        return self.class_weights_K is not None

    @property
    def native_problem(self) -> str:
        """Why the generated code cannot take such steps; empty: it can."""
        return ""

    def for_native(self) -> dict[str, Any]:
        """Return the arguments of `Native` that say the same."""
        return {"label_smoothing": self.label_smoothing, "class_weights_K": self.class_weights_K}


def options_of(recipe: Recipe, labels_N: Tensor, classes: int) -> StepOptions:
    """Return what a recipe says of its steps.

    Args:
        recipe: The settings.
        labels_N: Of the training images.
        classes: The model's classes, K.
    """
    weighted = recipe.train.balance == "loss"
    return StepOptions(
        label_smoothing=recipe.train.label_smoothing,
        class_weights_K=class_weights(labels_N, classes) if weighted else None,
    )
