"""JSON Schemas of the log's events and of test.json.

After a change of either, write docs/schema/ again with:
python -m hydrofoil.run.schema docs/schema
"""

import json
import sys
from pathlib import Path

from hydrofoil.evaluate.result import TestResult
from hydrofoil.files import write_whole
from hydrofoil.run.events import EVENT


def schemas() -> dict[str, str]:
    """Return the schemas as JSON, by the names of their files."""
    found = {
        "event.json": EVENT.json_schema(mode="serialization", by_alias=True),
        "test.json": TestResult.model_json_schema(mode="serialization", by_alias=True),
    }
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        name: json.dumps(draft | schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in found.items()
    }


if __name__ == "__main__":
    for name, text in schemas().items():
        write_whole(Path(sys.argv[1], name), text.encode())
