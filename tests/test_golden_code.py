"""The generated C is fixed text: a change of the generator alone must not change a character."""

import json
import re

import pytest

from tests.golden_code import DIGESTS, RECIPES, all_code, digest

GOLDEN: dict[str, str] = json.loads(DIGESTS.read_text("utf-8"))


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    return all_code()


def test_the_generated_code_is_the_golden_text(programs: dict[str, str]) -> None:
    assert set(programs) == set(GOLDEN)
    changed = [name for name, code in programs.items() if digest(code) != GOLDEN[name]]
    assert not changed, (
        "the generated C has changed; if that is intended, run `python -m tests.golden_code`"
    )


def test_every_recipe_is_among_the_golden_programs() -> None:
    assert set(RECIPES) <= set(GOLDEN)
    assert len(GOLDEN) > 90


def test_every_array_on_the_stack_is_aligned(programs: dict[str, str]) -> None:
    """gcc 12 with AVX-512 uses aligned 32-byte loads on local arrays that it aligns to 16 bytes."""
    local = re.compile(r"^ {4,}(?:_Alignas\(64\) )?(?:const )?(?:float|double|int32_t) \w+\[")
    for name, code in programs.items():
        functions = code[code.index("/* Share t of total things. */") :]
        for line in filter(local.match, functions.splitlines()):
            assert "_Alignas(64)" in line, f"{name}: {line}"
