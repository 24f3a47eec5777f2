"""A recipe's strict schema, where each field is documented under its declaration.

A recipe is a page of TOML, and data only: safe to open from a stranger, easy to diff. Reading it
resolves every default, so that two recipes are the same if and only if they are equal.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import BeforeValidator, Field, model_validator

from hydrofoil.display import brief, notebook_html
from hydrofoil.recipe.augment import Augment
from hydrofoil.recipe.fields import (
    Above,
    Affects,
    Amount,
    AsTuple,
    Fields,
    Finite,
    Fraction,
    Positive,
    affects,
)
from hydrofoil.recipe.models import Model
from hydrofoil.recipe.optimizers import Optimizer
from hydrofoil.recipe.schedules import ConstantSchedule, Schedule
from hydrofoil.recipe.source import is_path
from hydrofoil.wording import plural

Side = Annotated[int, Field(ge=1, le=1024)]  # pixels


def _check_amount(value: object) -> object:
    """Refuse what is no number of images in one message, where pydantic has one for each type."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value == "all" or whole or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError(
        f"data.train = {toml_value(value)}: expected a number of images, such as 1000, "
        'a fraction below 1, or "all"'
    )


class Data(Fields):
    """The dataset, its normalization and its split."""

    source: str
    """A published dataset, such as mnist; or your own images by their path, such as ./pets."""
    root: Annotated[str, Affects("nothing")] = ""
    """The folder of the published files; empty: --data-root, HYDROFOIL_DATA or the user's cache."""
    size: Annotated[tuple[Side, ...], AsTuple, Field(min_length=1, max_length=2)] | None = None
    """Height and width, or one number for both; default: published as is, own by the median."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How an image of other proportions takes that size: cut at its sides, padded or stretched."""
    path: str = ""
    """The column of a table that holds the images' paths; empty: guessed from its name."""
    label: str = ""
    """The column of a table that holds the labels; empty: guessed from its name."""
    split: str = ""
    """The column of a table that holds train, valid or test; empty: guessed from its name."""
    group: str = ""
    """What keeps images in one part: a table's column; for a folder, folder or prefix."""
    unreadable: Annotated[Literal["skip", "stop"], Affects("results")] = "skip"
    """Images that cannot be read: skip up to 1% of them, or stop at the first."""
    resident: Annotated[bool | None, Affects("nothing")] = None
    """Hold all images in memory; false: read them as needed; default: if they fit in half of it."""
    window: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Images that are shuffled together, in whole batches; 0: all, or as many as memory allows."""
    mean: Annotated[tuple[Finite, ...], AsTuple, Field(min_length=1)] | None = None
    """Subtracted from each channel, in [0, 1]; default: 0; of own images: their training mean."""
    std: Annotated[tuple[Above, ...], AsTuple, Field(min_length=1)] | None = None
    """Each channel is then divided by this; default: 1; of own images: their deviation."""
    train: Annotated[Literal["all"] | int | float, BeforeValidator(_check_amount)] = "all"
    """Images to train on, stratified by class: a number, a fraction of the split, or all."""
    valid: Fraction | None = None
    """Fraction of all but a given test split for validation; default: 0; of own images: 0.1."""
    test: Fraction | None = None
    """Fraction for testing, without a given test split or with `merge`; default: 0; of own: 0.2."""
    merge: bool = False
    """Ignore the published test split: draw train, valid and test from all images together."""

    @model_validator(mode="after")
    def _defaults_are_resolved(self) -> Self:
        """Fill in what needs no image to be read; own images need that for some fields."""
        known: dict[str, Any] = {}
        if self.mean is None and self.std is not None:
            known["mean"] = (0.0,)
        if self.std is None and self.mean is not None:
            known["std"] = (1.0,)
        if not is_path(self.source):
            defaults: dict[str, Any] = {"mean": (0.0,), "std": (1.0,), "valid": 0.0, "test": 0.0}
            known = {name: v for name, v in defaults.items() if getattr(self, name) is None} | known
        for name, value in known.items():
            object.__setattr__(self, name, value)  # frozen for its users; resolved here, once
        return self

    @model_validator(mode="after")
    def _parts_leave_something_to_train_on(self) -> Self:
        held_out = (self.valid or 0) + (self.test or 0)
        if held_out >= 1:
            raise ValueError(
                f"data.valid + data.test = {held_out:g}: expected less than 1, "
                "so that images are left to train on"
            )
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise ValueError(
                f"data.mean has {len(self.mean)} numbers and data.std {len(self.std)}: "
                "expected one for each channel in both"
            )
        return self


class Train(Fields):
    """Epochs, batches, seed, execution, and which weights are saved as best."""

    epochs: Annotated[Positive, Affects("results")]
    """Passes over the training split."""
    last_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Steps of the last epoch, which then ends early; 0: all of them. --budget fills it in."""
    batch_size: Positive
    """Images per step; the last batch of an epoch may be smaller."""
    select: Literal["last", "valid.loss", "valid.accuracy"] | None = None
    """What selects the best weights; default: valid.loss, or last if none is held out."""
    seed: Annotated[int, Field(ge=0), Affects("weights", per_run=True)] = 0
    """The seed of initialization, split, order and dropout."""
    label_smoothing: Fraction = 0.0
    """The fraction of each label that is spread over all classes in the training loss."""
    sizes: Annotated[tuple[Side, ...], AsTuple] = ()
    """Train equal parts of the epochs on images of these longer sides, in pixels; empty: full."""
    clip: Amount = 0.0
    """Largest norm of all gradients together; larger ones are scaled down to it; 0: no limit."""
    l1: Amount = 0.0
    """L1 penalty on weights, not on biases and norms; the reported loss leaves it out."""
    average: Literal["none", "ema", "swa"] = "none"
    """Average the weights: over steps (ema) or epochs (swa); validated too, and saved as best."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Each step, the moving average keeps this fraction of itself."""
    swa_start: Fraction = 0.75
    """The fraction of the epochs after which swa begins."""
    patience: Annotated[int, Field(ge=0), Affects("results")] = 0
    """Stop after so many epochs without a new best; 0: never."""
    balance: Literal["none", "loss", "sampling"] = "none"
    """Let classes count alike: by class weights in the loss, or by drawing each equally often."""
    init: Annotated[str, Affects("results")] = ""
    """Start from these weights: a run folder or a file of weights; empty: drawn from the seed."""
    init_sha256: Annotated[str, Affects("weights", per_run=True)] = ""
    """SHA-256 of those tensors, which hydrofoil fills in; other weights are refused."""
    freeze: Annotated[tuple[str, ...], AsTuple] = ()
    """Layers that are not trained, such as ["conv1", "layer1.*"]; they run as in evaluation."""
    execute: Annotated[
        Literal["auto", "eager", "compile", "graph", "native"], Affects("results")
    ] = "auto"
    """The executor; auto: native on a CPU, graph on a GPU, eager if they cannot run."""
    threads: Annotated[int, Field(ge=0, le=1024), Affects("results", per_run=True)] = 0
    """CPU threads for torch; 0: one for small steps, all otherwise."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of the steps' convolutions; weights and evaluation are float32. auto: by network and CPU."""
    log_every: Annotated[int, Field(ge=0), Affects("nothing")] = 0
    """Print and log the mean loss of every so many steps; 0: only once an epoch."""
    save_steps: Annotated[int, Field(ge=0), Affects("nothing")] = 0
    """Save a checkpoint every so many steps inside an epoch; 0: never."""
    save_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), Affects("nothing")] = (
        30.0
    )
    """Save a checkpoint inside an epoch if the last is this old, at least 5 s; 0: never."""

    @property
    def swa_after(self) -> int:
        """Epochs before the first that swa averages; 0 for other averages."""
        return int(self.swa_start * self.epochs) if self.average == "swa" else 0

    def is_over(self, done: int, best: int) -> bool:
        """Tell whether training ends here: all epochs are done, or `patience` is at its end.

        Args:
            done: Completed epochs.
            best: The best epoch so far; 0: none.
        """
        return done >= self.epochs or self.stops_early(done, best)

    def stops_early(self, done: int, best: int) -> bool:
        """Tell whether the last `patience` epochs brought no new best; see `is_over`.

        Epochs before the first average of swa do not count.
        """
        return bool(self.patience) and done - max(best, self.swa_after) >= self.patience


