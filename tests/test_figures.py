"""Figures: every line is whole and apart from the others, every picture there pixel for pixel."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from hydrofoil import build, grad_cam, occlusion, read_recipe
from hydrofoil.evaluate.explain import FeatureMaps, feature_maps, first_filters
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.evaluate.result import Epoch
from hydrofoil.report import explanations, figures, sheet
from hydrofoil.report.curves import learning_curves

DIGITS = list("0123456789")
ANIMALS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HUNDRED = [f"{'sweet_pepper_' if k % 7 else 'y'}{k}" for k in range(100)]
ODD = ["$x^", "a class with a name as long as a line of type can get (or longer)", "Ähre", ""]
HEADING = "the worst mistakes: predicted (truth), and how sure"

Box = tuple[float, float, float, float]
Written = list[tuple[str, Any, Box, tuple[int, int]]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What Pillow writes: the line, its ink, its box as the renderer measures it, the sheet."""
    lines: Written = []
    real = ImageDraw.ImageDraw.text

    def text(
        pen: ImageDraw.ImageDraw,
        xy: tuple[float, float],
        line: str,
        fill: Any,
        font: Any,
        **options: Any,
    ) -> None:
        if line.strip():
            box = pen.textbbox(xy, line, font=font, **options)
            lines.append((line, fill, box, pen.im.size))
        real(pen, xy, line, fill, font, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return lines


def noise(count: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def grid(classes: list[str], count: int, *shape: int, heading: str = HEADING) -> bytes:
    pairs = [(classes[n % len(classes)], classes[7 * n % len(classes)]) for n in range(count)]
    titles = [f"{predicted} ({truth}) {100 - n}%" for n, (predicted, truth) in enumerate(pairs)]
    return figures.picture_grid(noise(count, *shape), titles, heading=heading)


def confusion(classes: list[str], count: int = 9876, heading: str = HEADING) -> bytes:
    K = len(classes)
    counts = [[count * (i == k) + (i + k) % 3 for k in range(K)] for i in range(K)]
    return figures.confusion_matrix(counts, classes, heading)


def rows(classes: list[str], *shape: int) -> bytes:
    labels_N = torch.arange(40) % len(classes)
    return figures.class_rows(noise(40, *shape), labels_N, classes, HEADING)


def explanation(classes: list[str], *shape: int, recipe: str = "", heading: str = HEADING) -> bytes:
    network = build(read_recipe(recipe), shape, classes)  # type: ignore[arg-type]
    picture_CHW, name = noise(1, *shape)[0], classes[0]
    cam = None if recipe == "mnist-mlp" else grad_cam(network, picture_CHW)
    return explanations.explanation(
        picture_CHW,
        f"{name} 93.1%, {classes[-1]} 2.0%",
        name,
        cam,
        occlusion(network, picture_CHW, 0),
        feature_maps(network, picture_CHW),
        heading,
    )


def network_filters(recipe: str, *shape: int) -> bytes:
    network = build(read_recipe(recipe), shape, DIGITS)  # type: ignore[arg-type]
    return explanations.filters(first_filters(network), HEADING)


def maps(*shapes: tuple[int, ...]) -> bytes:
    layers = [FeatureMaps(f"layer {n}", noise(*s).float() - 99) for n, s in enumerate(shapes)]
    return explanations.feature_maps(layers)


FIGURES: dict[str, Callable[[], bytes]] = {
    "digits": lambda: grid(DIGITS, 20, 1, 8, 8),
    "MNIST": lambda: grid(DIGITS, 20, 1, 28, 28),
    "CIFAR-10": lambda: grid(ANIMALS, 20, 3, 32, 32),
    "no heading": lambda: grid(ANIMALS, 20, 3, 32, 32, heading=""),
    "CIFAR-100": lambda: grid(HUNDRED, 20, 3, 32, 32),
    "odd names": lambda: grid(ODD, 12, 1, 8, 8),
    "one picture": lambda: grid(DIGITS, 1, 1, 8, 8),
    "three pictures": lambda: grid(HUNDRED, 3, 3, 32, 32, heading=""),
    "a hundred pictures": lambda: grid(ANIMALS, 100, 3, 32, 32),
    "large, not square": lambda: grid(DIGITS, 5, 3, 200, 130),
    "no picture": lambda: grid(DIGITS, 0, 1, 8, 8),
    "rows of digits": lambda: rows(DIGITS, 1, 8, 8),
    "rows of many": lambda: rows(HUNDRED, 3, 32, 32),
    "gray pixels": lambda: figures.pixel_values(noise(1, 1, 28, 28)[0], HEADING),
    "color pixels": lambda: figures.pixel_values(noise(1, 3, 9, 8)[0], HEADING),
    "10 digits confused": lambda: confusion(DIGITS),
    "10 names confused": lambda: confusion(ANIMALS),
    "2 names confused": lambda: confusion(ANIMALS[:2], heading="60%"),
    "1 name confused": lambda: confusion(["a"], heading=""),
    "20 long names confused": lambda: confusion(HUNDRED[:20]),
    "21 names confused": lambda: confusion(HUNDRED[:21]),
    "100 names confused": lambda: confusion(HUNDRED),
    "odd names confused": lambda: confusion(ODD),
    "LeNet explained": lambda: explanation(ANIMALS, 3, 32, 32, recipe="cifar10-lenet"),
    "digits explained": lambda: explanation(DIGITS, 1, 8, 8, recipe="digits", heading=""),
    "a perceptron explained": lambda: explanation(DIGITS, 1, 28, 28, recipe="mnist-mlp"),
    "odd names explained": lambda: explanation(ODD, 3, 32, 20, recipe="cifar10-lenet"),
    "wide pictures explained": lambda: explanation(DIGITS, 1, 20, 130, recipe="mnist-cnn"),
    "color filters": lambda: network_filters("cifar10-lenet", 3, 32, 32),
    "gray filters": lambda: network_filters("mnist-cnn", 1, 28, 28),
    "512 filters": lambda: network_filters("mnist-mlp", 1, 28, 28),
    "one map": lambda: maps((1, 3, 3)),
    "maps of all sizes": lambda: maps((64, 32, 32), (9, 100, 3), (100, 1, 40), (3, 2, 2)),
    "large counts confused": lambda: confusion(DIGITS, count=1_234_567),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_line_is_inside_the_figure_and_touches_no_other(name: str, written: Written) -> None:
    figure = Image.open(io.BytesIO(FIGURES[name]()))
    assert written
    for line, _, (left, top, right, bottom), size in written:
        assert size == figure.size
        assert min(left, top) >= 2, line
        assert right <= size[0] - 2, line
        assert bottom <= size[1] - 2, line
    for (one, _, a, _), (other, _, b, _) in combinations(written, 2):
        apart = a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        assert apart, f"{one!r} at {a} and {other!r} at {b}"


def found(sheet_HWC: np.ndarray, picture_HWC: np.ndarray) -> Iterator[int]:
    """Yield by what factor a picture is enlarged, for every place on the sheet where it stands."""
    H, W, _ = picture_HWC.shape
    like_first = (sheet_HWC == picture_HWC[0, 0]).all(2)
    corner = like_first.copy()  # of a run of such pixels, the first in both directions
    corner[1:] &= ~like_first[:-1]
    corner[:, 1:] &= ~like_first[:, :-1]
    for y, x in np.argwhere(corner):
        run = like_first[y, x:]
        scale = int(np.argmin(run)) or len(run)
        block = sheet_HWC[y : y + H * scale, x : x + W * scale]
        enlarged = np.kron(picture_HWC, np.ones((scale, scale, 1), np.uint8))
        if block.shape == enlarged.shape and (block == enlarged).all():
            yield scale


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 200, 130), (3, 5, 9)])
def test_every_picture_is_there_once_and_each_pixel_is_a_square(shape: tuple[int, ...]) -> None:
    pictures_NCHW = noise(13, *shape)
    labels_N = torch.arange(13) % 3
    drawn = [
        figures.picture_grid(pictures_NCHW, [str(n) for n in range(13)], heading=HEADING),
        figures.class_rows(pictures_NCHW, labels_N, ["a", "b", "c"], HEADING),
    ]
    for figure in drawn:
        sheet_HWC = np.asarray(Image.open(io.BytesIO(figure)))
        for picture_CHW in pictures_NCHW:
            picture_HWC = picture_CHW.permute(1, 2, 0).numpy()
            scales = list(found(sheet_HWC, np.broadcast_to(picture_HWC, (*shape[1:], 3))))
            assert len(scales) == 1
            assert 64 <= scales[0] * max(shape[1:]) <= 200


