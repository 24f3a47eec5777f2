"""What an image file says about itself, read from its bytes without decoding a pixel.

Metadata never decides whether an image is read: every function here returns a neutral answer for
bytes that it cannot follow. Nothing of EXIF but the orientation is looked at.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

ORIENTATION = 0x0112
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Segments of a JPEG without which its colors may come out wrong, JFIF and Adobe's: their length.
NEEDED_SEGMENTS = {0xE0: 14, 0xEE: 12}
LUMA_STEPS = 3688  # the sum of the luma table of ITU-T T.81, annex K, which is quality 50
MARKER = re.compile(rb"\xff[\x02-\xcf\xda-\xfe]")  # of a segment that has a length
NEEDED_TAGS = {
    254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323,
    324, 325, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,
}  # fmt: skip


class DamagedError(Exception):
    """The file is damaged, in our own words."""


def orientation_of(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that a block of EXIF names; 1 where it names none.

    >>> orientation_of(bytes.fromhex("4d4d002a00000008" "0001" "011200030000000100060000"))
    6
    >>> orientation_of(b"no EXIF at all")
    1
    """
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(order + "HHI", exif, entry)
            if tag == ORIENTATION and length == 1 and kind in (3, 4):
                (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


@dataclass
class Png:
    """A PNG's chunks as far as pixels depend on them.

    Args:
        depth: Bits per sample.
        color: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGBA.
        interlaced: Adam7.
        transparent: The samples that stand for a transparent pixel, in the file's own depth.
        exif: The eXIf chunk, or ImageMagick's form of it in a text chunk.
        frames: Images of an APNG, 1 otherwise.
        complete: The file reaches its IEND chunk.
        sound: No chunk of pixels has a wrong checksum.
        chunks: Name, offset and length of the data of every chunk that pixels depend on.
    """

    width: int = 0
    height: int = 0
    depth: int = 0
    color: int = 0
    interlaced: bool = False
    transparent: tuple[int, ...] = ()
    exif: bytes = b""
    frames: int = 1
    complete: bool = False
    sound: bool = True
    chunks: list[tuple[bytes, int, int]] = field(default_factory=list[tuple[bytes, int, int]])


def read_png(file: BinaryIO) -> Png:
    """Walk through a PNG's chunks to its end, as far as they can be followed."""
    png, animated, separate = Png(), 0, True
    for name, start, length, data, crc in _chunks(file):
        if name in NEEDED_CHUNKS:
            png.chunks.append((name, start, length))
        if name == b"IDAT":
            png.sound = png.sound and crc
        elif name == b"IEND":
            png.complete = True
        elif name == b"IHDR" and length >= 13:
            png.width, png.height, png.depth, png.color = struct.unpack_from(">IIBB", data)
            png.interlaced = data[12] != 0
        elif name == b"tRNS" and crc:
            count = {0: 1, 2: 3}.get(png.color, 0)
            if length >= 2 * count:
                png.transparent = struct.unpack_from(f">{count}H", data)
        elif name == b"acTL" and length >= 4:
            (animated,) = struct.unpack_from(">I", data)
        elif name == b"fcTL" and not any(chunk[0] == b"IDAT" for chunk in png.chunks):
            separate = False  # the still image is the animation's first frame
        else:
            png.exif = png.exif or _png_exif(name, data)
    png.frames = max(1, animated + separate) if animated else 1
    return png


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int, bytes, bool]]:
    """Yield each chunk's name, start, length, data (b"" for pixels) and whether its CRC holds."""
    file.seek(len(PNG_MAGIC))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if not name.isalpha():
            return
        start, crc, left, data = file.tell(), zlib.crc32(name), length, b""
        while left and (piece := file.read(min(left, 1 << 20))):
            crc, left = zlib.crc32(piece, crc), left - len(piece)
            if name not in (b"IDAT", b"fdAT") and length <= 1 << 20:
                data += piece
        end = file.read(4)
        if left:
            if name == b"IDAT":
                yield name, start, length - left, b"", True  # cut off: the decoder finds out
            return
        yield name, start, length, data, end == struct.pack(">I", crc) or len(end) < 4
        if name == b"IEND":
            return


