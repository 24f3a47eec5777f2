"""Decoding of image files, against what was written, Pillow's own turning, and opencv."""

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hydrofoil import HydrofoilError
from hydrofoil.data import decode as module
from hydrofoil.data import image_readers
from hydrofoil.data.decode import Decoded, decode
from tests.images import Case, generated, png, saved, tiff, upright

TURNED = "turned as its EXIF tag says"


def stated_range(decoded: Decoded) -> tuple[float, float]:
    (words,) = [words for words in decoded.done if words.startswith("values ")]
    low, top = re.fullmatch(r"values (\S+) to (\S+) → 8 bit", words).groups()
    return float(low), float(top)


def check(case: Case, decoded: Decoded) -> None:
    """Hold what came out of a sound file against what was written into it."""
    expected_HWC = upright(case.values_HWC, case.orientation)
    assert decoded.pixels_HWC.dtype == np.uint8
    assert decoded.pixels_HWC.shape == expected_HWC.shape
    assert decoded.size == (expected_HWC.shape[1], expected_HWC.shape[0])
    assert decoded.frames == case.frames
    assert (TURNED in decoded.done) == (case.orientation != 1)
    assert any("of " + str(case.frames) in words for words in decoded.done) == (case.frames > 1)
    assert not any("damaged" in words or "checksum" in words for words in decoded.done)
    if not case.exact:
        difference = np.abs(decoded.pixels_HWC.astype(int) - expected_HWC)
        assert difference.mean() < (6 if min(decoded.size) >= 8 else 20)
        if case.kind.startswith("JPEG ") and "TIFF" not in case.kind:
            check_jpeg(case, decoded)
    elif expected_HWC.dtype == np.uint8:
        np.testing.assert_array_equal(decoded.pixels_HWC, expected_HWC)
    else:
        check_range(case, decoded, expected_HWC.astype(np.float64))


def check_jpeg(case: Case, decoded: Decoded) -> None:
    """Opencv decodes a JPEG to the same pixels; it converts CMYK with another rounding."""
    flags = cv2.IMREAD_IGNORE_ORIENTATION | (
        cv2.IMREAD_GRAYSCALE if decoded.pixels_HWC.shape[2] == 1 else cv2.IMREAD_COLOR
    )
    seen = cv2.imdecode(np.frombuffer(case.content, np.uint8), flags)
    seen_HWC = np.atleast_3d(seen)[..., ::-1]
    apart = np.abs(upright(seen_HWC, case.orientation).astype(int) - decoded.pixels_HWC)
    assert apart.max() <= (3 if "CMYK" in case.kind else 1)


def check_range(case: Case, decoded: Decoded, values_HWC: np.ndarray) -> None:
    """Deeper values become 8 bits linearly, by the range that is stated, and keep their levels."""
    low, top = stated_range(decoded)
    colors = slice(0, values_HWC.shape[2] - case.alpha)
    values, pixels = values_HWC[..., colors], decoded.pixels_HWC[..., colors]
    assert low <= values.min() + 1e-3
    assert values.max() <= top * (1 + 1e-5)
    np.testing.assert_allclose(pixels, (values - low) * (255 / (top - low)), atol=0.51, rtol=1e-4)
    levels = np.unique(values)
    spread = np.round((levels - levels[0]) * (255 / max(levels[-1] - levels[0], 1e-9)))
    if len(np.unique(spread)) == len(levels):
        assert len(np.unique(pixels)) == len(levels)
    if case.alpha:
        alpha, seen = values_HWC[..., -1], decoded.pixels_HWC[..., -1]
        assert (seen[alpha == 0] == 0).all()
        opaque = 65535 if max(alpha.max(), values.max()) > 4095 else alpha.max()
        np.testing.assert_allclose(seen, alpha * (255 / max(opaque, 1)), atol=0.51)


