"""The verb that lists and clears the cache of decoded images."""

from datetime import datetime
from typing import Annotated

import typer

from hydrofoil.cli.options import Json, app, option
from hydrofoil.cli.printing import print_json, printer


@app.command()
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove all decoded images from the cache.")
    ] = False,
    limit: Annotated[
        str, option("--limit", "SIZE", "The most that all of them may take, such as 20GB.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List the decoded images that are cached, and how much space they take."""
    from hydrofoil.data.image_cache import ImageCache, parse_bytes
    from hydrofoil.terminal import table
    from hydrofoil.wording import plural

    say, images = printer(as_json), ImageCache()
    removed = images.set_limit(parse_bytes(limit)) if limit else []
    removed += images.clear() if clear else []
    entries, most = images.entries(), images.limit()
    if removed:
        freed = sum(entry.bytes for entry in removed)
        say(f"removed: {plural(len(removed), 'set')}, {_size(freed)}")
    rows = [["images", "size", "last used", "source"]]
    for entry in entries:
        used = f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}"
        count = entry.about.get("images", 0)
        rows.append([f"{count:,}", _size(entry.bytes), used, str(entry.about.get("source", ""))])
    if entries:
        say(table(rows, left=0))
    total = sum(entry.bytes for entry in entries)
    say(f"{images.folder}: {plural(len(entries), 'set')}, {_size(total)} of at most {_size(most)}")
    print_json(
        as_json,
        {
            "folder": str(images.folder),
            "limit": most,
            "removed": [entry.key for entry in removed],
            "sets": [
                {"key": entry.key, "bytes": entry.bytes, "used": entry.used, **entry.about}
                for entry in entries
            ],
        },
    )


def _size(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
