"""What a training step does beside model, optimizer and images: one value for every executor.

Axes: N images, K classes.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.balance import class_weights


@dataclass(frozen=True, eq=False)
class StepOptions:
    """How a step computes its loss.

    Args:
        label_smoothing: The share of a label that is spread over all classes (Szegedy et al. 2016).
        class_weights_K: Of the loss, as torch's cross-entropy takes them; default: none.
        precision: Of the forward and backward pass: float32 or bfloat16. Weights, loss and update
            are float32 in both.
        mixed: Whether images are mixed in pairs, so that a label is two classes with shares.
        clip: Largest norm of all gradients together; 0: no limit.
        l1: Factor of the sum of the weights' absolute values; biases and norms are left out.
        average: none, ema or swa: see `train/average.py`.
        sizes: Longer sides, in pixels, to which the feed scales images down; empty: full size.
    """

    label_smoothing: float = 0.0
    class_weights_K: Tensor | None = None
    precision: str = "float32"
    mixed: bool = False
    clip: float = 0.0
    l1: float = 0.0
    average: str = "none"
    sizes: tuple[int, ...] = ()

    @property
    def weighted(self) -> bool:
        """Whether the loss has class weights."""
        return self.class_weights_K is not None

    @property
    def native_problem(self) -> str:
        """Why the generated code cannot take such steps; empty: it can."""
        if self.precision != "float32":
            return f"train.precision = {self.precision}: the generated code computes in float32"
        if self.clip:
            return "train.clip: the generated code updates weights before it knows all gradients"
        if self.l1:
            return "train.l1: the generated code has no L1 penalty"
        if self.average == "ema":
            return "train.average = ema: the generated code does not average weights in its steps"
        if self.sizes:
            return "train.sizes: the generated code is for images of one size"
        return self.mixing_problem

    @property
    def mixing_problem(self) -> str:
        """Why steps that read one label of an image cannot be taken; empty: they can."""
        return "mixup and cutmix give an image two labels" if self.mixed else ""

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Let torch's convolutions and matrix products inside compute in the step's precision."""
        if self.precision == "float32":
            return nullcontext()
        # Without its cache of converted weights: each is used once a step, and a captured step
        # must convert them each time.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

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
        precision=recipe.train.precision,
        mixed=recipe.augment.mixes,
        clip=recipe.train.clip,
        l1=recipe.train.l1,
        average=recipe.train.average,
        sizes=recipe.train.sizes,
    )