def check_any(case: Case) -> str:
    """Decode a case; return how it ended. Damaged ones are refused by name, or read."""
    name = "folder/p.tga" if case.kind.startswith("TGA") else "folder/p.png"
    try:
        decoded = decode(case.content, name=name)
    except HydrofoilError as error:
        assert case.damage, f"refused: {error}"
        lines = str(error).splitlines()
        assert lines[0].startswith(f"{name}: ")
        assert len(lines) <= 3
        return "refused"
    if not case.damage:
        check(case, decoded)
    else:
        height, width, channels = decoded.pixels_HWC.shape
        assert (decoded.pixels_HWC.dtype, channels in (1, 2, 3, 4)) == (np.uint8, True)
        assert decoded.size == (width, height)
    if case.frames == 1:
        assert case.kept > 0.5, "half an image is not refused"
    return "read"


@pytest.mark.parametrize("first", range(0, 390, 39))
def test_any_image_is_read_as_written_or_refused_by_name(first: int, capfd) -> None:
    for seed in range(first, first + 39):
        case = generated(seed)
        try:
            check_any(case)
        except Exception as error:
            error.add_note(f"seed {seed}: {case.kind}; {case.metadata}; {case.damage}")
            raise
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_20_000_images_are_read_as_written_or_refused_by_name(capfd) -> None:
    ends = {"read": 0, "refused": 0}
    for seed in range(10_000, 30_000):
        case = generated(seed)
        try:
            ends[check_any(case)] += 1
        except Exception as error:
            error.add_note(f"seed {seed}: {case.kind}; {case.metadata}; {case.damage}")
            raise
    assert min(ends.values()) > 5000
    assert capfd.readouterr() == ("", "")


# Turning.


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_pillow_turns_it(kind: str, orientation: int) -> None:
    draw = np.random.default_rng(orientation)
    image = Image.fromarray(draw.integers(0, 256, (24, 37, 3)).astype(np.uint8))
    tag = Image.Exif()
    tag[0x0112] = orientation
    content = saved(image, kind, exif=tag.tobytes(), **{"lossless": True} if kind == "WEBP" else {})
    decoded = decode(content)
    with Image.open(io.BytesIO(content)) as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    np.testing.assert_array_equal(decoded.pixels_HWC, expected)
    assert decoded.done == ((TURNED,) if orientation > 1 else ())


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_bytes_for_exif_leave_a_jpeg_as_it_is_or_turn_it(noise: bytes, head: bytes) -> None:
    content = saved(Image.new("L", (9, 5)), "JPEG")
    block = b"Exif\0\0" + head + noise
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
    decoded = decode(content)
    assert decoded.pixels_HWC.shape in ((5, 9, 1), (9, 5, 1))
    assert set(decoded.done) <= {TURNED}


def test_an_avif_with_broken_exif_is_read() -> None:
    tag = Image.Exif()
    tag[0x010F] = "a camera"
    content = saved(Image.new("RGB", (20, 10), "red"), "AVIF", exif=tag.tobytes())
    place = content.index(b"MM\0*")
    assert decode(content[:place] + b"????" + content[place + 4 :]).size == (20, 10)


# Depth, transparency, color.


