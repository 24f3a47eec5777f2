"""The page of a check in a real browser: choosing changes, and the file that it saves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hydrofoil.check.apply import agreed_changes
from hydrofoil.check.finding import Change, Finding, Row
from hydrofoil.check.result import Check
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.report.check_page import MOST_ROWS, check_page
from tests.test_browser import (
    SIZES,
    Open,
    assert_accessible,
    assert_valid,
    chromium,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    visit,  # noqa: F401  # pyright: ignore[reportUnusedImport]
)
from tests.test_check_page import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def check() -> Check:
    """A check with more rows than the page shows, hostile names and alternatives."""
    draw = np.random.default_rng(0)
    images_NCHW = torch.from_numpy(draw.integers(0, 256, (60, 3, 12, 16), np.uint8))
    labels_N = torch.arange(60) % 2
    names = [*HOSTILE, *(f"a long folder name/of class {at % 2}/{at}.png" for at in range(6, 60))]
    pictures = Pictures.own(images_NCHW, labels_N, ("cat", "<b>dog</b>"), "./pets", names=names)
    split = Split(list(range(40)), [], list(range(40, 60)), pictures)
    leaks = tuple(
        Row(
            (at % 40, 40 + at % 20),
            ("", "mirrored"),
            f"correlation 0.{at:02}",
            (Change(40 + at % 20, "exclude"), Change(40 + at % 20, "move", "train")),
        )
        for at in range(30)
    )
    labels = tuple(Row((at,), changes=(Change(at, "label", "<b>dog</b>"),)) for at in (0, 2))
    cues = [{"cue": "file type", "accuracy": 0.93, "interval": (0.9, 0.95), "majority_rate": 0.5}]
    findings = [
        Finding("shortcut", "note", "No shortcut found", (HOSTILE[0],), (), {"cues": cues}),
        Finding("labels", "warning", "2 labels are doubtful", rows=labels),
        Finding("leak", "serious", "30 test images are in the training part", rows=leaks),
    ]
    return Check(pictures, findings, split, {"leak": 1.2}, {"drift": "too few images"})


@pytest.fixture(scope="module")
def page(check: Check, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "check.html"
    path.write_bytes(check_page(check))
    return path


def test_what_is_chosen_is_saved_and_read_back_as_the_same_changes(
    check: Check,
    page: Path,
    visit: Open,  # noqa: F811
    tmp_path: Path,
) -> None:
    shown = visit(page, accept_downloads=True)
    save, said = shown.locator("#save"), shown.locator("#chosen")
    assert save.is_disabled()
    assert not shown.get_by_text("Choosing needs scripts").is_visible()
    shown.get_by_label("Label <script>", exact=False).check()
    assert said.text_content() == "1 change is chosen."
    shown.locator("input[data-all=leak]").check()
    assert said.text_content() == "31 changes are chosen."
    first, alternative = (
        shown.locator("input[data-kind=leak][data-image='40']").nth(at) for at in (0, 1)
    )
    assert first.is_checked()
    assert first.is_disabled()
    assert not alternative.is_checked()
    with shown.expect_download() as download:
        save.click()
    file = tmp_path / "changes.json"
    download.value.save_as(file)
    assert download.value.suggested_filename == "changes.json"
    agreed = agreed_changes(check, str(file))
    expected = [Change(40 + at % 20, "exclude") for at in range(30)]
    assert agreed == [*expected, Change(0, "label", "<b>dog</b>")]
    shown.locator("input[data-all=leak]").uncheck()
    assert said.text_content() == "1 change is chosen."
    assert first.is_enabled()
    shown.get_by_label("Label <script>", exact=False).uncheck()
    assert save.is_disabled()
    assert json.loads(file.read_text())["source"] == "./pets"


def test_findings_are_reached_from_the_top_by_keyboard(page: Path, visit: Open) -> None:  # noqa: F811
    shown = visit(page)
    for link in shown.locator("nav a").all():
        target = link.get_attribute("href")
        link.focus()
        shown.keyboard.press("Enter")
        assert shown.locator(target).is_visible()
        assert shown.url.endswith(target)
    assert shown.locator("section:has(#leak) img").count() == 2 * MOST_ROWS


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_and_nothing_overflows(
    page: Path,
    visit: Open,  # noqa: F811
    size: str,
    scheme: str,
) -> None:
    shown = visit(page, size, color_scheme=scheme, bypass_csp=True)
    assert_accessible(shown)


def test_without_scripts_everything_is_shown_and_no_box_can_be_checked(
    page: Path,
    visit: Open,  # noqa: F811
) -> None:
    shown = visit(page, java_script_enabled=False)
    assert shown.locator("img").count() == 2 * MOST_ROWS + 2
    assert shown.locator("input:enabled").count() == 0
    assert shown.get_by_text("Choosing needs scripts").is_visible()


def test_the_html_is_valid(page: Path) -> None:
    assert_valid(page)
