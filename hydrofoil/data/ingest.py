"""From a listing to pictures: the size is chosen, every image decoded, the result cached.

Axes: N images, C channels, H rows, W columns.
"""

import hashlib
import statistics
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from hydrofoil.data.decode import size_of
from hydrofoil.data.decoding import decode_all
from hydrofoil.data.fitting import Fit, fitted
from hydrofoil.data.folders import stamp_of
from hydrofoil.data.image_cache import ImageCache, Unfinished
from hydrofoil.data.listing import PARTS, Listing, left_out, shown
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Download, Watcher
from hydrofoil.device import available_threads
from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.schema import Data
from hydrofoil.wording import percent, plural

VERSION = 3  # of the preparation; with another one, files are decoded again
SAMPLE = 1000  # images whose sizes decide
MOST_SIDE = 64
MOST_SKIPPED = 0.01
ROWS = 4096  # images moved at once
SHOWN = 50  # images from one update of the progress bar to the next
Array = np.ndarray[Any, np.dtype[Any]]


def read_listing(listing: Listing, data: Data, watcher: Watcher) -> Pictures:
    """Return the images of a listing, all of one size, decoded or from the cache.

    Args:
        listing: The images.
        data: Says size, fit and what happens to unreadable images.
        watcher: Shows how far decoding is, and lines.

    Raises:
        HydrofoilError: Images cannot be read, or changed while they were read.
    """
    size, why = choose_size(listing, data)
    key, cache = cache_key(listing, size, data.fit), ImageCache()
    found = cache.find(key)
    if found is None:
        found = _Decoding(listing, size, data, watcher).run(cache, key)
    pictures_NCHW, about = found
    unreadable: dict[int, str] = {int(at): str(text) for at, text in about["unreadable"].items()}
    _check_unreadable(listing, unreadable, data)
    notes = [*_several(listing, about), *([why] if why else [])]
    return _pictures(listing, pictures_NCHW, unreadable, notes)


def choose_size(listing: Listing, data: Data) -> tuple[tuple[int, int], str]:
    """Return height and width of a set's images, and the reason.

    Raises:
        HydrofoilError: None of its images can be read.
    """
    if data.size is not None:
        size = (data.size[0], data.size[-1])
        return size, ""
    count = len(listing)
    places = sorted({round(at * (count - 1) / SAMPLE) for at in range(SAMPLE + 1)})
    sides: list[int] = []
    problem: HydrofoilError | None = None
    for at, content in listing.contents(places):
        try:
            sides.append(min(size_of(content, name=listing.names[at])))
        except HydrofoilError as error:
            problem = error
    if not sides:
        raise HydrofoilError(
            f"{listing.source}: none of {len(places):,} images can be read.\nThe last: {problem}"
        )
    median = round(statistics.median(sides))
    side = min(median, MOST_SIDE)
    rest = "" if median <= MOST_SIDE else f"; at most {MOST_SIDE} unless data.size says more"
    what = "shorter side" if len(sides) == count else f"shorter side of {len(sides):,} images"
    return (side, side), f"size {side}×{side}: the median {what} is {median:,} pixels{rest}"


