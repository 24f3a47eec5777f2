"""The verb that classifies images: predict.

Axes: C channels, H rows, W columns.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from hydrofoil.cli.options import (
    AsIs,
    Background,
    Center,
    Device,
    Images,
    Invert,
    Json,
    ModelCode,
    RunFolder,
    app,
    option,
    path_of,
)
from hydrofoil.cli.printing import JsonArray, print_error, print_line
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.ship.inputs import Source
    from hydrofoil.ship.predict import Answer

DETAILED = 10  # images that are described in several lines each; of more, a line each
STANDARD_INPUT = "standard input"


@app.command()
def predict(
    run_folder: RunFolder,
    images: Images,
    device: Device = "auto",
    invert: Invert = False,
    as_is: AsIs = False,
    background: Background = None,
    center: Center = False,
    threshold: Annotated[
        float | None,
        option("--threshold", "P", "Answer 'none of these' where the probability is below P."),
    ] = None,
    show_input: Annotated[
        Path | None,
        option(
            "--show-input",
            "FILE",
            "Save what the network sees as FILE, a PNG; of several images as FILE-1, FILE-2, …",
            parser=path_of,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        option(
            "--csv", "FILE", "Also write a table, row by row as predictions come.", parser=path_of
        ),
    ] = None,
    model_code: ModelCode = None,
    as_json: Json = False,
) -> None:
    """Classify images: files of any common format and size, whole folders, standard input."""
    from hydrofoil.device import pick_device, thread_rule, use_threads
    from hydrofoil.models.code import load_network
    from hydrofoil.models.summary import total_multiply_adds
    from hydrofoil.run.folder import Run
    from hydrofoil.ship.inputs import find_images
    from hydrofoil.ship.predict import predict_stream
    from hydrofoil.ship.prepare import Preparation

    how = Preparation(invert, as_is, background, center)
    if show_input is not None and show_input.suffix.lower() != ".png":
        raise HydrofoilError(f"--show-input {show_input}: expected a name that ends in .png.")
    model, _ = Run.open(run_folder).weights.load(pick_device(device), load_network(model_code))
    found = find_images(images)
    first = list(islice(found, DETAILED + 1))
    if len(first) > 1:  # tracing the network takes longer than one answer
        use_threads(thread_rule(total_multiply_adds(model.network, model.shape)))
    sources = map(_source, chain(first, found))
    with _Outputs(as_json, len(first), show_input, csv, lambda: find_images(images)) as outputs:
        for answer in predict_stream(model, sources, how, threshold):
            outputs.add(answer)
    if outputs.failed:
        raise typer.Exit(2)


def _source(name: "str | HydrofoilError") -> "tuple[str, Source | HydrofoilError]":
    """Return a name to print, and what stands behind it."""
    if isinstance(name, HydrofoilError):
        return "", name
    if name != "-":
        return name, name
    if sys.stdin.isatty():
        return STANDARD_INPUT, HydrofoilError(
            "-: standard input is a terminal: expected an image.\n"
            "For instance: hydrofoil predict RUN - < digit.png"
        )
    return STANDARD_INPUT, sys.stdin.buffer


class _Outputs:
    """Everything that is written of each answer, as it comes.

    Args:
        as_json: Print a JSON array, not text.
        images: How many images there are, as far as that was counted.
        show_input: Where to save what the network sees.
        csv: Where to write a table.
        names: Lists the images again, to be counted for the progress bar.
    """

    def __init__(
        self,
        as_json: bool,
        images: int,
        show_input: Path | None,
        csv: Path | None,
        names: Callable[[], Iterator[object]],
    ) -> None:
        from hydrofoil.observe.counter import Counter
        from hydrofoil.ship.table import PredictionTable

        self.images, self.show_input = images, show_input
        self.json = JsonArray() if as_json else None
        self.table = PredictionTable(csv) if csv else None
        self.counter = Counter("images", names)
        self.done = self.failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.counter.clear()
        if self.table:
            self.table.close()
        if self.json and (kind is None or self.done):
            self.json.end()
        if self.failed and self.done > 1 and kind is None:
            print_error(f"{self.failed:,} of {self.done:,} images could not be read.")

    def add(self, answer: "Answer") -> None:
        """Write an answer everywhere."""
        self.counter.clear()
        self.done += 1
        if self.table:
            self.table.add(answer)
        if answer.error is not None:
            self.failed += 1
            print_error(answer.error)
        if self.json:
            self.json.add(self._content(answer))
        elif answer.prediction is not None:
            self._say(answer)
        self.counter.update(self.done)

    def _content(self, answer: "Answer") -> dict[str, object]:
        """Return an answer as JSON has it."""
        if answer.prediction is None:
            return {"picture": answer.name, "error": str(answer.error)}
        saved = self._save(answer)
        shown = {"shown": str(saved)} if saved else {}
        return {"picture": answer.name, **answer.prediction.as_dict(), **shown}

    def _say(self, answer: "Answer") -> None:
        """Print an answer as text."""
        from hydrofoil.report.text import prediction_line, prediction_lines

        if answer.prediction is None:
            return
        describe = prediction_lines if self.images <= DETAILED else prediction_line
        print_line(describe(answer.name, answer.prediction))
        if saved := self._save(answer):
            print_line(f"  what the network sees: {saved}")

    def _save(self, answer: "Answer") -> Path | None:
        """Save what the network sees, if that is requested; return where."""
        from hydrofoil.files import write_whole
        from hydrofoil.ship.table import png_of

        if self.show_input is None or answer.picture_CHW is None:
            return None
        path, number = self.show_input, f"-{self.done}" if self.images > 1 else ""
        path = path.with_name(f"{path.stem}{number}{path.suffix}")
        write_whole(path, png_of(answer.picture_CHW), durable=False)
        return path
