"""One reader for each image format: from an open file to strips of pixels.

A reader checks what decoding would cost before anything is allocated. Where odd metadata keep
Pillow from opening a file, it is opened again without them.

Axes: H rows, W columns, C channels.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.IcoImagePlugin import IcoFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TgaImagePlugin import TgaImageFile
from PIL.WebPImagePlugin import WebPImageFile

from hydrofoil.data import image_headers as headers
from hydrofoil.data import image_pixels as pixels
from hydrofoil.data.image_headers import DamagedError
from hydrofoil.data.image_pillow import Png, Tiff
from hydrofoil.errors import HydrofoilError

BUDGET = 600_000_000  # bytes for decoding; Python and torch take as much again
JPEG_BUDGET = 625_000_000  # a progressive photograph of 200 million pixels takes 622
MOST_PIXELS = 178_956_970  # of any format but JPEG; Pillow's own limit
MOST_JPEG_PIXELS = 512_000_000
DRAFT_ABOVE = 8_000_000  # pixels from which a JPEG is decoded at a reduced scale
SHRINK_ABOVE = 32_000_000  # pixels from which the others are averaged
MARGIN = 4  # how many times the caller's width and height are kept then
LESS_MARGIN = 2  # and for the images of a set, where the last step of two is antialiased
Opened = TypeVar("Opened", bound=ImageFile)
DAMAGED_END = "its end is damaged, its pixels are all there"


@dataclass
class Job:
    """One image on its way: what the caller wants, and what has been found out.

    Args:
        file: The open file.
        label: How errors call it.
        target: Width and height that the caller needs at least, if known.
        reduce: Decode JPEGs of every size at a reduced scale, with twice the target to spare.
        frames: Images in the file.
        unit: What the file holds several of: "frames", "pages", "images" or "sizes".
        orientation: As EXIF counts them, 1 to 8.
        size: Width and height stored in the file.
        scale: What fraction of its size a JPEG is decoded at.
        shrink: Rows and columns to average over.
        done: In words what was done.
    """

    file: BinaryIO
    label: str
    target: tuple[int, int] | None
    frames: int = 1
    unit: str = "frames"
    orientation: int = 1
    size: tuple[int, int] = (0, 0)
    scale: int = 1
    shrink: int = 1
    done: list[str] = field(default_factory=list[str])
    reduce: bool = False


def admit(job: Job, size: tuple[int, int], cost: float, channels: int = 3) -> None:
    """Note an image's size and how far to average; refuse what would take too much memory.

    Args:
        job: Gets the size and the reduction.
        size: Width and height as stored.
        cost: Bytes a pixel that decoding takes at its peak, the result aside.
        channels: Bytes a pixel of the result.
    """
    width, height = job.size = size
    count = width * height
    if count < 1:
        raise DamagedError("its header gives it no pixels")
    if count > SHRINK_ABOVE or count * (cost + channels) > BUDGET:
        job.shrink = _spare(job, 8)
    needed = count * (cost + channels / job.shrink**2)
    if count > MOST_PIXELS or needed > BUDGET:
        most = min(MOST_PIXELS, int(count * BUDGET / needed))
        raise too_large(job, most)


def too_large(job: Job, most: int) -> HydrofoilError:
    """Return the refusal of an image of too many pixels."""
    width, height = job.size
    return HydrofoilError(
        f"{job.label}: too large an image: {width}×{height} is {width * height / 1e6:,.0f} million "
        f"pixels; expected at most {most / 1e6:,.0f} million of this format.\n"
        "Save it smaller, or as a baseline JPEG, which is decoded at a reduced scale."
    )


def _spare(job: Job, most: int, margin: int = MARGIN) -> int:
    """Return the reduction, a power of two, that keeps a multiple of what the caller needs."""
    if job.target is None:
        return 1
    width, height = job.target
    if job.orientation >= 5:
        width, height = height, width
    spare = min(job.size[0] // (margin * width), job.size[1] // (margin * height), most)
    return 1 << max(0, spare.bit_length() - 1)


def _bytes_of(mode: str) -> int:
    """Return the bytes that Pillow holds for each pixel of a mode."""
    return {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(mode, 4)


def _open(kind: type[Opened], job: Job, bare: Callable[[], bytes] | None = None) -> Opened:
    """Open a file by one of Pillow's classes, without its metadata if they are in the way."""
    job.file.seek(0)
    try:
        return kind(job.file)
    except Exception:
        if bare is None:
            raise
        return kind(io.BytesIO(bare()))


