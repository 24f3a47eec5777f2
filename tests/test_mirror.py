"""The choice of augment.flip: characters are not mirrored, and what looks alike mirrored is.

Axes: N images, C channels, H rows, W columns.
"""

import pytest
import torch
from torch import Tensor

import hydrofoil as hf
from hydrofoil.models.derived import derived_from
from hydrofoil.models.mirror import LEAST, mirrored

SIDES = ("left", "right")


def bars(count: int, *, vertical: bool) -> hf.Pictures:
    """Return images of a bright bar, in one half of four: left or right, or above or below."""
    random = torch.Generator().manual_seed(0)
    pictures_NCHW = torch.randint(60, (count, 1, 12, 12), generator=random).to(torch.uint8)
    labels_N = torch.arange(count) % 2
    for picture_CHW, label in zip(pictures_NCHW, labels_N.tolist(), strict=True):
        line = slice(2, 4) if label == 0 else slice(8, 10)
        area: Tensor = picture_CHW[0, :, line] if vertical else picture_CHW[0, line]
        area += 150
    return hf.Pictures(pictures_NCHW, labels_N, SIDES)


def test_left_and_right_are_not_mirrored_and_the_reason_names_the_figures() -> None:
    found = mirrored(bars(400, vertical=True), torch.arange(400))
    assert found.flip == "none"
    assert found.correct > 380
    assert found.mirrored < 20
    assert found.reason.startswith("a small network recognizes ")
    assert "mirrored 0%, and loses most of" in found.reason


def test_above_and_below_are_mirrored() -> None:
    found = mirrored(bars(400, vertical=False), torch.arange(400))
    assert found.flip == "random"
    assert found.reason.endswith("mirrored images keep their class")


def test_one_class_that_is_lost_suffices_against_mirroring() -> None:
    """Of twelve classes, ten keep theirs: the accuracy alone would allow it."""
    random = torch.Generator().manual_seed(0)
    count, classes = 1200, 12
    pictures_NCHW = torch.randint(40, (count, 1, 14, 14), generator=random).to(torch.uint8)
    labels_N = torch.arange(count) % classes
    for picture_CHW, label in zip(pictures_NCHW, labels_N.tolist(), strict=True):
        if label < classes - 2:
            picture_CHW[0, label : label + 4] += 200
        else:
            start = 1 if label == classes - 2 else 9
            picture_CHW[0, :, start : start + 4] += 200
    found = mirrored(hf.Pictures(pictures_NCHW, labels_N), torch.arange(count))
    assert found.mirrored / found.count > 0.7
    assert found.lost in ("10", "11")
    assert found.flip == "none"


def test_noise_and_few_images_leave_it_unknown() -> None:
    random = torch.Generator().manual_seed(0)
    noise_NCHW = torch.randint(256, (500, 1, 8, 8), generator=random).to(torch.uint8)
    noise = mirrored(hf.Pictures(noise_NCHW, torch.arange(500) % 2), torch.arange(500))
    assert noise.flip == "none"
    assert "too little to find out" in noise.reason
    few = mirrored(bars(400, vertical=False), torch.arange(LEAST - 1))
    assert few.flip == "none"
    assert "too few images" in few.reason


def test_digits_are_not_mirrored_and_the_answer_is_always_the_same() -> None:
    digits = hf.load("digits")
    found = [mirrored(digits, torch.arange(len(digits))) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].flip == "none"


def test_a_derived_recipe_has_the_choice_and_its_reason_unless_the_user_chose() -> None:
    derived = derived_from(bars(400, vertical=False), ["train.epochs=1"])
    assert derived.recipe.augment.flip == "random"
    (row,) = [choice for choice in derived.choices if choice.field == "augment.flip"]
    assert row.reason.endswith("mirrored images keep their class")
    assert 'flip = "random"  # a small network recognizes' in derived.toml()
    mine = derived_from(bars(400, vertical=False), ["flip=none"])
    assert mine.recipe.augment.flip == "none"
    (row,) = [choice for choice in mine.choices if choice.field == "augment.flip"]
    assert row.reason == "your choice"


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2, 2), (2, 40, 5), (4, 64, 48)])
def test_images_of_any_shape_are_answered(shape: tuple[int, int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    pictures_NCHW = torch.randint(256, (220, *shape), generator=random).to(torch.uint8)
    found = mirrored(hf.Pictures(pictures_NCHW, torch.arange(220) % 3), torch.arange(220))
    assert found.flip == "none"