@given(st.integers(1, 65535), st.integers(0, 60000), st.integers(0, 9))
def test_256_levels_in_16_bits_are_all_kept(step: int, start: int, seed: int) -> None:
    step = min(step, (65535 - start) // 255)
    levels = start + max(step, 1) * np.arange(256)
    values = np.random.default_rng(seed).permutation(levels).reshape(16, 16).astype(np.uint16)
    decoded = decode(saved(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(np.sort(decoded.pixels_HWC.ravel()), np.arange(256))
    np.testing.assert_array_equal(decoded.pixels_HWC.ravel().argsort(), values.ravel().argsort())


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_eight_bits_in_a_deeper_file_are_the_eight_bit_image(kind: type) -> None:
    values = np.random.default_rng(0).integers(0, 201, (20, 20)).astype(np.uint8)
    scale = 255 if kind is np.float32 else 1
    decoded = decode(saved(Image.fromarray((values / scale).astype(kind)), "TIFF"))
    if kind is np.float32:  # 0 to the greatest: no level of a float is the brightest by itself
        assert len(np.unique(decoded.pixels_HWC)) == len(np.unique(values))
    else:
        np.testing.assert_array_equal(decoded.pixels_HWC[..., 0], values)
        assert decoded.done == ("values 0 to 255 → 8 bit",)


def test_sixteen_bit_color_is_read_as_opencv_reads_it() -> None:
    for suffix in (".png", ".tiff"):
        for channels in (3, 4):
            draw = np.random.default_rng(channels)
            values = draw.integers(0, 65536, (13, 17, channels)).astype(np.uint16)
            values[0, 0] = 65535
            _, content = cv2.imencode(suffix, values)
            decoded = decode(content.tobytes())
            order = [2, 1, 0, 3][:channels]
            low, top = stated_range(decoded)
            assert (low, top) == (0, 65535)
            np.testing.assert_allclose(decoded.pixels_HWC, values[..., order] / 257, atol=0.51)


@pytest.mark.parametrize("order", "<>")
def test_premultiplied_transparency_is_divided_out(order: str) -> None:
    alpha = np.array([255, 128, 64, 0], np.uint8)
    gray = np.stack([alpha * 0.5, alpha], -1)[None].astype(np.uint8)
    decoded = decode(tiff(gray, {338: (1,)}, order, False))
    np.testing.assert_allclose(decoded.pixels_HWC[0, :3, 0], 127, atol=2)
    np.testing.assert_array_equal(decoded.pixels_HWC[0, :, 1], alpha)
    color = np.stack([alpha * 0.5, alpha * 1.0, alpha * 0.0, alpha], -1)[None]
    for kind, scale in ((np.uint8, 1), (np.uint16, 257)):
        content = tiff((color * scale).astype(kind), {338: (1,)}, order, False)
        seen = decode(content).pixels_HWC
        np.testing.assert_allclose(seen[0, :3], [[127, 255, 0, a] for a in alpha[:3]], atol=3)
        assert seen[0, 3, 3] == 0


def test_white_is_zero_in_any_depth() -> None:
    for kind, top in ((np.uint8, 255), (np.uint16, 65535)):
        values = np.linspace(0, top, 64).reshape(8, 8, 1).astype(kind)
        seen = decode(tiff(values, {262: (0,)}, "<", False)).pixels_HWC
        np.testing.assert_allclose(seen, 255 - values * (255 / top), atol=0.51)


def test_a_cmyk_jpeg_with_and_without_adobes_marker_is_what_opencv_shows() -> None:
    image = Image.new("CMYK", (16, 16), (200, 30, 10, 40))
    content = saved(image, "JPEG", quality=98)
    place = content.index(b"\xff\xeeA"[:2])
    length = int.from_bytes(content[place + 2 : place + 4], "big")
    for variant in (content, content[:place] + content[place + 2 + length :]):
        seen = decode(variant).pixels_HWC.astype(int)
        expected = cv2.imdecode(np.frombuffer(variant, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(seen - expected).max() <= 3


# Damage.


def noisy(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    return saved(Image.fromarray(pixels), kind, **options)


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA"]
)
def test_half_an_image_is_refused(kind: str) -> None:
    content = noisy(kind)
    for part in (0.3, 0.5, 0.8):
        with pytest.raises(HydrofoilError, match="a damaged image"):
            decode(content[: int(part * len(content))], name="p.tga")


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("exif_block", [b"", b"\xff\xe1\0\x0aExif\0\0XX"])
def test_a_jpeg_that_lacks_its_end_marker_is_read_and_said(
    options: dict, exif_block: bytes
) -> None:
    content = noisy("JPEG", **options)
    content = content[:2] + exif_block + content[2:]
    decoded = decode(content[:-2])
    np.testing.assert_array_equal(decoded.pixels_HWC, decode(content).pixels_HWC)
    assert decoded.done == (image_readers.DAMAGED_END,)
    with pytest.raises(HydrofoilError, match="ends before its last row"):
        decode(content[:-200])


@pytest.mark.parametrize("cut", [1, 4, 12, 14, 17])
def test_a_png_whose_rows_are_all_there_is_read_and_said(cut: int) -> None:
    content = noisy("PNG")
    decoded = decode(content[:-cut])
    np.testing.assert_array_equal(decoded.pixels_HWC, decode(content).pixels_HWC)
    assert decoded.done == ((image_readers.DAMAGED_END,) if cut > 4 else decoded.done)


def test_missing_rows_of_a_png_are_counted() -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(0, 256, (40, 40, 1)).astype(np.uint16)
    content = png(values, 8, 0, draw=draw)
    with pytest.raises(HydrofoilError, match=r"p.png: a damaged image: \d+ of 40 rows are missing"):
        decode(content[:-200], name="p.png")


def test_a_wrong_checksum_of_pixels_is_said() -> None:
    content = bytearray(noisy("PNG"))
    place = content.index(b"IDAT") + 4 + int.from_bytes(content[33:37], "big")
    content[place] ^= 255
    assert decode(bytes(content)).done == ("a checksum of its pixels is wrong",)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, MemoryError, RecursionError,
                                   AttributeError, SyntaxError, struct.error, OverflowError, KeyError])  # fmt: skip # noqa: E501
def test_whatever_a_decoder_raises_is_a_damaged_image(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: object) -> None:
        raise error("in words of its own")

    monkeypatch.setitem(image_readers.READERS, "PNG", fail)
    with pytest.raises(HydrofoilError, match=r"^p.png: a damaged image: ") as caught:
        decode(noisy("PNG"), name="p.png")
    assert "words of its own" not in str(caught.value)


# Sources.


@pytest.mark.parametrize("make", ["file", "bytes", "stream", "text", "image"])
def test_every_source_gives_the_same_pixels(make: str) -> None:
    content = noisy("PNG")
    Path("-p.png").write_bytes(content)
    source = {
        "file": Path("-p.png"), "bytes": content, "stream": io.BytesIO(content), "text": "-p.png",
        "image": Image.open(io.BytesIO(content)),
    }[make]  # fmt: skip
    decoded = decode(source)
    np.testing.assert_array_equal(decoded.pixels_HWC, np.asarray(Image.open("-p.png")))
    assert decoded.done == ()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (Path("absent.png"), "absent.png: cannot be read: No such file"),
        (Path("folder"), "folder: cannot be read: Is a directory"),
        (Path("empty.png"), "empty.png: empty"),
        (Path("pipe.png"), "pipe.png: a pipe or device"),
        (Path("/dev/zero"), "/dev/zero: a pipe or device"),
        (Path("a\0b.png"), "cannot be read: not a path"),
        (b"", "the image: empty"),
        (io.StringIO("text"), "a str was read: expected bytes"),
    ],
)
def test_what_is_no_image_file_is_named_at_once(source: object, complaint: str) -> None:
    Path("folder").mkdir()
    Path("empty.png").touch()
    os.mkfifo("pipe.png")
    with pytest.raises(HydrofoilError, match=re.escape(complaint)):
        decode(source)


def test_an_endless_stream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAM", 1 << 20)
    with open("/dev/zero", "rb") as zeros, pytest.raises(HydrofoilError, match="more than 1 MiB"):
        decode(zeros)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 2), ("P", 3), ("PA", 4), ("RGB", 3), ("RGBA", 4), ("CMYK", 3),
     ("YCbCr", 3), ("LAB", 3), ("HSV", 3), ("I", 1), ("F", 1), ("I;16", 1), ("La", 2), ("RGBa", 4)],
)  # fmt: skip
def test_a_pillow_image_of_any_mode_is_taken(mode: str, channels: int) -> None:
    assert decode(Image.new(mode, (5, 3))).pixels_HWC.shape == (3, 5, channels)


