"""The verbs that compare: compare, bench."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydrofoil.cli.options import (
    DataRoot,
    Device,
    Json,
    app,
    argument,
    option,
    path_of,
)
from hydrofoil.cli.printing import note, print_error, print_json, printer
from hydrofoil.cli.training import stoppable
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.session.compare import Completed


REPOSITORY = Path(__file__).parents[2]  # in a clone or an editable install


@app.command()
def compare(
    context: typer.Context,
    a: Annotated[str, argument("A", "A recipe, a run folder, a folder of runs, or 'runs/x-*'.")],
    b: Annotated[str, argument("B", "The same, to be judged against A.")],
    overrides: Annotated[
        list[str] | None,
        argument("[FIELD=VALUE]...", "Override in both; b.optimizer.lr=0.01 in B alone."),
    ] = None,
    seeds: Annotated[
        int | None, option("--seeds", "N", "Of each recipe; default: 10.", min=1)
    ] = None,
    runs: Annotated[
        Path,
        option(
            "--runs", "DIR", "Where missing runs are made; default: runs/compare.", parser=path_of
        ),
    ] = Path("runs/compare"),
    points: Annotated[
        float | None,
        option("--difference", "POINTS", "The difference to detect; default: the observed one."),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Say whether B is better than A, over several seeds; trains and tests what is missing."""
    from hydrofoil.compare.sides import comparison_path, differing, plan
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.observe.signals import Stopping
    from hydrofoil.report.comparison import comparison_lines, differs_line
    from hydrofoil.run.commands import command_line
    from hydrofoil.session.compare import check_points, compare_sides

    check_points(points)
    say, sides = printer(as_json), plan(a, b, overrides or [], seeds, runs)
    say(differs_line(differing(*(jobs[0].recipe for jobs in sides))))
    again = f"Continue the comparison with: {command_line(['hydrofoil', *context.obj])}"
    try:
        with stoppable(data_root, f"\n{again}"), DownloadProgress(note) as watcher:
            comparison = compare_sides(
                sides, runs,
                points=points, device=device, data_root=data_root, watcher=watcher,
                completed=lambda one: say(_completed_line(one)),
                observers=[Stopping(exits=True)], command=context.obj,
            )  # fmt: skip
    except KeyboardInterrupt:  # between two trainings
        print_error(again)
        raise
    kept = comparison_path(*sides, runs)
    page = kept.with_suffix(".html")
    say(f"\n{comparison_lines(comparison)}\n\nsaved: {kept}, and as a page: {page}")
    print_json(as_json, comparison.as_dict())


def _completed_line(completed: "Completed") -> str:
    """Return a line on one run of a comparison."""
    from hydrofoil.wording import percent

    run, done = completed.run, completed.done
    took = "" if done == "ready" else f" in {completed.seconds:.1f} s"
    result = run.results.test()
    accuracy = percent(result.accuracy if result else None)
    return (
        f"{completed.number} of {completed.total}: {completed.side}, "
        f"seed {run.recipe.train.seed}: {accuracy}, {done}{took}"
    )


@app.command()
def bench(
    names: Annotated[
        list[str] | None, argument("[RECIPE]...", "Default: the five tutorials.")
    ] = None,
    fraction: Annotated[
        float | None, option("--fraction", "F", "Of the epochs, for a quick look; default: 1.")
    ] = None,
    repeats: Annotated[int | None, option("--repeats", "N", "Rounds; default: 3.", min=1)] = None,
    cores: Annotated[int | None, option("--cores", "N", "Default: all.", min=1)] = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Time complete jobs of the published tutorials and of hydrofoil, alternating. Takes hours."""
    import importlib.util
    import subprocess

    script = REPOSITORY / "bench" / "tutorials.py"
    if not script.is_file():
        raise HydrofoilError(
            "bench: bench/tutorials.py is in hydrofoil's repository, not in this installation.\n"
            "Clone the repository, and run there: pip install -e . && hydrofoil bench"
        )
    if importlib.util.find_spec("torchvision") is None:
        raise HydrofoilError(
            "bench: the tutorials need torchvision, which is not installed.\n"
            "Install it with: pip install torchvision"
        )
    given = {"--fraction": fraction, "--repeats": repeats, "--cores": cores}
    command = [sys.executable, str(script), *(names or []), *(["--json", "-"] if as_json else [])]
    for flag, value in [*given.items(), ("--root", data_root or None)]:
        command += [] if value is None else [flag, str(value)]
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    status = subprocess.run(command, env=environment).returncode
    if status:
        raise typer.Exit(status if status > 0 else 1)
