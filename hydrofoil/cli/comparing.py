"""The verbs that compare: compare, bench."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import zip_longest
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
from hydrofoil.cli.printing import print_error, print_json, printer
from hydrofoil.cli.training import resume, test, train
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.compare.sides import Job


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
        option("--difference", "POINTS", "How many seeds would show this? Default: the observed."),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Say whether B is better than A, over several seeds; trains and tests what is missing."""
    from hydrofoil.compare.sides import compare_jobs, differing, kept_path, plan
    from hydrofoil.files import write_whole
    from hydrofoil.report.comparison import comparison_lines, differs_line
    from hydrofoil.report.page import comparison_page

    if points is not None and not 0 < points <= 100:
        raise HydrofoilError(f"--difference {points:g}: expected points of accuracy, 0 to 100.")
    say, sides = printer(as_json), plan(a, b, overrides or [], seeds, runs)
    say(differs_line(differing(*(jobs[0].recipe for jobs in sides))))
    try:
        _complete(context, sides, device, data_root, say)
    except (KeyboardInterrupt, typer.Exit) as left:
        print_error(f"Go on with the comparison: {shlex.join(['hydrofoil', *context.obj])}")
        raise typer.Exit(getattr(left, "exit_code", 130)) from None
    kept = kept_path(*sides, runs)
    comparison = compare_jobs(*sides, points, kept)
    content = comparison.as_dict()
    write_whole(kept, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    page = kept.with_suffix(".html")
    write_whole(page, comparison_page(comparison))
    say(f"\n{comparison_lines(comparison)}\n\nkept: {kept}, and as a page: {page}")
    print_json(as_json, content)


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
    """Time whole jobs of the tutorials as they stand and of hydrofoil, in turn. Takes hours."""
    import importlib.util
    import subprocess

    script = REPOSITORY / "bench" / "tutorials.py"
    if not script.is_file():
        raise HydrofoilError(
            "bench: bench/tutorials.py lies in hydrofoil's repository, and not in this install.\n"
            "Clone the repository, and run there: pip install -e . && hydrofoil bench"
        )
    if importlib.util.find_spec("torchvision") is None:
        raise HydrofoilError(
            "bench: the tutorials' own side needs torchvision, which is not installed.\n"
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


def _complete(
    context: typer.Context,
    sides: "Sequence[Sequence[Job]]",
    device: str,
    data_root: str,
    say: Callable[[object], None],
) -> None:
    """Train and test what a comparison still lacks, a line a run.

    The sides take turns, so that what an interruption leaves is pairs.
    """
    import torch

    from hydrofoil.compare.sides import check_executors
    from hydrofoil.report.text import percent
    from hydrofoil.run.folder import Run

    turns = [one for pair in zip_longest(*sides) for one in zip("AB", pair, strict=True) if one[1]]
    threads = torch.get_num_threads()
    for number, (letter, job) in enumerate(turns, start=1):
        torch.set_num_threads(threads)  # a small recipe's one thread is not the next one's choice
        began = time.perf_counter()
        try:
            done = _complete_run(context, job, device, data_root)
        except HydrofoilError as error:
            raise HydrofoilError(f"{letter}, {job.path}: {error}") from error
        check_executors(*sides)
        took = "" if done == "there" else f" in {time.perf_counter() - began:.1f} s"
        accuracy = percent((Run.open(job.path).test() or {}).get("accuracy"))
        seed = job.recipe.train.seed
        say(f"{number} of {len(turns)}: {letter}, seed {seed}: {accuracy}, {done}{took}")


def _complete_run(context: typer.Context, job: "Job", device: str, data_root: str) -> str:
    """Take a run to its test by the verbs as they stand, and say what was done."""
    state = job.state()
    with redirect_stdout(StringIO()):  # their lines are not this verb's
        if state == "missing":
            name, own = job.name, list(job.overrides)
            train(context, name, own, job.path, None, device, data_root, then_test=True)
        elif state == "unfinished":
            resume(job.path, device=device, data_root=data_root)
        if state in ("unfinished", "untested"):
            test(job.path, device=device, data_root=data_root)
    return {
        "missing": "trained", "unfinished": "resumed", "untested": "tested", "ready": "there"
    }[state]  # fmt: skip