def png(job: Job) -> pixels.Strips:
    """Read a PNG: any depth, palettes, transparency, the first image of an APNG."""
    file = headers.read_png(job.file)
    job.frames, job.orientation = file.frames, headers.orientation_of(file.exif)
    deep = file.depth == 16 and file.color != 0
    admit(job, (file.width, file.height), 8 if deep else 4 if file.color else 2, 4)
    try:
        strips = _png_strips(job.file, file)
        if not file.complete:
            job.done.append(DAMAGED_END)
        elif not file.sound:
            job.done.append("a checksum of its pixels is wrong")
        return strips
    except Exception as error:
        rebuilt = headers.rebuilt_png(job.file, file)
        if rebuilt is None:
            raise DamagedError("it ends before its last row") from error
        content, missing = rebuilt
        if missing:
            raise DamagedError(f"{missing} of {file.height} rows are missing") from error
        strips = _png_strips(io.BytesIO(content), file)
        if not (file.complete and file.sound):
            job.done.append(DAMAGED_END)
        return strips


def _png_strips(content: BinaryIO, file: headers.Png) -> pixels.Strips:
    def load(raw: str = "", mode: str = "") -> ImageFile:
        content.seek(0)
        image = Png(content)
        if raw:
            image.unpack(raw, mode)
        image.load()
        if file.color in (0, 2):
            image.info.pop("transparency", None)  # in the file's own depth, not in 8 bits
        return image

    if file.depth == 16 and file.color == 4:
        return pixels.packed_strips(load("RGBA", "RGBA"))
    if file.depth == 16 and file.color in (2, 6):
        mode = "RGB" if file.color == 2 else "RGBA"
        return pixels.paired_strips(load(f"{mode};16B"), load(f"{mode};16L"), file.transparent)
    if file.depth == 16:
        return pixels.gray_strips(load(), "uint16", transparent=file.transparent)
    scale = {1: 255, 2: 85, 4: 17}.get(file.depth, 1)
    return pixels.shallow_strips(load(), tuple(scale * value for value in file.transparent))


