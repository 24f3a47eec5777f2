"""Decoding of image files, against what was written, Pillow's own turning, and opencv."""

import re

import cv2
import numpy as np
import pytest

from hydrofoil import HydrofoilError
from hydrofoil.data.decode import Decoded, decode
from tests.images import Case, generated, upright

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
