"""What a recipe may say: the strict schema, where each field is documented under its declaration.

A recipe is a page of TOML, and data only: safe to open from a stranger, easy to diff. Reading it
resolves every default, so that two recipes are the same if and only if they are equal.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hydrofoil.errors import HydrofoilError, nearest, reason

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _as_tuple(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


# Of `train`: these decide nothing about the weights after an epoch.
FREE = ("epochs", "log_every", "save_steps", "save_seconds", "on_nan")


class Fields(BaseModel):
    """A frozen section of a recipe that knows its fields and no others."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )


class Data(Fields):
    """Which pictures, how they are normalised and how they are divided."""

    source: str
    """The set: digits, mnist, fashion-mnist, cifar10 or cifar100."""
    root: str = ""
    """The folder of the published files; empty: --data-root, HYDROFOIL_DATA or the user's cache."""
    mean: Annotated[tuple[Finite, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0.0,)
    """Subtracted from each channel of pixels scaled to [0, 1]; one number serves all channels."""
    std: Annotated[tuple[Above, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (1.0,)
    """What each channel is divided by after that; one number serves all channels."""
    valid: Fraction = 0.0
    """Fraction of the pictures outside the published test split, drawn by class for validation."""
    test: Fraction = 0.0
    """Fraction drawn by class for testing; for sets that publish no test split, or with `merge`."""
    merge: bool = False
    """Forget the published test split: draw train, valid and test from all pictures together."""

    @model_validator(mode="after")
    def _parts_leave_something_to_train_on(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(
                f"data.valid + data.test = {self.valid + self.test:g}: expected less than 1, "
                "so that pictures are left to train on"
            )
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"data.mean has {len(self.mean)} numbers and data.std {len(self.std)}: "
                "expected one for each channel in both"
            )
        return self


class Mlp(Fields):
    """A multilayer perceptron: hidden layers with ReLU and dropout, then a linear one."""

    name: Literal["mlp"]
    hidden: Annotated[tuple[Positive, ...], BeforeValidator(_as_tuple)] = (512, 512)
    """Units of each hidden layer."""
    dropout: Fraction = 0.2
    """The share of activations set to zero after each hidden layer while training."""


class LeNet(Fields):
    """Two 5×5 convolutions with pooling, three linear layers."""

    name: Literal["lenet"]


class LeNetLinear(Fields):
    """Two 5×5 convolutions with pooling, one linear layer."""

    name: Literal["lenet-linear"]


class Cnn3(Fields):
    """Three 3×3 convolutions with pooling, three linear layers with dropout."""

    name: Literal["cnn3"]
    dropout: Fraction = 0.25
    """The share of activations set to zero before each linear layer while training."""


class Cnn(Fields):
    """Two 3×3 convolutions with pooling, one linear layer."""

    name: Literal["cnn"]


Model = Annotated[Mlp | LeNet | LeNetLinear | Cnn3 | Cnn, Field(discriminator="name")]


class Train(Fields):
    """How long, in which steps, and which weights are kept."""

    epochs: Positive
    """Passes over the training split."""
    batch_size: Positive
    """Pictures per step; the last batch of an epoch may be smaller."""
    select: Literal["last", "valid.loss", "valid.accuracy"] | None = None
    """Which epoch's weights are kept as best; default: valid.loss, or last if none is held out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What initialisation, split, order and dropout are drawn from."""
    label_smoothing: Fraction = 0.0
    """The share of each label that is spread over all classes in the training loss."""
    execute: Literal["auto", "eager", "compile", "graph", "native"] = "auto"
    """What runs the steps: auto takes what saves more than its preparing costs."""
    log_every: Annotated[int, Field(ge=0)] = 0
    """Print and log the mean loss of every so many steps; 0: only once an epoch."""
    save_steps: Annotated[int, Field(ge=0)] = 0
    """Save a checkpoint every so many steps inside an epoch, whatever it costs; 0: never."""
    save_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 30.0
    """Save inside an epoch after so many seconds without a checkpoint, 5 at least; 0: never."""
    on_nan: Literal["stop"] = "stop"
    """Where a loss or gradient is not finite: stop before the update, and keep what was good."""


class Sgd(Fields):
    """Stochastic gradient descent, torch.optim.SGD."""

    name: Literal["sgd"]
    lr: Above
    """Learning rate."""
    momentum: Amount = 0.0
    """How much of the last update goes into the next."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "optimizer.nesterov = true: expected optimizer.momentum above 0 with it"
            )
        return self


class Adam(Fields):
    """Adam, or AdamW with its decoupled weight decay; torch.optim.Adam and AdamW."""

    name: Literal["adam", "adamw"]
    lr: Above = 0.001
    """Learning rate."""
    betas: Annotated[tuple[Fraction, Fraction], BeforeValidator(_as_tuple)] = (0.9, 0.999)
    """How slowly the running means of the gradient and of its square forget."""
    eps: Above = 1e-8
    """Added to the denominator."""
    weight_decay: Amount = 0.0
    """L2 penalty (adam) or decoupled decay (adamw)."""


Optimizer = Annotated[Sgd | Adam, Field(discriminator="name")]


class Expect(Fields):
    """What the published original reached: what benchmarks and slow tests hold the recipe to."""

    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Test accuracy, from 0 to 1."""


class Recipe(Fields):
    """Everything that decides what a run computes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """What the recipe is called; its runs are kept in folders named after it."""
    about: str = ""
    """One line on what it trains and where it comes from."""
    data: Data
    """Which pictures, how they are normalised and how they are divided."""
    model: Model
    """Which network."""
    train: Train
    """How long, in which steps, and which weights are kept."""
    optimizer: Optimizer
    """What turns gradients into updates."""
    expect: Expect = Expect()
    """What the published original reached."""

    @model_validator(mode="after")
    def _select_what_there_is(self) -> Self:
        select = self.train.select
        if select is None:
            select = "valid.loss" if self.data.valid else "last"
            # The schema is frozen for its users; its own default is resolved here, once.
            object.__setattr__(self, "train", self.train.model_copy(update={"select": select}))
        if select != "last" and not self.data.valid:
            raise ValueError(
                f'train.select = "{select}": expected "last", '
                "since data.valid = 0 holds nothing out\n"
                "Set train.select=last, or hold pictures out with data.valid=0.2"
            )
        return self

    def split_options(self) -> dict[str, Any]:
        """Return what `draw_split` needs beside the pictures."""
        data = self.data
        return {
            "valid": data.valid,
            "test": data.test,
            "merge": data.merge,
            "seed": self.train.seed,
        }

    def toml(self) -> str:
        """Return the recipe as TOML with every field in it; reading it gives an equal recipe."""
        plain = self.model_dump(mode="json", exclude_none=True)
        top = [f"{key} = {_toml(value)}" for key, value in plain.items() if not _is_table(value)]
        sections = [
            "\n".join([f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in value.items())])
            for key, value in plain.items()
            if _is_table(value)
        ]
        return "\n\n".join(["\n".join(top), *sections]) + "\n"

    def hash(self) -> str:
        """Return the SHA-256, in hexadecimal, of all that decides the weights after each epoch.

        That is all but names, remarks, expectations, the data root, how many epochs there are, what
        is told and saved when, and what runs the steps.
        """
        plain = self.model_dump(
            mode="json",
            exclude={
                "name": True,
                "about": True,
                "expect": True,
                "data": {"root"},
                "train": {*FREE, "execute"},
            },
        )
        if not self.train.label_smoothing:  # runs from before there was any keep their hash
            del plain["train"]["label_smoothing"]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _toml(value: object) -> str:
    """Return a string, number, boolean or list as a TOML value, spelt as in JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, cast('list[object]', value)))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with hydrofoil.

    >>> "mnist-cnn" in shipped_recipes()
    True
    """
    folder = resources.files("hydrofoil") / "recipes"
    return sorted(
        file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")
    )


def recipe_text(name: str) -> str:
    """Return the TOML of a shipped recipe, by name, or of a file, by path.

    Raises:
        HydrofoilError: No recipe has that name, or the file cannot be read.
    """
    if name in shipped_recipes():
        return (resources.files("hydrofoil") / "recipes" / f"{name}.toml").read_text("utf-8")
    path = Path(name)
    if not (name.endswith(".toml") or path.is_dir()):
        raise HydrofoilError(
            f"'{name}' is no recipe. {nearest(name, shipped_recipes())}\n"
            "A recipe of your own is given by its path, which ends in .toml: ./my-recipe.toml"
        )
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise HydrofoilError(f"{path}: the recipe cannot be read: {reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise HydrofoilError(f"{path}: the recipe is no UTF-8 text: {error.reason}.") from error


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or a file by path, and override fields by dotted names.

    Args:
        name: A shipped name ("mnist-cnn") or a path ("./mine.toml").
        overrides: Such as "train.epochs=3"; values are TOML, and bare words are strings.

    Raises:
        HydrofoilError: It names what is unknown or wrong, and what was expected.

    >>> read_recipe("mnist-cnn", ["train.epochs=1"]).train.epochs
    1
    """
    text = recipe_text(name)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5 000 digits, a thousand brackets
        raise HydrofoilError(f"{name}: not TOML: {_first_line(error)}.") from error
    # Names first: another model or optimiser leaves behind the file's fields that it does not know.
    for override in sorted(overrides, key=lambda text: ".name=" not in text.replace(" ", "")):
        _override(document, override)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise HydrofoilError(_explain(error.errors(), document, name)) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")[:120]


def _override(document: dict[str, Any], override: str) -> None:
    """Set one dotted field of a recipe, in place."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted.strip():
        raise HydrofoilError(f"'{override}': expected FIELD=VALUE, such as train.epochs=3.")
    if any("\ud800" <= letter <= "\udfff" for letter in override):  # bytes that are no text
        raise HydrofoilError(f"{override!a}: not text in UTF-8: expected FIELD=VALUE.")
    value = _value(text)
    *sections, field = dotted.strip().split(".")
    table = document
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise HydrofoilError(
                f"{dotted}: '{section}' is a field, not a section with fields in it."
            )
    table[field] = value
    if field == "name" and sections in (["model"], ["optimizer"]):
        known = [set(m.model_fields) for m in _members(sections[0]) if value in _tags_of(m)]
        for stray in set(table) - known[0] if known else ():
            del table[stray]


def _value(text: str) -> object:
    """Read a value as TOML, or as what a hasty hand types for it: .5 for 0.5, cnn3 for "cnn3"."""
    with suppress(ValueError, RecursionError):
        return tomllib.loads(f"value = {text}")["value"]
    with suppress(ValueError):
        return float(text)
    return text


def _explain(errors: Sequence[ErrorDetails], document: dict[str, Any], name: str) -> str:
    """Turn pydantic's errors into one complaint about the first, and a count of the others.

    A field that nobody knows comes first: what is missing is probably it, misspelt.
    """
    errors = sorted(errors, key=lambda error: error["type"] != "extra_forbidden")
    first, others = errors[0], len(errors) - 1
    more = f" ({others} more in {name})" if others else ""
    at = [str(part) for part in first["loc"]]
    if at[:1] in (["model"], ["optimizer"]):
        del at[1:2]  # pydantic puts the union's member here, which the person never wrote
    field, kind, given = ".".join(at), first["type"], first["input"]
    context = first.get("ctx", {})
    if kind == "extra_forbidden":
        inside = [
            top for top in Recipe.model_fields for m in _members(top) if field in m.model_fields
        ]
        hint = f"Did you mean {inside[0]}.{field}? " if inside else ""
        known = _known_fields(at, document)
        return f"{field}: no such field in a recipe. {hint or nearest(at[-1], known)}{more}"
    if kind == "missing":
        return f"{field}: missing in recipe {name}; expected a value, such as {field}=…{more}"
    if kind == "union_tag_not_found":
        return f"{field}.name: missing in recipe {name}; {nearest('', _tags(at[0]))}{more}"
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        return f"{field}.name = {tag!r}: no such {at[0]}. {nearest(tag, _tags(at[0]))}{more}"
    if kind == "value_error":
        return f"{context['error']}.{more}"
    if kind in ("model_type", "model_attributes_type"):
        return (
            f"{field} = {_shown(given)}: expected a section of fields, such as {field}.…=….{more}"
        )
    if kind == "tuple_type":
        return f"{field} = {_shown(given)}: expected a list, such as [0.5].{more}"
    if kind == "string_pattern_mismatch":
        return f"{field} = {_shown(given)}: expected letters, digits, '.', '_' and '-' alone.{more}"
    expected = re.sub(r"^(Input|String) should (be )?", "expected ", first["msg"])
    return f"{field} = {_shown(given)}: {expected}.{more}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def documented_fields() -> list[tuple[str, str, str, str]]:
    """Return all that a recipe may say: section, field, default as TOML or "", and meaning."""
    rows: list[tuple[str, str, str, str]] = []
    for top, declared in Recipe.model_fields.items():
        if not _members(top):
            rows.append(("", top, _default(declared), declared.description or ""))
        for member in _members(top):
            tags = _tags_of(member) if len(_members(top)) > 1 else ()
            section = f"[{top}] name = {' or '.join(map(_toml, tags))}" if tags else f"[{top}]"
            rows += [
                (section, name, _default(field), field.description or "")
                for name, field in member.model_fields.items()
                if field.description
            ] or [(section, "", "", member.__doc__ or "")]
    return rows


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value is None:
        return ""
    return _toml(list(value) if isinstance(value, tuple) else value)


def _members(section: str) -> list[type[Fields]]:
    """Return the schemas that a section may follow."""
    annotation = Recipe.model_fields[section].annotation
    return [
        m
        for m in (annotation, *get_args(annotation))
        if isinstance(m, type) and issubclass(m, Fields)
    ]


def _tags(section: str) -> list[str]:
    """Return the names that a section's `name` may take."""
    return [tag for member in _members(section) for tag in _tags_of(member)]


def _tags_of(member: type[Fields]) -> tuple[str, ...]:
    """Return the names that choose a schema."""
    return get_args(member.model_fields["name"].annotation)


def _known_fields(at: Sequence[str], document: dict[str, Any]) -> list[str]:
    """Return the fields known in the section that holds the last part of a location."""
    if len(at) == 1:
        return list(Recipe.model_fields)
    members = _members(at[0])
    if len(members) > 1:
        tag = document[at[0]]["name"]
        members = [m for m in members if tag in _tags_of(m)]
    return list(members[0].model_fields)
