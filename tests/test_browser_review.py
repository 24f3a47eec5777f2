"""The review page in a real browser: voting by keys and buttons, and the file that it saves."""

import json
from pathlib import Path

import pytest

from hydrofoil.check.review import draw_review, noise_estimate, read_votes
from hydrofoil.data.source import load
from hydrofoil.report.review_page import review_page
from tests.test_browser import (
    SIZES,
    Open,
    assert_accessible,
    chromium,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    visit,  # noqa: F401  # pyright: ignore[reportUnusedImport]
)

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    digits = load("digits")
    path = tmp_path / "review.html"
    path.write_bytes(review_page(digits, draw_review(digits, 5)))
    return path


def test_votes_by_keys_and_buttons_are_remembered_and_saved(
    page: Path,
    visit: Open,  # noqa: F811
    tmp_path: Path,
) -> None:
    shown = visit(page, accept_downloads=True)
    assert shown.locator("#images > li:visible").count() == 1
    assert shown.locator("#save").is_disabled()
    shown.keyboard.press("y")
    shown.keyboard.press("n")
    shown.locator("button[data-vote=unsure]").click()
    shown.keyboard.press("ArrowLeft")  # the third again
    assert shown.locator("button[data-vote=unsure]").get_attribute("aria-pressed") == "true"
    shown.keyboard.press("n")
    shown.reload()
    assert "Image 4 of 5. 3 voted, 2 wrong." in shown.locator("#status").text_content()
    shown.keyboard.press("?")
    assert not shown.locator("#finished").is_visible()
    shown.keyboard.press("y")
    assert shown.locator("#finished").is_visible()
    shown.keyboard.press("y")  # no image is left: nothing happens
    with shown.expect_download() as download:
        shown.locator("#save").click()
    votes = tmp_path / "votes.json"
    download.value.save_as(votes)
    digits = load("digits")
    review = draw_review(digits, 5)
    expected = ["right", "wrong", "wrong", "unsure", "right"]
    assert list(json.loads(votes.read_text())["votes"].values()).count("wrong") == 2
    found = read_votes(votes, digits)
    assert [found.votes[image] for image in review.images] == expected
    assert noise_estimate(found).rate == 0.4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_on_the_review_page(
    page: Path,
    visit: Open,  # noqa: F811
    size: str,
    scheme: str,
) -> None:
    shown = visit(page, size, color_scheme=scheme, bypass_csp=True)
    shown.keyboard.press("y")
    assert_accessible(shown)


def test_without_scripts_the_page_says_so_and_shows_the_images(
    page: Path,
    visit: Open,  # noqa: F811
) -> None:
    shown = visit(page, java_script_enabled=False)
    assert shown.locator(".without-script").is_visible()
    assert shown.locator("#images > li:visible").count() == 5
    assert not shown.locator("button").first.is_visible()
