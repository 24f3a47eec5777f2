"""Verbs, runs and the Tab key: what people type besides a recipe's fields."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hydrofoil as hf
from hydrofoil import HydrofoilError, Run, read_recipe, shipped_recipes
from hydrofoil.cli import verbs
from hydrofoil.cli.main import app
from hydrofoil.run.find import run_path
from tests.conftest import Cli


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs in runs/ and one of a comparison; copy it before changing it."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for number in (1, 2):
            hf.train("digits", ["epochs=1", "lr=0.05"], seed=number)
        os.utime("runs/digits-1/recipe.toml", (1, 1))
        shutil.copytree("runs/digits-1", "runs/compare/only-there")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "here", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def names() -> list[str]:
    return [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]


@pytest.mark.parametrize(("other", "verb"), verbs.ALIASES.items())
def test_another_name_for_a_verb_is_the_verb(other: str, verb: str, cli: Cli) -> None:
    assert cli(other, "--help")[1].replace(f" {other} ", f" {verb} ") == cli(verb, "--help")[1]
    assert f"\n  {other} " not in cli("--help")[1]


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("tran", ["unknown verb 'tran'. Did you mean 'train'?"]),
        ("evaluat", ["Did you mean 'test'?"]),
        ("Show", ["Did you mean 'show'?"]),
        ("zebra", ["unknown verb 'zebra'.\nSee: hydrofoil --help"]),
        ("digits", ["'digits' is a recipe", "hydrofoil train digits"]),
        ("digits-1", ["'digits-1' is a run", "hydrofoil show digits-1"]),
    ],
)
def test_a_wrong_verb_is_answered(typed: str, parts: list[str], cli: Cli, runs: Path) -> None:
    status, output, errors = cli(typed)
    assert (status, output) == (2, "")
    assert all(part in errors for part in parts), errors


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_of_help_is_cut(width: int, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERMINAL_WIDTH", str(width))
    output = cli("--help")[1]
    text = " ".join(output.split())
    assert "..." not in re.sub(r"\S+\.\.\.", "", output)  # IMAGE... may be repeated
    assert "…" not in output
    for command in app.registered_commands:
        if not command.hidden:
            said = (command.callback.__doc__ or "").partition("\n\n")[0]  # type: ignore[union-attr]
            assert " ".join(said.split()) in text
    assert max(map(len, output.splitlines())) <= width
    for verb in names():
        assert "..." not in re.sub(r"\S+\.\.\.", "", cli(verb, "--help")[1])


def test_every_verb_has_one_place_in_the_help(cli: Cli) -> None:
    placed = [name for group in verbs.GROUPS.values() for name in group]
    visible = [name for name in names() if f"\n  {name} " in cli("--help")[1]]
    assert len(placed) == len(set(placed))
    assert set(visible) == set(placed)
    assert not set(verbs.ALIASES) & set(names())


@pytest.mark.parametrize("verb", ["train", "show", "compare", "import", "resume"])
def test_the_help_of_a_verb_ends_with_where_the_fields_are(verb: str, cli: Cli) -> None:
    ending = cli(verb, "--help")[1].partition("Fields of a recipe")[2]
    assert "lr=0.01" in ending
    assert "hydrofoil recipes --fields" in ending


@pytest.mark.parametrize("example", verbs.COMMON)
def test_the_examples_in_the_help_work(example: str) -> None:
    assert read_recipe("digits", [example]) != read_recipe("digits")


@pytest.mark.parametrize(
    "words",
    [
        "train digits epoks=3", "train digits --epoks 3", "train digist", "train digits epochs=0",
        "train digits lr=high", "trian digits", "show digits epochs=many", "test digits-7",
        "resume none", "compare digits digits b.epoks=3", "train digits optimizer=adma", "--help",
        "import digits --lr", "predict none x.png", "runs none",
    ],
)  # fmt: skip
def test_mistakes_are_answered_without_importing_torch(words: str) -> None:
    code = (
        "import sys; from hydrofoil.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as left: status = left.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(9 if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words.split()], capture_output=True)
    assert done.returncode == (0 if words == "--help" else 2), done.stderr


def test_python_m_hydrofoil_is_hydrofoil() -> None:
    for module in ("hydrofoil", "hydrofoil.cli"):
        done = subprocess.run(
            [sys.executable, "-m", module, "tran"], capture_output=True, text=True
        )
        assert (done.returncode, "Did you mean 'train'" in done.stderr) == (2, True)


def test_runs_go_by_name_on_the_command_line_and_in_python(runs: Path, cli: Cli) -> None:
    assert run_path("last") == Path("runs/digits-2")
    assert json.loads(cli("show", "last", "--json")[1])["run"] == str(Path("runs/digits-2"))
    assert json.loads(cli("show", "digits-1", "--json")[1])["recipe"]["train"]["seed"] == 1
    assert cli("report", "only-there")[0] == 0
    assert Path("runs/compare/only-there/report.html").is_file()
    assert cli("eval", "digits-1", "--json")[0] == 0
    assert Run.open("digits-1").results.test() is not None
    assert hf.test("last").count == 359
    status, _, errors = cli("test", "digit-1")
    assert (status, "Did you mean runs" in errors) == (2, True)
    with pytest.raises(HydrofoilError, match="Did you mean"):
        Run.open("digits-11")


def test_a_path_that_exists_wins_over_a_runs_name(runs: Path) -> None:
    shutil.copytree("runs/digits-1", "last")
    shutil.copytree("runs/digits-2", "digits-1")
    assert Run.open("last").recipe.train.seed == 1
    assert Run.open("digits-1").recipe.train.seed == 2


def test_runs_are_listed_with_what_was_changed_and_damaged_ones_too(runs: Path, cli: Cli) -> None:
    hf.test("digits-1")
    for name, content in (("broken", "no TOML"), ("strange", "[[x]]")):
        Path("runs", name).mkdir()
        Path("runs", name, "recipe.toml").write_text(content)
    shutil.copytree("runs/digits-2", "runs/damaged")
    Path("runs/damaged/log.jsonl").write_text('{"event": "epoch", "best": true, "valid": [1]}\n')
    Path("runs/begun").mkdir()
    Path("runs/begun/manifest.json").write_text("{}")
    status, output, errors = cli("runs")
    assert (status, errors) == (0, "")
    line = next(line for line in output.splitlines() if line.startswith("digits-1"))
    test = Run.open("digits-1").results.test()
    assert test
    assert f"{test.accuracy:.2%}" in line
    assert "digits: " in line
    assert {"epochs 1", "seed 1", "lr 0.05"} <= set(line.partition("digits: ")[2].split(", "))
    listed = {Path(run["path"]).name: run for run in json.loads(cli("runs", "--json")[1])}
    assert listed["digits-1"]["changed"]["optimizer.lr"] == 0.05
    assert listed["digits-1"]["test"] == test.accuracy
    for name in ("broken", "strange", "damaged"):
        assert listed[name]["state"].startswith("damaged: "), name
    assert listed["begun"]["state"].startswith("unfinished")
    assert [run["path"] for run in json.loads(cli("runs", "runs/digits-2", "--json")[1])] == [
        str(Path("runs/digits-2"))
    ]
    content = json.loads(cli("list", "--json")[1])
    assert (len(content["runs"]), set(content["recipes"])) == (6 + 1, set(shipped_recipes()))
    assert "no such folder" in cli("runs", "none")[2]


def test_another_optimizers_learning_rate_is_said_by_show(cli: Cli) -> None:
    output = cli("show", "digits", "optimizer=adam")[1]
    assert "optimizer.lr = 0.001, adam's default: the recipe's 0.02 was for sgd" in " ".join(
        output.split()
    )
    assert "default: the recipe's" not in cli("show", "digits", "lr=0.1")[1]


# ── the Tab key ──────────────────────────────────────────────────────────────────────────────────


def complete(shell: str, *words: str) -> list[str]:
    """Return what a shell gets for words, of which the last is incomplete."""
    line = " ".join(["hydrofoil", *words])
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words))},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    code = (
        "import sys, atexit; from hydrofoil.cli.main import main\n"
        "atexit.register(lambda: print('TORCH') if 'torch' in sys.modules else None)\n"
        "main([])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, **asked, "_HYDROFOIL_COMPLETE": f"complete_{shell}"},
    )  # fmt: skip
    assert "TORCH" not in done.stdout
    assert not done.stderr
    if shell == "zsh":
        return re.findall(r'^"([^"]*)"', done.stdout.partition("((")[2], re.MULTILINE)
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_tab_key_offers_verbs_recipes_fields_values_and_runs(shell: str, runs: Path) -> None:
    assert complete(shell, "tr") == ["train"]
    assert complete(shell, "train", "mnist") == [
        "mnist-99", "mnist-997", "mnist-cnn", "mnist-mlp",
    ]  # fmt: skip
    assert complete(shell, "test", "la") == ["last"]
    assert complete(shell, "show", "dig") == ["digits", "digits-2", "digits-1"]
    assert complete(shell, "train", "digits", "--lr") == ["--lr", "--lr-decay"]
    assert complete(shell, "train", "digits", "--optimizer", "adam") == ["adam", "adamw"]
    assert complete(shell, "train", "digits", "lr=0.1", "epo") == ["epochs="]
    assert complete(shell, "train", "digits", "optimizer.l") == [
        "optimizer.lr=",
        "optimizer.lr_decay=",
    ]


def test_the_tab_key_offers_values_behind_the_equals_sign() -> None:
    assert complete("fish", "train", "digits", "schedule=c") == [
        "schedule=constant", "schedule=cosine",
    ]  # fmt: skip
    assert complete("bash", "train", "digits", "schedule", "=", "c") == ["constant", "cosine"]
    assert complete("bash", "train", "digits", "nesterov", "=") == ["true", "false"]
    assert set(complete("bash", "train", "")) == set(shipped_recipes())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from hydrofoil.cli.main import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "_HYDROFOIL_COMPLETE": f"source_{shell}"},
    )  # fmt: skip
    assert "_HYDROFOIL_COMPLETE" in done.stdout
    assert done.returncode == 0