def jpeg(job: Job) -> pixels.Strips:
    """Read a JPEG, a large one at a reduced scale."""
    file = headers.read_jpeg(job.file)
    job.frames, job.orientation = file.frames, headers.orientation_of(file.exif)
    job.size, job.unit = (file.width, file.height), "images"
    if file.bits and file.bits != 8:
        raise HydrofoilError(
            f"{job.label}: a JPEG of {file.bits} bits: expected 8 bits. Save it as PNG or TIFF."
        )
    if job.reduce:
        scale = _spare(job, 8, LESS_MARGIN)
    else:
        scale = _spare(job, 8) if file.width * file.height > DRAFT_ABOVE else 1
    cost = 2 * file.samples * file.buffered + 7 / scale**2
    most = min(MOST_JPEG_PIXELS, int(JPEG_BUDGET / cost))
    if file.width * file.height > most:
        raise too_large(job, most)

    def load(content: BinaryIO) -> Image.Image:
        content.seek(0)
        image = JpegImageFile(content)
        image.draft(None, (image.width // scale, image.height // scale)) if scale > 1 else None
        image.load()
        return image

    image = _jpeg_image(job, file, load)
    job.scale = scale
    if scale > 1:
        job.done.append(f"decoded at 1/{scale} of {file.width}×{file.height}")
    return pixels.shallow_strips(image)


def _jpeg_image(
    job: Job, file: headers.Jpeg, load: Callable[[BinaryIO], Image.Image]
) -> Image.Image:
    try:
        return load(job.file)
    except Exception as error:
        content = headers.bare_jpeg(job.file, file)
        try:
            return load(io.BytesIO(content))
        except Exception:
            if not headers.has_all_scans(content):
                raise DamagedError("it ends before its last row") from error
            # The data end early. Where they lack nothing but their end, whatever follows is not
            # read as pixels, so that different bytes give the same image.
            first, second = (
                load(io.BytesIO(content + filler * 4096 + b"\xff\xd9"))
                for filler in (b"\x55", b"\xaa")
            )
            differ_H = (np.asarray(first) != np.asarray(second)).reshape(first.height, -1).any(1)
            if differ_H.any():
                raise DamagedError("it ends before its last row") from error
            job.done.append(DAMAGED_END)
            return first


def gif(job: Job) -> pixels.Strips:
    """Read the first frame of a GIF."""
    job.file.seek(6)
    width, height = struct.unpack("<HH", job.file.read(4))
    admit(job, (width, height), 2, 4)
    file = headers.read_gif(job.file)
    job.frames = max(1, file.frames)
    image = _open(GifImageFile, job)
    admit(job, image.size, 2, 4)  # a frame beyond the canvas widens it
    image.load()
    if not file.complete:
        job.done.append(DAMAGED_END)
    transparency = image.info.get("transparency")
    if image.mode == "L" and isinstance(transparency, int):
        return pixels.shallow_strips(image, (transparency,))
    return pixels.shallow_strips(image)


def bmp(job: Job) -> pixels.Strips:
    """Read a BMP."""
    image = _open(BmpImageFile, job)
    admit(job, image.size, _bytes_of(image.mode))
    image.load()
    return pixels.shallow_strips(image)


def tga(job: Job) -> pixels.Strips:
    """Read a TGA."""
    image = _open(TgaImageFile, job)
    admit(job, image.size, 2 * _bytes_of(image.mode))  # twice: it may have to be flipped
    image.load()
    return pixels.shallow_strips(image)


def webp(job: Job) -> pixels.Strips:
    """Read a WebP, the first frame of an animation."""
    job.file.seek(0)
    admit(job, _webp_size(job.file.read(30)), 16, 4)
    image = _open(WebPImageFile, job)
    image.load()
    job.frames = getattr(image, "n_frames", 1)
    job.orientation = headers.orientation_of(image.info.get("exif", b""))
    return pixels.shallow_strips(image)


def _webp_size(head: bytes) -> tuple[int, int]:
    if head[12:16] == b"VP8X":
        width, height = head[24:27], head[27:30]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if head[12:16] == b"VP8L":
        (sizes,) = struct.unpack_from("<I", head, 21)
        return (sizes & 0x3FFF) + 1, (sizes >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def avif(job: Job) -> pixels.Strips:
    """Read an AVIF, the first frame of a sequence."""

    def bare() -> bytes:  # its EXIF item under a name that is not looked for
        job.file.seek(0)
        return job.file.read().replace(b"Exif", b"skip")

    image = _open(AvifImageFile, job, bare)
    admit(job, image.size, 18, 4)
    image.load()
    job.frames = getattr(image, "n_frames", 1)
    job.orientation = headers.orientation_of(image.info.get("exif", b""))
    return pixels.shallow_strips(image)


def jpeg_2000(job: Job) -> pixels.Strips:
    """Read a JPEG 2000, a large one at a reduced resolution."""
    image = _open(Jpeg2KImageFile, job)
    channels = len(image.getbands())
    admit(job, image.size, 6.5 * channels + _bytes_of(image.mode), channels)
    image.load()
    if image.mode.startswith("I"):
        return pixels.gray_strips(image, "uint16")
    return pixels.shallow_strips(image)


def ico(job: Job) -> pixels.Strips:
    """Read the largest image of an icon."""
    job.file.seek(0)
    icon = IcoFile(job.file)
    job.frames, job.unit = len(icon.entry), "sizes"
    job.file.seek(icon.entry[0].offset)
    head = job.file.read(16)
    if head.startswith(headers.PNG_MAGIC):
        job.file.seek(icon.entry[0].offset)
        frames, job.file = job.frames, io.BytesIO(job.file.read(icon.entry[0].size))
        strips = png(job)
        job.frames = frames
        return strips
    width, height = struct.unpack_from("<ii", head, 4)
    admit(job, (abs(width), abs(height) // 2), 16, 4)
    return pixels.shallow_strips(icon.frame(0))


def tiff(job: Job) -> pixels.Strips:
    """Read the first page of a TIFF."""
    number = {
        tag: headers.tiff_number(job.file, tag, 1) for tag in (258, 259, 262, 274, 277, 284, 339)
    }
    bits, photometric, sample = number[258], number[262], number[339]
    if number[277] > 6:
        raise HydrofoilError(
            f"{job.label}: a TIFF of {number[277]} samples a pixel: expected gray or color. "
            "Save three of them as PNG."
        )
    job.orientation = number[274] if 1 <= number[274] <= 8 else 1
    if number[284] == 2 and bits != 8 and number[259] == 1:
        raise HydrofoilError(
            f"{job.label}: a TIFF of separate planes of {bits} bits: expected interleaved samples. "
            "Save it as PNG."
        )

    compressed = number[259] != 1
    rows = headers.tiff_number(job.file, 278, 1 << 31) / headers.tiff_number(job.file, 257, 1)
    strip = compressed * min(1, rows) * number[277] * bits / 8  # libtiff holds one beside the image

    def load(low: bool = False) -> tuple[ImageFile, str]:
        image = _open(Tiff, job, lambda: headers.bare_tiff(job.file))
        raw = image.raw_mode()
        pair = raw.startswith(("RGB", "CMYK")) and ";16" in raw
        admit(job, image.size, _bytes_of(image.mode) * (1 + pair) + strip, 4)
        if pair:
            # The native order, N, is little endian where torch runs.
            last = {"B": "L", "L": "B", "N": "B"}[raw[-1]] if low else raw[-1]
            image.unpack(raw[:-1] + last)
        image.load()
        return image, raw

    image, raw = load()
    job.unit, job.frames = "pages", headers.tiff_pages(job.file)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        kind = "float32" if image.mode == "F" else "uint16" if image.mode != "I" else "int32"
        if kind == "int32" and bits == 32 and sample == 1:
            kind = "uint32"
        return pixels.gray_strips(image, kind, inverted=photometric == 0)
    if image.mode == "L" and sample == 2:
        return pixels.gray_strips(image, "int8", inverted=photometric == 0)
    if image.mode in ("RGB", "RGBA") and ";16" in raw and "a" not in raw:
        return pixels.paired_strips(image, load(low=True)[0])
    return pixels.shallow_strips(image)


def ppm(job: Job) -> pixels.Strips:
    """Read PBM, PGM, PPM and PFM, whose header gives the greatest value."""
    kind, width, height, top, start = headers.netpbm(job.file)
    channels = 3 if kind in "36F" else 1
    plain = kind in "123"
    admit(job, (width, height), 60 * channels if plain else 0.1, channels)
    if plain:
        values_HWC = _plain_values(job.file, start, kind, top, (height, width, channels))
        return _ppm_strips((width, height), kind, top, lambda first, end: values_HWC[first:end])
    item = {"f": "f4", "F": "f4"}.get(kind, "u1" if top < 256 else "u2")
    order = "<" if kind in "fF" and top < 0 else ">"
    row = (width + 7) // 8 if kind == "4" else width * channels * int(item[1])
    if job.file.seek(0, io.SEEK_END) < start + row * height:
        missing = height - max(0, job.file.tell() - start) // row
        raise DamagedError(f"{missing} of {height} rows are missing")

    def cut(first: int, end: int) -> np.ndarray:
        if kind in "fF":  # its rows stand from the bottom to the top
            first, end = height - end, height - first
        job.file.seek(start + row * first)
        content = job.file.read(row * (end - first))
        if kind == "4":
            bits_HW = np.unpackbits(
                np.frombuffer(content, np.uint8).reshape(end - first, row), axis=1
            )
            return bits_HW[:, :width, None]
        values = np.frombuffer(content, order + item).reshape(end - first, width, channels)
        return (values[::-1] if kind in "fF" else values).astype(item, copy=False)

    return _ppm_strips((width, height), kind, top, cut)


def _ppm_strips(
    size: tuple[int, int], kind: str, top: float, cut: Callable[[int, int], np.ndarray]
) -> pixels.Strips:
    if kind in "14":  # 1 is black
        return pixels.Strips(size, lambda first, end: 255 * (1 - cut(first, end)))
    declared = (0.0, top) if kind in "2356" and top < 255 else None
    return pixels.Strips(size, cut, declared=declared)


def _plain_values(
    content: BinaryIO, start: int, kind: str, top: float, shape: tuple[int, int, int]
) -> np.ndarray:
    """Return the numbers that stand in a file as text."""
    content.seek(start)
    text = re.sub(rb"#[^\n\r]*", b"", content.read())
    if kind == "1":  # single digits, with or without space between them
        numbers = [digit - ord("0") for digit in b"".join(text.split())]
    else:
        numbers = [int(number) for number in text.split()]
    height, width, channels = shape
    if len(numbers) < height * width * channels:
        missing = height - len(numbers) // (width * channels)
        raise DamagedError(f"{missing} of {height} rows are missing")
    values = np.array(numbers[: height * width * channels])
    if values.min() < 0 or values.max() > top:
        raise DamagedError("it holds values beyond those that its header names")
    return values.reshape(shape).astype(np.uint8 if top < 256 else np.uint16)


def heic(job: Job) -> pixels.Strips:
    """Read an HEIC, for which the package pillow-heif is needed."""
    try:
        import pillow_heif
    except ImportError:
        raise HydrofoilError(
            f"{job.label}: an HEIC image, which needs the package pillow-heif.\n"
            "Install it by pip install 'hydrofoil[heic]', or save the image as JPEG."
        ) from None
    job.file.seek(0)
    images = pillow_heif.open_heif(job.file)
    admit(job, images.size, 18, 4)
    job.frames, job.unit = len(images), "images"
    return pixels.shallow_strips(images.to_pillow())


READERS: dict[str, Callable[[Job], pixels.Strips]] = {
    "PNG": png, "JPEG": jpeg, "GIF": gif, "BMP": bmp, "TGA": tga, "WebP": webp, "AVIF": avif,
    "JPEG 2000": jpeg_2000, "ICO": ico, "TIFF": tiff, "PPM": ppm, "HEIC": heic,
}  # fmt: skip
