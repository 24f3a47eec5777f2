"""The run in the user's hand: one call to train it, and plot, test, report, model and predict."""

import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import hydrofoil as hf

SMALL = {"hidden": [8], "execute": "eager"}  # a network that trains an epoch in milliseconds


class Tags(HTMLParser):
    """The elements and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hf.Run:
    folder = tmp_path_factory.mktemp("verbs") / "a"
    return hf.train("digits", SMALL, epochs=2, lr=0.1, train=200, run=folder)


def test_keywords_are_fields_and_the_parameters_of_the_function_come_first(run: hf.Run) -> None:
    assert run.recipe.train.epochs == 2
    assert run.recipe.optimizer.lr == 0.1
    assert run.recipe.data.train == 200
    assert run.recipe.model.hidden == (8,)  # pyright: ignore[reportAttributeAccessIssue]
    assert len(run.split().train) == 200


def test_overrides_are_texts_or_a_mapping_of_dotted_or_short_names() -> None:
    texts = hf.read_recipe("digits", ["train.epochs=3", "lr=0.5"])
    assert texts == hf.read_recipe("digits", {"train.epochs": 3, "optimizer": {"lr": 0.5}})
    assert texts == hf.read_recipe("digits", epochs=3, optimizer__lr=0.5)
    with pytest.raises(hf.HydrofoilError, match="expected a list"):
        hf.read_recipe("digits", "epochs=3")


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [("epoks", "train.epochs"), ("learning_rat", "optimizer.lr"), ("pictues", "pictures")],
)
def test_a_mistyped_keyword_names_what_was_meant(keyword: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(hf.HydrofoilError, match=f"^{keyword}: .*Did you mean {meant}"):
        hf.train("digits", run=tmp_path / "a", **{keyword: 1})
    assert not (tmp_path / "a").exists()


def test_a_fraction_is_not_taken_for_the_flag_test(tmp_path: Path) -> None:
    with pytest.raises(hf.HydrofoilError, match=r"data__test=0\.3"):
        hf.train("digits", test=0.3, run=tmp_path / "a")  # pyright: ignore[reportArgumentType]


def test_every_function_that_makes_or_opens_a_run_returns_the_public_one(run: hf.Run) -> None:
    assert type(run) is type(hf.Run.open(run.path)) is hf.Run
    resumed = hf.resume(run, epochs=3)
    assert type(resumed) is hf.Run
    assert len(resumed.epochs()) == 3


def test_plot_shows_charts_and_saves_a_png(run: hf.Run, tmp_path: Path) -> None:
    figure = run.plot()
    assert Tags(figure._repr_html_()).names.count("svg") == 2
    assert len(repr(figure)) < 100
    saved = figure.save(tmp_path / "curves.png")
    assert Image.open(io.BytesIO(saved.read_bytes())).format == "PNG"
    with pytest.raises(hf.HydrofoilError, match=r"ends in \.png"):
        figure.save(tmp_path / "curves.jpg")


def test_a_run_tests_reports_and_predicts_with_its_best_weights(
    run: hf.Run, tmp_path: Path
) -> None:
    digits = hf.load("digits")
    result = run.test()
    scores = hf.score(run.model, digits, run.split().test)
    assert (result.correct, result.count) == (scores.correct, scores.count)
    page = run.report()
    assert page == run.path / "report.html"
    assert "html" in Tags(page.read_text("utf-8")).names
    assert run.report(tmp_path / "page.html").exists()
    with pytest.raises(hf.HydrofoilError, match=r"ends in \.html"):
        run.report(tmp_path / "page.txt")
    predictions = run.predict(digits.pictures_NCHW[:3])
    with torch.no_grad():
        wanted = run.model(digits.pictures_NCHW[:3]).argmax(1).tolist()
    assert [one.label for one in predictions] == [digits.classes[k] for k in wanted]


def test_a_run_remembers_the_network_and_the_images_that_it_was_given(tmp_path: Path) -> None:
    digits = hf.load("digits")
    inverted = hf.Pictures(255 - digits.pictures_NCHW, digits.labels_N, digits.classes, "digits")
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    run = hf.train(
        "digits", epochs=1, execute="eager", model=network, pictures=inverted, run=tmp_path / "a"
    )
    assert run.test().count == 359
    assert run.model.shape == (1, 8, 8)
    run = hf.resume(run, epochs=2)
    assert len(run.epochs()) == 2
    with pytest.raises(hf.HydrofoilError, match="runs only on request"):
        _ = hf.Run.open(run.path).model
    again = hf.Run.open(run.path, model=network, pictures=inverted)
    assert again.test().opened == 2
