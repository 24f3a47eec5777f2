"""Small sets of images in every form that a source may have."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("bird", "cat", "dog")
COLORS = ((230, 60, 40), (60, 200, 70), (70, 80, 240))


def image(label: int, number: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Draw an image of a class: a shape and a color of its own, on noise."""
    draw = np.random.default_rng([label, number])
    width, height = size
    made = Image.fromarray(draw.integers(0, 90, (height, width, 3), np.uint8))
    pen, box = ImageDraw.Draw(made), (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    shape = (pen.ellipse, pen.rectangle, pen.line)[label % 3]
    shape(box, fill=COLORS[label % 3])
    return made


def write_folder(root: Path, each: int = 8, parts: tuple[str, ...] = ("",)) -> Path:
    """Write a folder of class folders, perhaps below parts, and return it."""
    for part in parts:
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                seed = 1000 * parts.index(part) + number
                image(label, seed).save(folder / f"{number}.png")
    return root


def files_below(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file's path below a folder, and the file."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path
