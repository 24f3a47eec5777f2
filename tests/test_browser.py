"""The pages in a real browser, with the network off: `pytest -m browser`.

They need Debian's chromium (or its path in HYDROFOIL_CHROMIUM), the extra `browser`, and Node with
`npm install --prefix tests/browser`; .ci/run has all three. `python docs/readme_image.py` writes
the image that the README shows.
"""

import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hydrofoil.cli.main import main
from hydrofoil.report.page import run_page, runs_page
from tests.pages import make_run, noise, renamed
from tests.test_report import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
NODE_MODULES = Path(__file__).parent / "browser" / "node_modules"
ROOT = Path(__file__).parents[1]
SIZES = {"desktop": (1200, 900), "phone": (360, 740)}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind: a tested run, broken ones, many classes, several, a comparison."""
    root = tmp_path_factory.mktemp("pages")
    tested = make_run(root / "digits-1", epochs=30)
    broken = make_run(root / "broken", tested=False)
    (broken.path / "best.safetensors").write_bytes(b"gone")
    many = make_run(root / "many", pictures=noise(600, (1, 8, 8), 24), epochs=1)
    hostile = make_run(root / "hostile", pictures=renamed(HOSTILE), epochs=1)
    contents = {
        "run": run_page(tested.path),
        "broken": run_page(broken.path),
        "many": run_page(many.path),
        "hostile": run_page(hostile.path),
        "several": runs_page([tested.path, broken.path, hostile.path]),
    }
    for name, content in contents.items():
        (root / f"{name}.html").write_bytes(content)
    compare = ["compare", "digits", "digits", "b.optimizer.lr=0.1", "--seeds", "3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with pytest.raises(SystemExit) as left:
            main([*compare, "train.epochs=1", "train.execute=eager"])
    assert left.value.code == 0
    (comparison,) = root.glob("runs/compare/*.html")
    return {name: root / f"{name}.html" for name in contents} | {"comparison": comparison}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("HYDROFOIL_CHROMIUM") or shutil.which("chromium")
    assert path, "no chromium: apt-get install chromium, or name one in HYDROFOIL_CHROMIUM"
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Open a page with the network off; in the end nothing may have been said or asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts: list[Any] = []

    def open_page(path: Path, size: str = "desktop", **options: Any) -> Any:
        width, height = SIZES[size]
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not said
    assert all(url.startswith(("file:", "data:image/")) for url in asked)


NAMES = ["run", "broken", "many", "hostile", "several", "comparison"]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_opens_offline_without_console_messages(
    pages: dict[str, Path], visit: Open, name: str
) -> None:
    page = visit(pages[name])
    assert page.locator("h1").count() == 1
    broken = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert page.evaluate(broken) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_and_nothing_overflows_the_page(
    pages: dict[str, Path], visit: Open, name: str, scheme: str, size: str
) -> None:
    page = visit(pages[name], size, color_scheme=scheme, bypass_csp=True)
    page.evaluate("() => document.querySelectorAll('details').forEach(one => one.open = true)")
    assert_accessible(page)


def assert_accessible(page: Any) -> None:
    """Let axe look at an open page, and make sure that nothing is wider than the window."""
    assert [
        (one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in axe_finds(page)
    ] == []
    wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0


def axe_finds(page: Any) -> list[dict[str, Any]]:
    """Return what axe finds on an open page."""
    page.evaluate((NODE_MODULES / "axe-core" / "axe.min.js").read_text())
    return page.evaluate("() => axe.run()")["violations"]


@pytest.mark.parametrize("name", NAMES)
def test_the_html_is_valid(pages: dict[str, Path], name: str) -> None:
    assert_valid(pages[name])


def assert_valid(path: Path) -> None:
    """Let html-validate read a page."""
    tool = NODE_MODULES / ".bin" / "html-validate"
    assert tool.exists(), "npm install --prefix tests/browser"
    command = [str(tool), "--formatter", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=NODE_MODULES.parent)
    found = json.loads(done.stdout) if done.stdout.strip() else []
    assert [
        f"{message['ruleId']}: {message['message']}" for one in found for message in one["messages"]
    ] == []
    assert done.returncode == 0, done.stderr


def test_the_validator_and_axe_find_what_is_wrong(tmp_path: Path, visit: Open) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<!DOCTYPE html><html><title>a</title><p><div></p><img src='data:,'></html>")
    tool = NODE_MODULES / ".bin" / "html-validate"
    assert subprocess.run([tool, wrong], capture_output=True, cwd=NODE_MODULES.parent).returncode
    page = visit(wrong, bypass_csp=True)
    found = {one["id"] for one in axe_finds(page)}
    assert {"html-has-lang", "image-alt"} <= found


def test_print_shows_collapsed_tables(pages: dict[str, Path], visit: Open, tmp_path: Path) -> None:
    page = visit(pages["run"])
    numbers = page.get_by_text("mean probability", exact=True).first
    assert not numbers.is_visible()
    page.emulate_media(media="print")
    assert numbers.is_visible()
    assert len(page.pdf(path=tmp_path / "page.pdf", format="A4")) > 10_000


def test_a_keyboard_reaches_every_part(pages: dict[str, Path], visit: Open) -> None:
    page = visit(pages["run"])
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the result"
    links = page.locator("nav a")
    for number in range(links.count()):
        target = links.nth(number).get_attribute("href")
        assert page.locator(target).count() == 1


@pytest.mark.parametrize(("name", "write"), [("report", "write"), ("check", "write_check")])
def test_the_images_of_the_readme_are_current(
    name: str, write: str, chromium: Any, tmp_path: Path
) -> None:
    made, kept = tmp_path / "made.png", ROOT / "docs" / f"{name}.png"
    runpy.run_path(str(ROOT / "docs" / "readme_image.py"))[write](made, chromium)
    ours, theirs = (Image.open(path).convert("L") for path in (made, kept))
    assert ours.width == theirs.width
    assert abs(ours.height - theirs.height) < 60  # another processor may round a figure otherwise
    size = (160, 160)
    small = [np.asarray(one.resize(size), dtype=float) for one in (ours, theirs)]
    assert np.abs(small[0] - small[1]).mean() < 6  # of 255: fonts and noise, but no other page
