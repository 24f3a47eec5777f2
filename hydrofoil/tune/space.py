"""What a search may choose: ranges and choices of a recipe's fields, checked before anything runs.

``a..b`` is a range, ``log:a..b`` one on a logarithmic scale, ``x|y|z`` are choices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.naming import choices, full_name, kinds, read_value
from hydrofoil.recipe.read import override
from hydrofoil.recipe.schema import Recipe, dotted, toml_value

LOG, TO, OR = "log:", "..", "|"
DIGITS = 4  # of a value on a range: what a person would type, and finer than any effect
# Fields that no search can judge, and why.
IMAGES = "it decides which images validate, and trials on different images cannot be compared"
REFUSED = {
    **dict.fromkeys(
        ("source", "path", "label", "split", "group", "valid", "test", "merge"), IMAGES
    ),
    "select": "it decides by which figure trials are judged",
    "execute": "executors round differently, but none is more accurate",
    "test_time": "trials are judged by the validation images, which are not augmented",
    "code": "give a network of your own with --model-code",
}


@dataclass(frozen=True)
class Range:
    """All numbers from one to another.

    Args:
        field: By dotted name.
        low: The smallest value.
        high: The largest.
        log: Whether the logarithm is uniform, as suits a learning rate.
        whole: Whether only whole numbers are meant.
    """

    field: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        ends = TO.join(repr(end).removesuffix(".0") for end in self.ends)
        return f"{LOG if self.log else ''}{ends}"

    @property
    def ends(self) -> tuple[Any, Any]:
        """The smallest and the largest value, as the field has them."""
        return self.as_value(self.low), self.as_value(self.high)

    def as_value(self, number: float) -> float | int:
        """Return a number of the range as the recipe gets it: with four digits, inside the range.

        >>> Range("optimizer.lr", 0.001, 0.1).as_value(0.0123456)
        0.01235
        """
        if self.whole:
            return round(number)
        return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    def has(self, value: object) -> bool:
        """Tell whether a recipe's value lies in the range."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= cast("float", value) <= self.high

    def samples(self) -> tuple[Any, ...]:
        """Return the values that the schema has to take for all others to be valid as well."""
        return self.ends


@dataclass(frozen=True)
class Choices:
    """Some values of a field.

    Args:
        field: By dotted name.
        values: As a recipe's TOML has them: words, numbers, booleans or lists of them.
    """

    field: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return OR.join(self.texts)

    @property
    def texts(self) -> tuple[str, ...]:
        """Each value as it would be typed."""
        return tuple(
            value if isinstance(value, str) and OR not in value else toml_value(value)
            for value in self.values
        )

    def has(self, value: object) -> bool:
        """Tell whether a recipe's value is one of the choices."""
        return value in self.values

    def samples(self) -> tuple[Any, ...]:
        """Return all values, each of which the schema has to take."""
        return self.values


Dimension = Range | Choices


@dataclass(frozen=True)
class Space:
    """The fields that a search chooses, in the order of choosing: names of sections first.

    Args:
        dimensions: At least one.
    """

    dimensions: tuple[Dimension, ...]

    @property
    def texts(self) -> dict[str, str]:
        """Each field's range or choices as they would be typed, by dotted name."""
        return {dimension.field: str(dimension) for dimension in self.dimensions}

    @property
    def overrides(self) -> list[str]:
        """The space as the command line has it."""
        return [f"{field}={text}" for field, text in self.texts.items()]

    def of(self, recipe: Recipe) -> list[Dimension]:
        """Return the dimensions whose fields a recipe has: only sgd has a momentum."""
        return [d for d in self.dimensions if has_field(recipe, d.field)]

    def values_of(self, recipe: Recipe) -> dict[str, Any]:
        """Return a recipe's own values of the fields that it has."""
        values = dotted(recipe.model_dump(mode="json"))
        return {d.field: values[d.field] for d in self.of(recipe)}

    def outside(self, recipe: Recipe) -> list[str]:
        """Return the fields whose value in a recipe is not in the space."""
        own = self.values_of(recipe)
        return [d.field for d in self.of(recipe) if not d.has(own[d.field])]


