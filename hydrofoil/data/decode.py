"""Image files as arrays: the one place where hydrofoil decodes images.

Formats are an explicit list, without any that starts a program. Of the metadata, only the
orientation is read. Every failure of a decoder is a HydrofoilError that names the file.

Axes: H rows, W columns, C channels (1 gray, 2 gray and alpha, 3 RGB, 4 RGBA).
"""

import io
import os
import stat
import struct
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile, StubImageFile
from PIL.PngImagePlugin import PngImageFile

from hydrofoil.data import image_headers as headers
from hydrofoil.data import image_pixels as pixels
from hydrofoil.data.image_headers import DamagedError
from hydrofoil.data.image_readers import READERS, Job
from hydrofoil.data.listing import shown
from hydrofoil.errors import HydrofoilError, reason

OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# What `plain_image` reads: bytes and pixels at most, and where its data begin at the latest.
PLAIN_BYTES, PLAIN_PIXELS, PLAIN_HEAD = 1 << 20, 1 << 18, 1 << 12
NOT_PLAIN = (b"tRNS", b"eXIf", b"acTL", b"iCCP", b"tEXt", b"zTXt", b"iTXt")
PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"
STREAM = 256 << 20  # bytes at most from a source whose length is unknown
TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels_HWC: pixels_HWC[:, ::-1],
    3: lambda pixels_HWC: pixels_HWC[::-1, ::-1],
    4: lambda pixels_HWC: pixels_HWC[::-1],
    5: lambda pixels_HWC: pixels_HWC.transpose(1, 0, 2),
    6: lambda pixels_HWC: pixels_HWC.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels_HWC: pixels_HWC.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels_HWC: pixels_HWC.transpose(1, 0, 2)[::-1],
}
# Each format's first bytes; TGA has none, and AVIF and HEIC differ in their brands.
MAGIC: tuple[tuple[bytes, str], ...] = (
    (headers.PNG_MAGIC, "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\1\0", "ICO"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    *((f"P{kind}{space}".encode(), "PPM") for kind in "123456fF" for space in "\n\r\t #"),
)  # fmt: skip
# What is not read: how it begins, and what it is.
REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"%!", "a PostScript file"), (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"%PDF", "a PDF file"), (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"\x01\0\t\0", "a Windows metafile"), (b"8BPS", "a Photoshop file"),
    (b"DDS ", "a DDS texture"),
    (b"<svg", "an SVG drawing"), (b"<?xml", "an XML file"), (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"), (b"SIMPLE  =", "a FITS file"), (b"\x93NUMPY", "a numpy array"),
    (b"PK\x03\x04", "a zip archive"), (b"\x1f\x8b", "a gzip archive"),
    (b"\xff\x0a", "a JPEG XL image"), (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"icns", "an Apple icon"), (b"qoif", "a QOI image"), (b"gimp xcf", "a GIMP file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE file (FlashPix, old Office)"),
    (b"version https://git-lfs", "a pointer of git LFS, not the image itself"),
)  # fmt: skip
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


@dataclass(frozen=True)
class Decoded:
    """An image as it is meant to be seen.

    Args:
        pixels_HWC: uint8; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA; turned upright.
        frames: Images in the file, 1 for a still.
        size: Width and height stored in the file, turned, before any reduction.
        done: What was done, in words.
    """

    pixels_HWC: np.ndarray
    frames: int
    size: tuple[int, int]
    done: tuple[str, ...]


def decode(
    source: str | Path | bytes | BinaryIO | Image.Image,
    *,
    target: tuple[int, int] | None = None,
    name: str = "",
    reduce: bool = False,
) -> Decoded:
    """Decode one image.

    Args:
        source: A file's path, its content, a binary file object, or a Pillow image.
        target: Width and height that the caller needs at least. A large JPEG is then decoded at a
            reduced scale, and other large images are averaged, with four times that to spare.
        name: How errors call the image; the path by default.
        reduce: Decode JPEGs of every size at a reduced scale, with twice the target to spare.

    Raises:
        HydrofoilError: It cannot be read, is damaged, too large, or of no format that is read.
    """
    label = shown(name or (str(source) if isinstance(source, str | Path) else "the image"))
    if isinstance(source, Image.Image):
        with _in_own_words(label):
            return _of_pillow(source, label)
    with _opened(source, label) as file:
        read = READERS[_format(file, label)]
        job = Job(file, label, target, reduce=reduce)
        with _in_own_words(label):
            return _assembled(job, read(job))


