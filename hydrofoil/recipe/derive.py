"""A recipe derived from a set of images: every choice is a function of its facts, with a reason.

What each choice was measured on stands in records/2026-11-25-derived.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydrofoil.recipe.naming import short_name
from hydrofoil.recipe.read import overridden, recipe_from, shipped_recipes
from hydrofoil.recipe.schema import Recipe, dotted, toml_value
from hydrofoil.recipe.source import ENDINGS
from hydrofoil.wording import by, plural

Chosen = dict[str, tuple[Any, str]]  # by dotted name: the value, and the reason
Shape = tuple[int, int, int]
GIVEN = "your choice"
LONGEST_NAME = 60
# Stages of convolution and pooling by the shorter side: the last maps are 1 to 5 pixels wide.
STAGES = ((48, 4), (8, 3), (4, 2))
WIDTHS = (16, 32, 64, 64)
LEAST_SIDE = 4  # a smaller image has no room for convolutions
MOST_BATCH, LEAST_BATCH, STEPS_AN_EPOCH = 64, 8, 40
MOST_EPOCHS, LEAST_EPOCHS = 100, 8
# Of a processor with two cores and AVX2, half of what records/2026-11-25-derived measured.
MULTIPLY_ADDS_A_SECOND = 12e9
IMAGE_SECONDS = 40e-6  # of an image beside its multiply-adds
BUDGET_SECONDS = 40.0  # for training on so many images; more images take proportionally longer
BUDGET_IMAGES = 2000


@dataclass(frozen=True)
class Facts:
    """What the choices depend on.

    Args:
        shape: Channels, height and width of the images.
        classes: How many there are.
        images: How many train.
        parts: The fractions to hold out for validation and test; 0: the images have such a part.
        why_size: Why the images have this size; empty: it is their own.
        normalization: Mean and deviation of each channel; None: of the images that will train.
    """

    shape: Shape
    classes: int
    images: int
    parts: Mapping[str, float]
    why_size: str = ""
    normalization: Mapping[str, Sequence[float]] | None = None


@dataclass(frozen=True)
class Choice:
    """One choice of a derived recipe.

    Args:
        field: Its dotted name.
        value: As TOML has it.
        reason: Why, in one sentence.
    """

    field: str
    value: str
    reason: str

    @property
    def row(self) -> tuple[str, str, str]:
        """The shortest name, the value without quotation marks, and the reason."""
        return short_name(self.field), self.value.replace('"', ""), self.reason


@dataclass(frozen=True)
class Derived:
    """A recipe that was derived from a set.

    Args:
        recipe: With the user's overrides in it.
        choices: What was chosen and why, in the recipe's order.
    """

    recipe: Recipe
    choices: tuple[Choice, ...]

    def toml(self) -> str:
        """Return the recipe as TOML, with each reason beside its field.

        Reading it gives an equal recipe. Fields that have their defaults are left out.
        """
        reasons = {choice.field: choice.reason for choice in self.choices}
        plain = self.recipe.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        top = [f"{key} = {toml_value(plain.pop(key))}" for key in ("name", "about")]
        parts = ["\n".join(top)]
        for section, fields in plain.items():
            ordered = sorted(fields, key=lambda name: name != "name")
            lines = [f"{name} = {toml_value(fields[name])}" for name in ordered]
            width = max(map(len, lines))
            said = (reasons.get(f"{section}.{name}", "") for name in ordered)
            lines = [
                f"{line:{width}}  # {why}" if why else line
                for line, why in zip(lines, said, strict=True)
            ]
            parts.append("\n".join([f"[{section}]", *lines]))
        return "\n\n".join(parts) + "\n"


def derive(
    source: str,
    facts: Facts,
    overrides: Sequence[str] = (),
    *,
    multiply_adds: Callable[[Recipe], int],
    own_network: bool = False,
) -> Derived:
    """Return a recipe for a set of images, with the user's overrides, and the reasons.

    The same facts and overrides give the same recipe on every machine. What an override changes,
    the other choices take into account: another network gets its own number of epochs.

    Args:
        source: The set's name or path.
        facts: Of the set.
        overrides: As `read_recipe` takes them.
        multiply_adds: Returns what one image costs forward in a recipe's network.
        own_network: Whether the network is the user's own code.

    Raises:
        HydrofoilError: An override does not fit the recipe.
    """
    about = f"derived from {source}: {plural(facts.images, 'training image')} of "
    about += f"{by(facts.shape)}, {plural(facts.classes, 'class')}"
    top = {"name": name_of(source), "about": about.replace("classs", "classes")}
    chosen: Chosen = {"data.source": (source, "")}
    chosen |= _data(facts) | (_own_network() if own_network else _network(facts))
    chosen |= _batch(facts) | {"train.epochs": (1, "")} | _optimizer("adamw", norm=True)
    recipe = recipe_from(_document(top, chosen), overrides, source)
    norm = getattr(recipe.model, "norm", "none") != "none"
    chosen |= _optimizer(recipe.optimizer.name, norm=norm)
    recipe = recipe_from(_document(top, chosen), overrides, source)
    chosen |= _epochs(facts, multiply_adds(recipe))
    recipe = recipe_from(_document(top, chosen), overrides, source)
    return Derived(recipe, _choices(recipe, chosen, overridden(overrides)))


def name_of(source: str) -> str:
    """Return a recipe's name for a source, of the characters that names of recipes may have.

    >>> name_of("./pets"), name_of("scans/Zähne 2024.tar.gz"), name_of("./digits"), name_of("../猫")
    ('pets', 'Zahne-2024', 'digits-images', 'images')
    """
    last = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    ending = next((e for e in ENDINGS if last.lower().endswith(e)), "")
    stem = unicodedata.normalize("NFKD", last.removesuffix(last[len(last) - len(ending) :]))
    plain = stem.encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:LONGEST_NAME].rstrip("._-")
    return f"{name}-images" if name in shipped_recipes() else name or "images"


def _document(top: Mapping[str, str], chosen: Chosen) -> dict[str, Any]:
    """Return chosen values as a recipe's document."""
    document: dict[str, Any] = dict(top)
    for field, (value, _) in chosen.items():
        section, _, name = field.partition(".")
        document.setdefault(section, {})[name] = value
    return document