def cache_key(listing: Listing, size: tuple[int, int], fit: str) -> str:
    """Return the name of a decoded set: it changes with paths, sizes, times and options."""
    digest = hashlib.sha256(repr((VERSION, PIL.__version__, size, fit)).encode())
    for stamp in listing.stamps:
        digest.update(stamp.encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()[:32]


class _Decoding:
    """One pass over the files of a set.

    The array has one channel until the first image with a color comes; then it gets three.
    """

    def __init__(
        self, listing: Listing, size: tuple[int, int], data: Data, watcher: Watcher
    ) -> None:
        self.listing, self.size, self.data, self.watcher = listing, size, data, watcher
        self.unreadable: dict[int, str] = {}
        self.several: dict[int, str] = {}
        self.files: dict[int, Path] = {}
        self.done, self.began = 0, time.perf_counter()

    def run(self, cache: ImageCache, key: str) -> tuple[Array, dict[str, Any]]:
        """Decode every image, keep the result, and return it with what is known of it."""
        made = cache.create((len(self.listing), 1, *self.size))
        try:
            made = self._fill(cache, made)
            self._check_unchanged()
            close_gaps(made.values, self.unreadable)
            about = {
                "source": shown(self.listing.source),
                "images": len(self.listing),
                "unreadable": {str(at): text for at, text in self.unreadable.items()},
                "several": len(self.several),
                "first": dict(sorted(self.several.items())[:3]),
            }
            return cache.keep(made, key, about), about
        except BaseException:
            made.discard()
            raise

    def _fill(self, cache: ImageCache, made: Unfinished) -> Unfinished:
        tasks, rows = self._tasks(), made.values
        for at, result, which in decode_all(
            tasks, len(self.listing), self.size, self.data.fit, available_threads()
        ):
            self.done += 1
            if isinstance(result, HydrofoilError):
                self.unreadable[at] = str(result).partition("\n")[0].removeprefix("image: ")
                if self.data.unreadable == "stop":
                    _check_unreadable(self.listing, self.unreadable, self.data)
            else:
                if result.shape[2] > rows.shape[1]:
                    made = _colored(cache, made)
                    rows = made.values
                rows[at] = result.transpose(2, 0, 1)
                if which:
                    self.several[at] = which
            if self.done % SHOWN == 0:
                self._show()
        self._show()
        return made

    def _tasks(self) -> Any:
        for at, content in self.listing.contents(range(len(self.listing))):
            if isinstance(content, Path):
                self.files[at] = content
            yield at, content

    def _show(self) -> None:
        total, seconds = len(self.listing), time.perf_counter() - self.began
        rate = self.done / max(seconds, 1e-9)
        self.watcher.update(Download("decoding", "", self.done, total, rate, "images"))

    def _check_unchanged(self) -> None:
        """Refuse files that were written while they were decoded.

        Raises:
            HydrofoilError: A file's size or time is not what it was when the set was listed.
        """
        listing = self.listing
        changed = [
            listing.names[at]
            for at, path in self.files.items()
            if not listing.stamps[at].endswith(stamp_of(path))
        ]
        changed += [
            str(path) for path, stamp in listing.containers.items() if stamp != stamp_of(path)
        ]
        if changed:
            raise HydrofoilError(
                f"{listing.source}: {shown(changed[0])} changed while it was read"
                f"{f', and {len(changed) - 1:,} more' if len(changed) > 1 else ''}.\n"
                "Repeat the command when nothing writes there."
            )


def resized(pictures: Pictures, size: tuple[int, int], fit: Fit) -> Pictures:
    """Return a set with images of another size; of a set in a file, another file in the cache."""
    if size == pictures.shape[1:]:
        return pictures
    channels, cache, key = pictures.shape[0], ImageCache(), ""
    shape = (len(pictures), channels, *size)
    if pictures.mapped:
        known = repr((VERSION, PIL.__version__, pictures.hash, size, fit))
        key = hashlib.sha256(known.encode()).hexdigest()[:32]
        if found := cache.find(key):
            return pictures.with_images(torch.from_numpy(found[0]), mapped=True)
    made = cache.create(shape) if key else Unfinished(np.empty(shape, np.uint8), None)
    try:
        for at, picture_CHW in enumerate(pictures.pictures_NCHW.numpy()):
            image = Image.fromarray(
                picture_CHW[0] if channels == 1 else picture_CHW.transpose(1, 2, 0)
            )
            resized_HWC = np.asarray(fitted(image, size, fit)).reshape(*size, channels)
            made.values[at] = resized_HWC.transpose(2, 0, 1)
        about = {"source": pictures.source, "images": len(pictures), "unreadable": {}}
        values = cache.keep(made, key, about)
    except BaseException:
        made.discard()
        raise
    return pictures.with_images(torch.from_numpy(values), mapped=isinstance(values, np.memmap))


def close_gaps(rows: Array, gaps: Collection[int]) -> None:
    """Move rows toward the beginning, in place, until all but the gaps are there in their order."""
    if not gaps:
        return
    kept = np.delete(np.arange(len(rows)), sorted(gaps))
    for start in range(min(gaps), len(kept), ROWS):
        sources = kept[start : start + ROWS]
        rows[start : start + len(sources)] = rows[sources]


def _colored(cache: ImageCache, gray: Unfinished) -> Unfinished:
    """Return an array of three channels with the gray images so far."""
    count, _, height, width = gray.values.shape
    colored = cache.create((count, 3, height, width))
    for start in range(0, count, ROWS):
        rows = gray.values[start : start + ROWS]
        if rows.any():
            colored.values[start : start + ROWS] = rows
    gray.discard()
    return colored


def _check_unreadable(listing: Listing, unreadable: dict[int, str], data: Data) -> None:
    """Refuse a set with images that cannot be read, unless they are few and to be skipped.

    Raises:
        HydrofoilError: More than 1% of the images, or any with data.unreadable = "stop".
    """
    if not unreadable:
        return
    count, total = len(unreadable), len(listing)
    at, why = next(iter(sorted(unreadable.items())))
    first = f"{shown(listing.names[at])}: {why}"
    if data.unreadable == "stop":
        raise HydrofoilError(
            f"{listing.source}: {first}\n"
            "Remove or replace it, or leave out such images with data.unreadable=skip"
        )
    if count > MOST_SKIPPED * total:
        raise HydrofoilError(
            f"{listing.source}: {count:,} of {plural(total, 'image')} cannot be read "
            f"({percent(count / total, 1)}): expected at most {percent(MOST_SKIPPED, 0)}.\n"
            f"{first}\nRemove or replace such files."
        )


def _check_classes_left(listing: Listing, unreadable: dict[int, str]) -> None:
    """Refuse a set of which no image to train on is left of a class.

    Raises:
        HydrofoilError: All of them cannot be read.
    """
    if not unreadable:
        return
    train = range(listing.given.get("train", len(listing)))
    lost = {listing.labels[at] for at in train if at in unreadable}
    for label in sorted(lost - {listing.labels[at] for at in train if at not in unreadable}):
        at = next(at for at in train if listing.labels[at] == label)
        raise HydrofoilError(
            f"{listing.source}: no image of {shown(listing.classes[label])} to train on can be "
            f"read.\n{shown(listing.names[at])}: {unreadable[at]}\n"
            "Replace such files, or remove the class."
        )


def _several(listing: Listing, about: dict[str, Any]) -> list[str]:
    """Say which files hold several images, such as animations, and which of them is used."""
    count = int(about["several"])
    if not count:
        return []
    some = [f"{shown(listing.names[int(at)])} ({which})" for at, which in about["first"].items()]
    more = f" and {count - len(some):,} more" if count > len(some) else ""
    hold = "holds" if count == 1 else "hold"
    return [
        f"{plural(count, 'file')} {hold} several images, of which one is used: "
        f"{', '.join(some)}{more}"
    ]


def _pictures(
    listing: Listing, pictures_NCHW: Array, unreadable: dict[int, str], notes: list[str]
) -> Pictures:
    """Return a listing's images without the unreadable ones."""
    kept = [at for at in range(len(listing)) if at not in unreadable]
    losses = list(listing.losses)
    pictures_NCHW = pictures_NCHW[: len(kept)]
    if unreadable:
        first = list(unreadable.items())[:3]
        some = [f"{shown(listing.names[at])} ({text.rstrip('.')})" for at, text in first]
        losses.append(left_out(len(unreadable), "image", f"cannot be read: {'; '.join(some)}"))
    given: dict[str, int] = {}
    start = 0
    for part in PARTS:
        end = start + listing.given.get(part, 0)
        given[part] = end - start - sum(start <= at < end for at in unreadable)
        start = end
    _check_classes_left(listing, unreadable)
    groups = [listing.groups[at] for at in kept] if listing.groups else []
    return Pictures.own(
        torch.from_numpy(pictures_NCHW),
        torch.tensor([listing.labels[at] for at in kept], dtype=torch.int64),
        listing.classes,
        listing.source,
        published_valid=given["valid"],
        published_test=given["test"],
        groups=groups,
        names=[listing.names[at] for at in kept],
        mapped=isinstance(pictures_NCHW, np.memmap),
        notes=[*listing.notes, *notes],
        losses=losses,
    )