def has_field(recipe: Recipe, field: str) -> bool:
    """Tell whether a recipe's model, optimizer and schedule have a field."""
    section, _, name = field.partition(".")
    return name in type(getattr(recipe, section)).model_fields


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with values by dotted name.

    Raises:
        HydrofoilError: They do not fit together.
    """
    return override(recipe, [f"{field}={toml_value(value)}" for field, value in values.items()])


def is_space(word: str) -> bool:
    """Tell a range or choices, FIELD=a..b or FIELD=x|y, from a fixed value.

    >>> is_space("lr=log:1e-3..1e-1"), is_space("optimizer=sgd|adam"), is_space("lr=0.1")
    (True, True, False)
    """
    typed, equals, text = word.partition("=")
    if not equals or not typed.strip():
        return False
    field = full_name(typed)
    if kinds(field) == {str} and not choices(field):
        return False  # a path may contain anything
    text = text.strip()
    ranged = text.startswith(LOG) or (TO in text and bool(kinds(field) & {int, float}))
    return ranged or len(_parts(text)) > 1


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words that are a range or choices, and those that are fixed values."""
    spaces = [word for word in words if is_space(word)]
    return spaces, [word for word in words if word not in spaces]


def no_space() -> HydrofoilError:
    """Return the error of a search that has nothing to choose."""
    return HydrofoilError(
        "tune: no field to choose: expected a range or choices.\n"
        "For example: hydrofoil tune digits lr=log:0.001..0.1 dropout=0..0.5"
    )


def read_space(words: Sequence[str], recipe: Recipe) -> Space:
    """Return the space that words describe, checked against the schema.

    Args:
        words: Such as "optimizer.lr=log:1e-3..1e-1".
        recipe: Gives the fields that are not chosen.

    Raises:
        HydrofoilError: No field is chosen; a field is unknown, given twice or cannot be chosen; a
            range or choice is malformed, or a value does not fit the field.
    """
    if not words:
        raise no_space()
    found: dict[str, Dimension] = {}
    for word in words:
        typed, _, text = word.partition("=")
        field = full_name(typed)
        if field in found:
            raise HydrofoilError(f"'{word}': {field} is given twice: expected it once.")
        found[field] = _dimension(field, text.strip())
    ordered = sorted(found.values(), key=lambda one: not one.field.endswith(".name"))
    space = Space(tuple(ordered))
    for dimension in ordered:
        _check(dimension, space, recipe)
    return space


