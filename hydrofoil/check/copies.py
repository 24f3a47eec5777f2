"""The copies in a set, exact and near: found once, kept in the cache, and used by splits.

Axes: N images, P pairs, C channels, H rows, W columns.
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hydrofoil.check.near import Pairs, Progress, joined, near_pairs, no_pairs
from hydrofoil.data.image_cache import ImageCache
from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError
from hydrofoil.files import npz, read_npz, write_whole

VERSION = 1  # of the search; what another one found is searched again
BLOCK = 4096  # images read at once
MOST_SEARCHED = 200_000  # images; the time grows with their square
QUICK = 5_000  # images among which `train` searches: a few seconds


@dataclass(frozen=True, eq=False)
class Copies:
    """The copies in a set.

    Args:
        exact: Indices of images with equal pixels, ascending; groups of two or more.
        near: Pairs of images that look the same; none of them within a group of `exact`.
        searched: Whether near copies were looked for.
    """

    exact: tuple[tuple[int, ...], ...]
    near: Pairs
    searched: bool

    def links(self) -> list[tuple[int, int]]:
        """Return pairs of images that link all that are certainly copies of each other."""
        near = self.near.where(self.near.certain_P)
        links = links_of(self.exact)
        links += zip(near.first_P.tolist(), near.second_P.tolist(), strict=True)
        return links


def find_copies(
    pictures: Pictures, progress: Progress | None = None, *, near: bool = True
) -> Copies:
    """Return the copies in a set, from the cache if it knows them.

    Args:
        pictures: The set; copies are searched within its own parts, and across them.
        progress: Called with how many images are searched for, and how many there are.
        near: Search for near copies; if not, they are returned where the cache knows them.
    """
    known = _recall(pictures)
    if known is not None and (known.searched or not near):
        return known
    exact = known.exact if known is not None else exact_groups(pictures)
    searched = near and len(pictures) <= MOST_SEARCHED
    pairs = _search(pictures, exact, progress) if searched else no_pairs()
    found = Copies(exact, pairs, searched)
    _keep(pictures, found)
    return found


def quick_copies(pictures: Pictures) -> Copies:
    """Return the copies in a set as far as a few seconds show them, or an earlier check did."""
    return find_copies(pictures, near=len(pictures) <= QUICK)


def exact_groups(pictures: Pictures) -> tuple[tuple[int, ...], ...]:
    """Return the groups of images whose pixels are equal, ordered by their first image."""
    places: defaultdict[bytes, list[int]] = defaultdict(list)
    for start in range(0, len(pictures), BLOCK):
        block_NCHW = pictures.pictures_NCHW[start : start + BLOCK].cpu().contiguous().numpy()
        for at, picture_CHW in enumerate(block_NCHW, start):
            places[hashlib.blake2b(picture_CHW.data, digest_size=16).digest()].append(at)
    return tuple(tuple(group) for group in places.values() if len(group) > 1)


def _search(
    pictures: Pictures, exact: Sequence[tuple[int, ...]], progress: Progress | None
) -> Pairs:
    """Search for near copies within each given part, and of each among those before it."""
    once_N = torch.ones(len(pictures), dtype=torch.bool)
    once_N[[at for group in exact for at in group[1:]]] = False
    parts = [part_N[once_N[part_N]] for part_N in pictures.given_parts]
    total, done = sum((1 + at) * len(part_N) for at, part_N in enumerate(parts)), 0

    def count(now: int, _: int) -> None:
        if progress:
            progress(done + now, total)

    images_NCHW = pictures.pictures_NCHW.cpu()
    found: list[Pairs] = []
    for at, part_N in enumerate(parts):
        for before_N in parts[:at]:
            found.append(near_pairs(images_NCHW, part_N, before_N, count))
            done += len(part_N)
        found.append(near_pairs(images_NCHW, part_N, None, count))
        done += len(part_N)
    return joined(found)


def _key(pictures: Pictures) -> str:
    own = f"{VERSION} {pictures.hash} {pictures.published_valid} {pictures.published_test}"
    return hashlib.sha256(own.encode()).hexdigest()[:32]


def _recall(pictures: Pictures) -> Copies | None:
    with contextlib.suppress(Exception):  # a missing or damaged file: copies are searched again
        arrays = read_npz((ImageCache().folder / f"{_key(pictures)}.npz").read_bytes())
        searched, members = bool(arrays.pop("searched")), arrays.pop("members").tolist()
        groups = [tuple(members[start:end]) for start, end in pairwise(arrays.pop("ends").tolist())]
        tables = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Copies(tuple(groups), Pairs(**tables), searched)
    return None


def _keep(pictures: Pictures, found: Copies) -> None:
    arrays = {name: np.asarray(table) for name, table in vars(found.near).items()}
    members = [at for group in found.exact for at in group]
    arrays |= {
        "searched": np.array(found.searched),
        "members": np.array(members, np.int64),
        "ends": np.cumsum([0, *map(len, found.exact)]),
    }
    with contextlib.suppress(OSError, HydrofoilError):
        path = ImageCache().folder / f"{_key(pictures)}.npz"
        write_whole(path, npz(arrays), durable=False)


def kept_together(pictures: Pictures, copies: Copies) -> Pictures:
    """Return the same set, with groups that keep copies of an image in one part.

    Args:
        pictures: Groups that it has of its own are joined where they share copies.
        copies: Exact ones, and near ones that are certain.
    """
    links = copies.links()
    if not links:
        return pictures
    if pictures.groups_N is not None:
        links += links_of(members_of(pictures.groups_N))
    return pictures.grouped(torch.tensor(joined_groups(len(pictures), links)))


def members_of(groups_N: Tensor) -> list[list[int]]:
    """Return the items of each group, by the number of each item's group.

    >>> members_of(torch.tensor([7, 3, 7]))
    [[0, 2], [1]]
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for at, group in enumerate(groups_N.tolist()):
        members[group].append(at)
    return list(members.values())


def links_of(groups: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Return a link from the first item of each group to each of its others."""
    return [(group[0], other) for group in groups for other in group[1:]]


def joined_groups(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Return the group of each of some items: its smallest member, by links between items.

    >>> joined_groups(5, [(0, 3), (3, 4)])
    [0, 1, 2, 0, 0]
    """
    above = list(range(count))

    def top(at: int) -> int:
        while above[at] != at:
            above[at] = above[above[at]]
            at = above[at]
        return at

    for one, other in links:
        low, high = sorted((top(one), top(other)))
        above[high] = low
    return [top(at) for at in range(count)]
