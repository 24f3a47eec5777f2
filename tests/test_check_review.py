"""The estimate from votes: exact intervals, strata, the file, and the page.

Axes: N images.
"""

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hydrofoil.check.review import (
    Review,
    Stratum,
    draw_review,
    exact_interval,
    noise_estimate,
    read_votes,
    stratified,
)
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.source import load
from hydrofoil.errors import HydrofoilError
from hydrofoil.report.review_page import review_page


def made(count: int = 60) -> Pictures:
    labels_N = torch.arange(count) % 3
    return Pictures(torch.zeros(count, 1, 4, 4, dtype=torch.uint8), labels_N, ["a", "b", "c"])


def hypergeometric(size: int, wrong: int, drawn: int, counted: int) -> float:
    return comb(wrong, counted) * comb(size - wrong, drawn - counted) / comb(size, drawn)


@given(st.integers(1, 40), st.data())
@settings(max_examples=60)
def test_the_interval_has_the_numbers_that_an_exact_test_does_not_reject(
    size: int, data: st.DataObject
) -> None:
    drawn = data.draw(st.integers(1, size))
    counted = data.draw(st.integers(0, drawn))
    kept = [
        wrong
        for wrong in range(counted, size - (drawn - counted) + 1)
        if sum(hypergeometric(size, wrong, drawn, k) for k in range(counted, drawn + 1)) > 0.025
        and sum(hypergeometric(size, wrong, drawn, k) for k in range(counted + 1)) > 0.025
    ]
    low, high = exact_interval(size, drawn, counted)
    assert (round(low * size), round(high * size)) == (kept[0], kept[-1])


def test_in_a_large_set_the_interval_is_that_of_clopper_and_pearson() -> None:
    for counted in (0, 3, 50, 100):
        expected = binomtest(counted, 100).proportion_ci(0.95, "exact")
        assert exact_interval(10_000_000, 100, counted) == pytest.approx(tuple(expected), abs=1e-4)


def test_intervals_contain_the_true_rate_of_simulated_reviews_in_95_of_100() -> None:
    rng = np.random.default_rng(0)
    for likely, rest in (((300, 200), (4700, 40)), ((0, 0), (2000, 60)), ((50, 45), (950, 0))):
        true = (likely[1] + rest[1]) / (likely[0] + rest[0])
        contained = 0
        for _ in range(300):
            strata = [
                (size, drawn, int(rng.hypergeometric(wrong, size - wrong, drawn)))
                for (size, wrong), drawn in ((likely, 33), (rest, 67))
                if size
            ]
            _, (low, high) = stratified(strata)
            contained += low - 1e-12 <= true <= high + 1e-12
        assert contained / 300 >= 0.93


def test_a_stratum_of_likely_errors_narrows_the_interval() -> None:
    _, (low, high) = stratified([(10_000, 100, 5)])
    _, (near_low, near_high) = stratified([(500, 33, 31), (9500, 67, 0)])
    assert near_high - near_low < high - low


def test_a_sample_is_drawn_without_repetition_and_the_same_for_a_seed() -> None:
    pictures = made()
    review = draw_review(pictures, 20)
    assert review.images == draw_review(pictures, 20).images
    assert review.images != draw_review(pictures, 20, seed=1).images
    assert len(set(review.images)) == 20
    assert draw_review(pictures, 500).strata[0].size == 60
    assert len(draw_review(pictures, 500).images) == 60
    with pytest.raises(HydrofoilError, match="at least one image"):
        draw_review(pictures, 0)


def test_likely_errors_are_a_stratum_of_their_own_and_mixed_with_the_rest() -> None:
    pictures, likely = made(), list(range(12))
    review = draw_review(pictures, 30, likely=likely)
    first, rest = review.strata
    assert (first.name, first.size, len(first.images)) == ("likely", 12, 10)
    assert (rest.name, rest.size, len(rest.images)) == ("rest", 48, 20)
    assert set(first.images) <= set(likely)
    assert not set(rest.images) & set(likely)
    assert sorted(review.images) == sorted([*first.images, *rest.images])
    assert review.images[:10] != list(first.images)


