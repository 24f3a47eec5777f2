"""`hydrofoil show RECIPE --augment`: a grid of what the network will see."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Cli


@pytest.mark.parametrize(
    "fields",
    [
        ["flip=alternating", "shift=1"],
        ["rotate=10", "scale=0.1", "brightness=0.2", "contrast=0.2", "cutout=2"],
        ["policy=trivialaugment", "mixup=1", "cutmix=1"],
    ],
)
def test_the_grid_is_saved_and_its_path_printed(
    fields: list[str], cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "grid.png"
    status, printed, _ = cli("show", "digits", "--augment", *fields, "--out", out)
    assert status == 0
    assert printed.startswith(f"digits: {fields[0].replace('=', ' ')}")
    assert "8 images as they are, then as epochs 1 to 8 change them" in printed
    assert f"saved: {out}" in printed
    width, height = Image.open(io.BytesIO(out.read_bytes())).size
    assert width > 9 * 128
    assert height > 8 * 128


def test_the_json_says_what_is_shown(cli: Cli, tmp_path: Path) -> None:
    command = ("show", "digits", "--augment", "shift=2", "--out", tmp_path / "a.png", "--json")
    content = json.loads(cli(*command)[1])
    assert content["augment"]["shift"] == 2
    assert len(content["images"]) == len(set(content["images"])) == 8
    assert content["drawn"] == str(tmp_path / "a.png")


def test_without_a_change_there_is_nothing_to_show_and_the_error_says_what_to_type(
    cli: Cli,
) -> None:
    status, _, errors = cli("show", "digits", "--augment")
    assert status != 0
    assert "its section [augment] changes nothing" in errors
    assert "hydrofoil show digits --augment flip=random shift=2" in errors
    assert "expected one of them" in cli("show", "digits", "--augment", "--pixels", "3")[2]
    assert "expected at most 7" in cli("show", "digits", "--augment", "shift=9")[2]
