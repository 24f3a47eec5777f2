"""What training and testing measure, as they stand on disk: an epoch, and test.json.

Computed values such as an accuracy are written for readers of the files, and computed again from
the counts when hydrofoil reads them.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from hydrofoil.display import notebook_html
from hydrofoil.evaluate.calibration import Bins
from hydrofoil.evaluate.metrics import (
    Averages,
    ByClass,
    ClassScores,
    Scores,
    Share,
    mean_share,
    wilson,
)
from hydrofoil.wording import interval, percent

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    """A frozen value with one form in Python and on disk."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        defer_build=True,  # `predict` needs none of the records: 50 ms of its start
    )

    __test__: ClassVar[bool] = False  # no class for pytest to collect, whatever it is called

    def __str__(self) -> str:
        return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON's own types."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return self.model_dump_json(by_alias=True)


class Epoch(Record):
    """One pass over the training split."""

    event: Literal["epoch"] = "epoch"
    number: Annotated[int, Field(ge=1, validation_alias="epoch", serialization_alias="epoch")]
    """Counted from 1."""
    train: Scores
    """Means over the epoch's steps, each at the weights of its moment, dropout on."""
    valid: Scores | None
    """Means over the validation split at the epoch's end; null without a validation split."""
    averaged: Scores | None = None
    """The same of the averaged weights (train.average); null: there are none."""
    best: bool
    """Whether these weights are the best so far by the recipe's `select`."""
    train_seconds: Seconds
    """The steps alone; by CUDA events on a GPU."""
    valid_seconds: Seconds
    """The validation pass."""
    learning_rate: Annotated[float, Field(ge=0)]
    """Of the epoch's last step."""
    valid_by_class: ByClass | None = None
    """Predictions on the validation split, counted by class."""
    valid_balanced_accuracy: float | None = None
    """The mean recall of the classes of the validation split."""

    def __repr__(self) -> str:
        parts = [f"train loss {self.train.loss:.4f}, {percent(self.train.accuracy)}"]
        if self.valid:
            parts.append(f"valid loss {self.valid.loss:.4f}, {percent(self.valid.accuracy)}")
        if self.averaged:
            scores = self.averaged
            parts.append(f"averaged weights {scores.loss:.4f}, {percent(scores.accuracy)}")
        parts += ["best so far"] if self.best else []
        return f"Epoch({self.number}: {'; '.join(parts)})"

    def _repr_html_(self) -> str:
        """Show losses and accuracies in a notebook."""
        return notebook_html("epoch", self)

    @property
    def selected(self) -> Scores | None:
        """Validation of the weights that are saved: the averaged ones, if there are any."""
        return self.averaged or self.valid

    @property
    def seconds(self) -> float:
        """Training and validation together."""
        return self.train_seconds + self.valid_seconds


class GroupScores(Record):
    """Accuracy on a group of classes, such as the animals, each image as its own class."""

    name: str
    """The group."""
    classes: tuple[str, ...]
    """Its classes."""
    count: Count
    """Images of these classes."""
    correct: Count
    """Those that were predicted correctly."""

    @computed_field
    @property
    def recall(self) -> float | None:
        """Fraction of the group's images that were predicted correctly."""
        return self.correct / self.count if self.count else None

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """The recall's 95% interval (Wilson)."""
        return wilson(self.correct, self.count)


class ConfusedPair(Record):
    """Two classes and how often they were confused with each other."""

    classes: tuple[str, str]
    """Their names."""
    first_as_second: Count
    """Images of the first class that were predicted as the second."""
    second_as_first: Count
    """Images of the second class that were predicted as the first."""
    total: Count
    """Images of both classes."""

    @computed_field
    @property
    def count(self) -> int:
        """Images of either class that were predicted as the other."""
        return self.first_as_second + self.second_as_first


class Temperature(Record):
    """Temperature scaling, fitted on the validation split, and its effect on the test split."""

    value: float
    """What the logits are divided by."""
    fitted_on: Count
    """Images of the validation split."""
    loss: float
    """Mean cross-entropy after scaling."""
    confidence: float
    """Mean probability of the predicted classes after scaling."""
    equal_width_error: float
    """Expected calibration error after scaling, in bins of equal width."""
    equal_mass_error: float
    """Expected calibration error after scaling, in bins of equal mass."""


class Calibration(Record):
    """Whether the probabilities can be believed."""

    confidence: float
    """Mean probability of the predicted classes."""
    equal_width: Bins
    """Confidence against accuracy in bins of equal width."""
    equal_mass: Bins
    """Confidence against accuracy in bins of equally many predictions."""
    temperature: Temperature | None
    """null without a validation split."""


class Example(Record):
    """One test image and its prediction."""

    index: Count
    """Its number in the dataset."""
    label: str
    """Its true class."""
    predicted: str
    """The most probable class."""
    probability: float
    """The probability of the predicted class."""
    loss: float
    """Cross-entropy."""

    @property
    def correct(self) -> bool:
        """Whether the prediction is the true class."""
        return self.predicted == self.label


