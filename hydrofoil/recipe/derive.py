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
from hydrofoil.wording import by, plural, time_taken

Chosen = dict[str, tuple[Any, str]]  # by dotted name: the value, and the reason
Shape = tuple[int, int, int]
GIVEN = "your choice"
LONGEST_NAME = 60
# Stages of convolution and pooling by the shorter side: the last maps are 1 to 5 pixels wide.
STAGES = ((96, 5), (48, 4), (8, 3), (4, 2))
WIDTHS = ((16, 32, 64, 64, 64), (8, 16, 32, 64, 64))  # the narrow ones where time is short
SHORT = 15  # epochs for which there has to be time in the wide network
MOST_BATCH, LEAST_BATCH, STEPS_AN_EPOCH = 64, 32, 40
EPOCHS_OF_ONE, MOST_EPOCHS, LEAST_EPOCHS = 400, 80, 8
IMBALANCED = 3  # times as many images in the largest class as in the smallest
RATE = 15e9  # multiply-adds a second on two slow cores: half of what the record measured
IMAGE_SECONDS = 40e-6  # of an image beside its multiply-adds
BUDGET_SECONDS = 45.0  # for training on so many images; more images take proportionally longer
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
        imbalance: How many times the images of the smallest class the largest one has.
        flip: The choice of augment.flip, and why; None: mirrored images were not looked at.
    """

    shape: Shape
    classes: int
    images: int
    parts: Mapping[str, float]
    why_size: str = ""
    normalization: Mapping[str, Sequence[float]] | None = None
    imbalance: float = 1.0
    flip: tuple[str, str] | None = None


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
            if not fields:
                continue
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
    name: str = "",
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
        name: What the set is called; default: as its source.

    Raises:
        HydrofoilError: An override does not fit the recipe.
    """
    about = f"derived from {source}: {plural(facts.images, 'training image')} of "
    about += f"{by(facts.shape)}, {facts.classes:,} classes"
    top = {"name": name_of(name or source), "about": about}

    def read(chosen: Chosen) -> Recipe:
        return recipe_from(_document(top, chosen), overrides, source)

    chosen: Chosen = {"data.source": (source, "")}
    chosen |= _data(facts) | _batch(facts) | _epochs(facts, 1) | _optimizer("adamw", norm=True)
    for widths in WIDTHS:
        chosen |= _own_network() if own_network else _network(facts, widths)
        chosen |= _epochs(facts, multiply_adds(read(chosen)))
        if chosen["train.epochs"][0] >= min(SHORT, _wanted_epochs(facts)):
            break
    model, optimizer = read(chosen).model, read(chosen).optimizer
    chosen |= _optimizer(optimizer.name, norm=getattr(model, "norm", "none") != "none")
    if facts.flip:
        chosen["augment.flip"] = facts.flip
    recipe = read(chosen)
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
    for part, what in (("valid", "validation"), ("test", "testing")):
        share = facts.parts.get(part, 0.0)
        why = f"held out for {what}: the set has no such part" if share else ""
        found[f"data.{part}"] = (share, why)
    for name, values in (facts.normalization or {}).items():
        found[f"data.{name}"] = (list(values), "of the training images")
    return found


def _own_network() -> Chosen:
    return {"model.name": ("custom", "your network")}


def _network(facts: Facts, widths: Sequence[int]) -> Chosen:
    """Choose the network by the images' size: more stages of pooling for larger images."""
    side = min(facts.shape[1:])
    stages = next((stages for least, stages in STAGES if side >= least), 0)
    if not stages:
        return {
            "model.name": ("mlp", f"images of {by(facts.shape[1:])} are too small to pool"),
            "model.hidden": ([128], "one layer, since the images hold little"),
        }
    narrow = "; narrow, for time for more epochs"
    halved = " → ".join(str(side >> stage) for stage in range(stages + 1))
    return {
        "model.name": ("cnn3", "3×3 convolutions, then one linear layer"),
        "model.widths": (
            list(widths[:stages]),
            f"{plural(stages, 'stage')}: {halved} pixels{'' if widths == WIDTHS[0] else narrow}",
        ),
        "model.norm": ("batch", "allows a high learning rate"),
        "model.hidden": ([], "fewer weights to overfit with"),
        "model.dropout": (0.5, "against overfitting"),
    }


def _batch(facts: Facts) -> Chosen:
    """Choose the batch size: the largest power of two that leaves enough steps in an epoch."""
    wanted = max(LEAST_BATCH, min(MOST_BATCH, facts.images // STEPS_AN_EPOCH))
    size = 1 << (max(1, min(wanted, facts.images)).bit_length() - 1)
    steps = math.ceil(facts.images / size)
    found: Chosen = {
        "train.batch_size": (size, f"{plural(steps, 'step')} an epoch"),
        "train.select": ("last", "the learning rate falls to zero: the last epoch is the best"),
        "schedule.name": ("one-cycle", "rises to the peak, then falls to zero"),
    }
    if facts.imbalance >= IMBALANCED:
        why = f"the largest class has {facts.imbalance:.0f} times the images of the smallest; loss "
        found["train.balance"] = ("none", f"{why}or sampling would favor small classes")
    return found


def _optimizer(name: str, *, norm: bool) -> Chosen:
    """Choose the optimizer's settings."""
    peak = "the peak, as batch norm allows it" if norm else "the peak, without batch norm"
    if name == "sgd":
        return {
            "optimizer.name": ("sgd", ""),
            "optimizer.lr": (0.05 if norm else 0.01, peak),
            "optimizer.momentum": (0.9, "the usual value"),
            "optimizer.nesterov": (True, "usual with momentum"),
            "optimizer.weight_decay": (0.001, "against overfitting"),
        }
    if name != "adamw":
        return {"optimizer.name": (name, "")}
    return {
        "optimizer.name": ("adamw", "needs no tuning for each set"),
        "optimizer.lr": (0.01 if norm else 0.001, peak),
        "optimizer.weight_decay": (0.05, "against overfitting"),
    }


def _wanted_epochs(facts: Facts) -> int:
    """Return how many epochs suffice for so many images: fewer for more of them."""
    return max(LEAST_EPOCHS, min(MOST_EPOCHS, round(EPOCHS_OF_ONE / facts.images ** (1 / 3))))


def _epochs(facts: Facts, multiply_adds: int) -> Chosen:
    """Choose the epochs by the number of images, and by the time that they take."""
    wanted, seconds = _wanted_epochs(facts), IMAGE_SECONDS + 3 * multiply_adds / RATE
    possible = int(BUDGET_SECONDS / (seconds * min(facts.images, BUDGET_IMAGES)))
    epochs = max(1, min(wanted, possible))
    took = f"at most {time_taken(max(1, seconds * facts.images * epochs))} on two cores"
    why = f"for {plural(facts.images, 'training image')}" if epochs == wanted else "to save time"
    return {"train.epochs": (epochs, f"{why}; {took}")}
