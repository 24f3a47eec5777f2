"""A figure in the user's hand: a notebook shows it, and it can be saved as a PNG file."""

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from hydrofoil.display import notebook_html
from hydrofoil.errors import HydrofoilError
from hydrofoil.files import write_whole
from hydrofoil.report.curves import learning_curves
from hydrofoil.report.gather import Gathered
from hydrofoil.report.sections import curve_charts
from hydrofoil.run.commands import command
from hydrofoil.run.folder import Run


@dataclass(frozen=True, repr=False)
class Figure:
    """A figure of a run.

    Args:
        title: What it shows.
        charts: The same as SVG, in the colors of a notebook's theme.
        png: The content of its PNG file.
    """

    title: str
    charts: tuple[Markup, ...]
    png: bytes

    def __repr__(self) -> str:
        return f"Figure({self.title!r}); write it with .save('curves.png')"

    def _repr_html_(self) -> str:
        """Show the charts in a notebook."""
        return notebook_html("figure", self)

    def save(self, path: str | Path) -> Path:
        """Write a PNG file and return its path.

        Raises:
            HydrofoilError: The name does not end in .png, or the file cannot be written.
        """
        out = Path(path)
        if out.suffix.lower() != ".png":
            raise HydrofoilError(f"{out}: expected a name that ends in .png.")
        write_whole(out, self.png)
        return out


def curves_figure(run: Run) -> Figure:
    """Return a run's learning curves: loss and accuracy by epoch, with the best epoch.

    Raises:
        HydrofoilError: No epoch is finished.
    """
    epochs = run.epochs()
    if not epochs:
        raise HydrofoilError(
            f"{run.path}: no epoch is finished, so there are no curves.\n"
            f"Resume with: {command('resume', run.path)}"
        )
    seen = Gathered(run.path, run.recipe, epochs=epochs, best_epoch=run.weights.epoch())
    charts = tuple(chart for _, chart in curve_charts([seen], [""]))
    title = f"{seen.name}: learning curves"
    return Figure(title, charts, learning_curves(epochs, title))
