"""What a person sees on a terminal of 80×24 and of 200×55."""

import os
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests import screens
from tests.screens import Shown

if os.name != "posix":
    pytest.skip("a pseudo-terminal", allow_module_level=True)

SIZES = [(24, 80), (55, 200)]
COMMANDS = {
    "train": "train digits train.epochs=2 train.execute=eager",
    "train with a test": "train digits train.epochs=12 train.execute=eager --test --verbose",
    "no validation": "train digits train.epochs=1 train.execute=eager data.valid=0",
    "interrupted": "train digits train.epochs=4 train.batch_size=1 train.execute=eager",
    "resume": "resume runs/digits-3 train.epochs=2",
    "show a recipe": "show cifar10-cnn3 --verbose",
    "show a dataset": "show cifar10",
    "show a run": "show runs/digits-1",
    "test": "test runs/digits-2",
    "full test": "test runs/digits-2 --full",
    "test again": "test runs/digits-2 --again",
    "recipes": "recipes",
    "fields": "recipes --fields",
    "predict": "predict runs/digits-2 white.png images",
    "predict many": "predict runs/digits-2 images images",
    "explain": "explain runs/digits-2 white.png",
    "compare": "compare digits digits train.epochs=1 train.execute=eager b.lr=0.001 --seeds 2",
    "unknown field": "train digits train.epoch=3",
    "unknown recipe": "train digit",
    "unknown class": "show cifar10 --class cta",
    "no run": "test runs/none",
    "no image": "predict runs/digits-2 none.png",
    "usage": "train digits --sede 1",
    "no color": "test runs/digits-2",
}
ERRORS = {"unknown field", "unknown recipe", "unknown class", "no run", "no image", "usage"}
LONG = {"interrupted", "compare"}  # long enough for a bar, or so long that once is enough
Seen = dict[str, Shown]


@pytest.fixture(scope="module")
def every(
    tmp_path_factory: pytest.TempPathFactory, data_root: Path, caches: Path
) -> dict[tuple[int, int], Seen]:
    """Every command on a terminal of each size; those that take long on the smaller one alone."""
    folder = tmp_path_factory.mktemp("screen")
    Image.new("RGB", (60, 40), "white").save(folder / "white.png")
    (folder / "images").mkdir()
    for number in range(6):
        Image.new("L", (8, 8), 40 * number).save(folder / "images" / f"{number}.png")
    keys = [
        (size, name) for size in SIZES for name in COMMANDS if size == SIZES[0] or name not in LONG
    ]
    commands = [
        screens.Command(shlex.split(COMMANDS[name]), size, name == "no color")
        for size, name in keys
    ]
    ctrl_c = {list(COMMANDS).index("interrupted"): (b"\repoch 2/4", b"\x03")}
    variables = {"HYDROFOIL_DATA": str(data_root), "XDG_CACHE_HOME": str(caches)}
    shown = screens.run(commands, folder, ctrl_c, OMP_NUM_THREADS="1", **variables)
    seen: dict[tuple[int, int], Seen] = {size: {} for size in SIZES}
    for (size, name), one in zip(keys, shown, strict=True):
        seen[size][name] = one
    return {SIZES[0]: seen[SIZES[0]], SIZES[1]: seen[SIZES[0]] | seen[SIZES[1]]}


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def seen(request: pytest.FixtureRequest, every: dict[tuple[int, int], Seen]) -> Seen:
    return every[request.param]


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_wider_than_the_screen_and_no_bar_is_left(name: str, seen: Seen) -> None:
    shown = seen[name]
    assert shown.status == (130 if name == "interrupted" else 2 if name in ERRORS else 0)
    lines = shown.lines()
    assert any(lines)
    assert not [line for line in lines if len(line) > shown.columns]
    assert not [line for line in lines if "━" in line or "─" in line or "steps/s" in line]
    assert shown.screen() == [line for line in lines if line][-len(shown.screen()) :]


def test_the_bar_shows_the_time_left_of_all_epochs(seen: Seen) -> None:
    raw = seen["interrupted"].raw.decode()
    bars = re.findall(r"\repoch (\d)/4  ━*─* +(\d+)%  (\d+:\d\d) left", raw)
    assert bars
    shares = [int(share) for _, share, _ in bars]
    assert shares == sorted(shares)  # it does not begin again with an epoch
    assert {epoch for epoch, _, _ in bars} >= {"2"}
    assert all(25 <= int(share) <= 50 for epoch, share, _ in bars if epoch == "2")


