"""Writes the README's images: the head of a report, report.png, and of a check, check.png.

It needs Debian's chromium and the extra `browser`; a browser test runs it.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

import hydrofoil as hf
from hydrofoil.report.check_page import check_page
from hydrofoil.report.sheet import as_image

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


def write_check(out: Path, chromium: Any) -> None:
    """Check digits with planted faults, and save an image of the head of the page.

    Args:
        out: A PNG.
        chromium: A browser of playwright.
    """
    with tempfile.TemporaryDirectory() as folder:
        digits = Path(folder) / "digits"
        plant(digits)
        path = Path(folder) / "check.html"
        here = Path.cwd()
        os.chdir(folder)
        try:
            path.write_bytes(
                check_page(hf.check("./digits", only=("copies", "files", "shortcuts")))
            )
        finally:
            os.chdir(here)
        page = chromium.new_page(
            viewport={"width": WIDTH, "height": 900}, device_scale_factor=1.5, color_scheme="light"
        )
        page.goto(path.as_uri())
        page.screenshot(path=out, clip={"x": 0, "y": 0, "width": WIDTH, "height": 900})
        page.close()


def plant(folder: Path) -> None:
    """Write 1,000 digits as files: 30 test images are in train as well, and sevens are JPEG."""
    pictures = hf.load("digits")
    for at in range(1000):
        part = "test" if at >= 800 else "train"
        shown = at - 800 if 800 <= at < 830 else at  # the first 30 test images are training images
        label = str(int(pictures.labels_N[shown]))
        image = as_image(pictures.pictures_NCHW[shown]).resize((32, 32), Image.Resampling.BICUBIC)
        if shown != at and at % 2:
            image = ImageChops.offset(image, 2, 0)
        path = folder / part / label / f"{at}.{'jpg' if label == '7' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def main() -> None:
    """Write the images beside this script."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("HYDROFOIL_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        write(HERE / "report.png", browser)
        write_check(HERE / "check.png", browser)
        browser.close()


if __name__ == "__main__":
    main()
