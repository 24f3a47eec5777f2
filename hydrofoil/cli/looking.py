"""The verbs that show: recipes, show, explain, report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydrofoil.cli import completion
from hydrofoil.cli.options import (
    AsIs,
    Background,
    Center,
    DataRoot,
    Device,
    Full,
    Invert,
    Json,
    ModelCode,
    Overrides,
    RunFolder,
    RunFolders,
    Shown,
    Verbose,
    app,
    argument,
    option,
    path_of,
)
from hydrofoil.cli.printing import note, open_page, print_json, print_verbatim, printer
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.models.code import Network
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.report.show import Shown as Described


@app.command()
def recipes(
    name: Annotated[
        str | None, argument("[RECIPE]", "Print this one.", autocompletion=completion.recipes)
    ] = None,
    fields: Annotated[
        bool, typer.Option("--fields", help="Describe every field of a recipe.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the shipped recipes, or print one."""
    from hydrofoil.recipe.read import documented_fields, read_recipe, recipe_text, shipped_recipes

    say = printer(as_json)
    if fields:
        from hydrofoil.report import text

        say(text.field_lines())
        print_json(as_json, documented_fields())
        return
    if name is not None:
        recipe = read_recipe(name)
        if not as_json:
            print_verbatim(recipe_text(name).rstrip())
        print_json(as_json, recipe.model_dump(mode="json"))
        return
    from hydrofoil.report import text

    abouts = {known: read_recipe(known).about for known in shipped_recipes()}
    say(text.recipes_lines(abouts))
    say("\nTrain one with: hydrofoil train RECIPE")
    print_json(as_json, abouts)


