"""One HTML file of a run or of several; `comparison_page` has that of a comparison.

Nothing is fetched, every name is escaped, and no script runs but that of a check or a review. The
templates look the figures of a test up in test.json by their path, so that none can differ from it;
`sections` makes the rest.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hydrofoil import __version__, wording
from hydrofoil.compare.statistics import p_words
from hydrofoil.models.code import Network
from hydrofoil.report.gather import gather
from hydrofoil.report.inspection import inspect
from hydrofoil.report.sections import run_values, runs_values

FILTERS: dict[str, Callable[..., str]] = {
    "percent": wording.percent,
    "range": wording.percent_range,
    "by": wording.by,
    "isolated": wording.isolated,
    "plural": wording.plural,
    "points": wording.points,
    "sentence": wording.sentence,
    "tenths": lambda share: f"{100 * share:.1f}",  # pyright: ignore[reportUnknownLambdaType]
    "loss": "{:.4f}".format,
    "count": "{:,}".format,
    "two": "{:.2f}".format,
    "signed": "{:+.2f}".format,
    "p_words": p_words,
}


def run_page(path: Path, network: Network | None = None) -> bytes:
    """Return the page of one run, finished or not.

    Raises:
        HydrofoilError: The path is not a run folder.
    """
    run = gather(path, network)
    return render("run.html", **run_values(run, inspect(run)))


def runs_page(paths: Sequence[Path], network: Network | None = None) -> bytes:
    """Return one page of several runs, side by side.

    Raises:
        HydrofoilError: One of the paths is not a run folder.
    """
    runs = [gather(path, network) for path in paths]
    return render("runs.html", **runs_values(runs))


def with_script(name: str) -> dict[str, Any]:
    """Return the values of a template with one script: the script, and the policy that allows it.

    Args:
        name: Of a file among the templates.
    """
    script = (Path(__file__).parent / "templates" / name).read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": Markup(script), "policy": f"; script-src 'sha256-{digest}'"}


def render(template: str, **values: Any) -> bytes:
    """Return a template with its values filled in."""
    templates = Environment(
        loader=PackageLoader("hydrofoil.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(FILTERS)
    return templates.get_template(template).render(version=__version__, **values).encode()
