"""The verb that checks images before they are trusted: check."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from hydrofoil.cli import completion
from hydrofoil.cli.options import DataRoot, Json, Overrides, app, argument, option, path_of
from hydrofoil.cli.printing import note, open_page, print_json, printer
from hydrofoil.errors import HydrofoilError

FOLDER = Path("checks")  # here, where runs/ is
SERIOUS = 1  # the exit status where anything is serious


@app.command()
def check(
    source: Annotated[
        str,
        argument(
            "SOURCE|RUN",
            "A path of images, a dataset's name, or a run.",
            autocompletion=completion.recipes_and_runs,
        ),
    ],
    overrides: Overrides = None,
    only: Annotated[
        str, option("--only", "NAMES", "Only these checks: copies,files,shortcuts,drift,labels.")
    ] = "",
    out: Annotated[
        Path | None,
        option(
            "--out",
            "DIR",
            "Where check.html and check.json go; default: checks/<name>, or the run's folder.",
            parser=path_of,
        ),
    ] = None,
    then_open: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Check images before they are trusted: copies, leaks, labels, shortcuts, damaged files."""
    from hydrofoil.files import write_whole
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.report.check_page import check_page
    from hydrofoil.report.check_text import check_lines
    from hydrofoil.session.check import check as check_images

    names = [name.strip() for name in only.split(",") if name.strip()]
    with DownloadProgress(note) as watcher:
        found = check_images(
            source, only=names, data_root=data_root, watcher=watcher,
            **_fields(overrides or []),
        )  # fmt: skip
    folder = out or _folder(source)
    content = found.as_dict()
    write_whole(folder / "check.html", check_page(found))
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_whole(folder / "check.json", text.encode("utf-8", "backslashreplace"))
    say = printer(as_json)
    say(check_lines(found))
    say(f"\nsaved: {folder / 'check.html'} and check.json")
    print_json(as_json, content | {"page": str(folder / "check.html")})
    if then_open:
        open_page(folder / "check.html")
    if found.serious:
        raise typer.Exit(SERIOUS)


def _folder(source: str) -> Path:
    """Return where a source's page goes: a run's own folder, or a folder of the source's name."""
    from hydrofoil.run.find import run_path

    path = run_path(source)
    if (path / "recipe.toml").is_file():
        return path
    name = re.sub(r"[^\w.-]+", "-", path.resolve().name if path.exists() else source).strip(".-")
    return FOLDER / (name or "images")


def _fields(overrides: list[str]) -> dict[str, Any]:
    """Return the fields of [data] that were given, such as data.label=species."""
    from hydrofoil.recipe.naming import full_name, read_value

    fields: dict[str, Any] = {}
    for one in overrides:
        typed, _, text = one.partition("=")
        section, _, name = full_name(typed).rpartition(".")
        if section != "data" or not text:
            raise HydrofoilError(f"{one}: expected a field of [data], such as data.label=species.")
        fields[name] = read_value(f"data.{name}", text)
    return fields
