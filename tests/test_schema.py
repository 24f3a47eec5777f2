"""The documented JSON Schemas are the models' own, and describe what a run writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from hydrofoil.run.schema import schemas
from tests.pages import make_run

DOCS = Path(__file__).parents[1] / "docs" / "schema"


def test_the_documented_schemas_are_those_of_the_models() -> None:
    assert {path.name: path.read_text("utf-8") for path in DOCS.iterdir()} == schemas()


def check(content: Any, schema: dict[str, Any], root: dict[str, Any]) -> None:
    """Hold content against the part of JSON Schema that pydantic writes here."""
    if "$ref" in schema:
        return check(content, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "discriminator" in schema:
        reference = schema["discriminator"]["mapping"][content["event"]]
        return check(content, {"$ref": reference}, root)
    if "anyOf" in schema:
        kinds = [one.get("type") for one in schema["anyOf"]]
        wanted = "null" if content is None else None
        chosen = next(one for one, kind in zip(schema["anyOf"], kinds, strict=True)
                      if (kind == "null") == (wanted == "null"))  # fmt: skip
        return check(content, chosen, root)
    types = {
        "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
        "number": (int, float), "null": type(None),
    }  # fmt: skip
    assert isinstance(content, types[schema["type"]]), (content, schema)
    if schema["type"] == "object" and "properties" in schema:
        assert set(schema.get("required", ())) <= set(content) <= set(schema["properties"])
        for name, value in content.items():
            check(value, schema["properties"][name], root)
    if schema["type"] == "array" and isinstance(schema.get("items"), dict):
        for value in content:
            check(value, schema["items"], root)
    return None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "r").path


def test_what_a_run_writes_follows_the_schemas(run: Path) -> None:
    names = "event.json", "test.json"
    event, test = (json.loads((DOCS / name).read_text("utf-8")) for name in names)
    for line in (run / "log.jsonl").read_text("utf-8").splitlines():
        check(json.loads(line), event, event)
    check(json.loads((run / "test.json").read_text("utf-8")), test, test)
    with pytest.raises(AssertionError):
        check({"correct": "many"}, test, test)
