"""What the page needs of test.json and log.jsonl: another shape is told, not tripped over.

Runs from before there were manifests are read unchecked, and people edit JSON by hand.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Bounds = Annotated[list[Share], Field(min_length=2, max_length=2)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Names = Annotated[list[str], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Top5(_Part):
    accuracy: Share
    interval: Bounds


class _Class(_Part):
    name: str = Field(alias="class")
    count: Count
    right: Count
    accuracy: Share | None
    interval: Bounds
    answered: Count
    precision: Share | None
    precision_interval: Bounds
    f1: Share | None
    f1_interval: Bounds


class _Group(_Part):
    group: str
    count: Count
    right: Count
    accuracy: Share | None
    interval: Bounds


class _Average(_Part):
    precision: Share
    recall: Share
    f1: Share


class _Averages(_Part):
    macro: _Average
    weighted: _Average


class _Pair(_Part):
    classes: Names
    first_as_second: Count
    second_as_first: Count
    count: Count
    of: Count


class _Bin(_Part):
    low: float
    high: float
    count: Count
    right: Count
    confidence: float | None
    accuracy: Share | None
    interval: Bounds

    @model_validator(mode="after")
    def _has_what_it_counts(self) -> "_Bin":
        if self.count and (self.confidence is None or self.accuracy is None):
            raise ValueError("a bin with pictures has a mean probability and an accuracy")
        return self


class _Bins(_Part):
    error: float
    by_chance: float
    bins: list[_Bin]


class _Temperature(_Part):
    value: float
    fitted_on: Count
    loss: float
    confidence: float
    width_error: float
    mass_error: float


class _Calibration(_Part):
    confidence: float
    width: _Bins
    mass: _Bins
    temperature: _Temperature | None


class _Picture(_Part):
    index: Count
    name: str = Field(alias="class")
    predicted: str
    probability: float
    loss: float


class _Test(_Part):
    accuracy: Share
    interval: Bounds
    right: Count
    count: Count
    loss: float
    top_5: _Top5 | None
    expected_accuracy: Share | None
    classes: Annotated[list[_Class], Field(min_length=1)]
    groups: list[_Group]
    averages: _Averages
    confusion: list[list[Count]]
    confused: list[_Pair]
    calibration: _Calibration
    pictures: dict[str, list[_Picture]]
    epoch: Count
    weights: str
    opened: Count
    warnings: list[str]

    @model_validator(mode="after")
    def _fits_together(self) -> "_Test":
        classes = len(self.classes)
        if [len(row) for row in self.confusion] != [classes] * classes:
            raise ValueError(f"confusion is not {classes}×{classes}, of as many classes")
        if any(one.count and one.accuracy is None for one in (*self.classes, *self.groups)):
            raise ValueError("a class or group with pictures has an accuracy")
        if any(one.right > one.count for one in (*self.classes, *self.groups)):
            raise ValueError("more are right than there are")
        return self


class _Scores(_Part):
    loss: float
    accuracy: float
    count: Count


class _Event(_Part):
    event: str
    seconds: Seconds = 0.0
    epoch: Count = 0
    threads: Count | None = None
    name: str = ""
    counts: dict[str, list[Count]] = Field(default_factory=dict[str, list[int]])


class _Epoch(_Event):
    epoch: Annotated[int, Field(ge=1, validate_default=True)] = 0
    train: _Scores
    valid: _Scores | None
    best: bool
    train_seconds: Seconds
    valid_seconds: Seconds


def wrong_in_test(test: Mapping[str, Any]) -> str:
    """Say what of test.json is not as `test` writes it; nothing if all is.

    >>> wrong_in_test({})[:25]
    'accuracy: Field required;'
    """
    return _wrong(_Test, test)


def wrong_in_log(events: Sequence[Mapping[str, Any]]) -> str:
    """Say which line of log.jsonl is not as a run writes it; nothing if all are.

    >>> wrong_in_log([{"event": "data", "seconds": "x"}])
    'line 1: seconds: Input should be a valid number'
    """
    for number, event in enumerate(events, start=1):
        if wrong := _wrong(_Epoch if event.get("event") == "epoch" else _Event, event):
            return f"line {number}: {wrong}"
    return ""


def _wrong(kind: type[_Part], content: Mapping[str, Any]) -> str:
    try:
        kind.model_validate(content)
    except ValidationError as error:
        said: list[str] = []
        for one in error.errors(include_url=False, include_input=False):
            where, what = ".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")
            said.append(f"{where}: {what}" if where else what)
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        return "; ".join(said[:3]) + more
    return ""
