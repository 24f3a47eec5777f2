"""Bright drawings on black as a set of one's own: ink on paper is recognized and inverted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.conftest import Cli

COLORS = {"bar": (255, 80, 60), "ring": (90, 255, 90)}


def drawing(kind: str, number: int, color: Any = (255, 255, 255)) -> Image.Image:
    """Draw a bright bar or ring on black, not quite in the same place."""
    moved = np.random.default_rng(number).integers(-2, 3, 4)
    left, top, right, bottom = moved + np.array((8, 6, 32, 34))
    made = Image.new("RGB", (40, 40))
    pen = ImageDraw.Draw(made)
    if kind == "bar":
        pen.rectangle((18, top, 23, bottom), fill=color)
    else:
        pen.ellipse((left, top, right, bottom), outline=color, width=5)
    return made


def write_set(root: Path, colored: bool) -> Path:
    for kind, color in COLORS.items():
        (root / kind).mkdir(parents=True)
        for number in range(30):
            made = drawing(kind, number, color if colored else (255, 255, 255))
            made.save(root / kind / f"{number}.png")
    return root


def on_paper(kind: str) -> Image.Image:
    """Return the drawing as dark gray ink on paper that is not quite white or even."""
    ink = np.asarray(drawing(kind, 77), np.float32)[..., :1] / 255
    light = np.linspace(205, 235, 40)[None, :, None]
    return Image.fromarray((light - 190 * ink).repeat(3, 2).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("colored", [False, True], ids=["gray", "color"])
def test_dark_ink_on_paper_is_inverted_for_an_own_set_of_bright_drawings(
    cli: Cli, tmp_path: Path, colored: bool
) -> None:
    write_set(tmp_path / "set", colored)
    status, _, errors = cli(
        "train", "digits", "data=./set", "model=cnn", "epochs=3", "--run", "r", "size=20"
    )
    assert status == 0, errors
    for kind in COLORS:
        on_paper(kind).save(f"{kind}.png")

    def found(*arguments: str) -> list[dict[str, Any]]:
        status, said, errors = cli("predict", "r", *arguments, "--json")
        assert status == 0, errors
        return json.loads(said)

    files = [f"{kind}.png" for kind in COLORS]
    for kind, answer in zip(COLORS, found(*files), strict=True):
        assert answer["class"] == kind
        assert any("inverted: its border is light" in done for done in answer["done"])
        assert any("--as-is" in done for done in answer["done"])
    for answer in found(*files, "--as-is"):
        assert not any("inverted" in done for done in answer["done"])
        assert any("use --invert" in note for note in answer["notes"])
    for answer in found("set/bar/3.png", "set/ring/4.png"):
        assert not any("inverted" in done for done in answer["done"])
    for kind, answer in zip(COLORS, found(*files, "--center"), strict=True):
        assert any("inverted: dark ink on a light background" in done for done in answer["done"])
        assert answer["done"][-1] == "as in MNIST"
        assert colored or answer["class"] == kind
    status, _, errors = cli("explain", "r", *files, "--center", "--as-is")
    assert status == 2
    assert errors.startswith("--center and --as-is")
    status, said, _ = cli("explain", "r", "ring.png", "--center")
    assert status == 0
    assert "as in MNIST" in said


def test_a_colored_image_is_not_inverted_for_its_light_border(cli: Cli, tmp_path: Path) -> None:
    write_set(tmp_path / "set", colored=True)
    assert cli("train", "digits", "data=./set", "model=cnn", "epochs=1", "--run", "r")[0] == 0
    pink = Image.new("RGB", (40, 40), (255, 190, 200))
    pink.paste((40, 60, 200), (10, 10, 30, 30))
    pink.save("pink.png")
    _, said, _ = cli("predict", "r", "pink.png", "--json")
    assert json.loads(said)[0]["done"] == []
