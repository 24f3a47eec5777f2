"""The verb that looks for a learning rate: find-lr."""

from pathlib import Path
from typing import Annotated

import typer

from hydrofoil.cli.options import (
    DataRoot,
    Device,
    Json,
    ModelCode,
    Overrides,
    RecipeOrSource,
    Seed,
    app,
    option,
    path_of,
)
from hydrofoil.cli.printing import note, print_json, printer
from hydrofoil.errors import HydrofoilError

Steps = Annotated[
    int | None,
    option("--steps", "N", "Steps at most; default: 16,000 images, in 400 to 4,000 steps."),
]


@app.command(name="find-lr")
def find_lr(
    recipe_name: RecipeOrSource,
    overrides: Overrides = None,
    lowest: Annotated[
        float | None,
        option("--lowest", "LR", "The first step's rate; default: a thousandth of the recipe's."),
    ] = None,
    highest: Annotated[
        float | None,
        option("--highest", "LR", "The last step's rate; default: 100 times the recipe's."),
    ] = None,
    steps: Steps = None,
    out: Annotated[
        Path | None, option("--out", "FILE", "Save the figure as FILE.", parser=path_of)
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Save the figure here.")] = False,
    seed: Seed = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    model_code: ModelCode = None,
    as_json: Json = False,
) -> None:
    """Suggest a learning rate: train some steps at rising rates; nothing is saved but a figure."""
    from hydrofoil.files import write_whole
    from hydrofoil.models.code import load_network
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.recipe.read import overridden
    from hydrofoil.report.rate_curve import rate_curve, rate_lines
    from hydrofoil.run.commands import command_line
    from hydrofoil.session.find_lr import RULE
    from hydrofoil.session.find_lr import find_lr as find

    if out is not None and out.suffix.lower() != ".png":
        raise HydrofoilError(f"--out {out}: figures are PNG: expected a name that ends in .png.")
    say = printer(as_json)
    with DownloadProgress(note) as watcher:
        found = find(
            recipe_name, overrides or [], lowest=lowest, highest=highest, steps=steps, seed=seed,
            device=device, data_root=data_root, model=load_network(model_code), watcher=watcher,
        )  # fmt: skip
    recipe = found.recipe
    say(
        f"{recipe.name}, {recipe.optimizer.name}: {len(found.rates)} steps of "
        f"{recipe.train.batch_size} training images, rates from {found.rates[0]:g} to "
        f"{found.rates[-1]:.2g}; executor: {found.executor}\n"
    )
    say(rate_lines(found.rates, found.smoothed))
    end = f"; the loss diverges at {found.diverged:.2g}" if found.diverged else ""
    say(f"\nThe smoothed loss is lowest at {found.lowest:.2g}{end}.")
    if out is not None or save:
        path = out or Path(f"{recipe.name}-lr.png")
        heading = f"{recipe.name}: loss by learning rate, {recipe.optimizer.name}"
        losses = (found.rates, found.losses, found.smoothed)
        write_whole(path, rate_curve(*losses, found.suggestion, heading))
        say(f"saved: {path}")
    say(f"suggested, {RULE}: optimizer.lr={found.suggestion:g}")
    words = [word for word in overrides or [] if "optimizer.lr" not in overridden([word])]
    line = ["hydrofoil", "train", recipe_name, *words, f"optimizer.lr={found.suggestion:g}"]
    say(f"next: {command_line(line)}")
    print_json(as_json, found.as_dict())
