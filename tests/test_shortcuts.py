"""Cues that predict the labels are found, and those of honest sets are not serious."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import hydrofoil as hf
from hydrofoil.check.finding import Finding
from hydrofoil.check.shortcuts import check_shortcuts
from hydrofoil.data.facts import read_facts
from hydrofoil.recipe.schema import Data

EACH = 60
DAY = 86400


def photograph(number: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """Draw smooth noise, which no class has more or less of."""
    draw = np.random.default_rng(number)
    small = Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def write(root: Path, save: Callable[[Image.Image, Path, int, int], None]) -> Path:
    """Write two classes that differ in what `save` makes of label and number."""
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            save(photograph(2 * number + label), root / name / f"{number:03}", label, number)
    return root


def finding(root: Path, **fields: object) -> Finding:
    pictures = hf.load(str(root), **fields)
    (found,) = check_shortcuts(pictures, read_facts(Data(source=str(root)), pictures))
    return found


def cues(found: Finding) -> dict[str, dict[str, object]]:
    return {str(row["cue"]): row for row in found.figures["cues"]}


def _type(made: Image.Image, path: Path, label: int, number: int) -> None:
    other = number < 4  # 93% of the images
    made.save(path.with_suffix(".png" if label != other else ".jpg"))


def _size(made: Image.Image, path: Path, label: int, number: int) -> None:
    made.resize((60, 48) if label else (40, 32)).save(path.with_suffix(".png"))


def _quality(made: Image.Image, path: Path, label: int, number: int) -> None:
    made.save(path.with_suffix(".jpg"), quality=95 if label else 30)


def _time(made: Image.Image, path: Path, label: int, number: int) -> None:
    made.save(path.with_suffix(".png"))
    seconds = 1.6e9 + DAY * (10 * (number // 20) + 5 * label) + number
    os.utime(path.with_suffix(".png"), (seconds, seconds))


def _frame(made: Image.Image, path: Path, label: int, number: int) -> None:
    if label:
        ImageDraw.Draw(made).rectangle((0, 0, 39, 31), outline=(200, 30, 30), width=3)
    made.save(path.with_suffix(".png"))


SERIOUS = {
    "file type": _type,
    "image size": _size,
    "JPEG quality": _quality,
    "time stamp": _time,
    "border": _frame,
}


@pytest.mark.parametrize("cue", SERIOUS)
def test_a_planted_shortcut_is_serious_and_named(cue: str, tmp_path: Path) -> None:
    found = finding(write(tmp_path / "pets", SERIOUS[cue]), fit="stretch")
    assert found.level == "serious"
    serious = [name for name, row in cues(found).items() if row["level"] == "serious"]
    assert cue in serious
    row = cues(found)[cue]
    low, high = row["interval"]  # type: ignore[misc]
    assert row["accuracy"] >= 0.9  # type: ignore[operator]
    assert low <= row["accuracy"] <= high
    assert row["majority_rate"] == 0.5
    shown = next(one for one in found.rows if one.text.casefold().startswith(cue.casefold()))
    assert len(shown.images) == len(shown.captions) == 6


def test_file_type_alone_predicts_93_percent(tmp_path: Path) -> None:
    found = finding(write(tmp_path / "pets", _type))
    assert found.title == "File type alone predicts 93.3% of the labels (majority rate 50.0%)"


def _plain(made: Image.Image, path: Path, label: int, number: int) -> None:
    made.save(path.with_suffix(".png"))


def test_images_without_a_shortcut_have_a_note_alone(tmp_path: Path) -> None:
    found = finding(write(tmp_path / "pets", _plain))
    assert (found.level, found.rows) == ("note", ())
    assert found.title.startswith("No shortcut found: the strongest cue, ")


def _copied(made: Image.Image, path: Path, label: int, number: int) -> None:
    made.save(path.with_suffix(".png"))
    seconds = 1.6e9 + EACH * label + number
    os.utime(path.with_suffix(".png"), (seconds, seconds))


def test_the_order_in_which_files_were_copied_is_no_shortcut(tmp_path: Path) -> None:
    found = finding(write(tmp_path / "pets", _copied))
    assert "time stamp" not in cues(found)


def _detailed(made: Image.Image, path: Path, label: int, number: int) -> None:
    if label:
        draw = np.random.default_rng(number)
        noise = Image.fromarray(draw.integers(0, 256, (32, 40, 3), np.uint8))
        made = Image.blend(made, noise, 0.2)
    made.save(path.with_suffix(".png"))


def test_a_class_of_detailed_images_has_larger_files_which_is_a_warning(tmp_path: Path) -> None:
    found = finding(write(tmp_path / "pets", _detailed), size=[32, 40])
    assert cues(found)["file size"]["accuracy"] == 1
    assert cues(found)["file size"]["level"] == "warning"
    assert found.level == "warning"


def _one_class(made: Image.Image, path: Path, label: int, number: int) -> None:
    made.save(path.with_suffix(".jpg" if path.parent.name == "5" else ".png"))


def test_a_single_class_that_a_cue_recognizes_is_serious(tmp_path: Path) -> None:
    for label in range(10):
        (tmp_path / "ten" / str(label)).mkdir(parents=True)
        for number in range(20):
            path = tmp_path / "ten" / str(label) / str(number)
            _one_class(photograph(20 * label + number), path, label, number)
    found = finding(tmp_path / "ten")
    assert cues(found)["file type"]["level"] == "serious"
    assert "alone recognizes 5" in found.title


def test_published_sets_have_pixel_cues_and_nothing_serious() -> None:
    (found,) = check_shortcuts(hf.load("digits"))
    assert set(cues(found)) == {"border", "mean color"}
    assert found.level == "note"


def test_the_accuracy_of_random_labels_is_not_significant() -> None:
    digits = hf.load("digits")
    for seed in range(5):
        labels_N = np.random.default_rng(seed).integers(0, 2, len(digits))
        (found,) = check_shortcuts(hf.Pictures(digits.pictures_NCHW, labels_N, ("a", "b")))
        assert found.level == "note"
        row = next(iter(cues(found).values()))
        assert row["accuracy"] < row["majority_rate"] + 0.05  # type: ignore[operator]


def test_groups_stay_in_one_fold() -> None:
    """A color of its own for each patient says nothing of the label of another patient."""
    draw = np.random.default_rng(0)
    patient_N = np.repeat(np.arange(40), 10)
    color_N3 = draw.integers(0, 256, (40, 3))
    images_NHWC = np.broadcast_to(color_N3[patient_N][:, None, None], (400, 8, 8, 3))
    labels = [str(patient % 2) for patient in patient_N]
    pixels = hf.Pictures(images_NHWC.astype(np.uint8), labels).pictures_NCHW
    label_N = hf.Pictures(images_NHWC.astype(np.uint8), labels).labels_N
    grouped = hf.Pictures.own(
        pixels, label_N, ("0", "1"), "x", groups=[str(patient) for patient in patient_N]
    )
    (found,) = check_shortcuts(grouped)
    assert found.level == "note"
    (alone,) = check_shortcuts(hf.Pictures.own(pixels, label_N, ("0", "1"), "x"))
    assert cues(alone)["mean color"]["accuracy"] > 0.9  # type: ignore[operator]


@pytest.mark.parametrize("count", [1, 3, 12])
def test_too_few_images_are_not_judged(count: int) -> None:
    images_NCHW = np.zeros((count, 1, 8, 8), np.uint8)
    labels = [at % 2 for at in range(count)]
    pictures = hf.Pictures(images_NCHW, np.array(labels, np.int64), ("a", "b"))
    assert check_shortcuts(pictures) == []
