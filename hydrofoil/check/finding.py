"""What a check of images found, as one value: the terminal, the page and the JSON show it.

Axes: N images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["serious", "warning", "note"]
LEVELS: tuple[Level, ...] = ("serious", "warning", "note")


@dataclass(frozen=True)
class Change:
    """What could be done about one image; `check --apply` writes it to a table when agreed to.

    Args:
        image: Its index.
        action: exclude: leave it out; move: to another part; label: give it another class.
        value: The part or the class name; of exclude: nothing.
    """

    image: int
    action: Literal["exclude", "move", "label"]
    value: str = ""


@dataclass(frozen=True)
class Row:
    """Images that are shown side by side.

    Args:
        images: Their indices.
        captions: One for each; the page adds name, class and part.
        text: What the row shows.
        changes: What would fix it.
    """

    images: tuple[int, ...]
    captions: tuple[str, ...] = ()
    text: str = ""
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Args:
        kind: Its name in the JSON, such as leak; a finding of a kind is there once.
        level: serious: a result or a network cannot be trusted because of it; warning: worth a
            look; note: nothing to do.
        title: What was found, in one sentence with its figures.
        text: What it means and what to do, one sentence each.
        rows: The images it is about, the most important first; all of them, however many.
        figures: What was measured, by name, for the JSON.
    """

    kind: str
    level: Level
    title: str
    text: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON has it."""
        return {
            "kind": self.kind,
            "level": self.level,
            "title": self.title,
            "text": list(self.text),
            "figures": dict(self.figures),
            "rows": [
                {
                    "images": list(row.images),
                    "captions": list(row.captions),
                    "text": row.text,
                    "changes": [
                        {"image": one.image, "action": one.action, "value": one.value}
                        for one in row.changes
                    ],
                }
                for row in self.rows
            ],
        }


def by_level(findings: list[Finding]) -> list[Finding]:
    """Return findings with the most serious first; otherwise in their order.

    >>> [f.kind for f in by_level([Finding("a", "note", ""), Finding("b", "serious", "")])]
    ['b', 'a']
    """
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
