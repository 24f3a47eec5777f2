"""Layout for a terminal: wrapping, tables, widths, colors and characters."""

import io
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyte.screens import wcwidth

from hydrofoil import terminal
from hydrofoil.terminal import colored, columns, length, prepare_stream, shortened, table, wrap

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=12), min_size=1, max_size=40)


def screen_columns(text: str) -> int:
    """Return what a terminal emulator takes for a line."""
    return sum(max(0, wcwidth(character)) for character in text)


@given(words=WORDS, width=st.integers(24, 120), indent=st.integers(0, 8))
def test_wrapped_prose_fits_and_keeps_every_word(words: list[str], width: int, indent: int) -> None:
    line = " " * indent + " ".join(words)
    wrapped = wrap(line, width)
    assert all(len(part) <= width for part in wrapped.split("\n"))
    assert wrapped.split() == words
    assert wrap(wrapped, width) == wrapped


@given(words=WORDS, width=st.integers(24, 120))
def test_no_line_is_wrapped_earlier_than_it_must_be(words: list[str], width: int) -> None:
    lines = wrap(" ".join(words), width).split("\n")
    for line, following in pairwise(lines):
        assert len(line) + 1 + len(following.split()[0]) > width


@pytest.mark.parametrize(
    ("line", "unbroken"),
    [
        ("not tested yet: hydrofoil test 'my run' --data-root 'my data'",
         "hydrofoil test 'my run' --data-root 'my data'"),
        ("saved: my run/figures/a b.png", "my run/figures/a b.png"),
        ("my run/a file.png: not an image: expected PNG, JPEG or another", "my run/a file.png"),
        ("the calibration error from 29.4 to 15.0 points, prepared in 0.26 s", "0.26 s"),
        ("unknown class 'aquarium fish' of cifar100: try another one", "'aquarium fish'"),
        ("The figures are in runs/a/figures/a.png and elsewhere", "runs/a/figures/a.png"),
    ],
)  # fmt: skip
def test_a_path_or_command_is_never_broken(line: str, unbroken: str) -> None:
    for width in range(24, 80):
        wrapped = wrap(line, width)
        assert unbroken in wrapped
        assert " ".join(wrapped.split()) == " ".join(line.split())


def test_apostrophes_do_not_make_prose_unbreakable() -> None:
    text = "the recipe's learning rate and the user's own network and its classes' names " * 3
    assert max(map(len, wrap(text, 40).split("\n"))) <= 40


@given(st.text(st.sampled_from("ab猫カé\u0301\u2068א\u2069 😀"), max_size=30))
def test_columns_are_counted_as_a_terminal_takes_them(text: str) -> None:
    assert length(text) == screen_columns(text)
    assert length(shortened(text, 10)) <= 10


@given(
    rows=st.lists(st.tuples(*[st.text("abc猫", max_size=14)] * 4), min_size=1, max_size=5),
    width=st.integers(60, 90),
)
def test_a_table_fits_its_width_and_its_columns_are_aligned(
    rows: list[tuple[str, ...]], width: int
) -> None:
    lines = table(rows, 4, width=width, optional=(3, 2)).split("\n")
    assert len(lines) == len(rows)
    assert all(screen_columns(line) <= width for line in lines)


def test_a_table_leaves_out_columns_only_where_they_do_not_fit() -> None:
    rows = [["layer", "arithmetic", "size"], ["conv1", "32 - 5 + 1", "28"]]
    assert "32 - 5 + 1" in table(rows, 2, width=23, optional=[1])
    assert table(rows, 2, width=22, optional=[1]) == "layer  size\nconv1    28"
    assert "32 - 5 + 1" in table(rows, 2, width=None, optional=[1])


def test_the_last_column_of_a_table_flows() -> None:
    words = "one two three four five six seven eight nine ten " * 4
    lines = table([["name", words]], 2, width=30, flows=True).split("\n")
    assert lines[0].startswith("name  one two")
    assert all(line.startswith("      ") and len(line) <= 30 for line in lines[1:])
    assert " ".join(" ".join(lines).split()) == f"name {words.strip()}"
    assert table([["name", words.strip()]], 2, width=None, flows=True) == f"name  {words.strip()}"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_has_a_width_and_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert columns(io.StringIO()) is None
    assert columns(Screen()) == 80
    assert colored("98%", "bold", stream=io.StringIO()) == "98%"
    assert colored("98%", "bold", "green", stream=Screen()) == "\x1b[1;32m98%\x1b[0m"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_the_user_can_refuse_colors(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert colored("98%", "bold", stream=Screen()) == "98%"


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "cp850"])
def test_a_legacy_console_gets_similar_characters(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    prepare_stream(stream)
    stream.write("convolution 3×3, 16 → 32: 97.2–99.6% \u2068א\u2069 猫 … ━")
    stream.flush()
    text = raw.getvalue().decode(encoding)
    assert re.match(r"convolution 3[×x]3, 16 > 32: 97\.2[–-]99\.6% \? \? [~…] [━=]$", text), text


def test_every_replacement_is_as_wide_as_its_character() -> None:
    for character, plain in terminal.PLAIN.items():
        assert length(chr(character)) == len(str(plain))