def size_of(source: Path | bytes, name: str = "") -> tuple[int, int]:
    """Return an image's width and height, turned upright; of PNG and JPEG from the header alone.

    Raises:
        HydrofoilError: As `decode`.
    """
    label = shown(name or (str(source) if isinstance(source, Path) else "the image"))
    with _opened(source, label) as file:
        kind = _format(file, label)
        if kind not in ("PNG", "JPEG"):
            return decode(source, name=name).size
        with _in_own_words(label):
            read = headers.read_png if kind == "PNG" else headers.read_jpeg
            header = read(file)
            turned = headers.orientation_of(header.exif) >= 5
            size = header.width, header.height
            return (size[1], size[0]) if turned else size


def plain_image(path: str | Path) -> Image.Image | None:
    """Return the image in a plain PNG of 8 bits, gray or RGB; None for every other file.

    It is what `decode` reads in such a file, at a third of the cost: sets of small images are
    mostly such files, and checks take longer than decoding there.
    """
    try:
        handle = os.open(path, OPEN)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > PLAIN_BYTES:
                return None
            content = os.read(handle, status.st_size)
        finally:
            os.close(handle)
    except (OSError, ValueError):
        return None
    start = content.find(b"IDAT", 0, PLAIN_HEAD)
    depth, color = content[24:26] if len(content) > 26 else b"\0\0"
    if start < 0 or not content.startswith(headers.PNG_MAGIC) or content[12:16] != b"IHDR":
        return None
    if depth != 8 or color not in (0, 2) or not content.endswith(PNG_END):
        return None
    if any(content.find(name, 0, start) >= 0 for name in NOT_PLAIN):
        return None
    width, height = struct.unpack_from(">II", content, 16)
    if not 0 < width * height <= PLAIN_PIXELS:
        return None
    try:
        image = PngImageFile(io.BytesIO(content))
        image.load()
    except Exception:  # `decode` says what is wrong with it, or reads it all the same
        return None
    return image if image.mode == ("RGB" if color else "L") else None


def _assembled(job: Job, strips: pixels.Strips) -> Decoded:
    """Convert what a reader found to an upright array."""
    pixels_HWC = pixels.to_pixels(strips, job.shrink, job.done)
    size = job.size if job.scale * job.shrink > 1 else strips.size
    if job.shrink > 1:
        job.done.append(f"averaged over {job.shrink}×{job.shrink} pixels of {size[0]}×{size[1]}")
    if job.orientation in TURNED:
        pixels_HWC = np.ascontiguousarray(TURNED[job.orientation](pixels_HWC))
        job.done.append("turned as its EXIF tag says")
        size = (size[1], size[0]) if job.orientation >= 5 else size
    if job.frames > 1:
        which = "largest" if job.unit == "sizes" else "first"
        job.done.append(f"the {which} of {job.frames} {job.unit}")
    return Decoded(pixels_HWC, job.frames, size, tuple(job.done))


def _of_pillow(image: Image.Image, label: str) -> Decoded:
    """Convert an image that the caller opened or made with Pillow."""
    drawn = isinstance(image, ImageFile) and image.tile and image.format == "EPS"
    if drawn or isinstance(image, StubImageFile):
        raise HydrofoilError(
            f"{label}: an {image.format} image: expected one that no other program has to draw."
        )
    frames = int(getattr(image, "n_frames", 1))
    exif = image.info.get("exif", b"")
    job = Job(io.BytesIO(), label, None, frames=frames, size=image.size)
    image.load()
    if job.size == image.size and isinstance(exif, bytes):
        job.orientation = headers.orientation_of(exif)
    if image.format == "TIFF":  # Pillow has turned it
        job.orientation = 1
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        kind = {"I": "int32", "F": "float32"}.get(image.mode, "uint16")
        return _assembled(job, pixels.gray_strips(image, kind))
    clear = image.info.get("transparency")
    if image.mode == "L" and isinstance(clear, int):
        return _assembled(job, pixels.shallow_strips(image, (clear,)))
    if image.mode == "RGB" and isinstance(clear, tuple):
        return _assembled(job, pixels.shallow_strips(image, clear))
    return _assembled(job, pixels.shallow_strips(image))