class Examples(Record):
    """Test images to show, of four kinds."""

    random: tuple[Example, ...]
    """A random sample."""
    highest_loss: tuple[Example, ...]
    """The true class was given the least probability."""
    most_confident_mistakes: tuple[Example, ...]
    """Misclassified with the highest probability."""
    least_confident_correct: tuple[Example, ...]
    """Correct with the lowest probability."""

    def all(self) -> dict[str, tuple[Example, ...]]:
        """Return the examples of each kind, by its name."""
        return {kind: getattr(self, kind) for kind in type(self).model_fields}


class Expected(Record):
    """What the recipe gave over several seeds, and where this run lies in it."""

    recipe: str
    """The recipe's name."""
    mean: float | None
    """Mean test accuracy over the seeds; null: only `printed` is known."""
    spread: float | None
    """Its standard deviation over the seeds; null: unknown."""
    seeds: Count | None
    """How many seeds were trained; null: unknown."""
    printed: float | None
    """The test accuracy that the recipe's published original printed."""
    deviations: float | None
    """How many standard deviations this run lies above the mean; negative: below it."""
    lower: Count | None
    """How many of the seeds were less accurate than this run."""
    interval: tuple[float, float] | None
    """Where one more seed lies in 95 of 100 cases, by Student's t."""
    unlike: str
    """Why this run cannot be compared with the seeds; empty: it can. If not, the three are null."""


class TestTime(Record):
    """The same test with predictions averaged over copies of each image: beside the plain one."""

    kind: Literal["flip", "flip-shift"]
    """Copies: the image and its mirror image; or these and both moved by a pixel, in two ways."""
    correct: Count
    """Test images that were predicted correctly by the averaged logits."""
    count: Annotated[int, Field(ge=1)]
    """All test images."""
    gained: Count
    """Images that are correct only with averaging."""
    lost: Count
    """Images that are correct only without it."""

    @computed_field
    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return self.correct / self.count

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95% interval (Wilson)."""
        return wilson(self.correct, self.count)


class TestResult(Record):
    """What `test` measured on the test split: the content of test.json."""

    def __repr__(self) -> str:
        of = f"{percent(self.accuracy)} of {self.count:,}"
        balanced = f"; balanced {percent(self.balanced_accuracy)}"
        return f"TestResult({of}, {interval(self.interval)}{balanced})"

    def _repr_html_(self) -> str:
        """Show the accuracy and, folded, the table of the classes in a notebook."""
        return notebook_html("result", self)

    correct: Count
    """Test images that were predicted correctly."""
    count: Annotated[int, Field(ge=1)]
    """All test images."""
    loss: float
    """Mean cross-entropy, in nats per image."""
    top_5: Share | None
    """Images whose class is among the five most probable; null for ten classes or fewer."""
    expected: Expected | None
    """What the recipe expects; null: nothing."""
    classes: tuple[ClassScores, ...]
    """Scores of each class, in the dataset's order."""
    groups: tuple[GroupScores, ...]
    """Scores of groups of classes, where the dataset has groups."""
    averages: Averages
    """Precision, recall and F1 averaged over classes."""
    confusion: tuple[tuple[Count, ...], ...]
    """Rows are true classes, columns predicted classes."""
    confused: tuple[ConfusedPair, ...]
    """The pairs of classes that were confused most often."""
    calibration: Calibration
    """Whether the probabilities can be believed."""
    examples: Examples
    """Test images to show."""
    test_time: TestTime | None = None
    """With test-time augmentation, where augment.test_time requests it; no other figure uses it."""
    epoch: Count
    """The epoch whose weights were tested; 0 for imported weights."""
    weights: str
    """Hash of the weights that were tested."""
    opened: Annotated[int, Field(ge=1)]
    """How often the run has opened its test split, this time included."""
    warnings: tuple[str, ...]
    """What limits the meaning of these figures."""

    @computed_field
    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return self.correct / self.count

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95% interval (Wilson)."""
        return wilson(self.correct, self.count)

    @computed_field
    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that the test split has."""
        return mean_share((one.correct, one.count) for one in self.classes)[0]

    @computed_field
    @property
    def balanced_interval(self) -> tuple[float, float]:
        """The balanced accuracy's 95% interval (stratified Wilson)."""
        return mean_share((one.correct, one.count) for one in self.classes)[1]


def complaint(error: ValidationError) -> str:
    """Say in one line how content differs from its model.

    >>> try:
    ...     Epoch.model_validate_json('{"epoch": 0}')
    ... except ValidationError as error:
    ...     complaint(error)[:51]
    'epoch: Input should be greater than or equal to 1; '
    """
    said: list[str] = []
    for one in error.errors(include_url=False, include_input=False):
        where, what = ".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")
        said.append(f"{where}: {what}" if where else what)
    more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more
