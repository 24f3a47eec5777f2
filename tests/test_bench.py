"""The benchmark's own parts: figures, tables, caches, cores. No time is asserted."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
import scaling
import torch
import tutorials

import hydrofoil as hf
from hydrofoil.cli import comparing
from hydrofoil.cli.main import main
from tests.conftest import REAL_RECIPES

JOB = tutorials.Job(
    seconds=10.0, training_seconds=8.0, train_seconds=6.0, peak_megabytes=500.0, accuracy=0.5
)
SETTINGS = tutorials.Settings(["mnist-cnn"], "data", [], 2, 1.0, False, "", None)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def row(jobs: tutorials.Jobs) -> dict[str, Any]:
    """Return a recipe's results as `compare` makes them, of given jobs."""
    found = tutorials.figures(jobs, steps=100)
    found["seconds_a_step"]["floor"] = 0.0006
    found["peak_megabytes"]["bound"] = 700.0
    return {"recipe": "cifar10-lenet-linear", "fraction": 1.0, **found}


def test_ratios_are_of_the_same_round_and_a_failed_job_costs_its_round_alone() -> None:
    jobs = {
        "literal": [replace(JOB, seconds=s) for s in (120.0, 100.0, 80.0)],
        "cold": [replace(JOB, seconds=s) for s in (12.0, 20.0, 10.0)],
        "warm": [replace(JOB, seconds=6.0), None, replace(JOB, seconds=5.0)],
    }
    found = tutorials.figures(jobs, steps=100)
    assert found["ratio_cold"] == {"median": 8.0, "range": [5.0, 10.0], "n": 3}
    assert found["ratio_warm"] == {"median": 18.0, "range": [16.0, 20.0], "n": 2}
    assert found["ratio_training"]["median"] == 1.0
    assert found["seconds"]["warm"]["median"] == 5.5
    assert found["seconds_a_step"]["hydrofoil"]["median"] == pytest.approx(0.06)


def test_the_peak_is_the_largest_of_all_jobs() -> None:
    jobs = {
        "literal": [JOB],
        "cold": [replace(JOB, peak_megabytes=900.0)],
        "warm": [replace(JOB, peak_megabytes=600.0)],
    }
    assert tutorials.figures(jobs, 1)["peak_megabytes"] == {"literal": 500.0, "hydrofoil": 900.0}


def test_geometric_means_are_over_the_recipes_that_have_a_ratio() -> None:
    ten, forty, none = ({"median": m, "n": n} for m, n in ((10.0, 3), (40.0, 3), (None, 0)))
    results = [
        {"ratio_warm": ten, "ratio_cold": ten, "ratio_training": none},
        {"ratio_warm": forty, "ratio_cold": none, "ratio_training": none},
    ]
    means = tutorials.geometric_means(results)
    assert means["ratio_warm"] == pytest.approx(20)
    assert means["ratio_cold"] == pytest.approx(10)
    assert means["ratio_training"] is None


@pytest.mark.parametrize("failed", [False, True])
def test_a_row_stands_under_its_heads_and_fits_the_screen(failed: bool) -> None:
    slow = replace(JOB, seconds=4321.0, train_seconds=2.0, peak_megabytes=1234.0, accuracy=0.65)
    done = {"literal": [slow], "cold": [JOB], "warm": [JOB]}
    printed = tutorials.line(row({side: [None] for side in done} if failed else done))
    assert len(printed) == len(tutorials.COLUMNS) == len(tutorials.GROUPS) <= 140
    numbers, heads = printed[20:], tutorials.COLUMNS[20:]
    assert [m.end() for m in re.finditer(r"\S+", numbers)] == [
        m.end() for m in re.finditer(r"\S+", heads)
    ]
    assert (numbers.split().count("–") == 0) != failed


