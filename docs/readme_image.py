"""Writes docs/report.png, the README's image: the head of the report of a run that it trains.

It needs Debian's chromium and the extra `browser`; a browser test runs it.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hydrofoil as hf

HERE = Path(__file__).parent
WIDTH = 860  # of the page, in pixels


def write(out: Path, chromium: Any) -> None:
    """Train and test `digits`, write its report, and save an image of the head.

    Args:
        out: A PNG.
        chromium: A browser of playwright.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = hf.train("digits", run=Path(folder) / "digits-1", test=True)
        page = chromium.new_page(
            viewport={"width": WIDTH, "height": 900}, device_scale_factor=1.5, color_scheme="light"
        )
        page.goto(run.report().as_uri())
        end = page.evaluate("() => document.querySelector('#confusion').offsetTop")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end - 40}
        page.screenshot(path=out, clip=clip, full_page=True)
        page.close()


def main() -> None:
    """Write the image beside this script."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("HYDROFOIL_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        write(HERE / "report.png", browser)
        browser.close()


if __name__ == "__main__":
    main()
