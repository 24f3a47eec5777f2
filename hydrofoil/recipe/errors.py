"""A recipe's errors in three parts: what came, what was expected, what to do."""

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from hydrofoil.errors import nearest
from hydrofoil.recipe.schema import Recipe, members, tags, tags_of


def explain(errors: Sequence[ErrorDetails], document: dict[str, Any], name: str) -> str:
    """Return a message about the first of pydantic's errors, and the number of the others.

    An unknown field comes first: it is probably the missing one, misspelled.
    """
    errors = sorted(errors, key=lambda error: error["type"] != "extra_forbidden")
    first, others = errors[0], len(errors) - 1
    more = f" ({others} more in {name})" if others else ""
    at = [str(part) for part in first["loc"]]
    if at[:1] in (["model"], ["optimizer"], ["schedule"]):
        del at[1:2]  # pydantic puts the union's member here, which the user did not write
    field, kind, given = ".".join(at), first["type"], first["input"]
    context = first.get("ctx", {})
    if kind == "extra_forbidden":
        inside = [
            top for top in Recipe.model_fields for m in members(top) if field in m.model_fields
        ]
        hint = f"Did you mean {inside[0]}.{field}? " if inside else ""
        known = _known_fields(at, document)
        return f"{field}: no such field in a recipe. {hint or nearest(at[-1], known)}{more}"
    if kind == "missing":
        return f"{field}: missing in recipe {name}; expected a value, such as {field}=…{more}"
    if kind == "union_tag_not_found":
        return f"{field}.name: missing in recipe {name}; {nearest('', tags(at[0]))}{more}"
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        return f"{field}.name = {tag!r}: no such {at[0]}. {nearest(tag, tags(at[0]))}{more}"
    if kind == "value_error":
        return f"{context['error']}.{more}"
    if kind in ("model_type", "model_attributes_type"):
        return (
            f"{field} = {_shown(given)}: expected a section of fields, such as {field}.…=….{more}"
        )
    if kind == "tuple_type":
        return f"{field} = {_shown(given)}: expected a list, such as [0.5].{more}"
    if kind == "string_pattern_mismatch":
        return f"{field} = {_shown(given)}: expected letters, digits, '.', '_' and '-' alone.{more}"
    expected = re.sub(r"^(Input|String) should (be )?", "expected ", first["msg"])
    expected = expected.replace("a valid boolean", "true or false")
    return f"{field} = {_shown(given)}: {expected}.{more}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _known_fields(at: Sequence[str], document: dict[str, Any]) -> list[str]:
    """Return the fields known in the section that holds the last part of a location."""
    if len(at) == 1:
        return list(Recipe.model_fields)
    schemas = members(at[0])
    if len(schemas) > 1:
        tag = document[at[0]].get("name", "constant")  # only a schedule may leave it out
        schemas = [m for m in schemas if tag in tags_of(m)]
    return list(schemas[0].model_fields)
