"""The verb that brings a model in: import."""

from pathlib import Path
from typing import Annotated

import typer

from hydrofoil.cli.options import (
    DataRoot,
    Json,
    NewRun,
    Overrides,
    RecipeName,
    app,
    argument,
    path_of,
)
from hydrofoil.cli.printing import note, print_json, printer
from hydrofoil.cli.training import pictures_and_split


@app.command("import")
def import_weights(
    context: typer.Context,
    recipe_name: RecipeName,
    weights: Annotated[
        Path, argument("WEIGHTS", "A state dict: .pt, .pth or .safetensors.", parser=path_of)
    ],
    overrides: Overrides = None,
    run_folder: NewRun = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Make a run from weights that a tutorial saved, to test and use them here."""
    import torch

    from hydrofoil.models import build
    from hydrofoil.recipe.read import read_recipe
    from hydrofoil.run.commands import command
    from hydrofoil.run.environment import environment
    from hydrofoil.run.events import Imported
    from hydrofoil.run.folder import Run
    from hydrofoil.ship.adopt import read_weights

    say, recipe = printer(as_json), read_recipe(recipe_name, overrides or [])
    found = read_weights(weights)
    pictures, split = pictures_and_split(recipe, data_root)
    model = build(recipe, pictures.shape, pictures.classes)
    model.load_weights(found, str(weights))
    run = Run.create(run_folder, recipe, split, environment(torch.device("cpu"), context.obj))
    with run.writing(note):
        run.weights.save(model, epoch=0)
        run.log.append(Imported(weights=model.weights_hash()))
    say(f"run: {run.path}, with the weights of {weights}")
    say("note: whether they were trained on pictures of this run's test split is not known here.")
    say(f"next: {command('test', run.path, data_root)}")
    print_json(as_json, {"run": str(run.path), "weights": model.weights_hash()})
