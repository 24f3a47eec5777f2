"""What copies of images mean for a set: leaks between its parts, contradicting labels, waste.

Axes: N images, P pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hydrofoil.check.copies import Copies, joined_groups, members_of
from hydrofoil.check.finding import Change, Finding, Level, Row
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import PART_WORDS, Split
from hydrofoil.wording import percent, plural

LEAKED = 0.005  # of the test part, from which on a leak is serious
CONTRADICTING = 0.01  # of the set, from which on contradicting labels are serious
MANY = 0.01  # of the set, from which on copies deserve a look
SHOWN = 8  # images of one group that are shown


@dataclass(frozen=True)
class Match:
    """Two images of different parts that show the same.

    Args:
        held_out: Index of the image in the part that should be unseen.
        seen: Index of its copy in the part that comes before it.
        correlation: 1 where the pixels are equal.
        how: In words.
        certain: Whether it cannot be a similar image only.
    """

    held_out: int
    seen: int
    correlation: float
    how: str
    certain: bool


def find_leaks(copies: Copies, split: Split, part: str) -> list[Match]:
    """Return the images of a part that the parts before it have too, the most certain first.

    Args:
        copies: Of the set.
        split: Its parts.
        part: test: compared with training and validation; valid: with training.
    """
    before = {"valid": ("train",), "test": ("train", "valid")}[part]
    held = set(getattr(split, part).tolist())
    seen = {at for name in before for at in getattr(split, name).tolist()}
    matches: dict[int, Match] = {}
    for group in copies.exact:
        known = [at for at in group if at in seen]
        for at in group if known else ():
            if at in held:
                matches[at] = Match(at, known[0], 1.0, "the same pixels", certain=True)
    near = copies.near
    for one, other, correlation, mirrored, certain in zip(
        near.first_P.tolist(), near.second_P.tolist(), near.correlation_P.tolist(),
        near.mirrored_P.tolist(), near.certain_P.tolist(), strict=True,
    ):  # fmt: skip
        for at, twin in ((one, other), (other, one)):
            if at in held and twin in seen and at not in matches:
                how = f"correlation {correlation:.3f}{', mirrored' if mirrored else ''}"
                matches[at] = Match(at, twin, correlation, how, certain)
    return sorted(matches.values(), key=lambda one: (-one.certain, -one.correlation))


def leaks(pictures: Pictures, split: Split, copies: Copies) -> list[Finding]:
    """Return what of the test and validation parts can be seen in training."""
    findings: list[Finding] = []
    for part in ("test", "valid"):
        matches = find_leaks(copies, split, part)
        if matches:
            findings.append(_leak(pictures, split, part, matches))
    return findings


def _leak(pictures: Pictures, split: Split, part: str, matches: Sequence[Match]) -> Finding:
    certain = [one for one in matches if one.certain]
    exact = sum(one.correlation == 1 for one in certain)
    count, name = len(getattr(split, part)), PART_WORDS[part]
    share, rest = len(certain) / count, len(matches) - len(certain)
    before = part == "test" and len(split.valid)
    seen_in = "training or validation" if before else "training"
    if certain:
        title = (
            f"{len(certain):,} of {plural(count, f'{name} image')} ({percent(share, 1)}) "
            f"{'is' if len(certain) == 1 else 'are'} in {seen_in} too: "
            f"{_kinds(exact, len(certain) - exact)}"
        )
    else:
        title = f"{plural(rest, f'{name} image')} may also be in {seen_in}"
    text: list[str] = []
    if certain:
        text.append(
            f"Memorized images inflate the {name} accuracy: leave the copies out of training."
        )
        if rest:
            text.append(
                f"{rest:,} more look alike, and may be the same photograph or a similar one."
            )
    level: Level = "serious" if share >= LEAKED else "warning" if certain else "note"
    return Finding(
        "leak" if part == "test" else "valid-leak",
        level if part == "test" or level != "serious" else "warning",
        title,
        tuple(text),
        tuple(_leak_row(pictures, split, part, one) for one in matches),
        {
            "part": part, "images": count, "exact": exact, "certain": len(certain),
            "possible": rest, "share": share,
        },
    )  # fmt: skip


def _kinds(exact: int, changed: int) -> str:
    """Return how many copies are exact, and how many are not.

    >>> _kinds(2, 0), _kinds(1, 3)
    ('2 with the same pixels', '1 with the same pixels, 3 slightly changed')
    """
    said = [f"{exact:,} with the same pixels"] if exact else []
    return ", ".join([*said, *([f"{changed:,} slightly changed"] if changed else [])])


def _leak_row(pictures: Pictures, split: Split, part: str, match: Match) -> Row:
    labels = [pictures.classes[int(pictures.labels_N[at])] for at in (match.held_out, match.seen)]
    said = match.how if match.certain else f"possibly: {match.how}"
    if labels[0] != labels[1]:
        said += "; their labels differ"
    changes = (Change(match.seen, "exclude"),) if match.certain else ()
    return Row((match.held_out, match.seen), (), said, changes)


def repeated(pictures: Pictures, copies: Copies, split: Split | None = None) -> list[Finding]:
    """Return what copies a set has, and which of them have different labels.

    Args:
        pictures: The set.
        copies: Of the set.
        split: Copies with the same label in different parts are left to `leaks`.
    """
    labels = pictures.labels_N.tolist()
    parts = split.part_names(len(pictures)) if split else [""] * len(pictures)
    equal = {at: group[0] for group in copies.exact for at in group}
    contradicting, same, changed = (list[tuple[int, ...]]() for _ in range(3))
    for group in _groups(pictures, copies):
        if len({labels[at] for at in group}) > 1:
            contradicting.append(group)
            continue
        for part in dict.fromkeys(parts[at] for at in group):
            inside = tuple(at for at in group if parts[at] == part)
            if len(inside) > 1:
                firsts = {equal.get(at, at) for at in inside}
                (same if len(firsts) == 1 else changed).append(inside)
    contradicting.sort(key=lambda group: len({equal.get(at, at) for at in group}) > 1)
    findings = (
        _contradicting(pictures, contradicting, equal),
        _copies(pictures, "duplicates", same),
        _copies(pictures, "near", changed),
    )
    return [finding for finding in findings if finding]


def _groups(pictures: Pictures, copies: Copies) -> list[tuple[int, ...]]:
    """Return the groups of two and more images that are certainly copies of each other."""
    groups = members_of(torch.tensor(joined_groups(len(pictures), copies.links())))
    return [tuple(group) for group in groups if len(group) > 1]


def _contradicting(
    pictures: Pictures, groups: Sequence[tuple[int, ...]], equal: Mapping[int, int]
) -> Finding | None:
    if not groups:
        return None
    images = sum(map(len, groups))
    same = sum(len({equal.get(at, at) for at in group}) == 1 for group in groups)
    return Finding(
        "contradiction",
        "serious" if images / len(pictures) >= CONTRADICTING else "warning",
        f"{plural(images, 'image')} in {plural(len(groups), 'group')} of copies have different "
        f"labels: {_kinds(same, len(groups) - same)}",
        ("At most one of the labels of each group is right, unless an image shows both classes.",),
        tuple(_group_row(group, keep=False) for group in groups),
        {"images": images, "groups": len(groups), "exact": same},
    )


def _copies(pictures: Pictures, kind: str, groups: Sequence[tuple[int, ...]]) -> Finding | None:
    if not groups:
        return None
    spare = sum(len(group) - 1 for group in groups)
    what = "exact copies" if kind == "duplicates" else "slightly changed copies"
    if spare == 1:
        what = f"{'an' if kind == 'duplicates' else 'a'} {what.removesuffix('ies')}y"
    share = spare / len(pictures)
    return Finding(
        kind,
        "warning" if share >= MANY else "note",
        f"{plural(spare, 'image')} ({percent(share, 1)}) {'is' if spare == 1 else 'are'} {what} of "
        f"others with the same label, in {plural(len(groups), 'group')}",
        ("They add little to training; a split that is drawn keeps each group in one part.",),
        tuple(_group_row(group, keep=True) for group in groups),
        {"images": spare, "groups": len(groups), "share": share},
    )


def _group_row(group: tuple[int, ...], *, keep: bool) -> Row:
    """Return a group as a row, which proposes to leave out all, or all but the first."""
    more = f"and {len(group) - SHOWN} more" if len(group) > SHOWN else ""
    changes = tuple(Change(at, "exclude") for at in group[1 if keep else 0 :])
    return Row(group[:SHOWN], (), more, changes)
