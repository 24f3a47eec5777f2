"""Bits that flipped, files that were cut, changed places, or came from another run: all refused.

Which verb must notice:

    recipe.toml, manifest.json              each
    environment.json                        resume
    split.npz                               show, test, resume, compare
    log.jsonl                               show, test, resume, compare
    best.safetensors                        predict, test, explain; resume writes it again
    last.safetensors                        resume, which says so and goes on from the one before
    previous.safetensors                    resume, where the last one is gone or broken, too
    test.json                               show, compare, and resume where it extends
    answers.npz                             compare
    shown.npz                               report

`report` ends with 0 and names on its page whatever it could not read. Figures are read back by no
verb: their SHA-256 stands in the manifest, for who wants to know. Those that `show`, `explain` and
`report` draw are in no manifest: nothing here is about them.
"""

import random
import shutil
from collections.abc import Callable
from html import unescape
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.black_box import TINY, Told, cli, end_of, unknown_to_manifest

QUICK = (*TINY, "train.epochs=2", "train.execute=eager", "train.save_steps=11")
PICTURE = "picture.png"
EACH = [("show",), ("test",), ("predict", PICTURE), ("explain", PICTURE), ("resume",),
        ("resume", "--prove"), ("compare", "other")]  # fmt: skip
NOTICE: dict[str, list[tuple[str, ...]]] = {
    "recipe.toml": EACH,
    "manifest.json": EACH,
    "environment.json": [("resume",), ("resume", "--prove")],
    "split.npz": [("show",), ("test",), ("resume",), ("compare", "other")],
    "log.jsonl": [("show",), ("test",), ("resume",), ("compare", "other")],
    "best.safetensors": [("test",), ("predict", PICTURE), ("explain", PICTURE)],
    "test.json": [("show",), ("compare", "other"), ("resume", "train.epochs=3")],
    "answers.npz": [("compare", "other")],
    "reference.npz": [("test",), ("predict", PICTURE), ("explain", PICTURE)],
    # See `noticed`.
    "shown.npz": [("report",)],
    "last.safetensors": [("resume",)],
    "previous.safetensors": [("resume",)],
    "figures/predictions.png": [],
    "figures/mistakes.png": [],
    "figures/confusion.png": [],
}
ON_THE_PAGE = ["recipe.toml", "manifest.json", "environment.json", "split.npz", "log.jsonl",
               "best.safetensors", "test.json", "shown.npz"]  # fmt: skip


