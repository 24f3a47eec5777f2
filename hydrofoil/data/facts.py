"""What is known of each image file of the user's own set: size, format, time; from headers.

Pixels are decoded only in formats whose header does not suffice, and in files that seem to lack
their end.

Axes: N images.
"""

import io
import math
import os
import stat
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hydrofoil.data import image_headers as headers
from hydrofoil.data.decode import OPEN, decode, known_format
from hydrofoil.data.folders import ending_of
from hydrofoil.data.image_readers import DAMAGED_END
from hydrofoil.data.listing import Listing
from hydrofoil.data.own import list_own
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Download, Silent, Watcher
from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.schema import Data
from hydrofoil.recipe.source import is_path

HEAD, TAIL = 1 << 16, 1 << 12  # bytes read from the start and the end of a file
SHOWN = 500  # files from one update of the progress bar to the next
UNKNOWN = -1
# How the end of a complete file is found: anywhere in its last 4 KiB, since some programs append.
ENDS = {"PNG": b"IEND\xaeB\x60\x82", "JPEG": b"\xff\xd9"}
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class FileFact:
    """What one file says about itself.

    Args:
        bytes: Its length.
        time: When it was last changed, in seconds since 1970; NaN: unknown, as in an archive.
        format: By its content.
        width: In pixels, turned upright; -1: unknown.
        height: Likewise.
        frames: Its images; 1 for a still.
        damaged: Its end is missing or damaged, its pixels are all there.
        quality: Of a JPEG, 1 to 100; -1: unknown.
    """

    bytes: int = 0
    time: float = math.nan
    format: str = ""
    width: int = UNKNOWN
    height: int = UNKNOWN
    frames: int = 1
    damaged: bool = False
    quality: int = UNKNOWN


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the files of a set, aligned with its images.

    Args:
        files: Of each image; None: it was not found again.
        endings: Of each file's name, in lower case, with its dot; empty: it has none.
        paths: Of each file; None: its bytes are in an archive or a parquet file.
        unreadable: Name and reason of each file that is listed and could not be decoded.
    """

    files: Sequence[FileFact | None]
    endings: Sequence[str]
    paths: Sequence[Path | None]
    unreadable: Sequence[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def __len__(self) -> int:
        return len(self.files)

    def column(self, name: str) -> Array:
        """Return one of the numbers of `FileFact` for every image, as float64; NaN: unknown."""
        values = [math.nan if one is None else float(getattr(one, name)) for one in self.files]
        column_N = np.array(values, np.float64)
        return np.where(column_N == UNKNOWN, math.nan, column_N)

    @property
    def formats(self) -> list[str]:
        """The format of each image by its content; empty: unknown."""
        return ["" if one is None else one.format for one in self.files]


def read_facts(data: Data, pictures: Pictures, watcher: Watcher | None = None) -> Facts | None:
    """Return what is known of the files of a set; None where it has no files of its own.

    Published sets and arrays have none. 10,000 small files take about a second.

    Args:
        data: The section of the recipe that the set was read with.
        pictures: The set.
        watcher: Shows how far it is.

    Raises:
        HydrofoilError: The source is not there any more.
    """
    if not is_path(data.source) or not len(pictures.names):
        return None
    listing = list_own(data)
    return facts_of(listing, pictures, watcher) if isinstance(listing, Listing) else None


def facts_of(listing: Listing, pictures: Pictures, watcher: Watcher | None = None) -> Facts:
    """Return what is known of the files in a listing; see `read_facts`."""
    number = {name: at for at, name in enumerate(pictures.names)}
    files: list[FileFact | None] = [None] * len(pictures)
    paths: list[Path | None] = [None] * len(pictures)
    unreadable: dict[int, tuple[str, str]] = {}
    began, done, follow = time.perf_counter(), 0, watcher or Silent()
    for place, content in listing.contents(range(len(listing))):
        name = listing.names[place]
        at = number.get(name)
        if at is None:
            unreadable[place] = name, _reason(content)
        else:
            files[at] = file_fact(content)
            paths[at] = content if isinstance(content, Path) else None
        done += 1
        if done % SHOWN == 0 or done == len(listing):
            rate = done / max(time.perf_counter() - began, 1e-9)
            follow.update(Download("reading headers", "", done, len(listing), rate, "files"))
    endings = [ending_of(name.rpartition("/")[2]) for name in pictures.names]
    return Facts(files, endings, paths, [unreadable[place] for place in sorted(unreadable)])


def _reason(content: Path | bytes) -> str:
    try:
        decode(content, target=(64, 64), name="image", reduce=True)
    except HydrofoilError as error:
        return str(error).partition("\n")[0].removeprefix("image: ").rstrip(".")
    return "it changed while it was read"


def file_fact(content: Path | bytes) -> FileFact | None:
    """Return what a file says about itself; None: it cannot be read."""
    try:
        size, changed, head, tail = _ends(content)
    except (OSError, ValueError):
        return None
    kind = known_format(head)
    found = _from_header(kind, head, size) if kind in HEADERS else None
    if found is None:
        return _decoded(content, kind, size, changed)
    width, height, frames = found
    damaged = kind in ENDS and ENDS[kind] not in tail and _is_damaged(content)
    quality = headers.jpeg_quality(io.BytesIO(head)) if kind == "JPEG" else UNKNOWN
    return FileFact(size, changed, kind, width, height, frames, damaged, quality)


def _ends(content: Path | bytes) -> tuple[int, float, bytes, bytes]:
    """Return a file's length, its time of change, its first and its last bytes."""
    if isinstance(content, bytes):
        return len(content), math.nan, content[:HEAD], content[-TAIL:]
    handle = os.open(content, OPEN)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no file")
        head = os.read(handle, HEAD)
        tail = head[-TAIL:]
        if status.st_size > len(head):
            os.lseek(handle, max(0, status.st_size - TAIL), os.SEEK_SET)
            tail = os.read(handle, TAIL)
    finally:
        os.close(handle)
    return status.st_size, status.st_mtime, head, tail


