"""Damaged, mislabeled, blank and oddly shaped images are found, and clean sets have none."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import hydrofoil as hf
from hydrofoil.check.files import check_files, contrast
from hydrofoil.check.finding import Finding
from hydrofoil.data.facts import read_facts
from hydrofoil.recipe.schema import Data
from tests.sets import image, write_folder


def checked(root: Path) -> tuple[hf.Pictures, dict[str, Finding]]:
    pictures = hf.load(str(root))
    facts = read_facts(Data(source=str(root)), pictures)
    return pictures, {finding.kind: finding for finding in check_files(pictures, facts)}


def named(pictures: hf.Pictures, finding: Finding) -> set[str]:
    return {pictures.names[at] for row in finding.rows for at in row.images}


def test_a_clean_folder_and_the_digits_have_no_finding(tmp_path: Path) -> None:
    assert checked(write_folder(tmp_path / "pets"))[1] == {}
    assert check_files(hf.load("digits")) == []


def _mislabeled(path: Path) -> None:
    image(1, 1).save(path, "JPEG")


def _lacks_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def _blank(path: Path) -> None:
    Image.new("RGB", (20, 16), (90, 20, 200)).save(path)


def _faint(path: Path) -> None:
    faint = np.full((16, 20, 3), 120, np.uint8)
    faint[4:6, 4:6] = 140
    Image.fromarray(faint).save(path)


def _long(path: Path) -> None:
    image(1, 1, (200, 16)).save(path)


def _tiny(path: Path) -> None:
    image(1, 1, (5, 4)).save(path)


def _animated(path: Path) -> None:
    image(1, 1).save(path, save_all=True, append_images=[image(1, 2)])


PLANTED: dict[str, Callable[[Path], None]] = {
    "format": _mislabeled,
    "truncated": _lacks_its_end,
    "blank": _blank,
    "aspect": _long,
    "small": _tiny,
    "animated": _animated,
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", 12)
    planted = root / "cat" / "3.png"
    PLANTED[kind](planted)
    pictures, found = checked(root)
    assert list(found) == [kind]
    assert named(pictures, found[kind]) == {"cat/3.png"}
    assert found[kind].level == ("note" if kind == "animated" else "warning")
    if kind in ("blank", "aspect", "small"):
        (row,) = found[kind].rows
        assert [change.action for change in row.changes] == ["exclude"]


def test_nearly_blank_images_come_after_blank_ones(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", 12)
    _faint(root / "bird" / "1.png")
    _blank(root / "dog" / "2.png")
    pictures, found = checked(root)
    rows = [pictures.names[row.images[0]] for row in found["blank"].rows]
    assert rows == ["dog/2.png", "bird/1.png"]
    assert found["blank"].title == "1 blank and 1 nearly blank images"


def test_unreadable_files_are_reported_though_they_are_not_among_the_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", 80)
    (root / "cat" / "3.png").write_bytes(b"no image at all")
    (root / "dog" / "7.png").write_bytes((root / "dog" / "7.png").read_bytes()[:300])
    pictures, found = checked(root)
    assert len(pictures) == 238
    assert found["unreadable"].title == "2 of 240 image files cannot be read"
    first, second = found["unreadable"].figures["unreadable"]
    assert first["file"] == "cat/3.png"
    assert first["reason"].startswith("not an image that hydrofoil reads")
    assert second["file"] == "dog/7.png"
    assert "rows are missing" in second["reason"]


def test_what_all_images_have_in_common_is_no_finding(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "wide" / name).mkdir(parents=True)
        for number in range(12):
            image(label, number, (160 + number, 16)).save(
                tmp_path / "wide" / name / f"{number}.png"
            )
    assert checked(tmp_path / "wide")[1] == {}


def test_half_of_the_images_in_another_size_are_no_outliers(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "two" / name).mkdir(parents=True)
        for number in range(12):
            size = (40, 40) if number % 2 else (8, 8)
            image(label, number, size).save(tmp_path / "two" / name / f"{number}.png")
    assert checked(tmp_path / "two")[1] == {}


@given(st.integers(1, 12), st.sampled_from([1, 3]), st.integers(0, 10**6))
def test_contrast_is_numpy_s_of_the_most_varied_channel(
    count: int, channels: int, seed: int
) -> None:
    shape = (count, channels, 6, 5)
    pictures_NCHW = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    range_N, deviation_N = contrast(torch.from_numpy(pictures_NCHW))
    expected = pictures_NCHW.reshape(count, channels, -1)
    assert np.array_equal(range_N, np.ptp(expected, axis=2).max(1))
    assert np.allclose(deviation_N, expected.std(2).max(1), rtol=1e-5)


def test_an_own_set_of_arrays_is_checked_by_its_pixels() -> None:
    digits = hf.load("digits")
    images_NCHW = digits.pictures_NCHW[:200].clone()
    images_NCHW[17] = 255
    (finding,) = check_files(hf.Pictures(images_NCHW, digits.labels_N[:200], digits.classes))
    assert (finding.kind, finding.rows[0].images) == ("blank", (17,))


def test_a_jpeg_of_a_white_page_is_blank(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", 12)
    content = io.BytesIO()
    Image.new("RGB", (300, 200), "white").save(content, "JPEG", quality=50)
    (root / "cat" / "page.jpg").write_bytes(content.getvalue())
    pictures, found = checked(root)
    assert named(pictures, found["blank"]) == {"cat/page.jpg"}
