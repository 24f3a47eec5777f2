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
    [
        "__init__",
        "display",
        "errors",
        "files",
        "randomness",
        "device",
        "timing",
        "wording",
        "terminal",
    ],
    ["recipe"],
    ["data"],
    ["models"],
    ["evaluate"],
    ["native"],
    ["train"],
    ["run"],
    ["check"],
    ["compare"],
    ["tune"],
    ["ship"],
    ["report"],
    ["observe"],
    ["session"],
    ["cli", "__main__"],
]
PUBLIC = """
    Answers Check Classifier ClassifierEstimator Comparison Comparisons Console Ended Epoch
    HydrofoilError Metrics Observer Pictures Prediction Progress Proof Recipe Run Scores Split
    Start State Stopped TestResult Tuning answer build check compare draw_split fit grad_cam keep
    load measure occlusion pick_device predict prepare prove read_recipe resume score
    shipped_recipes summarize test train tune
""".split()
# What runs in every step, where the device may not be waited for; "" stands for a whole module.
IN_THE_STEP = {
    "train.step": {"train_steps", "_call_model"},
    "train.executors.graph": {"train_steps", "_one_step", "load", "batch", "rate", "draws"},
    "train.executors.compiled": {"train_steps", "_call_compiled"},
    "train.schedules": {"set_rate"},
    "train.loop": {"fit"},
    "data.batches": {""},
    "models.layers": {"forward", "set_draws"},
    "models.classifier": {"forward", "normalize"},
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


def operations() -> set[str]:
    """Return the classes of native operations."""
    trees = [ast.parse(source(name)) for name in MODULES if name.startswith("native.operations.")]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return {c.name for c in classes if "Operation" in map(ast.unparse, c.bases)}


def test_no_module_outside_native_operations_asks_for_the_type_of_an_operation() -> None:
    found = operations()
    assert len(found) >= 6
    for module in MODULES:
        if not module.startswith("native"):
            continue
        if not module.startswith("native.operations"):
            nodes = list(ast.walk(ast.parse(source(module))))
            names = {n.id for n in nodes if isinstance(n, ast.Name)}
            names |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
            assert not found & names, module
    assert not calls_to("native.program", "isinstance", "type")


# What only Unix has, as the standard library documents it.
POSIX_ONLY = {
    "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty",
    "curses",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_what_only_unix_has_at_module_level(module: str) -> None:
    tree = ast.parse(source(module))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in inside:
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in inside:
            found.add((node.module or "").split(".")[0])
    assert not found & POSIX_ONLY


def test_gradients_are_made_in_one_place() -> None:
    assert [module for module in MODULES if ".backward(" in source(module)] == ["train.step"]


def test_from_the_command_to_the_gradient_are_three_calls() -> None:
    def calls(module: str, function: str) -> set[str]:
        tree = ast.parse(source(module))
        (body,) = [
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function
        ]
        return {ast.unparse(n.func) for n in ast.walk(body) if isinstance(n, ast.Call)}

    assert "fit" in calls("session.train", "train") & calls("session.resume", "resume")
    assert "executor.train_steps" in calls("train.loop", "fit")
    assert "loss.backward" in calls("train.step", "train_steps")


def test_nothing_but_the_command_line_prints() -> None:
    assert [module for module in MODULES if re.search(r"(?<![\w.])print\(", source(module))] == [
        "cli.printing"
    ]


def test_no_verb_is_called_for_its_output() -> None:
    assert not [module for module in MODULES if "redirect_stdout" in source(module)]


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


# What makes objects of a file or runs a string; a name stands for all that begins with it.
RUNS_DATA = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "pickle5", "pickletools", "copyreg", "marshal",
    "shelve", "dbm", "dill", "joblib", "jsonpickle", "yaml", "ruamel", "runpy",
    "torch.load", "torch.save", "torch.jit.load", "torch.serialization", "torch.package",
    "torch.hub", "numpy.fromregex", "pandas.read_pickle",
    "eval", "exec", "compile", "__import__", "builtins", "importlib.import_module", "tarfile",
    "shutil.unpack_archive", "os.system", "os.popen",
}  # fmt: skip
METHODS = {"unpack_archive", "read_pickle", "to_pickle", "extractall", "load_module", "exec_module"}
# Where these may stand, and why.
ALLOWED = {
    ("models.code", "exec"): "the user's own network, by --model-code in that very command",
    ("models.code", "compile"): "the same",
    (
        "ship.import_weights",
        "torch.load",
    ): "weights from elsewhere: weights_only",
    ("__init__", "importlib.import_module"): "the public names, on first use; the name is ours",
    ("display", "importlib.import_module"): "what draws for notebooks; the name is ours",
    ("observe.track", "importlib.import_module"): "the trackers' packages, named in its table",
    ("observe.tensorboard", "importlib.import_module"): "tensorboard's modules, named there",
    ("observe.mlflow", "importlib.import_module"): "mlflow's modules, named there",
}


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def data_that_could_run(tree: ast.AST) -> set[str]:
    """Return what in a piece of code could run what a file says, by its full name."""
    names = imported_names(tree)
    used, runs = set(names.values()), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, *rest = ast.unparse(node).split(".")
            used.add(".".join([names.get(first, first), *rest]))
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            runs.add(node.attr)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            runs |= {"allow_pickle"} if ast.unparse(node.value) != "False" else set()
    return runs | {
        known for name in used for known in RUNS_DATA if f"{name}.".startswith(f"{known}.")
    }


@pytest.mark.parametrize("module", MODULES)
def test_nothing_that_is_read_can_run_code(module: str) -> None:
    found = data_that_could_run(ast.parse(source(module)))
    assert {(module, name) for name in found} <= set(ALLOWED)


def calls_to(module: str, *names: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(source(module)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]


def test_the_one_pickle_is_read_as_weights_only() -> None:
    (load,) = [call for module in MODULES for call in calls_to(module, "torch.load")]
    assert {word.arg: ast.unparse(word.value) for word in load.keywords}["weights_only"] == "True"


def test_arrays_are_read_without_pickles_and_say_so() -> None:
    loads = [call for module in MODULES for call in calls_to(module, "np.load", "numpy.load")]
    assert loads
    for call in loads:
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert keywords.get("allow_pickle") == "False"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "import pickle as p", "from pickle import loads as read", "import _pickle",
        "from pickle import UnpicklingError", "import marshal", "import shelve", "import dill",
        "from joblib import load", "import joblib; joblib.load(path)", "import yaml",
        "import torch; torch.load(path)", "import torch as t; t.load(path)",
        "from torch import load; load(path)", "import torch; read = torch.load",
        "import torch; torch.save(model, path)", "import torch; torch.jit.load(path)",
        "import numpy as np; np.load(path, allow_pickle=True)", "load(path, allow_pickle=asked)",
        "eval(text)", "exec(text)", "run = eval", "__import__(name)", "compile(text, '', 'exec')",
        "import builtins; builtins.eval(text)", "import tarfile", "archive.extractall(folder)",
        "from shutil import unpack_archive", "import importlib; importlib.import_module(name)",
        "import os; os.system(text)", "from torch import serialization",
    ],
)  # fmt: skip
def test_what_could_run_is_found(code: str) -> None:
    assert data_that_could_run(ast.parse(code))


def test_what_cannot_run_is_not_found() -> None:
    code = "import re; re.compile('x'); model.eval(); torch.compile(model); json.loads(text)"
    code += "; np.load(path, allow_pickle=False); safetensors.torch.load(data)"
    assert not data_that_could_run(ast.parse(f"import torch, numpy as np\n{code}"))


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


@pytest.mark.parametrize("module", MODULES)
def test_no_file_outgrows_500_lines(module: str) -> None:
    assert len(source(module).splitlines()) <= 500


def test_the_package_root_has_at_most_ten_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def test_imports_form_no_cycle() -> None:
    names = {module for module in MODULES}
    graph = {module: module_level_imports(module) & names - {module} for module in names}
    while leaves := {module for module, needed in graph.items() if not needed & graph.keys()}:
        graph = {module: needed for module, needed in graph.items() if module not in leaves}
    assert not graph


def module_level_imports(module: str) -> set[str]:
    """Return the hydrofoil modules that a module imports when it is itself imported."""
    tree = ast.parse(source(module))
    for node in ast.walk(tree):
        type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.FunctionDef) or type_checking:
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hydrofoil."):
            base = (node.module or "").removeprefix("hydrofoil.")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
    return found