def test_an_image_that_pillow_would_draw_by_a_program_is_refused() -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n"
    with pytest.raises(HydrofoilError, match="an EPS image"):
        decode(Image.open(io.BytesIO(content)))


def test_heic_is_read_with_its_extra_and_names_it_without(monkeypatch: pytest.MonkeyPatch) -> None:
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(out, quality=95)
    before = dict(Image.OPEN)
    assert np.abs(decode(out.getvalue()).pixels_HWC.astype(int) - [255, 0, 0]).max() < 12
    assert set(Image.OPEN) == set(before)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(HydrofoilError, match=r"(?s)an HEIC image.*hydrofoil\[heic\]"):
        decode(out.getvalue())


def test_an_icon_is_its_largest_image() -> None:
    content = noisy("ICO", sizes=[(16, 16), (32, 32)])
    decoded = decode(content)
    assert (decoded.size, decoded.done) == ((32, 32), ("the largest of 2 sizes",))


def test_pages_of_a_tiff_are_counted() -> None:
    pages = [Image.new("L", (5, 5), shade) for shade in (1, 2, 3)]
    content = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    decoded = decode(content)
    assert (decoded.frames, decoded.done) == (3, ("the first of 3 pages",))
    assert decoded.pixels_HWC.max() == 1


# Size.


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_readers, "DRAFT_ABOVE", 100_000)
    content = saved(Image.new("RGB", (800, 400), "red"), "JPEG")
    decoded = decode(content, target=(28, 28))
    assert decoded.pixels_HWC.shape == (200, 400, 3)  # at least four times what is needed
    assert decoded.done == ("decoded at 1/2 of 800×400",)
    assert decoded.size == (800, 400)
    assert decode(content).pixels_HWC.shape == (400, 800, 3)