def _png_exif(name: bytes, data: bytes) -> bytes:
    if name == b"eXIf":
        return data
    if name == b"zTXt" and data.startswith(b"Raw profile type exif\0\0"):
        try:
            data = b"\0" + zlib.decompressobj().decompress(data[23:], 1 << 20)
        except zlib.error:
            return b""
    elif name != b"tEXt" or not data.startswith(b"Raw profile type exif\0"):
        return b""
    digits = re.sub(rb"\s", b"", b"".join(data.partition(b"\0")[2].split(b"\n")[3:]))
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def rebuilt_png(file: BinaryIO, png: Png) -> tuple[bytes, int] | None:
    """Return a PNG of the pixels alone, its end repaired, and how many of its rows are missing.

    None for an interlaced one whose data end early, where no row is known to be there.
    """
    pixels, transparency, head, missing = b"", b"", b"", 0
    inflate = zlib.decompressobj()
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(png.color, 0) * png.depth
    row = 1 + (png.width * bits + 7) // 8
    needed = _interlaced_bytes(png, bits) if png.interlaced else row * png.height
    for name, start, length in png.chunks:
        file.seek(start)
        data = file.read(length)
        if name == b"IDAT" and len(pixels) < needed:
            try:
                pixels += inflate.decompress(data, needed - len(pixels))
            except zlib.error:
                break
        elif name == b"IHDR":
            head = data[:13]
        elif name in (b"PLTE", b"tRNS"):
            transparency += _chunk(name, data)
    if len(pixels) < needed:
        if png.interlaced:
            return None
        missing = png.height - len(pixels) // row
        pixels += bytes(needed - len(pixels))
    body = _chunk(b"IDAT", zlib.compress(pixels, 1)) + _chunk(b"IEND", b"")
    return PNG_MAGIC + _chunk(b"IHDR", head) + transparency + body, missing


