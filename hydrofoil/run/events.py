"""The events of log.jsonl: one JSON object a line, whose "event" is its kind."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from hydrofoil.evaluate.result import Count, Epoch, Record, Seconds

Number = Annotated[int, Field(ge=1)]  # of an epoch or a step, counted from 1


class DataLoaded(Record):
    """The dataset was read."""

    event: Literal["data"] = "data"
    seconds: Seconds
    """Reading, and downloading where necessary."""
    counts: dict[str, tuple[Count, ...]]
    """Images of each class, for each part of the split."""
    classes: tuple[str, ...] = ()
    """The names of the classes."""
    differs: str | None = None
    """How the dataset differs from the published one; empty if it does not, null if unknown."""


class RecipeDerived(Record):
    """The recipe was derived from the images."""

    event: Literal["derived"] = "derived"
    choices: tuple[tuple[str, str, str], ...]
    """What was chosen and why: the field, its value as TOML has it, the reason."""


class ImagesChecked(Record):
    """The user's own images were checked for copies before training."""

    event: Literal["checked"] = "checked"
    findings: tuple[tuple[str, str], ...]
    """The level (serious, warning or note) and the title of each finding."""


class BudgetPlanned(Record):
    """The length of the training was chosen by a budget of time, and by these measured seconds."""

    event: Literal["budget"] = "budget"
    seconds: Seconds
    """The budget of the whole command."""
    predicted: Seconds
    """How long the whole command would take."""
    step_seconds: tuple[Seconds, ...]
    """A step's, for each of equal parts of the epochs."""
    epoch_seconds: Seconds
    """An epoch's, beside its steps."""
    before_seconds: Seconds
    """From the start of the command to the first step."""
    after_seconds: Seconds
    """From the last epoch to the end of the command."""


class BudgetSpent(Record):
    """A command with a budget has ended."""

    event: Literal["budget spent"] = "budget spent"
    seconds: Seconds
    """From the start of the command."""


class ExecutorChosen(Record):
    """Training is about to run its steps."""

    event: Literal["executor"] = "executor"
    name: str
    """The executor."""
    threads: Count | None
    """Its CPU threads; null where it decides itself."""
    seconds: Seconds
    """Preparing and compiling."""
    compiler: str | None = None
    """The compiler's version, for native code."""


class RunningLoss(Record):
    """The mean training loss since the last such event of the epoch."""

    event: Literal["loss"] = "loss"
    epoch: Number
    step: Number
    """Of this epoch."""
    loss: float


class Trained(Record):
    """Training ended as planned."""

    event: Literal["trained"] = "trained"
    epochs: Count
    """Epochs completed, earlier sessions included."""
    seconds: Seconds
    """This session's training."""
    reason: str = ""
    """Why it ended before its last epoch; empty: it did not."""


class Interrupted(Record):
    """A signal ended training; the run can be resumed."""

    event: Literal["stopped"] = "stopped"
    signal: str
    """Such as SIGINT."""
    epoch: Count
    """Epochs completed."""
    step: Count
    """Steps completed of the next epoch."""


class NotFinite(Record):
    """A loss or gradient was not finite, which ended training."""

    event: Literal["not finite"] = "not finite"
    epoch: Number
    step: Number
    """The step, which was undone."""
    pictures: tuple[Count, ...]
    """Numbers of the images in its batch."""


class Extended(Record):
    """The run trains for another number of epochs from here on."""

    event: Literal["extended"] = "extended"
    epochs: tuple[Number, Number]
    """The number before and after."""


class Imported(Record):
    """The weights were imported; the run has no training of its own."""

    event: Literal["imported"] = "imported"
    weights: str
    """Their hash."""
    notes: tuple[str, ...] = ()
    """What was converted, renamed or missing."""


class Kept(Record):
    """The run was made of a training by `fit`, which wrote nothing itself."""

    event: Literal["kept"] = "kept"
    epochs: Number
    """Epochs that it had completed."""
    resumable: bool
    """Whether its state was given."""
    executor: str = ""
    """What ran its steps; empty if unknown."""
    notes: tuple[str, ...] = ()
    """What is not as in a run that was trained with `train`."""

    def __str__(self) -> str:
        """Say it to a reader of the run."""
        state = "it can be resumed" if self.resumable else "without its state, it cannot be resumed"
        said = f"This run was trained with hf.fit and kept with hf.keep; {state}."
        return " ".join([said, *(f"{note[:1].upper()}{note[1:]}." for note in self.notes)])


class Tested(Record):
    """The test split was opened."""

    event: Literal["test"] = "test"
    opened: Number
    """How often, this time included."""
    accuracy: float
    seconds: Seconds
    """The pass over the test split."""
    date: str = ""
    """When, in ISO 8601 with the offset from UTC."""
    images: str = ""
    """Hash of the dataset."""


class Tracked(Record):
    """A tracker created a run of its own for this run."""

    event: Literal["tracked"] = "tracked"
    tracker: str
    """Such as mlflow."""
    id: str
    """The tracker's name for the run."""


Event = Annotated[
    DataLoaded
    | RecipeDerived
    | ImagesChecked
    | BudgetPlanned
    | BudgetSpent
    | ExecutorChosen
    | Epoch
    | RunningLoss
    | Trained
    | Interrupted
    | NotFinite
    | Extended
    | Imported
    | Kept
    | Tested
    | Tracked,
    Field(discriminator="event"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