def test_other_large_images_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_readers, "SHRINK_ABOVE", 10_000)
    monkeypatch.setattr("hydrofoil.data.image_pixels.STRIP", 5000)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 240)).astype(np.uint8)
    decoded = decode(saved(Image.fromarray(pixels), "PNG"), target=(8, 8))
    expected = pixels.reshape(60, 2, 120, 2).mean((1, 3))
    np.testing.assert_allclose(decoded.pixels_HWC[..., 0], expected, atol=1)
    assert decoded.done == ("averaged over 2×2 pixels of 240×120",)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_a_bomb_is_refused_by_name_and_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_readers, "MOST_PIXELS", 1_000_000)
    content = saved(Image.new("RGB", (1500, 1000)), kind)
    with pytest.raises(HydrofoilError, match=r"1500×1000 is 2 million.*at most 1 million") as error:
        decode(content, name="bomb")
    assert str(error.value).startswith("bomb: too large an image")


def test_strips_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(130):
        case = generated(seed)
        if not case.damage:
            complete = decode(case.content, name="p.tga").pixels_HWC
            with monkeypatch.context() as patch:
                patch.setattr("hydrofoil.data.image_pixels.STRIP", 100)
                np.testing.assert_array_equal(
                    decode(case.content, name="p.tga").pixels_HWC, complete
                )