def _choices(recipe: Recipe, chosen: Chosen, given: set[str]) -> tuple[Choice, ...]:
    """Return a row for each choice that the recipe has, and for each that the user made."""
    values = dotted(recipe.model_dump(mode="json", exclude_none=True))
    found: list[Choice] = []
    for field in sorted(values, key=_order):
        ours, reason = chosen.get(field, (None, ""))
        why = GIVEN if field in given else reason if values[field] == ours else ""
        if why:
            found.append(Choice(field, toml_value(values[field]), why))
    return tuple(found)


def _order(field: str) -> tuple[int, bool]:
    """Return a field's place: that of its section, in which the name comes first."""
    section, _, last = field.partition(".")
    return list(Recipe.model_fields).index(section), last != "name"


# ── the choices ──────────────────────────────────────────────────────────────────────────────────


def _data(facts: Facts) -> Chosen:
    """Choose size, parts and normalization."""
    size = facts.why_size or "the size of the images"
    found: Chosen = {"data.size": (list(facts.shape[1:]), size)}
    for part, share in facts.parts.items():
        found[f"data.{part}"] = (share, "no such part is given" if share else "")
    for name, values in (facts.normalization or {}).items():
        found[f"data.{name}"] = (list(values), "of the training images")
    return found


def _own_network() -> Chosen:
    return {"model.name": ("custom", "your network")}


def _network(facts: Facts) -> Chosen:
    """Choose the network by the images' size: more stages of pooling for larger images."""
    side = min(facts.shape[1:])
    stages = next((stages for least, stages in STAGES if side >= least), 1)
    if side < LEAST_SIDE:
        return {
            "model.name": ("mlp", f"images of {by(facts.shape[1:])} are too small to convolve"),
            "model.hidden": ([128], "little to learn"),
        }
    last = side >> stages
    return {
        "model.name": ("cnn3", "3×3 convolutions suit small images"),
        "model.widths": (
            list(WIDTHS[:stages]),
            f"{plural(stages, 'pooling')} make {side} pixels {last}",
        ),
        "model.norm": ("batch", "trains faster, and needs fewer images"),
        "model.hidden": ([], "fewer weights, so less overfitting"),
        "model.dropout": (0.5, "against overfitting"),
    }


def _batch(facts: Facts) -> Chosen:
    """Choose the batch size: the largest power of two that leaves enough steps in an epoch."""
    wanted = max(LEAST_BATCH, min(MOST_BATCH, facts.images // STEPS_AN_EPOCH))
    size = 1 << (max(1, min(wanted, facts.images)).bit_length() - 1)
    steps = math.ceil(facts.images / size)
    return {
        "train.batch_size": (size, f"{plural(steps, 'step')} an epoch"),
        "train.select": ("last", "the learning rate ends at zero, so the last epoch is best"),
        "schedule.name": ("one-cycle", "rises and ends at zero: high rates, exact end"),
    }


def _optimizer(name: str, *, norm: bool) -> Chosen:
    """Choose the optimizer's settings."""
    if name == "sgd":
        return {
            "optimizer.name": ("sgd", ""),
            "optimizer.lr": (0.05 if norm else 0.01, "the peak of the schedule"),
            "optimizer.momentum": (0.9, "usual"),
            "optimizer.nesterov": (True, "usual"),
            "optimizer.weight_decay": (0.001, "against overfitting"),
        }
    if name != "adamw":
        return {"optimizer.name": (name, "")}
    return {
        "optimizer.name": ("adamw", "needs little tuning"),
        "optimizer.lr": (0.01 if norm else 0.001, "the peak of the schedule"),
        "optimizer.weight_decay": (0.05, "against overfitting"),
    }


def _epochs(facts: Facts, multiply_adds: int) -> Chosen:
    """Choose the epochs by the number of images, and by the time that they take."""
    wanted = round(450 / max(1, facts.images) ** (1 / 3))
    epochs = max(LEAST_EPOCHS, min(MOST_EPOCHS, wanted))
    seconds = IMAGE_SECONDS + 3 * multiply_adds / MULTIPLY_ADDS_A_SECOND
    possible = int(BUDGET_SECONDS / (seconds * min(facts.images, BUDGET_IMAGES) or 1))
    took = seconds * facts.images
    if possible < epochs:
        epochs = max(1, possible)
        return {"train.epochs": (epochs, f"the time budget: about {took * epochs:.0f} s")}
    return {"train.epochs": (epochs, f"{facts.images:,} images; at most {took * epochs:.0f} s")}