def test_titles_have_their_colors(written: Written) -> None:
    figures.picture_grid(noise(2, 1, 8, 8), ["yes", "no"], [sheet.CORRECT, sheet.MISCLASSIFIED])
    assert [(line, ink) for line, ink, _, _ in written] == [
        ("yes", sheet.CORRECT),
        ("no", sheet.MISCLASSIFIED),
    ]


def test_a_cell_of_the_confusion_matrix_is_as_blue_as_its_share() -> None:
    """The oracle is matplotlib's map of the same name."""
    counts = [[40, 30, 20, 10], [0, 97, 3, 0], [0, 0, 0, 0], [15, 25, 0, 60]]
    file = io.BytesIO(figures.confusion_matrix(counts, list("abcd"), ""))
    shown = np.unique(np.asarray(Image.open(file)).reshape(-1, 3), axis=0).astype(int)
    for share in [0.4, 0.3, 0.2, 0.1, 0, 0.97, 0.03, 0.15, 0.25, 0.6]:
        expected = np.array(matplotlib.colormaps["Blues"](share, bytes=True)[:3]).astype(int)
        assert (abs(shown - expected) <= 2).all(1).any(), share


def test_every_count_of_the_confusion_matrix_is_written_where_it_belongs(written: Written) -> None:
    figures.confusion_matrix([[11, 12, 13], [21, 22, 23], [31, 32, 33]], ["x", "y", "z"], "")
    middles = {line: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for line, _, b, _ in written}
    rows_of = {line: y for line, _, (_, y, _, _), _ in written if line.isdigit()}
    assert rows_of["11"] < rows_of["21"] < rows_of["31"]
    assert rows_of["11"] == rows_of["12"] == rows_of["13"]
    for column, name in enumerate("xyz", start=1):  # the lower of a class's two names
        below = [b for line, _, b, _ in written if line == name][1]
        for row in "123":
            assert abs(middles[f"{row}{column}"][0] - (below[0] + below[2]) / 2) <= 2