@app.command()
def show(
    what: Shown,
    overrides: Overrides = None,
    class_name: Annotated[str, option("--class", "NAME", "Only images of this class.")] = "",
    pixels: Annotated[
        int | None, option("--pixels", "I", "Draw image I with the value of each pixel.", min=0)
    ] = None,
    out: Annotated[
        Path | None,
        option("--out", "FILE", "Save the figure as FILE.", parser=path_of),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Save the figure: of a run in it, of others here.")
    ] = False,
    augment: Annotated[
        bool, typer.Option("--augment", help="Draw what the network sees of some images.")
    ] = False,
    full: Full = False,
    verbose: Verbose = False,
    code: Annotated[
        bool, typer.Option("--code", help="Print the C that native steps of a recipe run.")
    ] = False,
    model_code: ModelCode = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Show a dataset, a recipe or a run: images and sizes, layers and costs, learning curves."""
    from hydrofoil.files import write_whole
    from hydrofoil.models.code import load_network
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.report import show as describe

    if out is not None and out.suffix.lower() != ".png":
        raise HydrofoilError(f"--out {out}: figures are PNG: expected a name that ends in .png.")
    network = load_network(model_code)
    content: dict[str, Any] = {}
    with DownloadProgress(note) as watcher:
        if code:
            line, text = _expected(what, overrides or [], device, network, data_root, watcher)
            return _print_code(line, text, as_json)
        given = what, overrides or [], data_root, class_name, pixels, watcher, network
        found = [_augmented(*given)] if augment else describe.show(*given, full=full)
    for one in found:
        content |= one.content
        printer(as_json)(f"{one.text}\n")
        if one.png and (out or save or augment):
            write_whole(out or one.path, one.png)
            content["drawn"] = str(out or one.path)
            printer(as_json)(f"saved: {out or one.path}\n")
        elif one.png and "epochs" not in one.content:  # of a run, the result stays the last line
            printer(as_json)(f"--save draws it as {one.path}, --out FILE.png elsewhere\n")
        if "layers" in one.content:
            content["executor"] = _expected(
                what, overrides or [], device, network, data_root, watcher
            )[0]
            printer(as_json)(content["executor"])
            if verbose:
                printer(as_json)(describe.step_line(one.content))
    print_json(as_json, content)


def _augmented(
    what: str,
    overrides: list[str],
    data_root: str,
    class_name: str,
    pixels: int | None,
    watcher: "DownloadProgress",
    network: "Network | None",
) -> "Described":
    """Return the grid of what a recipe's network sees."""
    from hydrofoil.report.augmentation import show_augmented

    if class_name or pixels is not None:
        raise HydrofoilError("--augment, --class and --pixels: expected one of them.")
    return show_augmented(what, overrides, data_root, watcher, network)


def _print_code(line: str, text: str, as_json: bool) -> None:
    """Print the C of a recipe's steps."""
    if not as_json:
        print_verbatim(text)
    print_json(as_json, {"executor": line, "code": text})


def _expected(
    name: str,
    overrides: Sequence[str],
    device: str,
    network: "Network | None",
    data_root: str,
    watcher: "DownloadProgress",
) -> tuple[str, str]:
    """Return the line on the executor that would run a recipe, and its C."""
    from hydrofoil.device import pick_device
    from hydrofoil.models.code import with_network
    from hydrofoil.models.derived import recipe_of
    from hydrofoil.train.executors import expected

    found = recipe_of(name, overrides, data_root=data_root, watcher=watcher, network=network).recipe
    line, code = expected(with_network(found, network), pick_device(device), network)
    return line, code.rstrip() or f"/* no native code */ {line}"


@app.command()
def explain(
    run_folder: RunFolder,
    pictures: Annotated[
        list[Path], argument("IMAGE...", "Image files, of any size.", parser=path_of)
    ],
    class_name: Annotated[
        str, option("--class", "NAME", "Explain this class; default: the predicted one.")
    ] = "",
    invert: Invert = False,
    as_is: AsIs = False,
    background: Background = None,
    center: Center = False,
    out: Annotated[
        Path | None,
        option(
            "--out", "DIR", "Where to save the figures; default: the run's figures.", parser=path_of
        ),
    ] = None,
    device: Device = "auto",
    model_code: ModelCode = None,
    as_json: Json = False,
) -> None:
    """Explain a model's predictions: Grad-CAM, occlusion, feature maps, filters."""
    from hydrofoil.data.listing import shown
    from hydrofoil.device import pick_device
    from hydrofoil.files import write_whole
    from hydrofoil.models.code import load_network
    from hydrofoil.report.explain import explain as find
    from hydrofoil.report.explain import figure_names, filters_figure
    from hydrofoil.run.folder import Run
    from hydrofoil.ship.prepare import Preparation

    run, how = Run.open(run_folder), Preparation(invert, as_is, background, center)
    if out is not None and (out.suffix.lower() == ".png" or out.is_file()):
        raise HydrofoilError(
            f"--out {out}: expected the name of a folder: every image gets a figure of its own."
        )
    model, _ = run.weights.load(pick_device(device), load_network(model_code))
    say, folder, contents = printer(as_json), out or run.path / "figures", list[dict[str, Any]]()
    explained = [find(model, path, class_name, how) for path in pictures]
    for one, name in zip(explained, figure_names(pictures), strict=True):
        write_whole(folder / name, one.png)
        say(f"{one.text}\n  saved: {shown(str(folder / name))}")
        contents.append({**one.content, "drawn": str(folder / name)})
    layer, png = filters_figure(model)
    write_whole(folder / "filters.png", png)
    say(f"the filters of {layer}, saved: {folder / 'filters.png'}")
    filters = {"layer": layer, "drawn": str(folder / "filters.png")}
    print_json(as_json, {"run": str(run.path), "pictures": contents, "filters": filters})


@app.command()
def report(
    run_folders: RunFolders,
    out: Annotated[
        Path | None,
        option(
            "--out",
            "FILE",
            "Where to write; default: report.html in the run, or beside them.",
            parser=path_of,
        ),
    ] = None,
    then_open: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    model_code: ModelCode = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page of a run, or of several side by side."""
    from hydrofoil.files import write_whole
    from hydrofoil.models.code import load_network
    from hydrofoil.report.page import run_page, runs_page

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise HydrofoilError(f"--out {out}: expected a name that ends in .html.")
    if len(run_folders) == 1:
        page, path = (
            run_page(run_folders[0], load_network(model_code)),
            run_folders[0] / "report.html",
        )
    else:
        page, path = (
            runs_page(run_folders, load_network(model_code)),
            run_folders[0].resolve().parent / "report.html",
        )
    write_whole(out or path, page)
    printer(as_json)(f"saved: {out or path}")
    print_json(as_json, {"written": str(out or path), "bytes": len(page)})
    if then_open:
        open_page(out or path)
