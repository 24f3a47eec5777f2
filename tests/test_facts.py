"""What is known of files, against Pillow and the file system."""

import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import hydrofoil as hf
from hydrofoil.data.facts import FileFact, file_fact, read_facts
from hydrofoil.recipe.schema import Data
from tests.sets import KINDS, image, write_folder

KINDS_OF_FILE = ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "ICO", "TGA")


def encoded(kind: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    image(0, 0, size).save(file, {"AVIF": "AVIF"}.get(kind, kind.upper()), **options)
    return file.getvalue()


@given(kind=st.sampled_from(KINDS_OF_FILE), width=st.integers(8, 90), height=st.integers(8, 90))
def test_format_and_size_are_those_that_pillow_reads(kind: str, width: int, height: int) -> None:
    content = encoded(kind, (width, height))
    with Image.open(io.BytesIO(content)) as opened:
        size = opened.size
    fact = file_fact(content)
    assert fact is not None
    assert (fact.format, (fact.width, fact.height)) == (kind, size)
    assert fact.bytes == len(content)
    assert math.isnan(fact.time)
    assert not fact.damaged


@given(st.integers(1, 100))
def test_the_quality_of_a_jpeg_is_the_one_that_it_was_saved_with(quality: int) -> None:
    fact = file_fact(encoded("JPEG", (16, 16), quality=quality))
    assert fact is not None
    assert abs(fact.quality - quality) <= (1 if quality > 24 else 10)  # low ones clip at 255


@given(st.sampled_from([1, 2, 5]), st.sampled_from(["PNG", "GIF", "WebP"]))
def test_frames_are_counted(count: int, kind: str) -> None:
    file = io.BytesIO()
    frames = [image(0, number) for number in range(count)]
    frames[0].save(file, kind, save_all=count > 1, append_images=frames[1:])
    fact = file_fact(file.getvalue())
    assert fact is not None
    assert fact.frames == count


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP"])
def test_a_turned_image_has_the_size_that_is_seen(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    fact = file_fact(encoded(kind, (40, 20), exif=exif))
    assert fact is not None
    assert (fact.width, fact.height) == (20, 40)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF"])
@given(st.integers(0, 400))
def test_no_header_that_ends_early_makes_an_error_of_ours(kind: str, length: int) -> None:
    assert isinstance(file_fact(encoded(kind, (20, 16))[:length]), FileFact)


@pytest.mark.parametrize(("kind", "lacks"), [("PNG", 12), ("JPEG", 2), ("GIF", 1)])
def test_a_file_that_lacks_its_end_and_no_pixel_is_damaged(kind: str, lacks: int) -> None:
    fact = file_fact(encoded(kind, (20, 16))[:-lacks])
    assert fact is not None
    assert fact.damaged
    assert not file_fact(encoded(kind, (20, 16)) + b"appended" * 20).damaged  # type: ignore[union-attr]


def test_facts_are_those_of_the_file_system_aligned_with_the_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    (root / "cat" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        os.utime(path, (1e9 + number, 1e9 + number))
    for extra in range(120):  # at most 1% may be unreadable
        image(1, extra).save(root / "dog" / f"more-{extra}.png")
    pictures = hf.load(str(root))
    facts = read_facts(Data(source=str(root)), pictures)
    assert facts is not None
    assert len(facts) == len(pictures) == 143
    for at, name in enumerate(pictures.names):
        status = (root / name).stat()
        assert facts.column("bytes")[at] == status.st_size
        assert facts.column("time")[at] == pytest.approx(status.st_mtime, abs=1e-3)
        assert facts.paths[at] == root / name
    assert np.array_equal(facts.column("width"), np.full(143, 20.0))
    assert set(facts.endings) == {".png"}
    assert [name for name, _ in facts.unreadable] == ["cat/3.png"]
    assert "damaged" in facts.unreadable[0][1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_with_files_has_facts(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path)
    pictures = hf.load(str(path))
    facts = read_facts(Data(source=str(path)), pictures)
    if "npz" in kind or kind in ("medmnist", "keras"):
        assert facts is None
        return
    assert facts is not None
    assert len(facts) == len(pictures)
    assert set(facts.formats) == {"PNG"}
    packed = kind.startswith(("zip", "tar", "parquet"))
    assert all((one is None) == packed for one in facts.paths)


def test_a_published_set_has_no_files_of_its_own() -> None:
    assert read_facts(Data(source="digits"), hf.load("digits")) is None
