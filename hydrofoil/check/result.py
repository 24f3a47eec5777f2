"""The result of a check of images: every finding, what was looked at, and what was not.

Axes: N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydrofoil.check.finding import LEVELS, Finding, by_level
from hydrofoil.data.listing import shown
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import PARTS, Split
from hydrofoil.display import brief, notebook_html
from hydrofoil.run.commands import command_line
from hydrofoil.wording import all_of, plural

SUMMARIZED = 2  # findings in the one-line summary


@dataclass(frozen=True, eq=False)
class Check:
    """What a check of a dataset found; `hydrofoil check` shows it.

    Args:
        pictures: The images.
        findings: In any order; the most serious ones come first afterwards.
        split: The parts that were compared; None: the set was checked as one part.
        seconds: How long each check took, by its name.
        not_checked: The reason by the name of each check that was not made.
    """

    pictures: Pictures
    findings: Sequence[Finding]
    split: Split | None = None
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    not_checked: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", tuple(by_level(list(self.findings))))

    def __repr__(self) -> str:
        return f"Check({brief(self.pictures.source)}: {levels_line(self)})"

    def _repr_html_(self) -> str:
        """Show the findings in a notebook."""
        return notebook_html("check", self)

    @property
    def serious(self) -> bool:
        """Whether a result on these images cannot be trusted: `hydrofoil check` then exits with 1.

        >>> import hydrofoil as hf
        >>> Check(hf.load("digits"), []).serious
        False
        """
        return any(finding.level == "serious" for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each level."""
        return {level: sum(one.level == level for one in self.findings) for level in LEVELS}

    @property
    def parts(self) -> dict[str, int]:
        """How many images each part has; empty without a split."""
        if self.split is None:
            return {}
        return {part: len(getattr(self.split, part)) for part in PARTS}

    @property
    def summary(self) -> str:
        """The most serious findings in one line, which `train` prints; notes are left out.

        >>> import hydrofoil as hf
        >>> Check(hf.load("digits"), [Finding("blank", "warning", "2 images are blank")]).summary
        'check: 2 images are blank; see hydrofoil check digits'
        >>> Check(hf.load("digits"), []).summary
        'check: no problem found in 1,797 images'
        """
        titles = [one.title.rstrip(".") for one in self.findings if one.level != "note"]
        if not titles:
            return f"check: no problem found in {plural(len(self.pictures), 'image')}"
        more = len(titles) - SUMMARIZED
        rest = f"; {plural(more, 'more finding')}" if more > 0 else ""
        see = command_line(["hydrofoil", "check", shown(self.pictures.source)])
        return f"check: {'; '.join(titles[:SUMMARIZED])}{rest}; see {see}"

    @property
    def likely_errors(self) -> list[int]:
        """The images whose label is probably wrong, of the finding `labels`."""
        rows = [row for one in self.findings if one.kind == "labels" for row in one.rows]
        return [row.images[0] for row in rows if row.changes]

    @cached_property
    def _part_N(self) -> list[str]:
        count = len(self.pictures)
        return self.split.part_names(count) if self.split else [""] * count

    def part_of(self, at: int) -> str:
        """Return the part that an image is in; empty without a split."""
        return self._part_N[at]

    def name_of(self, at: int) -> str:
        """Return an image's name, or its number where it has none."""
        names = self.pictures.names
        return shown(names[at]) if len(names) else f"image {at:,}"

    def class_of(self, at: int) -> str:
        """Return the name of an image's class."""
        return self.pictures.classes[int(self.pictures.labels_N[at])]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as check.json has it: images are indices, described in `images`."""
        rows = [row for finding in self.findings for row in finding.rows]
        mentioned = {at for row in rows for at in row.images}
        mentioned |= {change.image for row in rows for change in row.changes}
        pictures = self.pictures
        return {
            "source": pictures.source,
            "hash": pictures.hash,
            "count": len(pictures),
            "shape": list(pictures.shape),
            "classes": list(pictures.classes),
            "parts": self.parts,
            "serious": self.serious,
            "summary": self.summary,
            "findings": [finding.as_dict() for finding in self.findings],
            "images": {
                str(at): {
                    "name": str(pictures.names[at]) if len(pictures.names) else "",
                    "class": self.class_of(at),
                    "part": self.part_of(at),
                }
                for at in sorted(mentioned)
            },
            "left_out": list(pictures.losses),
            "not_checked": dict(self.not_checked),
            "seconds": {name: round(spent, 3) for name, spent in self.seconds.items()},
        }


def levels_line(check: Check) -> str:
    """Return how many findings there are of each level, in words.

    >>> import hydrofoil as hf
    >>> levels_line(Check(hf.load("digits"), [Finding("blank", "warning", "2 images are blank")]))
    'nothing serious, 1 warning'
    """
    counts = check.counts
    said = [f"{counts['serious']} serious" if counts["serious"] else "nothing serious"]
    said += [plural(counts[level], level) for level in ("warning", "note") if counts[level]]
    return all_of(said) if len(said) > 2 else ", ".join(said)