def test_orders_rotate_with_cold_before_warm() -> None:
    assert len(set(tutorials.ORDERS)) == 3
    for order in tutorials.ORDERS:
        assert sorted(order) == sorted(tutorials.SIDES)
        assert order.index("cold") < order.index("warm")
    assert {order.index("literal") for order in tutorials.ORDERS} == {0, 1, 2}


def test_cold_and_warm_share_a_rounds_caches_which_begin_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, Path, list[Path]]] = []

    def literal(*_: object) -> tutorials.Job:
        seen.append(("literal", Path(), []))
        return JOB

    def ours(_name: str, _epochs: int, _seed: int, _s: object, caches: Path, _k: object) -> Any:
        seen.append(("ours", caches, list(caches.iterdir())))
        (caches / "built").touch()
        return JOB

    monkeypatch.setattr(tutorials, "literal", literal)
    monkeypatch.setattr(tutorials, "ours", ours)
    for number in range(3):
        seen.clear()
        found = tutorials.play("mnist-cnn", 1, number, SETTINGS, print)
        assert all(found.values())
        (_, first, before), (_, second, after) = [one for one in seen if one[0] == "ours"]
        assert first == second
        assert before == []
        assert [path.name for path in after] == ["built"]
        assert not first.exists()


def test_a_side_that_fails_is_told_and_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> tutorials.Job:
        raise children.SideError("it ended with 1")

    said: list[str] = []
    monkeypatch.setattr(tutorials, "literal", lambda *_: JOB)
    monkeypatch.setattr(tutorials, "ours", fail)
    found = tutorials.play("mnist-cnn", 1, 0, SETTINGS, said.append)
    assert found == {"literal": JOB, "cold": None, "warm": None}
    assert said == ["mnist-cnn, round 1: cold failed: it ended with 1"]