def test_a_simple_random_sample_hits_every_image_equally_often() -> None:
    counts = np.zeros(12)
    for seed in range(400):
        counts[draw_review(made(12), 3, seed=seed).images] += 1
    assert counts.min() > 60  # expected 100, deviation 9
    assert counts.max() < 140


def voted(tmp_path: Path, review: Review, **changes: object) -> Path:
    path = tmp_path / "votes.json"
    path.write_text(json.dumps({**review.as_dict(), **changes}))
    return path


def test_the_estimate_counts_votes_and_names_what_is_undecided(tmp_path: Path) -> None:
    pictures = made()
    review = draw_review(pictures, 20)
    votes = dict.fromkeys(map(str, review.images), "right")
    first, second, third = list(votes)[:3]
    votes |= {first: "wrong", second: "wrong", third: "unsure"}
    estimate = noise_estimate(read_votes(voted(tmp_path, review, votes=votes), pictures))
    assert (estimate.rate, estimate.wrong, estimate.unsure, estimate.voted) == (0.1, 2, 1, 20)
    assert estimate.interval == pytest.approx(exact_interval(60, 20, 2))
    assert estimate.interval_with_unsure == pytest.approx(exact_interval(60, 20, 3))
    assert estimate.lines()[0].startswith("10.0% of the labels are wrong (95% interval ")
    assert "15.0%" in estimate.lines()[1]
    assert len(estimate.lines()) == 2
    del votes[third]
    estimate = noise_estimate(read_votes(voted(tmp_path, review, votes=votes), pictures))
    assert estimate.lines()[1].startswith("1 of 20 images were not voted on.")
    assert json.loads(json.dumps(estimate.as_dict()))["drawn"] == 20


@pytest.mark.parametrize(
    "changes",
    [
        {"votes": {"0": "maybe"}},
        {"votes": {"59999": "wrong"}},
        {"votes": ["right"]},
        {"votes": {"x": "right"}},
        {"strata": [{"name": "all", "size": 1, "images": [0, 1]}], "votes": {}},
        {"strata": [{"name": "all", "size": 9, "images": [0, 0]}], "votes": {}},
        {"strata": [{"name": "all", "size": True, "images": []}]},
        {"strata": 3},
        {"seed": -1},
    ],
)
def test_a_file_that_holds_no_votes_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    pictures = made()
    with pytest.raises(HydrofoilError, match=r"not the votes of a review"):
        read_votes(voted(tmp_path, draw_review(pictures, 20), **changes), pictures)


def test_votes_on_other_labels_are_refused(tmp_path: Path) -> None:
    pictures = made()
    path = voted(tmp_path, draw_review(pictures, 20))
    other = Pictures(pictures.pictures_NCHW, 2 - pictures.labels_N, pictures.classes)
    with pytest.raises(HydrofoilError, match="votes on other images or labels"):
        read_votes(path, other)
    with pytest.raises(HydrofoilError, match="too few images"):
        noise_estimate(read_votes(path, pictures))
    forged = voted(tmp_path, Review(pictures.hash, 0, (Stratum("all", 99, (70,)),), {}))
    with pytest.raises(HydrofoilError, match="image 70"):
        read_votes(forged, pictures)
    for content in (b"\xff", b"[", b"null", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(HydrofoilError):
            read_votes(path, pictures)
    with pytest.raises(HydrofoilError, match="cannot be read"):
        read_votes(tmp_path / "missing.json", pictures)


def test_the_page_shows_each_drawn_image_with_its_label_and_no_guess() -> None:
    digits = load("digits")
    review = draw_review(digits, 9, likely=[3, 4, 5, 6])
    text = review_page(digits, review).decode()
    for image in review.images:
        assert f'<li data-image="{image}">' in text
    assert text.count("<img ") == 9
    assert text.count("Labeled <strong>") == 9
    assert "script-src &#39;sha256-" in text
    assert "hydrofoil check digits --votes votes.json" in text
    hostile = Pictures(made(6).pictures_NCHW, torch.arange(6) % 2, ["<script>x</script>", '"&'])
    assert "<script>x" not in review_page(hostile, draw_review(hostile)).decode()