def flipped(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def exchanged(content: bytes, rng: random.Random) -> bytes:
    """Let two parts of the file, of up to 64 bytes, change places."""
    while True:
        size = min(1 << rng.randrange(7), len(content) // 2)
        first = rng.randrange(len(content) - 2 * size + 1)
        second = rng.randrange(first + size, len(content) - size + 1)
        a, b = content[first : first + size], content[second : second + size]
        if a != b:
            between = content[first + size : second]
            return content[:first] + b + between + a + content[second + size :]


CHANGES: list[Callable[[bytes, random.Random], bytes]] = [flipped, cut, exchanged]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that were trained and tested, alike but for the seed."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed in (("run", 0), ("other", 1)):
        told = cli("train", *QUICK, "--seed", seed, "--test", "--run", folder / name)
        assert told.status == 0, told
    files = {str(p.relative_to(folder / "run")) for p in (folder / "run").rglob("[!.]*")}
    assert files - {"figures"} == NOTICE.keys()  # a new file belongs into the table above
    return folder


@pytest.fixture(autouse=True)
def runs(made: Path, tmp_path: Path) -> None:
    for name in ("run", "other"):
        shutil.copytree(made / name, tmp_path / name)
    Image.new("L", (8, 8)).save(tmp_path / PICTURE)


def contents(run: Path) -> dict[Path, bytes]:
    """Return all files of a run, but for its lock."""
    return {path: path.read_bytes() for path in run.rglob("[!.]*") if path.is_file()}


def refused(name: str, told: Told) -> bool:
    """Tell whether a command said of this file that it is not as written, and ended with 2."""
    start = f"run/{name}: checksum mismatch"
    return told.status == 2 and told.keeps_the_contract() and told.err.startswith(start)


def noticed(name: str, verb: tuple[str, ...], made: Path) -> bool:
    """Run a verb over a run whose file of that name was changed; tell if it did what it should.

    A verb that ends with 2 leaves the run as it was; `resume` with a checkpoint that was changed
    mends it, to the same bits.
    """
    run, before = Path("run"), contents(Path("run"))
    if verb == ("report",):
        told = cli("report", run)
        page = unescape((run / "report.html").read_text())
        (run / "report.html").unlink()
        return told.status == 0 and f"run/{name}: checksum mismatch" in page
    if name.startswith("figures/"):
        return unknown_to_manifest(run) == [name]
    if name == "previous.safetensors":
        (run / "last.safetensors").unlink()
        before.pop(run / "last.safetensors")
    if name == "last.safetensors":
        told = cli("resume", run)
        note = f"note: run/{name}: checksum mismatch"
        same = end_of(run) == end_of(made / "run") and unknown_to_manifest(run) == []
        shutil.rmtree(run)
        shutil.copytree(made / "run", run)
        return told.status == 0 and note in told.out and told.keeps_the_contract() and same
    told = cli(verb[0], run, *verb[1:])
    after = contents(run)
    shutil.copy(made / "run" / "last.safetensors", run)
    return refused(name, told) and before == after


def check_changes(made: Path, count: int, rng: random.Random) -> None:
    names = sorted(NOTICE)
    for number in range(count):
        name = names[number % len(names)]
        path, change = Path("run", name), rng.choice(CHANGES)
        verb = rng.choice(NOTICE[name] or [()])
        if name in ON_THE_PAGE and rng.random() < 0.05:
            verb = ("report",)
        content = (made / "run" / name).read_bytes()
        path.write_bytes(change(content, rng))
        changed = path.read_bytes()
        assert changed != content
        assert noticed(name, verb, made), (name, change.__name__, verb, changed)
        path.write_bytes(content)
    for name, content in contents(made / "run").items():
        assert Path("run", name.relative_to(made / "run")).read_bytes() == content


def test_changed_files_are_refused_by_name(made: Path) -> None:
    check_changes(made, 300, random.Random(0))


@pytest.mark.slow
def test_ten_thousand_changed_files_are_refused_by_name(made: Path) -> None:
    check_changes(made, 10_000, random.Random(1))


@pytest.mark.parametrize("name", ON_THE_PAGE)
def test_the_page_of_a_run_names_what_was_changed(name: str, made: Path) -> None:
    path = Path("run", name)
    path.write_bytes(flipped(path.read_bytes(), random.Random(name)))
    assert noticed(name, ("report",), made)


@pytest.mark.parametrize("name", NOTICE)
def test_a_file_of_another_run_is_refused(name: str, made: Path) -> None:
    shutil.copy(made / "other" / name, Path("run", name))
    if name == "manifest.json":  # it is whole, but of other files
        told = cli("show", "run")
        assert refused("recipe.toml", told), told
    else:
        for verb in NOTICE[name] or [()]:
            assert noticed(name, verb, made), verb


def test_two_files_that_changed_places_are_refused(made: Path) -> None:
    whole = contents(made / "run")
    for first, second in permutations(sorted(set(NOTICE) - {"manifest.json"}), 2):
        if not NOTICE[first] or {first, second} == {"last.safetensors", "previous.safetensors"}:
            continue
        for name, other in ((first, second), (second, first)):
            Path("run", name).write_bytes(whole[made / "run" / other])
        for verb in NOTICE[first][:1]:
            told = cli(verb[0], "run", *verb[1:])
            assert told.keeps_the_contract()
            said = told.out + told.err
            if verb == ("report",) and told.status == 0:
                said = unescape(Path("run/report.html").read_text())
            named = [f"run/{n}: checksum mismatch" for n in (first, second)]
            if first == "previous.safetensors" and told.status == 0:
                assert "resuming from" not in said  # last.safetensors is whole: this is not read
            elif (first, second) == ("answers.npz", "last.safetensors"):
                assert "hydrofoil resume run" in told.err  # which names it: see above
            else:
                assert any(text in said for text in named), (first, second, verb, told)
        shutil.rmtree("run")
        shutil.copytree(made / "run", "run")


def test_checkpoints_that_changed_places_are_both_refused(made: Path) -> None:
    last, previous = (Path("run", f"{name}.safetensors") for name in ("last", "previous"))
    first, second = last.read_bytes(), previous.read_bytes()
    last.write_bytes(second)
    previous.write_bytes(first)
    told = cli("resume", "run")
    assert refused("last.safetensors", told), told


def test_a_run_that_went_in_the_place_of_another_is_that_other_run(made: Path) -> None:
    """All files exchanged are a run that was moved: nothing is wrong with it."""
    shutil.rmtree("run")
    shutil.copytree(made / "other", "run")
    assert cli("resume", "run").status == 0
    assert end_of(Path("run")) == end_of(made / "other")


def files_that_each_verb_needs() -> list[Any]:
    return [(name, verb) for name in NOTICE for verb in NOTICE[name] if name != "shown.npz"]


@pytest.mark.parametrize(("name", "verb"), files_that_each_verb_needs())
def test_a_missing_file_is_no_traceback(name: str, verb: tuple[str, ...]) -> None:
    Path("run", name).unlink()
    told = cli(verb[0], "run", *verb[1:])
    assert told.keeps_the_contract(), told
