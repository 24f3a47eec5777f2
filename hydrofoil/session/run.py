"""The run that the user gets in hand: its folder, and what can be done with it."""

from pathlib import Path
from typing import Any, Self

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.device import pick_device
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import TestResult
from hydrofoil.files import write_whole
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.observe.notebook import show_link
from hydrofoil.recipe.schema import Recipe
from hydrofoil.report.figure import Figure, curves_figure
from hydrofoil.report.page import run_page
from hydrofoil.run.folder import Run as RunFolder
from hydrofoil.session.data import given_for
from hydrofoil.session.test import test
from hydrofoil.ship.predict import predict


class Run(RunFolder):
    """A run: `plot`, `test`, `report`, `model` and `predict` are what can be done with it.

    It remembers the images, network and data folder that `train` was given, so that `test` and
    `predict` need no arguments. A run that is opened again needs them again.

    Attributes:
        path: Its folder.
        recipe: What it trains.
        pictures: The images that were given in place of the recipe's dataset.
        network: The network that was given in place of the recipe's model.
        data_root: The datasets' folder that was given.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        super().__init__(path, recipe)
        self.pictures: Pictures | None = None
        self.network: Network | None = None
        self.data_root: str | Path = ""

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: Network | None = None,
        pictures: Pictures | None = None,
        data_root: str | Path = "",
    ) -> Self:
        """Return an existing run.

        Args:
            path: Its folder; or its name in runs/, such as digits-1; or last, the newest there.
            model: The network of a run whose network is the user's own code.
            pictures: The images that the run was trained on, in place of its recipe's dataset.
            data_root: Where the datasets are.

        Raises:
            HydrofoilError: The folder is missing, not a run, or its recipe is damaged.
        """
        return super().open(path).with_given(model, pictures, data_root)

    def with_given(
        self, network: Network | None, pictures: Pictures | None, data_root: str | Path
    ) -> Self:
        """Remember what the user gave in place of the recipe's, and return the run."""
        self.network, self.pictures, self.data_root = network, pictures, data_root
        return self

    def with_recipe(self, recipe: Recipe) -> Self:
        """Return the same run with another recipe; nothing is written."""
        return type(self)(self.path, recipe).with_given(self.network, self.pictures, self.data_root)

    def load_best(
        self, device: str | torch.device = "cpu", network: Network | None = None
    ) -> tuple[Classifier, int]:
        """Return the model with the run's best weights, and their epoch; with its own network."""
        return super().load_best(device, self.network if network is None else network)

    @property
    def model(self) -> Classifier:
        """The model with the run's best weights, in evaluation mode, loaded at each access.

        Raises:
            HydrofoilError: No epoch is finished, or the network is the user's own code and was not
                given.
        """
        return self.load_best(pick_device("auto"))[0].eval()

    def test(self, *, device: str = "auto", again: bool = False) -> TestResult:
        """Evaluate the best weights on the test split: see `hydrofoil.test`."""
        return test(self, device=device, again=again)

    def predict(self, images: Any, **options: Any) -> Any:
        """Classify one image, or several, with the best weights: see `hydrofoil.predict`."""
        return predict(self.model, images, **options)

    def plot(self) -> Figure:
        """Return the learning curves; a notebook shows them, `save` writes a PNG file.

        Raises:
            HydrofoilError: No epoch is finished.
        """
        return curves_figure(self)

    def report(self, path: str | Path | None = None, *, open: bool = False) -> Path:
        """Write the run's page, one HTML file, and return its path; a notebook shows a link.

        Args:
            path: Where; default: report.html in the run's folder.
            open: Also open it in the browser.

        Raises:
            HydrofoilError: The name does not end in .html, or the file cannot be written.
        """
        out = Path(path) if path is not None else self.path / "report.html"
        if out.suffix.lower() not in (".html", ".htm"):
            raise HydrofoilError(f"{out}: expected a name that ends in .html.")
        write_whole(out, run_page(self.path, self.network))
        show_link(out)
        if open:
            import webbrowser

            webbrowser.open(out.resolve().as_uri())
        return out


def as_run(
    run: str | Path | RunFolder,
    network: Network | None = None,
    pictures: Pictures | None = None,
    data_root: str | Path = "",
) -> Run:
    """Return a run as its folder is now, with what is given for it, or was given before."""
    network, pictures, data_root = given_for(run, network, pictures, data_root)
    path = run.path if isinstance(run, RunFolder) else run
    return Run.open(path, model=network, pictures=pictures, data_root=data_root)
