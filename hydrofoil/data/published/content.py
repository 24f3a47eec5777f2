"""Compares a dataset with the published one of its name, and says what differs.

Axes: N pictures, C channels, H rows, W columns.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from hydrofoil.data.archives import GZIP
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.blocks import opened
from hydrofoil.data.published.catalogue import SOURCES, Source

BLOCK = 1000  # images to a digest
HEX = 8  # digits of a digest
MOST_RANGES = 3  # that are listed


def differences(pictures: Pictures, source: Source, files: Mapping[str, Path]) -> str:
    """Say how a dataset differs from the published one; empty if it does not, as far as is known.

    Args:
        pictures: As read from the files.
        source: What was published.
        files: The files, by canonical name.
    """
    if source.pictures_hash:
        if pictures.hash == source.pictures_hash:
            return ""
        other: set[str] = set()
    else:
        other = {name for name in source.md5 if not _is_published(name, files[name], source)}
        if source.md5 and not other:
            return ""
    found: list[str] = []
    train = len(pictures) - pictures.published_test
    for part, start, stop, published, before in (
        ("training", 0, train, source.counts[0], 0),
        ("test", train, len(pictures), source.counts[1], source.counts[0]),
    ):
        if stop - start != published:
            found.append(f"{stop - start:,} {part} images instead of {published:,}")
            continue
        skip = before // BLOCK * HEX
        for what, digests, tensor in (
            ("images", source.image_digests[skip:], pictures.pictures_NCHW[start:stop]),
            ("labels", source.label_digests[skip:], pictures.labels_N[start:stop]),
        ):
            if digests:
                found += _different_blocks(what, part, block_digests(tensor), digests)
    if len(pictures) == sum(source.counts):
        found += _different_files(other, source)
    if name := _other_dataset(pictures, source):
        found.insert(0, f"its images are those of {name}")
    known = source.pictures_hash or source.md5
    return "; ".join(found) or ("its images or labels differ" if known else "")


def block_digests(tensor: Tensor) -> str:
    """Return the digests of each 1,000 images or labels, four bytes in hexadecimal each.

    >>> import torch
    >>> len(block_digests(torch.zeros(2000, 1, 2, 2, dtype=torch.uint8)))
    16
    """
    array = np.ascontiguousarray(tensor.cpu().numpy().astype(np.uint8, copy=False))
    return "".join(
        hashlib.sha256(array[at : at + BLOCK].data).hexdigest()[:HEX]
        for at in range(0, len(array), BLOCK)
    )


def _different_blocks(what: str, part: str, found: str, published: str) -> list[str]:
    """Say which images or labels of a part differ, to the thousand."""
    blocks, known = _cut(found), _cut(published[: len(found)])
    different = [n for n, pair in enumerate(zip(blocks, known, strict=True)) if len({*pair}) > 1]
    if not different:
        return []
    if len(different) == len(blocks):
        return [f"the {what} of the {part} split differ"]
    ranges = _ranges(different)
    listed = [
        f"{what} {first * BLOCK:,} to {(last + 1) * BLOCK - 1:,} of the {part} split differ"
        f"{_copied(what, blocks[first : last + 1], known)}"
        for first, last in ranges[:MOST_RANGES]
    ]
    more = sum(last - first + 1 for first, last in ranges[MOST_RANGES:])
    return [*listed, *([f"{what} in {more} more blocks of {BLOCK:,} differ"] if more else [])]


def _copied(what: str, blocks: Sequence[str], known: Sequence[str]) -> str:
    """Say of which other images some are copies, if they are."""
    if blocks[0] not in known:
        return ""
    at = known.index(blocks[0])
    if list(known[at : at + len(blocks)]) != list(blocks):
        return ""
    return f" (a copy of {what} {at * BLOCK:,} to {(at + len(blocks)) * BLOCK - 1:,})"


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Join consecutive numbers.

    >>> _ranges([1, 2, 3, 7])
    [(1, 3), (7, 7)]
    """
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _cut(digests: str) -> list[str]:
    return [digests[at : at + HEX] for at in range(0, len(digests), HEX)]


def _is_published(name: str, path: Path, source: Source) -> bool:
    """Return whether a file is the published one, unpacked or gzipped as it was published."""
    with open(path, "rb") as file:
        if file.read(len(GZIP)) == GZIP:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if any(digest == one.sha256 for one in source.published if name in one.unpacked):
                return True
    with opened(path) as (file, _):
        md5 = hashlib.md5(usedforsecurity=False)
        while piece := file.read(1 << 20):
            md5.update(piece)
    return md5.hexdigest() == source.md5[name]


def _different_files(names: set[str], source: Source) -> list[str]:
    """Name the files that differ, except labels that are compared block by block."""
    listed = [
        name
        for name in source.files
        if name in names and not (source.label_digests and "labels" in name)
    ]
    return [f"{' and '.join(listed)} differ{'s' * (len(listed) == 1)}"] if listed else []


def _other_dataset(pictures: Pictures, source: Source) -> str:
    """Return the title of another published dataset with the same images, or nothing."""
    same_shape = [
        other
        for other in SOURCES.values()
        if other is not source and other.image_digests and other.shape == pictures.shape
    ]
    if not any(sum(other.counts) == len(pictures) for other in same_shape):
        return ""
    found = block_digests(pictures.pictures_NCHW)
    return next((other.title for other in same_shape if other.image_digests == found), "")