def space_words(given: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Return a space that is given in Python as words: texts, or values to choose from by field.

    Raises:
        HydrofoilError: A value is neither a text nor a list.

    >>> space_words({"lr": "log:1e-3..1e-1", "optimizer": ["sgd", "adamw"]})
    ['lr=log:1e-3..1e-1', 'optimizer="sgd"|"adamw"']
    """
    if isinstance(given, str):
        raise HydrofoilError(f"space = {given!r}: expected a mapping or a list: [{given!r}].")
    if not isinstance(given, Mapping):
        return list(given)
    words: list[str] = []
    for name, value in given.items():
        if not isinstance(value, str | list):
            raise HydrofoilError(
                f"space: {name} = {value!r}: expected a range as text, 'log:0.001..0.1' or "
                "'0..0.5', or a list of choices."
            )
        values = cast("list[Any]", value)
        text = value if isinstance(value, str) else OR.join(map(_text, values))
        words.append(f"{name}={text}{OR if isinstance(value, list) and len(values) == 1 else ''}")
    return words


def _text(value: Any) -> str:
    return toml_value(list(value) if isinstance(value, tuple) else value)


def _dimension(field: str, text: str) -> Dimension:
    if text.startswith(LOG) or (TO in text and len(_parts(text)) == 1):
        return _range(field, text)
    return _choices(field, text)


def _range(field: str, text: str) -> Range:
    """Read a range.

    Raises:
        HydrofoilError: The field takes no numbers; an end is no number, or not in its place.
    """
    given = f"{field} = {text}"
    numbers = kinds(field) & {int, float}
    if not numbers:
        words = choices(field) or ["x", "y"]
        raise HydrofoilError(
            f"{given}: this field takes no range: expected choices, such as "
            f"{field}='{OR.join(words[:2])}'."
        )
    log = text.startswith(LOG)
    first, dots, last = text.removeprefix(LOG).partition(TO)
    try:
        low, high = float(first), float(last)
    except ValueError:
        low = high = float("nan")
    if not dots or not (isfinite(low) and isfinite(high)):
        raise HydrofoilError(
            f"{given}: expected two numbers with two dots between them, "
            f"such as {field}={LOG if log else ''}{'1..8' if numbers == {int} else '0.01..0.1'}."
        )
    if low >= high:
        better = "two different numbers" if low == high else "the smaller number first"
        raise HydrofoilError(
            f"{given}: expected {better}, such as {field}={LOG if log else ''}"
            f"{min(low, high):g}{TO}{max(low, high) if low != high else low + 1:g}."
        )
    if log and low <= 0:
        raise HydrofoilError(
            f"{given}: expected numbers above 0: zero has no logarithm.\n"
            f"Begin above it, {field}={LOG}{high / 1000:g}{TO}{high:g}, or leave out {LOG[:-1]}."
        )
    whole = numbers == {int} or (int in numbers and low.is_integer() and high.is_integer())
    if whole and not (low.is_integer() and high.is_integer()):
        raise HydrofoilError(f"{given}: expected whole numbers, such as {field}=1..8.")
    return Range(field, low, high, log, whole)


def _choices(field: str, text: str) -> Choices:
    """Read choices.

    Raises:
        HydrofoilError: There is only one, an empty one, or the same twice.
    """
    parts = [part.strip() for part in _parts(text)]
    if len(parts) < 2 or not all(parts):
        known = OR.join(choices(field)[:2])
        raise HydrofoilError(
            f"{field} = {text}: expected two or more values with {OR} between them"
            f"{f', such as {field}={known!r}' if OR in known else ''}."
        )
    values = [read_value(field, part) for part in parts]
    for place, value in enumerate(values):
        if value in values[:place]:
            raise HydrofoilError(f"{field} = {text}: {parts[place]} is given twice.")
    return Choices(field, tuple(values))


def _parts(text: str) -> list[str]:
    """Return what | separates, outside of quotation marks and brackets.

    >>> _parts('[8, 16]|[16, 32]'), _parts('"a|b"|c')
    (['[8, 16]', '[16, 32]'], ['"a|b"', 'c'])
    """
    parts, quote, depth = [""], "", 0
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter == "[") - (letter == "]")
        if letter == OR and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _check(dimension: Dimension, space: Space, recipe: Recipe) -> None:
    """Check a dimension with every model, optimizer or schedule that the space may choose.

    Raises:
        HydrofoilError: No search can judge it; no recipe of the space has the field, or one does
            not take a value.
    """
    field = dimension.field
    section = field.partition(".")[0]
    named = next((d for d in space.dimensions if d.field == f"{section}.name"), None)
    names = named.samples() if named and named is not dimension else ()
    variants = [with_values(recipe, {f"{section}.name": name}) for name in names] or [recipe]
    having = [v for v in variants if "." in field and has_field(v, field)]
    _check_judged(field, having)
    for variant in having or variants:
        for value in dimension.samples():
            try:
                with_values(variant, {field: value})
            except HydrofoilError as error:
                raise HydrofoilError(f"{field}={dimension}: {error}") from error


def _check_judged(field: str, having: Sequence[Recipe]) -> None:
    """Refuse a field that no search can judge.

    Raises:
        HydrofoilError: It says why.
    """
    section, _, name = field.partition(".")
    why = REFUSED.get(name, "") if section in ("data", "augment", "train", "model") else ""
    if having and not why:
        effect = having[0].effects()[field]
        why = "runs of one recipe differ in it" if effect.per_run else ""
        why = "it does not affect the results" if effect.what == "nothing" else why
    elif not section or not name:
        why = "it does not affect the results"
    if why:
        raise HydrofoilError(
            f"{field}: expected a field that a search can judge; {why}.\n"
            f"Set one value for all trials: {field}=VALUE"
        )
