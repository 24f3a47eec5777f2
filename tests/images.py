"""Image files of every format, mode and depth, with odd metadata and damage, from a seed.

PNG, PPM and TIFF are written here byte by byte, so that what Pillow cannot write is tested
too and the pixels are known without a second decoder. The other formats are written by Pillow.

Axes: H rows, W columns, C channels.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pillow_heif
from PIL import Image

Draw = np.random.Generator


@dataclass
class Case:
    """A file, and what has to come out of it.

    Args:
        kind: Its format and mode, for messages.
        content: The file.
        values_HWC: What was written: uint8, or deeper values whose range decoding states.
        exact: The pixels come back as written, the format being lossless.
        alpha: The last channel is alpha.
        orientation: As its EXIF says.
        frames: Images in the file.
        damage: What was done to the file; "" for a sound one.
        kept: The part of the file that is left.
    """

    kind: str
    content: bytes
    values_HWC: np.ndarray
    exact: bool = True
    alpha: bool = False
    orientation: int = 1
    frames: int = 1
    damage: str = ""
    kept: float = 1.0
    metadata: str = ""
    unit: str = "frames"
    notes: list[str] = field(default_factory=list)


def upright(values_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """Turn as EXIF defines it: what its first row and its first column are to the viewer."""
    if orientation >= 5:
        values_HWC = values_HWC.transpose(1, 0, 2)
    # The stored rows run, for the viewer: from right to left, from the bottom up.
    mirrored = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(values_HWC, mirrored) if mirrored else values_HWC


# Metadata.


def exif(draw: Draw, orientation: int | None) -> bytes:
    """Return EXIF in either byte order with an orientation, if any, among odd entries."""
    order = "<" if draw.random() < 0.5 else ">"
    odd = [
        (0x011A, 10, 1, b"\xff\xff\xff\xff"), (0x011A, 2, 4, b"72\0\0"), (0x0128, 2, 4, b"in\0\0"),
        (0x010F, 2, 1 << 30, b"\0\0\0\x08"), (0x8769, 4, 1, b"\xff\xff\0\0"), (0x8825, 9, 7, b"\1\0\0\0"),
        (0x0131, 7, 0, b"\0\0\0\0"), (0xA005, 5, 1, b"\0\0\0\0"), (0x9000, 99, 1, b"0230"),
        (0x0100, 12, 2, b"\0\0\1\0"), (0x0112, 2, 1, b"6\0\0\0"), (0x0112, 3, 5, b"\0\0\0\0"),
    ]  # fmt: skip
    entries = [odd[at] for at in draw.choice(len(odd), draw.integers(0, 4), replace=False)]
    if orientation is not None:
        value = struct.pack(order + "HH", orientation, 0)
        entries.insert(int(draw.integers(0, len(entries) + 1)), (0x0112, 3, 1, value))
    body = b"".join(struct.pack(order + "HHI4s", *entry) for entry in entries)
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IH", 8, len(entries)) + body + struct.pack(order + "I", 0)


def oriented(draw: Draw) -> tuple[bytes, int, str]:
    """Return a block of EXIF, what it turns, and how to call it."""
    kind = int(draw.integers(0, 10))
    if kind < 4:
        return b"", 1, ""
    if kind < 8:
        orientation = int(draw.integers(1, 9))
        return exif(draw, orientation), orientation, f"orientation {orientation}"
    if kind == 8:
        return exif(draw, int(draw.choice([0, 9, 42, 65535]))), 1, "orientation out of range"
    return draw.bytes(int(draw.integers(1, 60))), 1, "noise for EXIF"


# PNG.


def png(
    values_HWC: np.ndarray,
    depth: int,
    color: int,
    *,
    before: bytes = b"",
    interlaced: bool = False,
    draw: Draw,
    size: int = 1 << 30,
) -> bytes:
    """Write a PNG, each row with any of the five filters."""
    height, width, _ = values_HWC.shape
    grids = (
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        if interlaced
        else [(0, 0, 1, 1)]
    )  # fmt: skip
    rows = b"".join(
        _png_rows(values_HWC[top::down, left::right], depth, draw)
        for left, top, right, down in grids
        if values_HWC[top::down, left::right].size
    )
    pixels = zlib.compress(rows, int(draw.integers(0, 10)))
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    pieces = [pixels[at : at + size] for at in range(0, len(pixels), size)]
    data = b"".join(chunk(b"IDAT", piece) for piece in pieces)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + data + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_rows(values_HWC: np.ndarray, depth: int, draw: Draw) -> bytes:
    height, _, channels = values_HWC.shape
    if depth == 16:
        packed = values_HWC.astype(">u2").reshape(height, -1).view(np.uint8)
    elif depth == 8:
        packed = values_HWC.astype(np.uint8).reshape(height, -1)
    else:
        bits = np.unpackbits(values_HWC.astype(np.uint8).reshape(height, -1, 1), axis=2)
        packed = np.packbits(bits[..., 8 - depth :].reshape(height, -1), axis=1)
    step = max(1, channels * depth // 8)
    above, out = np.zeros(packed.shape[1], np.int64), b""
    for row in packed.astype(np.int64):
        left = np.concatenate([np.zeros(step, np.int64), row])[: len(row)]
        corner = np.concatenate([np.zeros(step, np.int64), above])[: len(row)]
        guess = left + above - corner
        distances = np.abs(np.stack([left, above, corner]) - guess)
        paeth = np.choose(distances.argmin(0), [left, above, corner])
        filters = [np.zeros_like(row), left, above, (left + above) // 2, paeth]
        kind = int(draw.integers(0, 5))
        out += bytes([kind]) + ((row - filters[kind]) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def odd_chunks(draw: Draw) -> tuple[bytes, str]:
    """Return chunks that break rules without touching a pixel."""
    broken = chunk(b"tEXt", b"Comment\0hello")[:-1] + b"!"
    kinds = [
        (b"", ""), (chunk(b"eXIf", b"XX"), "broken eXIf"), (broken, "wrong checksum of a text"),
        (chunk(b"pHYs", b"\0"), "short pHYs"), (chunk(b"gAMA", b""), "empty gAMA"),
        (chunk(b"iCCP", b"name\0\7zzz"), "unknown compression of iCCP"), (chunk(b"cHRM", b"\0" * 5), "short cHRM"),
        (chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 21))), "text of 2 MB"), (chunk(b"prVt", b"\0"), "private chunk"),
        (chunk(b"sRGB", b""), "empty sRGB"), (chunk(b"tIME", b"x"), "short tIME"), (chunk(b"iTXt", b"\0\0"), "short iTXt"),
    ]  # fmt: skip
    return kinds[int(draw.integers(0, len(kinds)))]


def png_case(draw: Draw, height: int, width: int) -> Case:
    depth, color = [
        (1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6),
    ][int(draw.integers(0, 15))]  # fmt: skip
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    used = int(draw.choice([8, 10, 12, 16])) if depth == 16 else depth
    values_HWC = draw.integers(0, 1 << used, (height, width, channels)).astype(np.uint16)
    before, orientation, metadata = b"", 1, ""
    block, orientation, metadata = oriented(draw)
    if block:
        before += chunk(b"eXIf", block)
    else:
        before, metadata = odd_chunks(draw)
    alpha, seen_HWC, note = color in (4, 6), values_HWC, ""
    if color == 3:
        palette_KC = draw.integers(0, 256, (1 << depth, 3)).astype(np.uint8)
        before += chunk(b"PLTE", palette_KC.tobytes())
        seen_HWC = palette_KC[values_HWC[..., 0]]
        if draw.random() < 0.5:
            count = int(draw.integers(1, len(palette_KC) + 1))
            alpha_K = np.full(len(palette_KC), 255, np.uint8)
            alpha_K[:count] = draw.integers(0, 256, count)
            before += chunk(b"tRNS", alpha_K[:count].tobytes())
            seen_HWC = np.concatenate([seen_HWC, alpha_K[values_HWC]], -1)
            alpha, note = True, " tRNS"
    elif color in (0, 2):
        if depth < 8:
            seen_HWC = values_HWC * (255 // ((1 << depth) - 1))
        if draw.random() < 0.5:
            clear = values_HWC[int(draw.integers(0, height)), int(draw.integers(0, width))]
            before += chunk(b"tRNS", clear.astype(">u2").tobytes())
            opaque_HW = (values_HWC != clear).any(-1)
            top = 65535 if depth == 16 else 255
            seen_HWC = np.concatenate([seen_HWC, (opaque_HW * top)[..., None]], -1)
            alpha, note = True, " tRNS"
    deep = depth == 16
    content = png(
        values_HWC, depth, color, before=before, draw=draw, interlaced=draw.random() < 0.3,
        size=int(draw.choice([1 << 30, 50])),
    )  # fmt: skip
    return Case(
        f"PNG color {color} of {depth} bits ({used} used){note}", content,
        seen_HWC.astype(np.uint16 if deep else np.uint8), alpha=alpha, orientation=orientation, metadata=metadata,
    )  # fmt: skip


# PPM and TIFF.


def ppm_case(draw: Draw, height: int, width: int) -> Case:
    kind = "123456fF"[int(draw.integers(0, 8))]
    channels = 3 if kind in "36F" else 1
    top = 1 if kind in "14" else int(draw.choice([1, 15, 255, 1023, 4095, 65535]))
    values_HWC = draw.integers(0, top + 1, (height, width, channels))
    head = f"P{kind}\n# a comment\n{width} {height}".encode()
    if kind in "fF":
        values_HWC = draw.choice([-1.0, 0.0, 0.25, 1.0, 7.5], (height, width, channels))
        values_HWC = values_HWC.astype(np.float32)
        order, sign = ("<", "-") if draw.random() < 0.5 else (">", "")
        data = values_HWC[::-1].astype(order + "f4").tobytes()
        return Case(f"PPM {kind}", head + f"\n{sign}1.0\n".encode() + data, values_HWC)
    if kind in "123":
        data = b"\n".join(b" ".join(b"%d" % v for v in row.ravel()) for row in values_HWC)
    elif kind == "4":
        data = np.packbits(values_HWC[..., 0].astype(np.uint8), axis=1).tobytes()
    else:
        data = values_HWC.astype(np.uint8 if top < 256 else ">u2").tobytes()
    head += b"\n" if kind in "14" else b"\n%d\n" % top
    if kind in "14":
        values_HWC = 255 * (1 - values_HWC)
    elif top < 255:
        values_HWC = np.round(values_HWC * (255 / top))
    deep = kind not in "14" and top > 255
    return Case(
        f"PPM {kind} to {top}", head + data, values_HWC.astype(np.uint16 if deep else np.uint8)
    )


def tiff(
    values_HWC: np.ndarray, tags: dict[int, tuple[int, ...]], order: str, compressed: bool
) -> bytes:
    """Write a TIFF of one strip; tags of shorts are added to those of the pixels."""
    height, width, channels = values_HWC.shape
    kind = {"f": 3, "i": 2, "u": 1}[values_HWC.dtype.kind]
    bits = values_HWC.dtype.itemsize * 8
    data = values_HWC.astype(values_HWC.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if compressed else data
    entries = {
        256: (width,), 257: (height,), 258: (bits,) * channels, 259: (8 if compressed else 1,),
        262: (1 if channels < 3 else 2,), 273: (8,), 277: (channels,), 278: (height,),
        279: (len(data),), 339: (kind,) * channels, **tags,
    }  # fmt: skip
    end = 8 + len(data) + len(data) % 2
    extra, body = b"", b""
    place = end + 2 + 12 * len(entries) + 4
    for tag, numbers in sorted(entries.items()):
        if tag in (273, 279):
            body += struct.pack(order + "HHII", tag, 4, 1, numbers[0])
        elif len(numbers) <= 2:
            padded = (*numbers, 0, 0)[:2]
            body += struct.pack(order + "HHIHH", tag, 3, len(numbers), *padded)
        else:
            body += struct.pack(order + "HHII", tag, 3, len(numbers), place + len(extra))
            extra += struct.pack(f"{order}{len(numbers)}H", *numbers)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", end)
    count = struct.pack(order + "H", len(entries))
    return head + data + b"\0" * (len(data) % 2) + count + body + b"\0\0\0\0" + extra


def tiff_case(draw: Draw, height: int, width: int) -> Case:
    channels = int(draw.choice([1, 1, 1, 3, 4]))
    types = ["u1", "u2"] if channels > 1 else ["u1", "i1", "u2", "i2", "i4", "f4"]
    kind = np.dtype(types[int(draw.integers(0, len(types)))])
    bits = int(draw.choice([8, 10, 12, 15])) if kind.itemsize > 1 else 7 if kind.kind == "i" else 8
    if kind.kind == "f":
        values_HWC = draw.choice(np.linspace(0, 1, 256), (height, width, channels))
    else:
        values_HWC = draw.integers(0, 1 << bits, (height, width, channels))
    values_HWC = values_HWC.astype(kind)
    orientation = int(draw.integers(0, 10))
    tags: dict[int, tuple[int, ...]] = {274: (orientation,)} if orientation else {}
    metadata = f"orientation {orientation}" if orientation else ""
    if channels == 4:
        tags[338] = (2,)
    if draw.random() < 0.3:  # a resolution of a kind that no reader expects
        tags[282] = (int(draw.integers(0, 9)), 2, 3)
        tags[296] = (int(draw.choice([0, 2, 3, 77])),)
        metadata += " odd resolution"
    order = "<" if draw.random() < 0.5 else ">"
    compressed = bool(draw.random() < 0.5)
    content = tiff(values_HWC, tags, order, compressed)
    return Case(
        f"TIFF {kind} ×{channels} {order} {'deflate' if compressed else 'raw'}", content, values_HWC,
        alpha=channels == 4, orientation=orientation if 1 <= orientation <= 8 else 1, metadata=metadata,
    )  # fmt: skip


# What Pillow writes.


def shapes(draw: Draw, height: int, width: int, channels: int, smooth: bool = False) -> np.ndarray:
    """Return a smooth or noisy picture."""
    if not smooth:
        return draw.integers(0, 256, (height, width, channels)).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    waves = [
        128 + 100 * np.sin((x * draw.random() + y * draw.random()) / 4) for _ in range(channels)
    ]
    return np.stack(waves, -1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pillow(values_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(values_HWC[..., 0] if values_HWC.shape[2] == 1 else values_HWC)


def jpeg_case(draw: Draw, height: int, width: int) -> Case:
    mode = ["L", "RGB", "CMYK"][int(draw.integers(0, 3))]
    values_HWC = shapes(draw, height, width, 1 if mode == "L" else 3, smooth=True)
    progressive = bool(draw.random() < 0.4)
    image = pillow(values_HWC)
    content = saved(
        image if mode != "CMYK" else image.convert("CMYK"), "JPEG", quality=95,
        progressive=progressive, subsampling=int(draw.integers(0, 3)),
        **({"comment": draw.bytes(20)} if draw.random() < 0.2 else {}),
    )  # fmt: skip
    block, orientation, metadata = oriented(draw)
    if block:
        segment = b"Exif\0\0" + block
        content = (
            content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
        )
    elif draw.random() < 0.2:
        marker = bytes([0xFF, int(draw.choice([0xE0, 0xE2, 0xED, 0xE1, 0xEE]))])
        segment = [
            b"ICC_PROFILE\0",
            b"Photoshop 3.0\0" + b"8BIM\4",
            b"MPF\0MM\0*\0\0",
            b"JFIF",
            b"",
        ][int(draw.integers(0, 5))]
        if marker[1] != 0xEE:
            content = (
                content[:2] + marker + struct.pack(">H", len(segment) + 2) + segment + content[2:]
            )
            metadata = "odd segment"
    name = f"JPEG {mode}{' progressive' if progressive else ''}"
    return Case(name, content, values_HWC, False, orientation=orientation, metadata=metadata)


def webp_case(draw: Draw, height: int, width: int) -> Case:
    channels = int(draw.choice([3, 4]))
    values_HWC = shapes(draw, height, width, channels, smooth=True)
    block, orientation, metadata = oriented(draw)
    frames = int(draw.choice([1, 1, 3]))
    options = {"exif": block} if block else {}
    others = [pillow(255 - values_HWC), pillow(values_HWC // 2)][: frames - 1]
    content = saved(
        pillow(values_HWC), "WEBP", lossless=True, exact=True, **options,
        **({"save_all": True, "append_images": others} if frames > 1 else {}),
    )  # fmt: skip
    alpha = channels == 4
    return Case(
        f"WebP ×{channels}", content, values_HWC, alpha=alpha, orientation=orientation,
        frames=frames, metadata=metadata,
    )  # fmt: skip


def gif_case(draw: Draw, height: int, width: int) -> Case:
    palette_KC = draw.integers(0, 256, (16, 3)).astype(np.uint8)
    indices_HW = draw.integers(0, 16, (height, width)).astype(np.uint8)
    image = Image.frombytes("P", (width, height), indices_HW.tobytes())
    image.putpalette(palette_KC.tobytes())
    values_HWC, options = palette_KC[indices_HW], {}
    alpha = bool(draw.random() < 0.5)
    if alpha:
        clear = int(indices_HW[0, 0])
        options["transparency"] = clear
        opaque_HWC = np.where(indices_HW == clear, 0, 255)[..., None].astype(np.uint8)
        values_HWC = np.concatenate([values_HWC, opaque_HWC], -1)
    frames = int(draw.choice([1, 1, 3]))
    if frames > 1:  # each pixel of a frame differs from the one before
        others = []
        for step in range(1, frames):
            moved = Image.frombytes("P", (width, height), ((indices_HW + step) % 16).tobytes())
            moved.putpalette(palette_KC.tobytes())
            others.append(moved)
        options |= {"save_all": True, "append_images": others, "duration": 50}
    content = saved(image, "GIF", optimize=False, interlace=int(draw.integers(0, 2)), **options)
    return Case("GIF", content, values_HWC, alpha=alpha, frames=frames)


def plain_case(draw: Draw, height: int, width: int) -> Case:
    """A BMP, a TGA, a lossless JPEG 2000, an icon, or an APNG."""
    kind = ["BMP", "TGA", "JPEG2000", "ICO", "PNG"][int(draw.integers(0, 5))]
    channels = int(draw.choice([1, 3, 4]))
    if kind == "ICO":
        channels, height, width = 4, min(height, 64), min(width, 64)
    if kind == "BMP" and channels == 4:
        channels = 3
    values_HWC = shapes(draw, height, width, channels)
    options: dict[str, object] = {}
    frames, unit, note = 1, "frames", ""
    if kind == "ICO":
        options = {
            "sizes": [(width, height)],
            "bitmap_format": ["png", "bmp"][int(draw.integers(0, 2))],
        }
    if kind == "TGA":
        options = {"compression": [None, "tga_rle"][int(draw.integers(0, 2))]}
    if kind == "PNG":
        options = {"save_all": True, "append_images": [pillow(255 - values_HWC)], "duration": 30}
        frames, note = 2, " animated"
    if kind == "JPEG2000":
        options = {"irreversible": False, "no_jp2": bool(draw.random() < 0.3)}
    content = saved(pillow(values_HWC), kind, **options)
    return Case(
        f"{kind}{note} ×{channels}",
        content,
        values_HWC,
        alpha=channels == 4,
        frames=frames,
        unit=unit,
    )


def lossy_case(draw: Draw, height: int, width: int) -> Case:
    """An AVIF, an HEIC, or a TIFF of a color space that is not RGB."""
    kind = ["AVIF", "HEIC", "CMYK", "YCbCr", "LAB", "JPEG in TIFF"][int(draw.integers(0, 6))]
    values_HWC = shapes(draw, height, width, 3, smooth=True)
    image, orientation, metadata = pillow(values_HWC), 1, ""
    if kind == "AVIF":
        orientation = int(draw.integers(1, 9))
        plain = Image.Exif()
        plain[0x0112] = orientation
        content = saved(
            image, "AVIF", quality=95, speed=10, exif=plain.tobytes(), subsampling="4:4:4"
        )
        metadata = f"orientation {orientation}"
    elif kind == "HEIC":
        heif = pillow_heif.from_pillow(image)
        out = io.BytesIO()
        heif.save(out, quality=95, chroma=444)
        content = out.getvalue()
    elif kind == "JPEG in TIFF":
        content = saved(image, "TIFF", compression="jpeg", quality=95)
    elif kind == "LAB":
        from PIL import ImageCms

        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        content = saved(ImageCms.profileToProfile(image, rgb, lab, outputMode="LAB"), "TIFF")
    else:
        content = saved(image.convert(kind), "TIFF")
    return Case(kind, content, values_HWC, False, orientation=orientation, metadata=metadata)


# Damage.


def damaged(draw: Draw, case: Case) -> Case:
    """Cut a file, change some of its bytes, or put something behind or into it."""
    content, size = bytearray(case.content), len(case.content)
    kind = int(draw.integers(0, 7))
    if kind == 0:
        case.kept = float(draw.random())
        del content[int(size * case.kept) :]
        case.damage = f"cut to {case.kept:.0%}"
    elif kind == 1:
        count = int(draw.integers(1, 13))
        del content[-count:]
        case.damage, case.kept = f"the last {count} bytes are missing", 1 - count / size
    elif kind in (2, 3):
        for _ in range(int(draw.choice([1, 2, 4, 16]))):
            place = int(draw.integers(0, min(size, 400 if kind == 2 else size)))
            content[place] = int(draw.choice([0, 1, 127, 128, 255, int(draw.integers(0, 256))]))
        case.damage = "bytes changed"
    elif kind == 4:
        content += draw.bytes(int(draw.integers(1, 200)))
        case.damage = "bytes added at the end"
    elif kind == 5:
        place = int(draw.integers(0, size))
        content[place : place + int(draw.integers(1, 40))] = b""
        case.damage = "bytes removed"
    else:
        place = int(draw.integers(0, size))
        content[place:place] = draw.bytes(int(draw.integers(1, 40)))
        case.damage = "bytes inserted"
    case.content = bytes(content)
    return case


MAKERS: list[Callable[[Draw, int, int], Case]] = [
    png_case, png_case, png_case, jpeg_case, jpeg_case, tiff_case, tiff_case, webp_case, gif_case,
    plain_case, plain_case, ppm_case, lossy_case,
]  # fmt: skip


def generated(seed: int) -> Case:
    """Return the case of a seed: four of ten are sound."""
    draw = np.random.default_rng(seed)
    maker = MAKERS[seed % len(MAKERS)]
    height, width = (int(size) for size in draw.integers(1, 40, 2))
    if maker is lossy_case:
        height, width = height + 16, width + 16
    case = maker(draw, height, width)
    return damaged(draw, case) if draw.random() < 0.6 else case