PEAK = """
import sys, resource
from pathlib import Path
import hydrofoil.ship.predict
from hydrofoil.data.decode import decode
print(decode(Path(sys.argv[1]), target=(28, 28)).done)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "mode", "options"),
    [
        ("p.jpg", (16320, 12240), "RGB", {}),
        ("p.jpg", (16320, 12240), "RGB", {"progressive": True}),
        ("p.png", (12000, 9000), "RGB", {}),
        ("p.tiff", (12000, 9000), "F", {}),
        ("p.tiff", (12000, 9000), "RGB", {"compression": "tiff_lzw"}),
        ("p.bmp", (12000, 9000), "RGB", {}),
        ("p.ppm", (12000, 9000), "RGB", {}),
        ("p.gif", (12000, 9000), "P", {}),
        ("p.webp", (6000, 4900), "RGB", {"method": 0}),
        ("p.avif", (5000, 5000), "RGB", {"speed": 10}),
        ("p.jp2", (5000, 5000), "RGB", {}),
        ("p.tga", (9000, 7000), "RGB", {}),
    ],
)
def test_the_largest_images_take_less_than_1200_MB(
    name: str, size: tuple[int, int], mode: str, options: dict
) -> None:
    draw = np.random.default_rng(0)
    tile = Image.fromarray(draw.integers(0, 256, (size[1] // 50, size[0] // 50)).astype(np.uint8))
    tile.resize(size, Image.Resampling.NEAREST).convert(mode).save(name, **options)
    out = subprocess.run([sys.executable, "-c", PEAK, name], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout.split()[-1]) < 1200, out.stdout


# Programs.

NO_PROGRAMS = """
import sys
from pathlib import Path

def watch(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn"):
        Path("started").write_text(f"{event} {arguments}")

sys.addaudithook(watch)
from hydrofoil import HydrofoilError
from hydrofoil.data.decode import decode
from tests.images import generated
read = 0
for path in sorted(Path("files").iterdir()):
    for name in (path.name, path.name + ".png"):
        path = path.rename(path.with_name(name))
        try:
            decode(path)
            read += 1
        except HydrofoilError:
            pass
assert not read
for seed in range(260):
    try:
        decode(generated(seed).content)
    except HydrofoilError:
        pass
"""
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n"


def test_no_file_starts_a_program() -> None:
    """Stand-ins for what Pillow could start come first on the PATH; an audit hook watches."""
    for folder in ("bin", "files"):
        Path(folder).mkdir()
    for program in ("gs", "gswin64c", "djpeg", "netpbm", "convert", "magick", "xdg-open", "sh"):
        stand_in = Path("bin", program)
        stand_in.write_text(f'#!/bin/bash\necho "$0 $*" >> {Path("started").resolve()}\n')
        stand_in.chmod(0o755)
    head = struct.pack("<IHHIIII", 0xC5D0D3C6 >> 0, 0, 0, 30, 60, 0, 0)
    contents = {
        "a.eps": POSTSCRIPT, "b.eps": b"\xc5\xd0\xd3\xc6" + head[4:] + POSTSCRIPT,
        "c.eps": b"\n\n" + POSTSCRIPT, "d.wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),
        "e.emf": b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60),
        "f.fpx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "g.pdf": b"%PDF-1.7\n",
        "h.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "i.psd": b"8BPS\0\1" + bytes(40),
        "j.grib": b"GRIB\0\0\0\1" + bytes(40), "k.bufr": b"BUFR" + bytes(40),
        "l.h5": b"\x89HDF\r\n\x1a\n" + bytes(40), "m.mpg": b"\0\0\1\xb3" + bytes(40),
        "n.xpm": b"/* XPM */\nstatic char *x[] = {", "o.png": b"#!/bin/sh\ntouch started\n",
    }  # fmt: skip
    for name, content in contents.items():
        Path("files", name).write_bytes(content)
    path = f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}"
    out = subprocess.run(
        [sys.executable, "-c", NO_PROGRAMS], capture_output=True, text=True,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert not Path("started").exists(), Path("started").read_text()


def test_what_is_not_read_is_called_by_its_name() -> None:
    for content, what in ((POSTSCRIPT, "a PostScript file"), (b"%PDF-1.7", "a PDF file"),
                          (b"  <svg/>", "an SVG drawing"), (b"hello", "not an image")):  # fmt: skip
        with pytest.raises(HydrofoilError, match=f"p.png: {what}.*: expected PNG, JPEG"):
            decode(content, name="p.png")