def _is_damaged(content: Path | bytes) -> bool:
    try:
        return DAMAGED_END in decode(content).done
    except HydrofoilError:
        return True


def _decoded(content: Path | bytes, kind: str, size: int, changed: float) -> FileFact:
    """Return what decoding shows of a file whose header does not suffice."""
    try:
        decoded = decode(content)
    except HydrofoilError:
        return FileFact(size, changed, kind)
    width, height = decoded.size
    damaged = DAMAGED_END in decoded.done
    return FileFact(size, changed, kind or "TGA", width, height, decoded.frames, damaged)


def _png(head: bytes, size: int) -> tuple[int, int, int] | None:
    start = head.find(b"IDAT")
    if len(head) < 33 or start < 0 or b"eXIf" in head[:start] or b"Raw profile" in head[:start]:
        return None  # it may be turned, or its pixels begin late
    width, height = struct.unpack_from(">II", head, 16)
    frames = 1
    animated = head.find(b"acTL", 0, start)
    if animated >= 0:
        (frames,) = struct.unpack_from(">I", head, animated + 4)
    return width, height, frames


def _jpeg(head: bytes, size: int) -> tuple[int, int, int] | None:
    jpeg = headers.read_jpeg(io.BytesIO(head))
    if not jpeg.width or not jpeg.height:
        return None
    turned = headers.orientation_of(jpeg.exif) >= 5
    width, height = (jpeg.height, jpeg.width) if turned else (jpeg.width, jpeg.height)
    return width, height, jpeg.frames


def _webp(head: bytes, size: int) -> tuple[int, int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X" and len(head) >= 30 and not head[20] & 0x0A:  # neither animated nor EXIF
        return (
            1 + int.from_bytes(head[24:27], "little"),
            1 + int.from_bytes(head[27:30], "little"),
            1,
        )
    if kind == b"VP8 " and len(head) >= 30:
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF, 1
    if kind == b"VP8L" and len(head) >= 25:
        (bits,) = struct.unpack_from("<I", head, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 1
    return None


def _gif(head: bytes, size: int) -> tuple[int, int, int] | None:
    if size > len(head) or len(head) < 10:
        return None
    gif = headers.read_gif(io.BytesIO(head))
    width, height = struct.unpack_from("<HH", head, 6)
    return (width, height, max(1, gif.frames)) if gif.complete else None


def _bmp(head: bytes, size: int) -> tuple[int, int, int] | None:
    if len(head) < 26 or struct.unpack_from("<I", head, 14)[0] < 40:
        return None
    width, height = struct.unpack_from("<ii", head, 18)
    return width, abs(height), 1


# What the first bytes of a format say: width, height, frames; None: the file has to be decoded.
HEADERS = {"PNG": _png, "JPEG": _jpeg, "WebP": _webp, "GIF": _gif, "BMP": _bmp}


def _from_header(kind: str, head: bytes, size: int) -> tuple[int, int, int] | None:
    try:
        return HEADERS[kind](head, size)
    except struct.error:
        return None