@contextmanager
def _opened(source: str | Path | bytes | BinaryIO, label: str) -> Generator[BinaryIO]:
    """Open a source for reading from any place in it.

    Raises:
        HydrofoilError: It is missing, empty, no ordinary file, or longer than a stream may be.
    """
    if isinstance(source, str | Path):
        with _opened_path(Path(source), label) as file:
            yield file
        return
    if isinstance(source, bytes):
        content = source
    else:
        try:
            content = source.read(STREAM + 1)
        except OSError as error:
            raise HydrofoilError(f"{label}: cannot be read: {reason(error)}.") from error
        if not isinstance(content, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise HydrofoilError(
                f"{label}: a {type(content).__name__} was read: expected bytes. "
                "Open the file in binary mode ('rb')."
            )
    if len(content) > STREAM:
        raise HydrofoilError(
            f"{label}: more than {STREAM >> 20} MiB: expected an image. Save it as a file."
        )
    if not content:
        raise HydrofoilError(f"{label}: empty: expected an image.")
    yield io.BytesIO(content)


@contextmanager
def _opened_path(path: Path, label: str) -> Generator[BinaryIO]:
    try:
        handle = os.open(path, OPEN)  # a pipe would be waited for without O_NONBLOCK
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "not a path"
        raise HydrofoilError(f"{label}: cannot be read: {why}.") from error
    status = os.fstat(handle)
    try:
        if stat.S_ISDIR(status.st_mode):
            raise HydrofoilError(
                f"{label}: cannot be read: Is a directory; expected an image file."
            )
        if not stat.S_ISREG(status.st_mode):
            raise HydrofoilError(
                f"{label}: a pipe or device: expected an image file. Save the image to a file."
            )
        if not status.st_size:
            raise HydrofoilError(f"{label}: empty: expected an image file.")
    except HydrofoilError:
        os.close(handle)
        raise
    with open(handle, "rb") as file:
        yield file


def _format(file: BinaryIO, label: str) -> str:
    """Return the format that a file's first bytes name.

    Raises:
        HydrofoilError: None that is read.
    """
    try:
        head = file.read(512)
        kind = known_format(head) or ("TGA" if _is_tga(file, head, label) else "")
    except OSError as error:
        raise HydrofoilError(f"{label}: cannot be read: {reason(error)}.") from error
    if kind:
        return kind
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    what = next((what for magic, what in REFUSED if text.startswith(magic)), "")
    raise HydrofoilError(
        f"{label}: {what or 'not an image that hydrofoil reads'}: expected {', '.join(READERS)}.\n"
        "Save it as PNG with the program that made it."
    )


def known_format(head: bytes) -> str:
    """Return the format that a file's first bytes name; empty: none that is read, or TGA."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12]} | {head[at : at + 4] for at in range(16, length, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIC" if brands & HEIC_BRANDS else ""
    return next((kind for magic, kind in MAGIC if head.startswith(magic)), "")


def _is_tga(file: BinaryIO, head: bytes, label: str) -> bool:
    """Recognize a TGA, which has no first bytes of its own, by its head and its name or end."""
    if len(head) < 18:
        return False
    colormap, kind, depth = head[1], head[2], head[16]
    width, height = struct.unpack_from("<HH", head, 12)
    if colormap > 1 or kind not in (1, 2, 3, 9, 10, 11) or depth not in (1, 8, 15, 16, 24, 32):
        return False
    if label.lower().endswith((".tga", ".vda", ".icb", ".vst", ".tpic")):
        return width > 0 and height > 0
    file.seek(-18, io.SEEK_END)
    return file.read(18) == b"TRUEVISION-XFILE.\0"


@contextmanager
def _in_own_words(label: str) -> Generator[None]:
    """Make a HydrofoilError of whatever a decoder raises, and keep its warnings to ourselves."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except HydrofoilError:
        raise
    except Exception as error:  # RuntimeError, MemoryError, SyntaxError, struct.error, …
        if isinstance(error, OSError) and error.errno:
            raise HydrofoilError(f"{label}: cannot be read: {reason(error)}.") from error
        raise HydrofoilError(
            f"{label}: a damaged image: {_why(error)}.\nUse another copy of it, or save it again."
        ) from error


def _why(error: Exception) -> str:
    text = str(error)
    if isinstance(error, DamagedError):
        return text
    if isinstance(error, MemoryError):
        return "its decoder ran out of memory"
    if isinstance(error, EOFError | IndexError | struct.error) or "truncated" in text:
        return "it ends early"
    return "its decoder gave up"
