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
from hydrofoil.cli.printing import note, open_page, print_error, print_json, printer
from hydrofoil.cli.training import stoppable
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.compare.verdict import Part
    from hydrofoil.models.code import Network
    from hydrofoil.session.compare import Completed


REPOSITORY = Path(__file__).parents[2]  # in a clone or an editable install


Sides = Annotated[
    list[str] | None,
    argument(
        "SIDE... [FIELD=VALUE]...",
        "A recipe or images, or two or more of them, run folders, folders of runs or 'runs/x-*'. "
        "FIELD=VALUE overrides in all recipes, b.lr=0.01 in B alone; a recipe that is named alone "
        "is A, and b.lr=0.01 c.lr=0.1 make B and C of it.",
    ),
]


SideCode = Annotated[
    list[str] | None,
    option(
        "--model-code",
        "[b=]FILE.py:NAME",
        "Run this file: its NAME makes the network of all sides, or of B alone (repeatable).",
    ),
]


OnPart = Annotated[
    str,
    option("--on", "PART", "test (default); valid to choose settings: no test split is opened."),
]


RunsFolder = Annotated[
    Path,
    option("--runs", "DIR", "Where missing runs are made; default: runs/compare.", parser=path_of),
]


@app.command()
def compare(
    context: typer.Context,
    overrides: Sides = None,  # by this name, fields can be options: --epochs 3
    seeds: Annotated[
        int | None, option("--seeds", "N", "Of each recipe; default: 10.", min=1)
    ] = None,
    on: OnPart = "test",
    runs: RunsFolder = Path("runs/compare"),
    points: Annotated[
        float | None,
        option("--difference", "POINTS", "The difference to detect; default: the observed one."),
    ] = None,
    model_code: SideCode = None,
    then_open: Annotated[
        bool, typer.Option("--open", help="Open its page in the browser.")
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Say which side is better, over several seeds; trains and tests what is missing."""
    from hydrofoil.compare.plan import plan
    from hydrofoil.compare.sides import comparison_path
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.observe.signals import Stopping
    from hydrofoil.report.comparison import comparison_lines, outlook_line, plan_lines
    from hydrofoil.run.commands import command_line
    from hydrofoil.session.compare import check_points, compare_sides
    from hydrofoil.session.runs import RunsProgress

    check_points(points)
    say, networks = printer(as_json), _networks(model_code or [])
    with DownloadProgress(note) as watcher:
        planned = plan(
            overrides or [], seeds=seeds, folder=runs, part=_part(on), networks=networks,
            data_root=data_root, watcher=watcher,
        )  # fmt: skip
    say(plan_lines(planned))
    again = f"Continue the comparison with: {command_line(['hydrofoil', *context.obj])}"
    progress = RunsProgress(sum(map(len, planned.jobs)), lambda one: say(completed_line(one)))
    try:
        with stoppable(data_root, f"\n{again}"), DownloadProgress(note) as watcher:
            comparison = compare_sides(
                planned, points=points, device=device, data_root=data_root, watcher=watcher,
                outlook=lambda outlook: say(outlook_line(planned, outlook)),
                completed=progress.completed,
                observers=[progress, Stopping(exits=True)], command=context.obj,
            )  # fmt: skip
    except KeyboardInterrupt:  # between two trainings
        print_error(again)
        raise
    kept = comparison_path(planned)
    page = kept.with_suffix(".html")
    say(f"\n{comparison_lines(comparison)}\n\nsaved: {kept}, and as a page: {page}")
    print_json(as_json, comparison.as_dict())
    if then_open:
        open_page(page)


def _part(given: str) -> "Part":
    """Return the part of the split to compare on."""
    if given == "valid" or given == "test":
        return given
    raise HydrofoilError(f"--on {given}: expected test or valid.")


def _networks(given: list[str]) -> "dict[str, Network]":
    """Return the user's own networks, by a side's letter or for all sides by an empty one."""
    from hydrofoil.models.code import load_network

    networks: dict[str, Network] = {}
    for text in given:
        letter, equals, rest = text.partition("=")
        of_side = bool(equals) and len(letter) == 1 and letter.isalpha()
        network = load_network(rest if of_side else text)
        key = letter.upper() if of_side else ""
        if key in networks:
            raise HydrofoilError(
                f"--model-code {text}: given twice for {f'side {key}' if key else 'all sides'}.\n"
                "For one side: --model-code b=FILE.py:NAME"
            )
        if network is not None:
            networks[key] = network
    return networks


def completed_line(completed: "Completed") -> str:
    """Return a line on one run of a comparison."""
    from hydrofoil.report.comparison import about
    from hydrofoil.wording import isolated, percent

    took = "" if completed.done == "ready" else f" in {completed.seconds:.1f} s"
    left = ""
    if completed.remaining and completed.left and completed.done != "ready":
        left = f"; about {about(completed.left)} left"
    return (
        f"{completed.number} of {completed.total}: {completed.side} ({isolated(completed.label)}), "
        f"seed {completed.run.recipe.train.seed}: {percent(completed.accuracy)}, "
        f"{completed.done}{took}{left}"
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