def _interlaced_bytes(png: Png, bits: int) -> int:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # fmt: skip # noqa: E501
    total = 0
    for left, top, right, down in passes:
        width, height = -(-(png.width - left) // right), -(-(png.height - top) // down)
        if width > 0 and height > 0:
            total += height * (1 + (width * bits + 7) // 8)
    return total


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@dataclass
class Jpeg:
    """A JPEG's segments as far as pixels and memory depend on them.

    Args:
        bits: Bits per sample.
        samples: Samples per pixel over all components, the chroma's fewer rows and columns counted.
        buffered: Its decoder has to hold all coefficients (progressive, or several scans).
        exif: The first EXIF block.
        frames: Images of a multi-picture file, 1 otherwise.
        segments: Start and end of every segment that pixels depend on, up to the first scan.
    """

    bits: int = 0
    width: int = 0
    height: int = 0
    samples: float = 0.0
    buffered: bool = False
    exif: bytes = b""
    frames: int = 1
    segments: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


def read_jpeg(file: BinaryIO) -> Jpeg:
    """Walk through a JPEG's segments to its first scan, as far as they can be followed."""
    jpeg, components = Jpeg(), 0
    for marker, start, data in _segments(file):
        if not 0xE0 <= marker <= 0xEF and marker != 0xFE:
            jpeg.segments.append((start, start + 4 + len(data)))
        elif len(data) >= NEEDED_SEGMENTS.get(marker, 1 << 16):
            jpeg.segments.append((start, start + 4 + len(data)))
        if marker == 0xE1 and data.startswith(b"Exif\0\0"):
            jpeg.exif += data[6 if jpeg.exif else 0 :]
        elif marker == 0xE2 and data.startswith(b"MPF\0"):
            jpeg.frames = _mpf_frames(data[4:])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(data) >= 6:
            jpeg.bits, jpeg.height, jpeg.width, components = struct.unpack_from(">BHHB", data)
            jpeg.buffered = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            factors = [(v >> 4, v & 15) for v in data[7 : 6 + 3 * components : 3]]
            most = max([across * down for across, down in factors], default=1) or 1
            jpeg.samples = sum(across * down for across, down in factors) / most
        elif marker == 0xDA and data:
            jpeg.buffered = jpeg.buffered or data[0] < components
    return jpeg


def jpeg_quality(file: BinaryIO) -> int:
    """Return the quality, 1 to 100, that a JPEG's first quantization table amounts to; -1: unknown.

    It is that of the Independent JPEG Group's software, whose table other programs scale as well.
    """
    for marker, _, data in _segments(file):
        if marker == 0xDB and len(data) >= 65:
            wide = data[0] >> 4
            values = struct.unpack_from(">64H" if wide else ">64B", data.ljust(129, b"\0"), 1)
            scale = 100 * sum(values) / LUMA_STEPS
            return max(1, min(100, round((200 - scale) / 2 if scale <= 100 else 5000 / scale)))
    return -1


def _segments(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield each segment's marker, start and data, up to the first scan."""
    file.seek(2)
    while True:
        byte = file.read(1)
        while byte not in (b"", b"\xff"):
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte:
            return
        marker, start = byte[0], file.tell() - 2
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:
            continue
        size = file.read(2)
        length = int.from_bytes(size, "big") - 2
        data = file.read(length) if length >= 0 else b""
        if length < 0 or len(data) < length:
            return
        yield marker, start, data
        if marker == 0xDA:
            return


def _mpf_frames(data: bytes) -> int:
    """Return the count of a multi-picture file's images."""
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHII", data, entry)
            if tag == 0xB001:
                return max(1, min(int(value), 1000))
    except (KeyError, struct.error):
        pass
    return 1


def bare_jpeg(file: BinaryIO, jpeg: Jpeg) -> bytes:
    """Return a JPEG without its metadata: the segments that pixels depend on, and the scans."""
    parts = [b"\xff\xd8"]
    for start, end in jpeg.segments:
        file.seek(start)
        parts.append(file.read(end - start))
    return b"".join([*parts, file.read()])  # the last segment is the first scan's head


def has_all_scans(content: bytes) -> bool:
    """Say whether a JPEG that lacks its end begins all scans that its pixels need."""
    place, missing, progressive = 2, dict[int, set[int]](), False
    while found := MARKER.search(content, place):
        marker, place = content[found.start() + 1], found.end()
        length = int.from_bytes(content[place : place + 2], "big")
        data, place = content[place + 2 : place + length], place + length
        if length < 2 or place > len(content):
            return False
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            missing = {part: set(range(64)) for part in data[6::3]}
        elif marker == 0xDA and len(data) >= 4 + 2 * data[0]:
            first, last, bits = data[-3:]
            done = range(first, last + 1) if bits & 15 == 0 else range(0)
            for part in data[1 : 1 + 2 * data[0] : 2]:
                missing.get(part, set()).difference_update(done if progressive else range(64))
    return bool(missing) and not any(missing.values())


@dataclass
class Gif:
    """A GIF's images, counted, and whether its trailer is there."""

    frames: int = 0
    complete: bool = False


def read_gif(file: BinaryIO) -> Gif:
    """Walk through a GIF's blocks to its trailer, as far as they can be followed."""
    gif = Gif()
    file.seek(0)
    head = file.read(13)
    if len(head) == 13:
        file.seek(_table(head[10]), 1)
    while byte := file.read(1):
        if byte == b";":
            gif.complete = True
            break
        if byte == b"!":
            file.seek(1, 1)
        elif byte == b",":
            image = file.read(9)
            if len(image) < 9:
                break
            gif.frames += 1
            file.seek(_table(image[8]) + 1, 1)
        else:
            continue
        while (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], 1)
    return gif


def _table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def tiff_entries(file: BinaryIO) -> tuple[str, dict[int, tuple[int, int, int, bytes]]]:
    """Return a TIFF's byte order and its first image's entries: offset, kind, count, value."""
    found: dict[int, tuple[int, int, int, bytes]] = {}
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    try:
        if head[2:4] in (b"+\0", b"\0+"):
            (start,), form, width = struct.unpack_from(order + "Q", head, 8), "HHQ8s", 20
            counter = "Q"
        else:
            (start,), form, width = struct.unpack_from(order + "I", head, 4), "HHI4s", 12
            counter = "H"
        file.seek(start)
        (count,) = struct.unpack(order + counter, file.read(struct.calcsize("=" + counter)))
        for _ in range(min(count, 4096)):
            offset = file.tell()
            tag, kind, length, value = struct.unpack(order + form, file.read(width))
            found.setdefault(tag, (offset, kind, length, value))
    except (struct.error, OverflowError, OSError, ValueError):
        pass
    return order, found


def tiff_number(file: BinaryIO, tag: int, otherwise: int) -> int:
    """Return a TIFF's entry of one short or long number (of several equal ones, the first)."""
    order, entries = tiff_entries(file)
    _, kind, length, value = entries.get(tag, (0, 0, 0, b""))
    size = {1: 1, 3: 2, 4: 4}.get(kind, 0)
    if not size or not length:
        return otherwise
    if size * length > len(value):
        file.seek(int.from_bytes(value, "little" if order == "<" else "big"))
        value = file.read(size)
    return int.from_bytes(value[:size], "little" if order == "<" else "big")


def bare_tiff(file: BinaryIO) -> bytes:
    """Return a TIFF whose entries other than those that pixels depend on are made harmless."""
    order, entries = tiff_entries(file)
    file.seek(0)
    content = bytearray(file.read())
    for tag, (offset, *_) in entries.items():
        if tag not in NEEDED_TAGS:  # a private tag of one byte
            content[offset : offset + 4] = struct.pack(order + "HH", 65000, 1)
            width = 8 if 43 in content[2:4] else 4
            content[offset + 4 : offset + 4 + width] = (1).to_bytes(
                width, "little" if order == "<" else "big"
            )
    return bytes(content)


def tiff_pages(file: BinaryIO) -> int:
    """Count a TIFF's images as far as their chain can be followed."""
    seen: set[int] = set()
    try:
        file.seek(0)
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        counter, pointer, width = ("Q", "Q", 20) if big else ("H", "I", 12)
        (place,) = struct.unpack_from(order + pointer, head, 8 if big else 4)
        while place and place not in seen and len(seen) < 10_000:
            file.seek(place)
            (count,) = struct.unpack(order + counter, file.read(struct.calcsize("=" + counter)))
            seen.add(place)
            file.seek(width * count, 1)
            (place,) = struct.unpack(order + pointer, file.read(struct.calcsize("=" + pointer)))
    except (struct.error, OverflowError, OSError, ValueError):
        pass
    return len(seen)


def netpbm(file: BinaryIO) -> tuple[str, int, int, float, int]:
    """Return a PBM's, PGM's, PPM's or PFM's kind, width, height, greatest value and first byte.

    Raises:
        DamagedError: Its header is not one.
    """
    file.seek(0)
    content = file.read(1 << 16)
    kind = content[1:2].decode("latin-1")
    count = 2 if kind in "14" else 3
    token = rb"(?:\s|#[^\n\r]*[\n\r])+([-+.0-9eE]+)"
    head = re.match(rb"P[1-6fF]" + token * count + rb"\s", content)
    if not head:
        raise DamagedError("its header is damaged")
    top = float(head[3]) if count == 3 else 1.0
    if not (0 < top < 65536 or (kind in "fF" and top < 0)):
        raise DamagedError("its header is damaged")
    return kind, int(head[1]), int(head[2]), top, head.end()
