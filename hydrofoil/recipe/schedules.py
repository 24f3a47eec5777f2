"""The sections [schedule]: one for each learning-rate schedule."""

from typing import Annotated, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from hydrofoil.recipe.fields import Above, Amount, Fields, Positive


class _Schedule(Fields):
    """A learning rate for each step, as a factor of `optimizer.lr`."""

    @property
    def needs_epochs(self) -> bool:
        """Whether the rates of all steps depend on the number of epochs."""
        return True


class _WarmUp(_Schedule):
    """A schedule that may begin with a warm-up."""

    warmup_epochs: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    """Epochs, or a fraction of one, in which the rate rises in equal steps to optimizer.lr."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The same in steps; give one of the two. The schedule begins after the warm-up."""

    @model_validator(mode="after")
    def _one_warm_up(self) -> Self:
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                "schedule.warmup_epochs and schedule.warmup_steps are both set: expected one"
            )
        return self


class ConstantSchedule(_WarmUp):
    """optimizer.lr in every step."""

    name: Literal["constant"] = "constant"

    @property
    def needs_epochs(self) -> bool:
        """Whether the rates of all steps depend on the number of epochs."""
        return False


class StepSchedule(_WarmUp):
    """The rate is multiplied by `factor` every few epochs, torch.optim.lr_scheduler.StepLR."""

    name: Literal["step"]
    every: Positive
    """Epochs between two changes."""
    factor: Above = 0.1
    """Factor of the rate at each change."""

    @property
    def needs_epochs(self) -> bool:
        """Whether the rates of all steps depend on the number of epochs."""
        return False


class CosineSchedule(_WarmUp):
    """Half a cosine from optimizer.lr to `final_lr`, step by step; CosineAnnealingLR."""

    name: Literal["cosine"]
    final_lr: Amount = 0.0
    """The rate that the step after the last would have."""


class LinearSchedule(_WarmUp):
    """A straight line from optimizer.lr to `final_lr`, step by step; LinearLR."""

    name: Literal["linear"]
    final_lr: Amount = 0.0
    """The rate that the step after the last would have."""


class OneCycleSchedule(_Schedule):
    """Up to optimizer.lr and down again along two half cosines; OneCycleLR (Smith & Topin 2017)."""

    name: Literal["one-cycle"]
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The fraction of all steps in which the rate rises."""
    div_factor: Annotated[float, Field(ge=1, le=1e9)] = 25.0
    """The first rate is optimizer.lr divided by this."""
    final_div_factor: Annotated[float, Field(ge=1, le=1e12)] = 1e4
    """The last rate is the first divided by this."""


def _constant_if_unnamed(value: object) -> object:
    """Let a section that gives a warm-up alone mean the constant schedule."""
    if isinstance(value, dict) and "name" not in value:
        return {"name": "constant", **cast("dict[str, object]", value)}
    return value


Schedule = Annotated[
    Annotated[
        ConstantSchedule | StepSchedule | CosineSchedule | LinearSchedule | OneCycleSchedule,
        Field(discriminator="name"),
    ],
    BeforeValidator(_constant_if_unnamed),
]
