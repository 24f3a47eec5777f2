"""Reads a page as a browser's parser does, and makes runs to report on."""

import html.parser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hydrofoil import Run, State, build, draw_split, fit, load, pick_device, read_recipe
from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.score import answer
from hydrofoil.evaluate.test import example_indices, test_result
from hydrofoil.run.environment import environment
from hydrofoil.run.events import DataLoaded, ExecutorChosen, Tested, Trained

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


@dataclass
class Element:
    """One element, its text with all that is inside it, and what is inside it."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def all(self, name: str = "") -> "list[Element]":
        """Return every element inside, of a name or of all."""
        inside = [one for child in self.children for one in (child, *child.all())]
        return [one for one in inside if name in ("", one.name)]

    def by_id(self, id: str) -> "Element":
        """Return the one of an id."""
        (found,) = [one for one in self.all() if one.attributes.get("id") == id]
        return found

    def rows(self) -> list[list[str]]:
        """Return a table's body as text."""
        (body,) = self.all("tbody")
        return [[cell.text.strip() for cell in row.children] for row in body.all("tr")]


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read(page: bytes) -> Element:
    """Return a page's elements; each must be closed where it should."""
    reader = _Reader()
    reader.feed(page.decode())
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


def make_run(
    path: Path,
    *overrides: str,
    pictures: Pictures | None = None,
    recipe_name: str = "digits",
    epochs: int = 2,
    stop_after: int = 0,
    tested: bool = True,
) -> Run:
    """Train and test a run as the command line does, on a set of any kind."""
    torch.set_num_threads(1)  # also for a fixture that comes before `one_thread`
    given = [f"train.epochs={epochs}", "train.execute=eager", *overrides]
    recipe = read_recipe(recipe_name, given)
    pictures = pictures or load(recipe.data.source)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    state = State.fresh(model, recipe)
    command = ["train", recipe.name, *given]
    run = Run.create(path, recipe, split, environment(pick_device("cpu"), command))
    parts = ("train", "valid", "test")
    counts = {part: tuple(pictures.counts(getattr(split, part))) for part in parts}
    run.log.append(DataLoaded(seconds=0.25, counts=counts))
    run.log.append(ExecutorChosen(name="eager", threads=1, seconds=0.125))
    for epoch in fit(model, pictures, split, recipe, state=state):
        run.log.append(epoch)
        if epoch.best:
            run.weights.save(model, epoch.number)
        if epoch.number == stop_after:
            return run
    run.log.append(Trained(epochs=epochs, seconds=999.5))
    if tested:
        test_run(run, pictures)
    return run


def test_run(run: Run, pictures: Pictures) -> None:
    """Open the test split as `hydrofoil test` does, without its figures."""
    split = run.split()
    model, epoch = run.weights.load(pick_device("cpu"))
    answers = answer(model, pictures, split.test)
    valid = answer(model, pictures, split.valid) if len(split.valid) else None
    result = test_result(
        answers,
        valid,
        model,
        run.recipe,
        epoch=epoch,
        opened=1,
        differs="",
        unlike="",
        averaged_NK=None,
    )
    run.log.append(Tested(opened=1, accuracy=result.accuracy, seconds=0.5))
    run.results.save_answers(test=answers, valid=valid)
    run.results.save_shown(pictures, example_indices(result))
    run.results.save_test(result)


test_run.__test__ = False  # type: ignore[attr-defined]  # a verb, not a test


def renamed(classes: Sequence[str]) -> Pictures:
    """Return the digits with other class names."""
    digits = load("digits")
    return Pictures(digits.pictures_NCHW, digits.labels_N, tuple(classes), "digits")


def noise(count: int, shape: tuple[int, int, int], classes: int) -> Pictures:
    """Return pictures of noise, which no format makes smaller."""
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=rng)
    names = tuple(f"class number {k}" for k in range(classes))
    return Pictures(pictures, torch.arange(count) % classes, names, "digits")


def lookup(content: Any, path: str) -> Any:
    """Return what lies at a dotted path."""
    for key in path.split("."):
        content = content[int(key)] if isinstance(content, list) else content[key]
    return content