def test_a_side_with_caches_of_its_own_sees_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "mine")
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", f"some{os.pathsep}{os.sep}other")
    plain = children.environment("data")
    assert plain["XDG_CACHE_HOME"] == "mine"
    assert "PYTHONPYCACHEPREFIX" not in plain
    assert Path(plain["HYDROFOIL_DATA"]).is_absolute()  # sides run in folders of their own
    paths = plain["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(children.REPOSITORY), str(Path("some").absolute()), f"{os.sep}other"]
    for bytecode in (False, True):
        cold = children.environment("data", caches=tmp_path, bytecode=bytecode)
        kept = [name for name, value in cold.items() if value.startswith(str(tmp_path / ""))]
        assert "mine" not in cold.values()
        assert {"XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"} <= set(kept)
        assert ("PYTHONPYCACHEPREFIX" in kept) == bytecode
        assert "PYTHONDONTWRITEBYTECODE" not in cold


def test_threads_set_by_hand_do_not_reach_a_side_on_chosen_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert children.environment("data")["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in children.environment("data", [0])


def test_cores_are_counted_off_those_that_are_there() -> None:
    assert children.pick_cores(None) == []
    assert children.pick_cores(2, [1, 3, 5]) == [1, 3]
    for count in (0, -1, 4):
        with pytest.raises(ValueError, match=f"--cores {count}"):
            children.pick_cores(count, [1, 3, 5])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone binds to cores")
def test_a_side_runs_on_the_cores_given() -> None:
    core = max(os.sched_getaffinity(0))
    code = "import os; print(os.sched_getaffinity(0))"
    assert children.run(python(code), "data", cores=[core])[2].strip() == str({core})


def test_a_sides_peak_is_its_own_or_a_descendants_and_never_ours() -> None:
    ours = np.ones(
        300 * 2**20, np.uint8
    )  # which Linux would count into a process started from here
    assert ours.any()
    grow = "x = bytearray(b'x') * (200 * 2**20)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grow!r}])"
    small, grown, above = (tutorials.run(python(c), "data")[1] for c in ("pass", grow, parent))
    assert small < 100
    assert 200 < grown < 300
    assert 200 < above < 300


def test_a_side_that_ends_badly_is_quoted() -> None:
    with pytest.raises(SystemExit, match=r"ended with 3\nwhat went wrong"):
        children.run(
            python("import sys; print('what went wrong', file=sys.stderr); sys.exit(3)"), ""
        )


def test_results_are_written_after_each_recipe_and_failures_end_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[int] = []

    def fail_the_second(name: str, *_: object) -> tutorials.Job:
        path = tmp_path / "found.json"
        written.append(len(json.loads(path.read_text())["results"]) if path.exists() else 0)
        if name == "cifar10-lenet":
            raise children.SideError("no")
        return JOB

    measured = {"gflops": 100.0, "threads": 4, "import_torch_megabytes": 300.0}
    measured |= {"import_torch_seconds": 2.0, "bytecode_seconds": 3.0}
    monkeypatch.setattr(tutorials, "probe", lambda *_: measured)
    monkeypatch.setattr(tutorials, "literal", fail_the_second)
    monkeypatch.setattr(tutorials, "ours", lambda *_: replace(JOB, seconds=2.0))
    names = ["mnist-cnn", "cifar10-lenet", "mnist-mlp"]
    given = [*names, "--repeats", "1", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["tutorials.py", *given])
    with pytest.raises(SystemExit) as left:
        tutorials.main()
    assert left.value.code == 1
    assert written == [0, 1, 2]
    document = json.loads((tmp_path / "found.json").read_text())
    assert [one["recipe"] for one in document["results"]] == names
    assert [one["ratio_warm"]["n"] for one in document["results"]] == [1, 0, 1]
    assert document["geometric_means"]["ratio_warm"] == pytest.approx(5)
    output, errors = capsys.readouterr()
    assert "literal ÷ hydrofoil 5.0 warm, 5.0 cold, training alone 1.0." in output
    assert "QUICK LOOK" not in output
    assert errors == "cifar10-lenet, round 1: literal failed: no\n"
    assert all(len(text) <= 140 for text in output.splitlines())


@pytest.mark.slow
def test_a_small_whole_benchmark_keeps_both_sides_logs(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tutorials.parse(
        ["mnist-cnn", "--root", str(data_root), "--repeats", "1", "--fraction", "0.2",
         "--out", str(tmp_path / "record"), "--json", str(tmp_path / "found")]
    )  # fmt: skip
    document = tutorials.bench(settings)
    assert json.loads((tmp_path / "found").read_text()) == json.loads(json.dumps(document))
    printed = capsys.readouterr().out
    assert "QUICK LOOK: 0.2 of the epochs" in printed
    assert "Python bytecode" not in printed
    assert all(len(text) <= 140 for text in printed.splitlines())
    (one,) = document["results"]
    assert (one["epochs"], one["n"], one["ratio_warm"]["n"]) == (1, 1, 1)
    kept = {str(path.relative_to(tmp_path / "record")) for path in tmp_path.rglob("record/**/*.*")}
    at = "mnist-cnn/round-1"
    assert kept == {"summary.json", f"{at}/literal.json"} | {
        f"{at}/{side}/{name}" for side in ("cold", "warm") for name in tutorials.KEPT
    }
    for name in kept:  # nothing of this machine's but what was measured on
        text = (tmp_path / "record" / name).read_text()
        assert str(tmp_path) not in text
        assert str(Path.home()) not in text
        assert str(data_root) not in text


def test_what_cannot_be_measured_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "summary.json").touch()
    cases = [
        (["zebra"], "'zebra' is no tutorial's recipe"),
        (["--repeats", "0"], "--repeats"),
        (["--fraction", "0"], "--fraction"),
        (["--fraction", "nan"], "--fraction"),
        (["--out", str(tmp_path / "full")], "not empty"),
    ]
    for arguments, part in cases:
        with pytest.raises(ValueError, match=part):
            tutorials.parse(arguments)
    assert tutorials.parse([]).recipes == REAL_RECIPES == tutorials.RECIPES


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_the_steps_that_shapes_ask_for_are_the_splits_own(name: str) -> None:
    recipe = hf.read_recipe(name)
    published, test = tutorials.PICTURES[recipe.data.source]
    labels = np.arange(published + test) % 10
    pictures = hf.Pictures(
        torch.zeros(published + test, 1, 1, 1, dtype=torch.uint8),
        torch.from_numpy(labels), scaling.CLASSES, "made", test,
    )  # fmt: skip
    split = hf.draw_split(pictures, **recipe.split_options())
    steps = -(-len(split.train) // recipe.train.batch_size)
    assert tutorials.shapes(name)["steps_an_epoch"] == steps


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────


def test_the_verb_says_where_the_benchmark_is_when_it_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comparing, "REPOSITORY", tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["bench"])
    assert left.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert "Clone the repository" in errors
    assert len(errors.strip().splitlines()) == 2


def test_the_verb_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def remember(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", remember)
    given = ["mnist-cnn", "mnist-mlp", "--fraction", "0.5", "--repeats", "2", "--cores", "1"]
    with pytest.raises(SystemExit) as left:
        main(["bench", *given, "--data-root", "data", "--json"])
    assert left.value.code == 1
    ((_, script, *handed),) = commands
    assert Path(script) == Path(tutorials.__file__)
    settings = tutorials.parse(handed)
    assert settings.recipes == ["mnist-cnn", "mnist-mlp"]
    assert (settings.fraction, settings.repeats, len(settings.cores)) == (0.5, 2, 1)
    assert settings.json == "-"
    assert Path(settings.root).name == "data"


# ── scaling ──────────────────────────────────────────────────────────────────────────────────────


def test_least_squares_agrees_with_numpy() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    slope, intercept, fit = scaling.least_squares(list(x), list(y))
    assert (slope, intercept) == pytest.approx(tuple(np.polyfit(x, y, 1)))
    assert fit == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


def test_a_sample_reaches_over_the_whole_set_and_differs_by_round() -> None:
    pictures = scaling.make_pictures(25_000)
    assert len(pictures) == 25_000
    assert bool((pictures.pictures_NCHW[10_000:20_000] == pictures.pictures_NCHW[:10_000]).all())
    one, two = (scaling.sample(pictures, 1000, number).train for number in (1, 2))
    assert len(set(one.tolist())) == 1000
    assert int(one[-1]) > 24_000
    assert one.tolist() != two.tolist()


def test_settings_differ_in_what_they_are_named_after() -> None:
    assert [row.pictures for row in scaling.settings("size")][-1] == 1_000_000
    assert [row.read().train.batch_size for row in scaling.settings("batch")][-1] == 512
    assert scaling.settings("depth")[-1].read().model.hidden == (128,) * 8
    for axis in ("batch", "width", "depth"):
        costs = [row.multiply_adds() for row in scaling.settings(axis)]
        assert costs == sorted(set(costs))
    assert len({row.multiply_adds() for row in scaling.settings("size")}) == 1


def test_a_scaling_table_has_a_row_a_setting_and_its_fits() -> None:
    rows = scaling.settings("width")[:2]
    seconds = scaling.measure(rows, steps=2, rounds=2)
    assert [len(some) for some in seconds] == [2, 2]
    assert all(one > 0 for some in seconds for one in some)
    proportional = [[row.multiply_adds() * 1e-9] * 3 for row in scaling.settings("batch")]
    found = scaling.result("batch", scaling.settings("batch"), proportional)
    assert found["log_slope"] == pytest.approx(1)
    assert found["log_r2"] == found["line_r2"] == pytest.approx(1)
    printed = scaling.lines(found)
    assert len(printed) == 1 + len(proportional) + 2
    assert {len(text) for text in printed[:-2]} == {len(printed[0])}
    assert "slope 1.000" in printed[-2]