def why_early(train: Train, done: int, best: int) -> str:
    """Return why training ended before its last epoch; empty: it did not.

    Args:
        train: The recipe's section.
        done: Completed epochs.
        best: The best epoch.
    """
    if done >= train.epochs or not train.stops_early(done, best):
        return ""
    return (
        f"stopped early after epoch {done} of {train.epochs}: no new best in the last "
        f"{plural(train.patience, 'epoch')} (train.patience)"
    )


Accuracy = Annotated[float, Field(ge=0, le=1)]


class Expect(Fields):
    """The result that the recipe gave over several seeds, and what its original printed."""

    test_accuracy: Accuracy | None = None
    """Mean test accuracy over the seeds, from 0 to 1."""
    spread: Accuracy | None = None
    """Its standard deviation over the seeds."""
    accuracies: Annotated[tuple[Accuracy, ...], AsTuple] = ()
    """The test accuracy of each seed, counted from 0."""
    printed: Accuracy | None = None
    """The test accuracy that the published original printed, where the recipe has one."""

    @property
    def seeds(self) -> int:
        """How many seeds were trained."""
        return len(self.accuracies)


class Recipe(Fields):
    """Everything that determines what a run computes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), Affects("nothing")]
    """The recipe's name; folders of its runs are named after it."""
    about: Annotated[str, Affects("nothing")] = ""
    """One line: what it trains, and its source."""
    data: Data
    """The dataset, its normalization and its split."""
    model: Model
    """The network."""
    train: Train
    """Epochs, batches, seed, execution, and which weights are saved as best."""
    optimizer: Optimizer
    """The optimizer."""
    schedule: Schedule = ConstantSchedule()
    """The learning rate over the steps."""
    augment: Augment = Augment()
    """How training images are changed before a step sees them."""
    expect: Annotated[Expect, Affects("nothing")] = Expect()
    """The result that the recipe gave over several seeds, and what its original printed."""

    @model_validator(mode="after")
    def _select_needs_validation(self) -> Self:
        select, own = self.train.select, is_path(self.data.source)
        if select is None and own and self.data.valid is None:
            return self  # decided when the images are read: they may have their own parts
        if select is None:
            select = "valid.loss" if self.data.valid else "last"
            # The schema is frozen for its users; its own default is resolved here, once.
            object.__setattr__(self, "train", self.train.model_copy(update={"select": select}))
        if select != "last" and not self.data.valid and not own:
            raise ValueError(
                f'train.select = "{select}": expected "last", '
                "since data.valid = 0 leaves no validation images\n"
                "Set train.select=last, or set aside validation images with data.valid=0.2"
            )
        return self

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> Self:
        if self.train.patience and self.train.select == "last":
            raise ValueError(
                f"train.patience = {self.train.patience}: "
                'expected train.select = "valid.loss" or "valid.accuracy" with it: '
                "a new best is found on validation images\n"
                "Set aside validation images with data.valid=0.1"
            )
        return self

    @model_validator(mode="after")
    def _every_size_has_an_epoch(self) -> Self:
        sizes, epochs = self.train.sizes, self.train.epochs
        if len(sizes) > epochs:
            raise ValueError(
                f"train.sizes = {toml_value(list(sizes))}: "
                f"expected at most one size for each of {plural(epochs, 'epoch')} (train.epochs)"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        warmup = getattr(self.schedule, "warmup_epochs", 0.0)
        if warmup and warmup >= self.train.epochs:
            raise ValueError(
                f"schedule.warmup_epochs = {warmup:g}: "
                f"expected fewer than train.epochs ({self.train.epochs})"
            )
        return self

    def __repr__(self) -> str:
        train, optimizer = self.train, self.optimizer
        how = f"{plural(train.epochs, 'epoch')}, {optimizer.name}, lr {optimizer.lr:g}"
        return f"Recipe({brief(self.name)}: {self.model.name} on {brief(self.data.source)}, {how})"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """Show every field in a notebook, with those that were changed."""
        return notebook_html("recipe", self)

    def split_options(self) -> dict[str, Any]:
        """Return the arguments of `draw_split` beside the images."""
        data = self.data
        return {
            "train": data.train,
            "valid": data.valid or 0.0,
            "test": data.test or 0.0,
            "merge": data.merge,
            "seed": self.train.seed,
        }

    def toml(self) -> str:
        """Return the recipe as TOML with every field in it; reading it gives an equal recipe."""
        plain = self.model_dump(mode="json", exclude_none=True)
        top = [
            f"{key} = {toml_value(value)}" for key, value in plain.items() if not _is_table(value)
        ]
        sections = [
            "\n".join([f"[{key}]", *(f"{k} = {toml_value(v)}" for k, v in _name_first(value))])
            for key, value in plain.items()
            if _is_table(value)
        ]
        return "\n\n".join(["\n".join(top), *sections]) + "\n"

    @property
    def needs_epochs(self) -> str:
        """Why the weights of each epoch depend on the number of epochs; empty: they do not."""
        if self.schedule.needs_epochs:
            return f"the {self.schedule.name} schedule gives every step another learning rate"
        if self.train.last_steps:
            return f"train.last_steps = {self.train.last_steps} ends another epoch early"
        if self.train.sizes:
            return "train.sizes divides the epochs otherwise"
        return "train.average = swa begins elsewhere" if self.train.average == "swa" else ""

    def effects(self) -> dict[str, Affects]:
        """Return what each field affects, by dotted name.

        The number of epochs affects the weights of every epoch where something depends on it.
        """
        effects: dict[str, Affects] = {}
        for top, declared in type(self).model_fields.items():
            section, outer = getattr(self, top), affects(declared)
            if not isinstance(section, Fields):
                effects[top] = outer
                continue
            for name, field in type(section).model_fields.items():
                effects[f"{top}.{name}"] = affects(field) if outer.what == "weights" else outer
        if self.needs_epochs:
            effects["train.epochs"] = Affects("weights")
        return effects

    def affecting(self, *what: str, per_run: bool = True) -> dict[str, Any]:
        """Return the values, by dotted name, of the fields that affect weights, results or nothing.

        Args:
            what: "weights", "results" or "nothing", or several.
            per_run: Whether fields are included in which the runs of one recipe differ.
        """
        values = dotted(self.model_dump(mode="json"))
        return {
            name: values[name]
            for name, effect in self.effects().items()
            if effect.what in what and (per_run or not effect.per_run)
        }

    def hash(self) -> str:
        """Return the SHA-256, in hexadecimal, of all fields that affect the weights."""
        text = json.dumps(self.affecting("weights"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def dotted(document: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's fields by dotted name.

    >>> dotted({"name": "mine", "train": {"epochs": 3}})
    {'name': 'mine', 'train.epochs': 3}
    """
    fields: dict[str, Any] = {}
    for top, value in document.items():
        if isinstance(value, dict):
            section = cast("dict[str, Any]", value)
            fields |= {f"{top}.{name}": inner for name, inner in section.items()}
        else:
            fields[top] = value
    return fields


def _name_first(section: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(section.items(), key=lambda field: field[0] != "name")


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def toml_value(value: object) -> str:
    """Return a string, number, boolean or list as a TOML value, spelled as in JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, cast('list[object]', value)))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def members(section: str) -> list[type[Fields]]:
    """Return the possible schemas of a section."""
    annotation = Recipe.model_fields[section].annotation
    return [
        m
        for m in (annotation, *get_args(annotation))
        if isinstance(m, type) and issubclass(m, Fields)
    ]


def tags(section: str) -> list[str]:
    """Return the possible values of a section's `name`."""
    return [tag for member in members(section) for tag in tags_of(member)]


def tags_of(member: type[Fields]) -> tuple[str, ...]:
    """Return the names that select a schema."""
    return get_args(member.model_fields["name"].annotation)
