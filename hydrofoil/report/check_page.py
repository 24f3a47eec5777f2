"""One HTML file of a check of images: its findings, with the images side by side.

The page has one script, which writes the choices of the user to changes.json; its policy allows no
other. What is in the names of files and classes is text, wherever it comes from.

Axes: N images, C channels, H rows, W columns.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from hydrofoil.check.apply import first_of_each, proposed
from hydrofoil.check.finding import Change, Finding, Row
from hydrofoil.check.result import Check, levels_line
from hydrofoil.data.listing import shown
from hydrofoil.report.check_text import figure_tables, shown_text
from hydrofoil.report.page import render, with_script
from hydrofoil.report.sections import Inlined, as_uri
from hydrofoil.report.sheet import as_image, scale_of
from hydrofoil.run.commands import command_line
from hydrofoil.wording import by, isolated, plural, sentence

MOST_ROWS = 24  # of a finding on the page; check.json has all of them
MOST_SIDE_BY_SIDE = 8  # images of a row
SIDE = 96  # pixels of the page that an image is wide or high
LOSSLESS = 32  # larger images are inlined as JPEG, a quarter of the bytes
LEVEL_WORDS = {"serious": "Serious", "warning": "Warning", "note": "Note"}


@dataclass(frozen=True)
class ShownImage:
    """An image of a row, with its lines of text."""

    picture: Inlined
    name: str
    place: str
    caption: str


@dataclass(frozen=True)
class Choice:
    """A box of a row.

    Args:
        change: What the user agrees to.
        value: Its value as JSON.
        offer: The text at the box.
        first: It is what agreeing to the finding as a whole means, not an alternative.
    """

    change: Change
    value: str
    offer: str
    first: bool


@dataclass(frozen=True)
class ShownRow:
    """A row of a finding."""

    images: list[ShownImage]
    more: int
    text: str
    choices: list[Choice]


def check_page(check: Check) -> bytes:
    """Return the page of a check.

    See `figure_tables` for the figures that it shows.
    """
    pictures = check.pictures
    source = shown(pictures.source)
    arguments = ["hydrofoil", "check", source, "--apply", "changes.json", "--out", "table.csv"]
    return render(
        "check.html",
        check=check,
        source=source,
        lead=_lead(check),
        result=levels_line(check),
        findings=[_finding(check, finding) for finding in check.findings],
        left_out=[shown(line) for line in pictures.losses],
        seconds=[(name, f"{spent:.1f}") for name, spent in check.seconds.items()],
        not_checked=list(check.not_checked.items()),
        changeable=any(row.changes for finding in check.findings for row in finding.rows),
        command=command_line(arguments),
        **with_script("check.js"),
    )


def _lead(check: Check) -> str:
    """Return in one sentence what was checked."""
    pictures = check.pictures
    parts = [f"{count:,} {part}" for part, count in check.parts.items() if count]
    said = f": {', '.join(parts)}" if len(parts) > 1 else ""
    classes = f"{pictures.K:,} classes"
    return f"{plural(len(pictures), 'image')} of {by(pictures.shape)}, {classes}{said}"


def _finding(check: Check, finding: Finding) -> dict[str, Any]:
    """Return a finding as the template shows it."""
    rows = [_row(check, row) for row in finding.rows[:MOST_ROWS]]
    return {
        "kind": finding.kind,
        "level": finding.level,
        "level_word": LEVEL_WORDS[finding.level],
        "title": _capitalized(shown_text(finding.title)),
        "text": [sentence(shown_text(line)) for line in finding.text],
        "tables": figure_tables(finding, MOST_ROWS),
        "rows": rows,
        "more": len(finding.rows) - len(rows),
        "changes": len(proposed(finding)),
    }


def _capitalized(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _row(check: Check, row: Row) -> ShownRow:
    captions = [*row.captions, *[""] * len(row.images)]
    images = [
        _image(check, at, caption)
        for at, caption in zip(row.images[:MOST_SIDE_BY_SIDE], captions, strict=False)
    ]
    first = first_of_each(row)
    changes = [
        Choice(change, json.dumps(change.value), _offer(check, change), change in first)
        for change in row.changes
    ]
    return ShownRow(images, len(row.images) - len(images), shown_text(row.text), changes)


def _image(check: Check, at: int, caption: str) -> ShownImage:
    name, label = check.name_of(at), isolated(shown_text(check.class_of(at)))
    part = check.part_of(at)
    place = f"{label}, {part}" if part else label
    picture_CHW = check.pictures.pictures_NCHW[at].cpu()
    alt = f"{name}: {place}"
    return ShownImage(_inlined(picture_CHW, alt), name, place, shown_text(caption))


def _inlined(picture_CHW: Tensor, alt: str) -> Inlined:
    """Inline an image, about 96 pixels large."""
    image = as_image(picture_CHW)
    scale = scale_of(picture_CHW.shape, SIDE)
    file = io.BytesIO()
    if max(image.size) <= LOSSLESS:
        image.save(file, "png", optimize=True)
        return Inlined(as_uri(file.getvalue()), alt, image.width * scale, image.height * scale)
    image.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR)
    image.save(file, "jpeg", quality=85)
    shrink = SIDE / max(image.size)
    size = (max(1, round(side * shrink)) for side in image.size)
    return Inlined(as_uri(file.getvalue(), "jpeg"), alt, *size)


def _offer(check: Check, change: Change) -> str:
    """Return what a box of the page offers."""
    name, value = isolated(check.name_of(change.image)), isolated(shown_text(change.value))
    return {
        "exclude": f"Leave out {name}",
        "move": f"Move {name} to {value}",
        "label": f"Label {name} as {value}",
    }[change.action]