def test_the_epochs_stand_in_columns_under_a_heading(seen: Seen) -> None:
    lines = seen["train with a test"].lines()
    (first,) = [place for place, line in enumerate(lines) if line.startswith("epoch")]
    heading, rows = lines[first], lines[first + 1 : first + 13]
    assert [row.split()[0] for row in rows] == [f"{number}/12" for number in range(1, 13)]
    ends = [
        match.end() for match in re.finditer(r"train loss|valid loss|accuracy|seconds", heading)
    ]
    for row in rows:
        assert [match.end() for match in re.finditer(r"\S+", row)][1:] == ends
    (heading,) = [x for x in seen["no validation"].lines() if x.startswith("epoch")]
    assert "valid" not in heading


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("train", r"validation accuracy \d+\.\d\d% \(\d+ of 180\), epoch 2"),
        ("resume", r"training accuracy \d+\.\d\d% \(\d+ of 1,438\), epoch 2"),
        ("train with a test", r"test accuracy \d+\.\d\d% \(\d+ of 359\), 95% interval .*"),
        ("show a run", r"validation accuracy .* of 180\), epoch 2"),
        ("test", r"test accuracy .* of 359\), 95% interval .*"),
        ("full test", r"test accuracy .* of 359\), 95% interval .*"),
        ("test again", r"test accuracy .* of 359\), 95% interval .*"),
    ],
)
def test_the_result_is_among_the_last_two_lines_bold_and_green(
    name: str, result: str, seen: Seen
) -> None:
    found = [line for line in seen[name].screen()[-2:] if re.fullmatch(result, line)]
    assert len(found) == 1, seen[name].screen()[-3:]
    assert seen[name].styles(found[0]) == {(True, "green")}


def test_a_wide_table_leaves_out_columns_on_a_narrow_terminal_and_has_all_on_a_wide_one(
    seen: Seen,
) -> None:
    shown = seen["show a recipe"]
    lines = shown.lines()
    place = next(i for i, line in enumerate(lines) if line.startswith("layer "))
    wide = shown.columns == 200
    assert ("16·(3·3·3 + 1)" in "\n".join(lines)) == wide
    assert ("size" in lines[place].split()) == wide
    table = lines[place : place + 21]
    assert table[-1].split()[0] == "all"
    assert table[-1].split()[-1] == "2,932,344"
    # The last column is aligned to the right, so no row was wrapped.
    assert {len(row) for row in table if row[-1:].isdigit() and "," in row[-9:]} == {len(table[0])}


def test_what_was_changed_stands_beside_what_a_recipe_says_of_itself(seen: Seen) -> None:
    text = "\n".join(seen["train with a test"].lines())
    assert "changed: train.epochs 40 → 12" in text
    assert "This run cannot be compared with that: changed: train.epochs 40 → 12." in (
        " ".join(text.split())
    )
    assert "changed" not in "\n".join(seen["show a recipe"].lines())


def test_the_test_is_short_and_its_tables_complete_on_request(seen: Seen) -> None:
    short, full = seen["test"].lines(), seen["full test"].lines()
    assert "stored result of" in "\n".join(short)
    assert any(line.startswith("weakest classes") for line in short)
    assert not any("predicted →" in line for line in short)
    assert any("predicted →" in line for line in full)
    assert sum(bool(re.match(r"\d +\d+\.\d\d%", line)) for line in full) == 10
    assert re.search(
        r"opened its test split \d times", " ".join(" ".join(seen["test again"].lines()).split())
    )


def test_fields_flow_in_their_own_column(seen: Seen) -> None:
    lines = seen["fields"].lines()
    place = next(i for i, line in enumerate(lines) if line.startswith("name "))
    start = re.match(r"name +", lines[place])
    assert start
    inside = [line for line in lines if line.startswith(" ")]
    assert all(line[: start.end()].isspace() for line in inside)
    assert bool(inside) == (seen["fields"].columns == 80)


def test_ctrl_c_leaves_the_way_to_resume_and_no_bar(seen: Seen) -> None:
    lines = [line for line in seen["interrupted"].screen() if line]
    assert lines[-1] == "Resume with: hydrofoil resume runs/digits-4"
    assert lines[-2].startswith("stopped after 1 of 4 epochs")


def test_colors_are_for_those_who_want_them(seen: Seen) -> None:
    assert "test accuracy" in seen["no color"].screen()[-1]
    assert b"\x1b" not in seen["no color"].raw
    assert b"\x1b[1;32m" in seen["test"].raw
