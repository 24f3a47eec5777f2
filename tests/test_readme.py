"""What the README and docs/ show must run as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from hydrofoil import shipped_recipes
from hydrofoil.cli.main import app, main
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.recipe.source import known_as
from hydrofoil.report.text import field_lines
from tests.sets import image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the hydrofoil commands in a page's shell blocks, without their comments."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    found = [re.search(r"(?:^|&& |\$ )(hydrofoil .*)", line) for line in lines]
    return [match.group(1).split("  #")[0].strip() for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_python_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"__name__": "__main__"}  # a page is read from its top
    for block in blocks(page, "python"):
        # The published sets are stood in for by small made ones, and many epochs by two.
        exec(compile(block, page.name, "exec"), names)


def test_the_readmes_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("L", (30, 30)).save("my-digit.png")
    image(0, 99).save("new-photograph.jpg")
    for label, name in enumerate(("cat", "dog")):
        Path("pets", name).mkdir(parents=True)
        for number in range(20):
            image(label, max(number, 1), (24, 24)).save(Path("pets", name, f"{number}.png"))
    ran = commands(ROOT / "README.md")
    assert len(ran) >= 8
    for command in ran:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "compare":  # its own figures stand in docs/compare.md
            arguments += ["--seeds", "2", "train.epochs=1", "train.execute=eager"]
        arguments = [part for part in arguments if part != "--open"]
        serious = arguments[0] == "check"  # these few images are not beyond doubt
        if serious:
            arguments += ["--only", "copies"]
        if arguments[0] == "tune":
            arguments += ["--trials", "1", "--seeds", "0", "epochs=1"]
        if "--budget" in arguments:  # tests/test_budget.py keeps to one
            place = arguments.index("--budget")
            del arguments[place : place + 2]
        if arguments[0] == "train" and not any("epochs" in part for part in arguments):
            arguments.append("train.epochs=1")
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code in (0, int(serious)), (command, capsys.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_pages_name_what_there_is(page: Path) -> None:
    verbs = {c.name or c.callback.__name__ for c in app.registered_commands}  # type: ignore[union-attr]
    for command in commands(page):
        verb, *rest = shlex.split(command)[1:]
        assert verb in verbs, command
        if verb in ("train", "import") and not rest[0].startswith((".", "/")):
            assert rest[0] in shipped_recipes() or known_as(rest[0]), command
        if verb == "show" and not rest[0].startswith("runs/"):
            assert rest[0] in {*shipped_recipes(), *SOURCES, "last"}, command


def test_the_page_on_recipes_lists_the_fields_that_there_are() -> None:
    (shown,) = blocks(ROOT / "docs" / "recipes.md", "text")
    assert shown.rstrip() == field_lines()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_in_the_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_ci_runs_the_readmes_test_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"<!-- test -->\n```sh\n(.*?)```", text, flags=re.DOTALL)
    assert block.strip().startswith("pip install -e '.[test]' && pytest")
    (browser,) = re.findall(r"<!-- browser test -->\n```sh\n(.*?)```", text, flags=re.DOTALL)
    assert browser.strip().endswith("pytest -m browser")
    script = (ROOT / ".ci/run").read_text()
    assert "for mark in 'test' 'browser test'" in script
    assert "<!-- $mark -->" in script
