"""The verbs that use a model or bring one in: predict, import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydrofoil.cli.options import (
    DataRoot,
    Device,
    Json,
    ModelCode,
    NewRun,
    Overrides,
    RecipeName,
    RunFolder,
    app,
    argument,
    path_of,
)
from hydrofoil.cli.printing import print_json, printer
from hydrofoil.cli.training import pictures_and_split

if TYPE_CHECKING:
    pass


@app.command()
def predict(
    run_folder: RunFolder,
    pictures: Annotated[
        list[Path], argument("PICTURE...", "Picture files, of any size.", parser=path_of)
    ],
    device: Device = "auto",
    invert: Annotated[
        bool, typer.Option("--invert", help="Dark on bright pictures for a bright on dark set.")
    ] = False,
    model_code: ModelCode = None,
    as_json: Json = False,
) -> None:
    """Say what a run's model sees in pictures of any format and size."""
    from hydrofoil.device import pick_device
    from hydrofoil.models.code import load_network
    from hydrofoil.report import text
    from hydrofoil.run.folder import Run
    from hydrofoil.ship.predict import predict as classify

    model, _ = Run.open(run_folder).weights.load(pick_device(device), load_network(model_code))
    predictions = [(str(path), classify(model, path, invert=invert)) for path in pictures]
    printer(as_json)("\n".join(text.prediction_lines(path, one) for path, one in predictions))
    print_json(as_json, [{"picture": path, **one.as_dict()} for path, one in predictions])


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
    from hydrofoil.run.folder import Run
    from hydrofoil.ship.adopt import read_weights

    say, recipe = printer(as_json), read_recipe(recipe_name, overrides or [])
    found = read_weights(weights)
    pictures, split = pictures_and_split(recipe, data_root)
    model = build(recipe, pictures.shape, pictures.classes)
    model.load_weights(found, str(weights))
    run = Run.create(run_folder, recipe, split, environment(torch.device("cpu"), context.obj))
    with run.writing():
        run.weights.save(model, epoch=0)
        run.log.append({"event": "imported", "weights": model.weights_hash()})
    say(f"run: {run.path}, with the weights of {weights}")
    say("note: whether they were trained on pictures of this run's test split is not known here.")
    say(f"next: {command('test', run.path, data_root)}")
    print_json(as_json, {"run": str(run.path), "weights": model.weights_hash()})
