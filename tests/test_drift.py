"""Test images unlike the training images are found; a random split is not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import hydrofoil as hf
from hydrofoil.check.drift import auc, check_drift


def split(pictures: hf.Pictures) -> hf.Split:
    return hf.draw_split(pictures, seed=1, valid=0.1, test=0.3)


def changed(change: str) -> tuple[hf.Pictures, hf.Split]:
    """Return the digits in color, the test images of which are changed."""
    digits = hf.load("digits")
    parts = split(digits)
    images_NCHW = digits.pictures_NCHW.float().expand(-1, 3, -1, -1).clone()
    test_NCHW = images_NCHW[parts.test]
    images_NCHW[parts.test] = {
        "brighter": test_NCHW * 0.8 + 50,
        "red": test_NCHW * torch.tensor([1, 0.7, 0.7])[:, None, None],
        "blurred": torch.nn.functional.avg_pool2d(test_NCHW, 3, 1, 1),
        "inverted": 255 - test_NCHW,
    }[change]
    return hf.Pictures(images_NCHW.byte(), digits.labels_N, digits.classes), parts


@pytest.mark.parametrize("change", ["brighter", "red", "blurred", "inverted"])
def test_changed_test_images_are_serious(change: str) -> None:
    pictures, parts = changed(change)
    (found,) = check_drift(pictures, parts)
    assert found.level == "serious"
    assert found.figures["auc"] > 0.9
    train, test = (set(row.images) for row in found.rows)
    assert train <= set(parts.train.tolist())
    assert test <= set(parts.test.tolist())


def test_a_random_split_is_a_note() -> None:
    digits = hf.load("digits")
    for seed in range(3):
        parts = hf.draw_split(digits, seed=seed, valid=0.1, test=0.3)
        (found,) = check_drift(digits, parts)
        low, high = found.figures["auc_bounds"]
        assert found.level == "note"
        assert low < 0.55
        assert high > 0.45


def test_other_class_frequencies_alone_are_no_drift() -> None:
    digits = hf.load("digits")
    draw = np.random.default_rng(0)
    often_N = np.where(digits.labels_N.numpy() < 5, 0.85, 0.15)  # fives to nines are rarely tested
    test = draw.random(len(digits)) < often_N
    parts = hf.Split(np.flatnonzero(~test), [], np.flatnonzero(test), digits)
    (found,) = check_drift(digits, parts)
    assert found.level == "note"


def test_images_that_are_in_both_parts_do_not_matter() -> None:
    pictures, parts = changed("red")
    images_NCHW, labels_N = pictures.pictures_NCHW, pictures.labels_N
    copies_N = parts.train[:200]
    leaky = hf.Pictures(
        torch.cat([images_NCHW, images_NCHW[copies_N]]),
        torch.cat([labels_N, labels_N[copies_N]]),
        pictures.classes,
    )
    test_N = torch.cat([parts.test, torch.arange(len(images_NCHW), len(leaky))])
    (found,) = check_drift(leaky, hf.Split(parts.train, parts.valid, test_N, leaky))
    (alone,) = check_drift(pictures, parts)
    assert found.figures["auc"] == pytest.approx(alone.figures["auc"], abs=0.02)


def test_a_set_without_test_images_is_checked_on_its_validation_images() -> None:
    pictures, parts = changed("inverted")
    moved = hf.Split(parts.train, parts.test, [], pictures)
    (found,) = check_drift(pictures, moved)
    assert found.title.startswith("Validation and training images differ")
    assert check_drift(pictures, hf.Split(parts.train, [], [], pictures)) == []


def test_recognizing_a_patient_is_not_recognizing_a_part() -> None:
    draw = np.random.default_rng(0)
    patient_N = np.repeat(np.arange(60), 10)
    color_N3 = draw.integers(0, 256, (60, 3))
    images_NHWC = np.broadcast_to(color_N3[patient_N][:, None, None], (600, 8, 8, 3))
    images_NHWC = images_NHWC ^ draw.integers(0, 4, images_NHWC.shape)
    pixels = torch.from_numpy(images_NHWC.astype(np.uint8)).permute(0, 3, 1, 2)
    pictures = hf.Pictures.own(
        pixels, torch.from_numpy(patient_N % 2), ("a", "b"), "x",
        groups=[str(patient) for patient in patient_N],
    )  # fmt: skip
    test = patient_N >= 40
    parts = hf.Split(np.flatnonzero(~test), [], np.flatnonzero(test), pictures)
    (found,) = check_drift(pictures, parts)
    assert found.level == "note"


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
)
def test_the_auc_is_scikit_learn_s(positives: list[int], negatives: list[int]) -> None:
    score_N = np.array([*positives, *negatives], float)
    truth_N = np.arange(len(score_N)) < len(positives)
    area, low, high = auc(score_N, truth_N)
    assert area == pytest.approx(roc_auc_score(truth_N, score_N))
    assert 0 <= low <= area <= high <= 1


def test_the_interval_of_the_auc_covers_the_truth_19_times_in_20() -> None:
    """Two normal distributions one deviation apart have an AUC of Φ(1 / √2) = 0.7602."""
    draw, covered = np.random.default_rng(0), 0
    truth_N = np.arange(300) < 100
    for _ in range(400):
        _, low, high = auc(draw.normal(size=300) + truth_N, truth_N)
        covered += low <= 0.76025 <= high
    assert 0.92 <= covered / 400 <= 0.98
