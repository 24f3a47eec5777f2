"""What keeps the house as it is: guards over the source, each with the reason it is there."""

import ast
import re
from pathlib import Path

import pytest

import hydrofoil
from tests.axes import axes_of

PACKAGE = Path(hydrofoil.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# A module may import from its own line and those above it: back along the flow, never forward.
FLOW = [
    ["__init__", "errors", "randomness", "device", "timing"],
    ["recipe"],
    ["data"],
    ["models"],
    ["evaluate"],
    ["native"],
    ["train"],
    ["run"],
    ["sides"],
    ["ship"],
    ["report"],
    ["progress"],
    ["cli"],
]
PUBLIC = """
    Answers Classifier Epoch HydrofoilError Metrics Pictures Prediction Progress Recipe
    Run Scores Split State answer build draw_split fit
    grad_cam load measure occlusion pick_device predict prepare read_recipe score shipped_recipes
    summarise
""".split()
# What runs in every step, where the device may not be waited for; "" stands for a whole module.
IN_THE_STEP = {
    "train.step": {"train_steps", "key_dropout"},
    "train.graph": {"train_steps", "_replay_steps", "_one_step", "key_dropout"},
    "train.loop": {"fit"},
    "data.batches": {""},
    "models.layers": {"forward", "key_dropout"},
    "models.classifier": {"forward", "normalise"},
    "randomness": {"uniform_bits"},
    "evaluate.metrics": {"add"},
}


def source(module: str) -> str:
    return MODULES[module].read_text("utf-8")


def room(module: str) -> int:
    first = module.split(".")[0]
    return next(rank for rank, names in enumerate(FLOW) if first in names)


def runtime_imports(tree: ast.Module) -> set[str]:
    """Return the hydrofoil modules imported when the code runs, not for type checking alone."""
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only and node.module:
            if node.module.startswith("hydrofoil."):
                found.add(node.module.removeprefix("hydrofoil."))
            elif node.module == "hydrofoil":
                names = [alias.name for alias in node.names]
                found |= {name if name in MODULES else "__init__" for name in names}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_back_along_the_flow(module: str) -> None:
    for imported in runtime_imports(ast.parse(source(module))):
        assert room(imported) <= room(module), f"{module} imports {imported}"


def test_the_report_imports_nothing_from_training() -> None:
    reached, waiting = set(), {module for module in MODULES if module.startswith(("report", "run"))}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= runtime_imports(ast.parse(source(module))) & set(MODULES) - reached
    assert not [module for module in reached if module.startswith("train")]


def test_gradients_are_made_in_one_place() -> None:
    assert [module for module in MODULES if ".backward(" in source(module)] == ["train.step"]


def test_from_the_command_to_the_gradient_are_three_calls() -> None:
    def calls(module: str, function: str) -> set[str]:
        tree = ast.parse(source(module))
        (body,) = [
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function
        ]
        return {ast.unparse(n.func) for n in ast.walk(body) if isinstance(n, ast.Call)}

    assert "fit" in calls("cli", "train") & calls("cli", "resume")
    assert "executor.train_steps" in calls("train.loop", "fit")
    assert "loss.backward" in calls("train.step", "train_steps")


def test_nothing_but_the_command_line_prints() -> None:
    assert [module for module in MODULES if re.search(r"(?<![\w.])print\(", source(module))] == [
        "cli"
    ]


def waits(code: str) -> list[str]:
    """Return what in a piece of code makes the CPU wait for a device's numbers."""
    return re.findall(
        r"\.(?:item|tolist|cpu|numpy|nonzero)\(|\b(?:bool|float|int)\(|\bif [a-z_]*\.any", code
    )


@pytest.mark.parametrize("module", IN_THE_STEP)
def test_no_step_waits_for_the_device(module: str) -> None:
    functions = [n for n in ast.walk(ast.parse(source(module))) if isinstance(n, ast.FunctionDef)]
    found = {f.name for f in functions}
    assert IN_THE_STEP[module] <= found | {""}
    for function in functions:
        if IN_THE_STEP[module] & {"", function.name}:
            function.body = function.body[isinstance(ast.get_docstring(function), str) :]
            assert not waits(ast.unparse(function)), f"{module}.{function.name}"


def test_a_wait_is_found() -> None:
    assert waits("if bool(loss.isnan()): pass")
    assert waits("total += loss.item()")
    assert waits("pictures_NCHW.cpu()")
    assert not waits("sums.add(loss, logits_NK, labels_N)")


def test_pickle_is_read_in_one_place_by_a_reader_that_refuses_code() -> None:
    uses = [module for module in MODULES if re.search(r"(import|from) pickle", source(module))]
    assert set(uses) == {"data.sources", "ship.adopt"}
    loads = [
        line for module in MODULES for line in source(module).splitlines() if "torch.load(" in line
    ]
    assert len(loads) == 1
    assert "weights_only=True" in loads[0]


def test_public_names_are_as_listed_and_explain_themselves() -> None:
    assert hydrofoil.__all__ == PUBLIC
    for name in PUBLIC:
        assert getattr(hydrofoil, name).__doc__, name
    assert set(PUBLIC) <= set(dir(hydrofoil))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hydrofoil.nothing


@pytest.mark.parametrize("module", MODULES)
def test_a_module_explains_the_axes_that_its_names_end_in(module: str) -> None:
    tree = ast.parse(source(module))
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    names |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    used = {axis for name in names for axis in axes_of(name) or ""} - {"1"}
    legend = (ast.get_docstring(tree) or "").partition("Axes:")[2]
    assert not [axis for axis in sorted(used) if not re.search(rf"\b{axis}\b", legend)], used


@pytest.mark.parametrize("module", MODULES)
def test_no_function_outgrows_a_screen(module: str) -> None:
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
