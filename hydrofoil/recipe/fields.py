"""The base of a recipe's sections: strict fields, types of numbers, and what a field affects."""

from dataclasses import dataclass
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _as_tuple(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def _one_or_several(value: object) -> object:
    """Take one number or word for a list of one; text with a bracket is a list that is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        return value
    return (value,) if isinstance(value, int | float | str) else _as_tuple(value)


AsPair = BeforeValidator(_as_tuple)  # TOML has lists, frozen fields have tuples
AsTuple = BeforeValidator(_one_or_several)
Widths = Annotated[tuple[Positive, ...], AsTuple]


@dataclass(frozen=True)
class Affects:
    """What a field affects, in the field's `Annotated`; a field without one affects the weights.

    The hash of a recipe covers the fields that affect the weights; comparisons and trackers also
    take those that affect results.

    Args:
        what: The weights after each epoch; or only the results, such as the number of epochs; or
            nothing that a run computes.
        per_run: Whether the runs of one recipe differ in it; comparisons of recipes leave it out.
    """

    what: Literal["weights", "results", "nothing"]
    per_run: bool = False


def affects(field: FieldInfo) -> Affects:
    """Return what a field affects."""
    return next((mark for mark in field.metadata if isinstance(mark, Affects)), Affects("weights"))


class Fields(BaseModel):
    """A frozen section of a recipe that knows its fields and no others."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )
