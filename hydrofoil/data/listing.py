"""The images of a set before any is decoded: names, labels, parts, and where their bytes are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.wording import plural

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
# What people call the parts, in lower case.
PART_NAMES: dict[str, Part] = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
Contents = Callable[[Sequence[int]], Iterator[tuple[int, Path | bytes]]]


@dataclass
class Listing:
    """The images of a set, in the order of its parts: train, valid, test.

    Args:
        source: The set's path, as the user gave it.
        names: Of each image, for messages: its path below the source.
        stamps: Of each image, what changes when its file does: name, size and time.
        labels: The class of each image, by its number.
        classes: The class names.
        given: How many images each given part has; empty: no parts are given.
        groups: What each image belongs to; empty: nothing is known.
        notes: What was guessed or chosen, a line each.
        losses: What was left out, a line each.
        containers: Files that hold many images, and what changes when they do.
        contents: From positions to the files or bytes of these images, in any order.
    """

    source: str
    names: list[str]
    stamps: list[str]
    labels: list[int]
    classes: tuple[str, ...]
    contents: Contents
    given: dict[Part, int] = field(default_factory=dict[Part, int])
    groups: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    losses: list[str] = field(default_factory=list[str])
    containers: dict[Path, str] = field(default_factory=dict[Path, str])

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Found:
    """One image that a source lists.

    Args:
        name: For messages: its path below the source.
        stamp: What changes when its file does.
        label: Its class.
        part: The part that it was given to; empty: none.
        group: What it belongs to; empty: unknown.
        at: Where the source keeps its bytes.
    """

    name: str
    stamp: str
    label: str
    at: object
    part: str = ""
    group: str = ""


def listed(
    source: str,
    found: Sequence[Found],
    read: Callable[[Sequence[object]], Iterator[tuple[int, Path | bytes]]],
    classes: Sequence[str] | None = None,
) -> Listing:
    """Return the listing of what a source holds, after checking that a network can learn it.

    Args:
        source: The set's path.
        found: Its images.
        read: From the places of some images to (position among them, file or bytes).
        classes: The class names in their order; default: those that occur, sorted.

    Raises:
        HydrofoilError: No image, one class only, or parts whose classes differ.
    """
    if not found:
        raise HydrofoilError(
            f"{source}: no images found: expected a folder for each class with its images in it,\n"
            "such as pets/cat/1.jpg and pets/dog/2.jpg."
        )
    parts = {one.part for one in found}
    if "" in parts and len(parts) > 1:
        some = next(one.name for one in found if not one.part)
        raise HydrofoilError(
            f"{source}: '{shown(some)}' is in none of {', '.join(sorted(parts - {''}))}: expected "
            "a part for every image, or for none."
        )
    names = tuple(classes) if classes else in_order({one.label for one in found})
    _check_classes(source, found, names)
    number = {name: at for at, name in enumerate(names)}
    order = sorted(range(len(found)), key=lambda at: _rank(found[at].part))
    images = [found[at] for at in order]
    places = [one.at for one in images]
    counts: dict[Part, int] = {}
    for one in images:
        if one.part:
            counts[PART_NAMES[one.part]] = counts.get(PART_NAMES[one.part], 0) + 1

    def contents(wanted: Sequence[int]) -> Iterator[tuple[int, Path | bytes]]:
        for at, content in read([places[index] for index in wanted]):
            yield wanted[at], content

    listing = Listing(
        source,
        [one.name for one in images],
        [one.stamp for one in images],
        [number[one.label] for one in images],
        names,
        contents,
        counts,
        [one.group for one in images] if any(one.group for one in images) else [],
    )
    listing.losses += _lacking(images, names, counts)
    return listing


def _rank(part: str) -> int:
    return PARTS.index(PART_NAMES[part]) if part else 0


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Return class names sorted: by value if all of them are whole numbers, else as text.

    >>> in_order({"10", "9"}), in_order({"dog", "cat"})
    (('9', '10'), ('cat', 'dog'))
    """
    whole = all(label.isascii() and label.isdigit() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if whole else 0, label)))


def _check_classes(source: str, found: Sequence[Found], classes: Sequence[str]) -> None:
    """Refuse names that no terminal can show, one class alone, and a part's unknown classes."""
    for name in classes:
        if not name.strip() or not name.isprintable():
            raise HydrofoilError(
                f"{source}: the class {name!a} has a name that cannot be shown: expected text "
                "without control characters.\nRename it."
            )
    occurring = {one.label for one in found}
    if len(occurring) < 2:
        raise HydrofoilError(
            f"{source}: one class only, '{next(iter(occurring))}': expected two or more.\n"
            "Put the images of each class into a folder of their own."
        )
    trained = {one.label for one in found if PART_NAMES.get(one.part, "train") == "train"}
    for one in found:
        if one.label not in trained:
            raise HydrofoilError(
                f"{source}: the {PART_NAMES[one.part]} part has the class '{one.label}', which the "
                f"train part lacks. {nearest(one.label, trained)}\n"
                "Give it the same name in all parts, or add images of it to the train part."
            )


def _lacking(images: Sequence[Found], classes: Sequence[str], given: dict[Part, int]) -> list[str]:
    """Say which given parts have no image of a class."""
    lines: list[str] = []
    for part in given:
        there = {one.label for one in images if PART_NAMES[one.part] == part}
        missing = [name for name in classes if name not in there]
        if missing:
            lines.append(f"the {part} part has no image of {some_of(missing)}")
    return lines


def some_of(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of a list, and how many more there are.

    >>> some_of(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more


def shown(name: str) -> str:
    r"""Return a file's name as text that a terminal can show.

    >>> shown("caf\udce9\n.png")
    'caf\\udce9\\n.png'
    """
    return name if name.isprintable() else ascii(name)[1:-1]


def left_out(count: int, what: str, why: str) -> str:
    """Return the line on files that were left out."""
    return f"{plural(count, what)} left out: {why}"
