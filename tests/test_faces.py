"""What a notebook and a prompt show of each value: short, escaped, small."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import hydrofoil as hf

HOSTILE = ('<script>alert("x")</script>', "a&b\"'><img src=x onerror=alert(1)>", "\u202eגדול\n<b>")
VOID = {"img", "br"}


class Parsed(HTMLParser):
    """Elements, attributes and text; raises where elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def images(classes: tuple[str, ...], count: int = 60, channels: int = 1) -> hf.Pictures:
    pictures_NCHW = torch.randint(
        0, 256, (count, channels, 8, 8), dtype=torch.uint8, generator=torch.manual_seed(0)
    )
    labels_N = torch.arange(count) % len(classes)
    return hf.Pictures(pictures_NCHW, labels_N, classes, HOSTILE[0])


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One value of each kind, of classes with hostile names, by the name of its type."""
    pictures = images(HOSTILE)
    split = hf.draw_split(pictures, valid=0.2, test=0.2)
    folder = tmp_path_factory.mktemp("faces")
    run, other, third = (
        hf.train(
            "digits", {"hidden": [8], "execute": "eager"}, epochs=2, lr=lr, batch_size=16,
            pictures=pictures, split=split, run=folder / str(lr),
        )
        for lr in (0.05, 0.1, 0.2)
    )  # fmt: skip
    other.test()
    third.test()
    seen: list[hf.Progress] = []
    for _ in hf.fit(run.model, pictures, split, run.recipe, watch=seen.append):
        pass
    found = [
        pictures, split, run, run.recipe, run.epochs()[0], run.test(), run.plot(), seen[0],
        run.predict(pictures.pictures_NCHW[0]), hf.score(run.model, pictures, split.test),
        run.epochs()[0].train, hf.answer(run.model, pictures, split.test), hf.prove(run),
        hf.compare(*map(str, (run.path, other.path)), runs=folder),
        hf.compare(*map(str, (run.path, other.path, third.path)), runs=folder),
    ]  # fmt: skip
    return {type(value).__name__: value for value in found}


KINDS = """
    Pictures Split Run Recipe Epoch TestResult Figure Progress Prediction Metrics Scores Comparison
    Comparisons
""".split()


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_is_well_formed_escaped_and_small(values: dict[str, Any], kind: str) -> None:
    html = values[kind]._repr_html_()
    parsed = Parsed(html)
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert not [name for _, given in parsed.elements for name in given if name.startswith("on")]
    sources = [given["src"] or "" for tag, given in parsed.elements if tag == "img"]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert len(html) < 60_000


@pytest.mark.parametrize("kind", [*KINDS, "Answers", "Proof"])
def test_a_plain_face_is_one_short_line(values: dict[str, Any], kind: str) -> None:
    value = values[kind]
    assert "\n" not in repr(value)
    assert len(repr(value)) <= (100 if kind not in ("Run", "Proof", "Figure") else 200)
    assert str(value) == repr(value)


@pytest.mark.parametrize("kind", ["Pictures", "Split", "TestResult", "Prediction"])
def test_hostile_class_names_are_shown_as_text(values: dict[str, Any], kind: str) -> None:
    text = Parsed(values[kind]._repr_html_()).text
    assert all(" ".join(name.split()) in " ".join(text.split()) for name in HOSTILE)


def test_a_test_result_says_its_accuracy_its_count_and_its_interval(values: dict[str, Any]) -> None:
    result = values["TestResult"]
    low, high = result.interval
    says = f"{100 * result.accuracy:.2f}% of {result.count}, {100 * low:.1f}–{100 * high:.1f}%"
    parsed = Parsed(result._repr_html_())
    assert says in parsed.text
    assert [tag for tag, _ in parsed.elements].count("details") == 1


def test_a_recipe_marks_the_fields_that_differ_from_the_shipped_one() -> None:
    html = hf.read_recipe("digits", epochs=7)._repr_html_()
    assert "train.epochs 40 → 7" in Parsed(html).text
    assert "changed" not in Parsed(hf.read_recipe("digits")._repr_html_()).text
    assert re.search(r'<tr class="best"><td>train.epochs</td><td>7</td>', html)


def test_a_split_counts_each_class_of_each_part() -> None:
    digits = hf.load("digits")
    split = hf.draw_split(digits, valid=0.1, test=0.2)
    rows = re.findall(r"<tr>(<td>.*?)</tr>", split._repr_html_())
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert cells[0] == ["all classes", "1,258", "180", "359"]
    for k, row in enumerate(cells[1:]):
        parts = (split.train, split.valid, split.test)
        assert row == [str(k), *(str(int((digits.labels_N[at] == k).sum())) for at in parts)]


@pytest.mark.parametrize(("channels", "side", "classes"), [(1, 28, 10), (3, 32, 100), (3, 64, 20)])
def test_a_grid_of_images_is_one_png_of_some_kilobytes(
    channels: int, side: int, classes: int
) -> None:
    generator = torch.manual_seed(0)
    smooth_NCHW = torch.nn.functional.interpolate(
        torch.rand(400, channels, 8, 8, generator=generator), size=side, mode="bilinear"
    )
    pictures = hf.Pictures(
        (255 * smooth_NCHW).byte(), torch.arange(400) % classes, list(map(str, range(classes)))
    )
    html = pictures._repr_html_()
    (source,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    image = Image.open(io.BytesIO(base64.b64decode(source))).convert("RGBA")
    assert image.width * image.height >= min(classes, 20) * 8 * side * side
    assert len(html) < 600_000


def test_the_images_of_a_grid_are_those_of_the_class(tmp_path: Path) -> None:
    flat_NCHW = torch.tensor([0, 60, 120, 180, 240], dtype=torch.uint8).view(5, 1, 1, 1)
    pictures = hf.Pictures(flat_NCHW.expand(5, 1, 8, 8).contiguous(), [0, 1, 0, 1, 0], ["a", "b"])
    (source,) = re.findall(r'src="data:image/png;base64,([^"]+)"', pictures._repr_html_())
    image = Image.open(io.BytesIO(base64.b64decode(source))).convert("RGBA")
    scale = (image.height // 2 - 3) // 8
    step = 8 * scale + 3

    def middle(row: int, column: int) -> tuple[int, int]:
        r, _, _, alpha = image.getpixel((column * step + 4 * scale, row * step + 4 * scale))  # pyright: ignore
        return r, alpha

    assert [middle(0, column) for column in range(4)] == [(0, 255), (120, 255), (240, 255), (0, 0)]
    assert [middle(1, column) for column in range(3)] == [(60, 255), (180, 255), (0, 0)]
