"""The verb that brings a model in: import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydrofoil.cli.options import (
    DataRoot,
    Json,
    ModelCode,
    NewRun,
    Overrides,
    RecipeName,
    app,
    argument,
    option,
    path_of,
)
from hydrofoil.cli.printing import note, print_json, printer
from hydrofoil.cli.training import load_pictures
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.recipe.schema import Recipe


@app.command("import")
def import_weights(
    context: typer.Context,
    recipe_name: RecipeName,
    weights: Annotated[
        Path, argument("WEIGHTS", "A state dict: .pt, .pth or .safetensors.", parser=path_of)
    ],
    overrides: Overrides = None,
    run_folder: NewRun = None,
    key: Annotated[
        str, option("--key", "NAME", "Which state dict, where the file holds several.")
    ] = "",
    classes: Annotated[
        str, option("--classes", "A,B,C", "The class names; needs no dataset then.")
    ] = "",
    model_code: ModelCode = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Make a run from weights that were trained elsewhere, to test and use them here."""
    import torch

    from hydrofoil.models.code import load_network, with_network
    from hydrofoil.recipe.read import read_recipe
    from hydrofoil.run.commands import command
    from hydrofoil.run.environment import environment
    from hydrofoil.run.events import Imported
    from hydrofoil.run.folder import Run
    from hydrofoil.ship.import_weights import read_weights
    from hydrofoil.ship.match import import_weights as match

    say, network = printer(as_json), load_network(model_code)
    recipe = with_network(read_recipe(recipe_name, overrides or []), network)
    found = read_weights(weights, key)
    shape, names = _shape_and_classes(recipe, found.classes, classes, data_root)
    imported = match(recipe, shape, names, found, network)
    where = environment(torch.device("cpu"), context.obj)
    run = Run.create(run_folder, imported.recipe, None, where, network.text if network else "")
    with run.writing(note):
        run.weights.save(imported.model, epoch=0)
        digest = imported.model.weights_hash()
        run.log.append(Imported(weights=digest, notes=tuple(imported.notes)))
    width = max(map(len, imported.mapping))
    if any(name != its for name, its in imported.mapping.items()):
        say("\n".join(f"{name:{width}}  from  {its}" for name, its in imported.mapping.items()))
    notes = [*imported.notes, "the weights may have been trained on images of this test split"]
    say("\n".join(f"note: {line}" for line in notes))
    say(f"run: {run.path}, with the weights of {weights}")
    say(f"next: {command('test', run.path, data_root)}")
    content = {"run": str(run.path), "weights": digest}
    print_json(as_json, {**content, "mapping": imported.mapping, "notes": notes})


def _shape_and_classes(
    recipe: "Recipe", found: tuple[str, ...] | None, given: str, data_root: str
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return the images' shape and the class names; reads the dataset only where it must."""
    from hydrofoil.data.source import describe
    from hydrofoil.recipe.source import is_path
    from hydrofoil.ship.import_weights import KNOWN_CLASSES

    if is_path(recipe.data.source):
        pictures = load_pictures(recipe, data_root)
        shape, found = pictures.shape, found or pictures.classes
    else:
        shape, _ = describe(recipe.data)
    names = tuple(name.strip() for name in given.split(",")) if given else found
    names = names or KNOWN_CLASSES.get(recipe.data.source)
    if names is None:
        names = load_pictures(recipe, data_root).classes
    if given and (len(set(names)) < len(names) or not all(names)):
        raise HydrofoilError(f"--classes {given}: expected different names, such as cat,dog.")
    return shape, names