def test_figures_are_drawn_without_any_typeface_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sheet, "TYPEFACES", ())
    sheet.font.cache_clear()
    try:
        assert Image.open(io.BytesIO(grid(ANIMALS, 3, 3, 32, 32))).width > 300
    finally:
        sheet.font.cache_clear()


def test_the_figures_of_a_test_import_no_matplotlib() -> None:
    code = (
        "import sys, torch\n"
        "from hydrofoil.report import figures, results\n"
        "figures.picture_grid(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), ['0'])\n"
        "figures.confusion_matrix([[1]], ['0'], '')\n"
        "assert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def an_epoch(number: int, train: float, valid: float | None, best: bool = False) -> Epoch:
    return Epoch(
        number=number,
        train=Scores(train, 60, 100),
        valid=None if valid is None else Scores(valid, 55, 100),
        best=best,
        train_seconds=1.0,
        valid_seconds=0.1,
        learning_rate=0.1,
    )


@pytest.mark.parametrize("count", [1, 2, 40, 300])
def test_learning_curves_name_their_axes_and_the_best_epoch(written: Written, count: int) -> None:
    epochs = [an_epoch(n, 2 / n, 1.5 / n, best=n == 1) for n in range(1, count + 1)]
    learning_curves(epochs, "a run")
    lines = [line for line, *_ in written]
    assert {"a run", "loss (nats)", "accuracy (%)", "best: epoch 1", "training"} <= set(lines)
    assert lines.count("validation") == 2
    assert all(0 <= x0 and x1 <= width for _, _, (x0, _, x1, _), (width, _) in written)


def test_without_validation_there_is_no_curve_of_it(written: Written) -> None:
    learning_curves([an_epoch(1, 2.0, None), an_epoch(2, float("nan"), None)], "a run")
    assert not [line for line, *_ in written if line == "validation" or "best" in line]
