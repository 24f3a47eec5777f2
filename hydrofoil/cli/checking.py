"""The verb that checks images before they are trusted: check."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydrofoil.cli import completion
from hydrofoil.cli.options import DataRoot, Device, Json, app, argument, option, path_of
from hydrofoil.cli.printing import note, open_page, print_json, printer
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.check.result import Check

FOLDER = Path("checks")  # here, where runs/ is
SERIOUS = 1  # the exit status where anything is serious


Checked = Annotated[
    str,
    argument(
        "SOURCE|RUN",
        "A path of images, a dataset's name, or a run.",
        autocompletion=completion.recipes_and_runs,
    ),
]
Fields = Annotated[
    list[str] | None,
    argument(
        "[FIELD=VALUE]...",
        "How to read your own images: size=32, label=species, group=folder, and so on.",
    ),
]
Only = Annotated[
    str, option("--only", "NAMES", "Make only these checks: copies,files,shortcuts,drift,labels.")
]
Out = Annotated[
    Path | None,
    option(
        "--out",
        "PATH",
        "The folder of check.html and check.json; default: checks/<name>, or the run's. With "
        "--apply: the table, which ends in .csv.",
        parser=path_of,
    ),
]
Apply = Annotated[
    str,
    option(
        "--apply",
        "CHANGES",
        "Write a table with these changes: a file that the page saved, or kinds of findings, "
        "such as leak,duplicates.",
    ),
]
AndReview = Annotated[
    bool, typer.Option("--review", help="Also write a page to vote on a random sample of labels.")
]
Sample = Annotated[int, option("--sample", "N", "Images of that sample; default: 100.", min=1)]
Votes = Annotated[
    Path | None,
    option("--votes", "FILE", "Estimate the rate of wrong labels from votes.", parser=path_of),
]


@app.command()
def check(
    source: Checked,
    fields: Fields = None,
    only: Only = "",
    out: Out = None,
    apply: Apply = "",
    review: AndReview = False,
    sample: Sample = 100,
    votes: Votes = None,
    then_open: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Check images: copies, leaks, doubtful labels, shortcuts, damaged files.

    Exits with 1 if anything is serious.
    """
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.session import check as session

    given: dict[str, Any] = {"data_root": data_root, **_fields(fields or [])}
    names = [name for name in re.split(r"[,\s]+", only) if name]
    say = printer(as_json)
    with DownloadProgress(note) as watcher:
        if votes is not None:
            estimate = session.count_votes(source, votes, watcher=watcher, **given)
            say("\n".join(estimate.lines()))
            return print_json(as_json, estimate.as_dict())
        if apply:
            table = out or Path("table.csv")
            applied = session.apply(source, apply, table, device=device, watcher=watcher, **given)
            say(f"{applied}\nsaved: {applied.path}")
            return print_json(as_json, {"written": str(applied.path), "images": applied.rows})
        found = session.check(source, only=names, device=device, watcher=watcher, **given)
    folder = out or _folder(source)
    pages = _write(found, folder, sample if review else 0)
    _show(found, pages, as_json)
    if then_open:
        open_page(pages[-1])
    if found.serious:
        raise typer.Exit(SERIOUS)


def _show(found: "Check", pages: list[Path], as_json: bool) -> None:
    """Print what was found, and where it was written."""
    from hydrofoil.report.check_text import check_lines

    say = printer(as_json)
    say(check_lines(found))
    say(f"\nsaved: {' and '.join(map(str, pages))}, with check.json")
    print_json(as_json, found.as_dict() | {"pages": [str(page) for page in pages]})


def _write(found: "Check", folder: Path, sample: int) -> list[Path]:
    """Write the page and the JSON, and the page to vote on; return the pages."""
    from hydrofoil.check.review import draw_review
    from hydrofoil.files import write_whole
    from hydrofoil.report.check_page import check_page
    from hydrofoil.report.review_page import review_page

    pages = {folder / "check.html": check_page(found)}
    if sample:
        drawn = draw_review(found.pictures, sample, likely=found.likely_errors)
        pages[folder / "review.html"] = review_page(found.pictures, drawn)
    text = json.dumps(found.as_dict(), indent=1, ensure_ascii=False)
    write_whole(folder / "check.json", text.encode("utf-8", "backslashreplace"))
    for path, content in pages.items():
        write_whole(path, content)
    return list(pages)


def _folder(source: str) -> Path:
    """Return where a source's page goes: a run's own folder, or a folder of the source's name."""
    from hydrofoil.run.find import run_path

    path = run_path(source)
    if (path / "recipe.toml").is_file():
        return path
    name = path.expanduser().resolve().name if path.exists() else source
    return FOLDER / (re.sub(r"[^\w.-]+", "-", name).strip(".-") or "images")


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
