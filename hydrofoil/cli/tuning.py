"""The verb that searches better values of a recipe's fields: tune."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from hydrofoil.cli import completion
from hydrofoil.cli.options import (
    DataRoot,
    Device,
    Json,
    ModelCode,
    app,
    argument,
    option,
    path_of,
)
from hydrofoil.cli.printing import note, open_page, print_error, print_json, printer

if TYPE_CHECKING:
    from hydrofoil.compare.verdict import Part
    from hydrofoil.session.tune import Search
    from hydrofoil.tune.result import Tuning


Tuned = Annotated[
    str,
    argument(
        "RECIPE|SOURCE",
        "A shipped recipe's name, a recipe file, or images from which a recipe is derived.",
        autocompletion=completion.recipes,
    ),
]
Choosing = Annotated[
    list[str] | None,
    argument(
        "FIELD=RANGE... [FIELD=VALUE]...",
        "What to choose: lr=log:0.001..0.1 dropout=0..0.5 'optimizer=sgd|adamw'; other fields are "
        "the same in all trials: epochs=20.",
        autocompletion=completion.overrides,
    ),
]
Trials = Annotated[
    int | None,
    option("--trials", "N", "How many; default: 30, or as many as the budget allows.", min=1),
]
Budget = Annotated[
    str, option("--budget", "TIME", "For search and comparison together: 90s, 10m or 1h30m.")
]
FreshSeeds = Annotated[
    int,
    option("--seeds", "N", "Fresh seeds to compare the winner on; default: 5; 0: none.", min=0),
]
FreshPart = Annotated[
    str,
    option(
        "--on", "PART", "Where the winner is compared: valid (default), or test, which opens it."
    ),
]
StudyFolder = Annotated[
    Path | None,
    option(
        "--study",
        "DIR",
        "Its folder, which other processes may share; default: runs/tune/<recipe>-<hash>.",
        parser=path_of,
    ),
]
TrialSeed = Annotated[
    int | None,
    option("--seed", "N", "The recipe's train.seed, which also seeds the search.", min=0),
]


@app.command()
def tune(
    context: typer.Context,
    recipe: Tuned,
    overrides: Choosing = None,  # by this name, fields can be options: --lr log:0.001..0.1
    trials: Trials = None,
    budget: Budget = "",
    seeds: FreshSeeds = 5,
    on: FreshPart = "valid",
    no_prune: Annotated[
        bool, typer.Option("--no-prune", help="Train every trial to its end.")
    ] = False,
    study: StudyFolder = None,
    seed: TrialSeed = None,
    model_code: ModelCode = None,
    then_open: Annotated[
        bool, typer.Option("--open", help="Open its page in the browser.")
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Search better values of a recipe's fields; compare the best with its own on fresh seeds."""
    from hydrofoil.train.budget import seconds_of

    seconds = seconds_of(budget) if budget else None
    space, fixed = _checked(recipe, overrides or [])
    from hydrofoil.models.code import load_network
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.report.tune_text import tuning_lines
    from hydrofoil.session.tune import Search
    from hydrofoil.tune.plan import Limits

    say, limits = printer(as_json), Limits.of(trials, seconds, seeds)
    with DownloadProgress(note) as watcher:
        search = Search.begin(
            recipe, space, fixed, limits, on=cast("Part", on), prune=not no_prune, study=study,
            seed=seed, model=load_network(model_code), device=device, data_root=data_root,
            watcher=watcher, command=context.obj,
        )  # fmt: skip
    found = _search(search, say, context.obj)
    page, best = search.study.folder / "tune.html", search.study.folder / "best.toml"
    say(f"\n{tuning_lines(found)}\n\nsaved: {best}, and as a page: {page}")
    print_json(as_json, found.as_dict() | {"page": str(page), "best_recipe": str(best)})
    if then_open:
        open_page(page)


def _search(search: "Search", say: Callable[[object], None], words: list[str]) -> "Tuning":
    """Run a search and its comparison; say how it goes, and how a stopped one continues."""
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.observe.signals import Stopping
    from hydrofoil.report.tune_text import plan_lines, trial_line
    from hydrofoil.run.commands import command_line
    from hydrofoil.session.runs import TrialsProgress

    study, limits = search.study, search.limits
    say(
        plan_lines(study.plan, str(study.folder), limits.trials, limits.budget, len(study.trials()))
    )
    for line in search.notes:
        say(f"note: {line}.")
    progress = TrialsProgress(
        limits.trials or 0, lambda trial, best: say(trial_line(trial, best, study.plan.goal))
    )
    search.observers = [progress, Stopping(exits=True)]
    try:
        with DownloadProgress(note) as search.watcher:
            search.run(progress.finished)
            return _conclude(search, say)
    except KeyboardInterrupt as stopped:
        print_error(f"\n{_stopped_text(stopped)}")
        print_error(f"Continue with: {command_line(['hydrofoil', *words])}")
        raise typer.Exit(128 + getattr(stopped, "number", 2)) from None


def _conclude(search: "Search", say: Callable[[object], None]) -> "Tuning":
    """Compare the winner with the recipe on fresh seeds, and say how that goes."""
    from hydrofoil.cli.comparing import completed_line
    from hydrofoil.observe.signals import Stopping
    from hydrofoil.report.tune_text import comparing_line
    from hydrofoil.session.runs import RunsProgress

    plan = search.comparison_plan()
    if plan is None:
        return search.conclude()
    seconds = search.comparison_seconds(len(plan.jobs[0]))
    say(f"\n{comparing_line(plan, seconds)}")
    progress = RunsProgress(sum(map(len, plan.jobs)), lambda run: say(completed_line(run)))
    return search.conclude(
        plan, completed=progress.completed, observers=[progress, Stopping(exits=True)]
    )


def _checked(recipe: str, words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words of the space and the fixed fields; mistakes are found before torch is.

    Raises:
        HydrofoilError: The space does not fit the recipe.
    """
    from hydrofoil.recipe.read import read_recipe, source_of
    from hydrofoil.tune.space import no_space, read_space, split_words

    space, fixed = split_words(words)
    if not space:
        raise no_space()
    if not source_of(recipe):
        read_space(space, read_recipe(recipe, fixed))
    return space, fixed


def _stopped_text(stopped: KeyboardInterrupt) -> str:
    """Say how far a stopped search is."""
    from hydrofoil.observe.signals import Stopped, stopped_line

    if not isinstance(stopped, Stopped) or stopped.run is None:
        return "stopped; nothing is lost."
    return f"{stopped.run.path}: {stopped_line(stopped.run)} Nothing is lost."
