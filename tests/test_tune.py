"""A search: trials are run folders, the test split stays closed, and nothing is lost by a kill."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import hydrofoil as hf
from hydrofoil import HydrofoilError, Run, Tuning, read_recipe
from hydrofoil.run.events import Tested
from hydrofoil.session import tune as session
from hydrofoil.tune.plan import Limits
from hydrofoil.tune.study import Study
from tests.black_box import TINY, Forks, end_of
from tests.conftest import Cli

QUICK = [*TINY, "train.epochs=6", "train.execute=eager", "train=400"]
SPACE = ["lr=log:0.001..0.3", "dropout=0..0.5"]


def search(folder: str, *more: str, **options: Any) -> Tuning:
    name, *fixed = QUICK
    options = {"trials": 6, "seeds": 0, "study": folder} | options
    return hf.tune(name, SPACE, [*fixed, *more], **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Generator[Tuning]:
    """A finished search with its comparison, in the folder `study`; not to be changed."""
    folder = tmp_path_factory.mktemp("tune")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield search(str(folder / "study"), "lr=0.001", seeds=2, trials=8)


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks() as server:
        yield server


def same(a: Tuning, b: Tuning) -> bool:
    """Tell whether two searches chose and measured the same."""

    def told(tuning: Tuning) -> list[Any]:
        return [(t.number, t.state, t.values, t.value, t.epochs) for t in tuning.trials]

    return told(a) == told(b)


def test_trials_are_run_folders_with_their_values(found: Tuning, cli: Cli) -> None:
    assert len(found.trials) == 8
    for trial in found.trials:
        run = Run.open(trial.run)
        assert run.recipe.optimizer.lr == trial.values["optimizer.lr"]
        assert run.recipe.model.dropout == trial.values["model.dropout"]  # type: ignore[union-attr]
        assert len(run.epochs()) == trial.epochs
        last = run.epochs()[-1]
        best = min(epoch.valid.loss for epoch in run.epochs() if epoch.valid)
        assert (trial.value, trial.epochs) == (best, last.number)
    status, said, _ = cli("show", found.trials[0].run)
    assert status == 0
    assert "digits" in said


def test_the_first_trial_has_the_values_of_the_recipe(found: Tuning) -> None:
    assert found.trials[0].values == {"optimizer.lr": 0.001, "model.dropout": 0.2}
    assert found.default == found.trials[0]


def test_the_winner_is_the_complete_trial_with_the_lowest_loss(found: Tuning) -> None:
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert all(trial.epochs == 6 for trial in complete)
    assert found.best == min(complete, key=lambda trial: trial.value or 0)
    assert found.winner is not None
    assert found.winner.optimizer.lr == found.best.values["optimizer.lr"]  # type: ignore[union-attr]


def test_bad_trials_are_stopped_early_by_what_others_had_reached(found: Tuning) -> None:
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.epochs < 6
        at = [Run.open(one.run).epochs() for one in found.trials if one.epochs >= trial.epochs]
        losses = [min(e.valid.loss for e in epochs[: trial.epochs] if e.valid) for epochs in at]
        assert any(loss < (trial.value or 0) for loss in losses)


def test_the_search_opens_no_test_split(found: Tuning) -> None:
    runs = [Run.open(path.parent) for path in Path(found.study).rglob("recipe.toml")]
    assert len(runs) == 8 + 4
    for run in runs:
        assert not run.log.all(Tested)
        assert run.results.test() is None
        assert not (run.path / "answers.npz").exists()


def test_all_trials_have_the_split_of_the_recipe_whose_test_images_never_train(
    found: Tuning,
) -> None:
    first = Run.open(found.trials[0].run).split()
    test = set(first.test.tolist())
    assert len(test) == 359
    for trial in found.trials:
        split = Run.open(trial.run).split()
        assert split.test.tolist() == first.test.tolist()
        assert split.valid.tolist() == first.valid.tolist()
        assert not test & {*split.train.tolist(), *split.valid.tolist()}


def test_the_winner_is_compared_on_seeds_that_the_search_has_not_used(found: Tuning) -> None:
    comparison = found.comparison
    assert comparison is not None
    assert comparison.part == "valid"
    assert comparison.a.seeds == comparison.b.seeds == (1, 2)
    assert {Run.open(trial.run).recipe.train.seed for trial in found.trials} == {0}
    assert comparison.paired
    for path, accuracy in zip(comparison.b.runs, comparison.b.accuracies, strict=True):
        best = [epoch for epoch in Run.open(path).epochs() if epoch.best][-1]
        assert best.valid is not None
        assert accuracy == pytest.approx(best.valid.accuracy)


def test_only_a_comparison_on_the_test_split_opens_it(found: Tuning, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(found.study, tmp_path / "study"))
    again = search(str(folder), "lr=0.001", trials=8, seeds=2, on="test")
    assert again.comparison is not None
    assert again.comparison.part == "test"
    assert again.comparison.a.pictures == 359
    opened = {
        path.parent.parent.parent.name: len(Run.open(path.parent).log.all(Tested))
        for path in folder.rglob("recipe.toml")
    }
    assert opened == {tmp_path.name: 0, "fresh": 1}


def test_the_page_and_the_files_have_what_was_found(found: Tuning) -> None:
    folder = Path(found.study)
    best = read_recipe(str(folder / "best.toml"))
    assert best == found.winner
    assert read_recipe(str(folder / "default.toml")) == found.recipe
    content = json.loads((folder / "tune.json").read_text("utf-8"))
    assert content["values"] == found.best.values  # type: ignore[union-attr]
    assert len(content["trials"]) == 8
    page = (folder / "tune.html").read_text("utf-8")
    for trial in found.trials:
        assert f'href="{Path(trial.run).name}/"' in page
        assert found.goal.shown(trial.value) in page
    assert found.comparison is not None
    assert found.comparison.verdict.sentence[1:40] in page
    assert "<script" not in page


def test_the_same_search_twice_has_the_same_trials(found: Tuning, tmp_path: Path) -> None:
    again = search(str(tmp_path / "other"), "lr=0.001", trials=8)
    assert same(again, found)
    other = search(str(tmp_path / "third"), "lr=0.001", trials=2, seed=1)
    assert other.trials[1].values != found.trials[1].values


def test_the_same_command_trains_nothing_again_and_more_trials_continue(
    found: Tuning, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(found.study, tmp_path / "study"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("last.safetensors")}
    ended: list[int] = []
    again = search(
        str(folder), "lr=0.001", trials=8, finished=lambda t, best: ended.append(t.number)
    )
    assert same(again, found)
    assert ended == []
    more = search(
        str(folder), "lr=0.001", trials=9, finished=lambda t, best: ended.append(t.number)
    )
    assert ended == [9]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert more.trials[:8] == again.trials


def test_a_folder_of_another_study_is_refused(found: Tuning, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(found.study, tmp_path / "study"))
    with pytest.raises(
        HydrofoilError, match=r"another recipe or space; it differs in train\.epochs"
    ):
        search(str(folder), "lr=0.001", "epochs=5")
    with pytest.raises(HydrofoilError, match="not a study"):
        search(found.trials[0].run)


def test_a_killed_search_ends_as_one_that_was_not_killed(forks: Forks, tmp_path: Path) -> None:
    words = ["tune", *QUICK, *SPACE, "train.save_steps=2", "--trials", "4", "--seeds", "0"]
    straight = forks.run(tmp_path, *words, "--study", "straight", "--json")
    assert straight.status == 0, straight
    process, inside = forks.start(tmp_path, *words, "--study", "killed"), 0
    for epochs in (2, 4):  # in two trials: once soon, once late
        number = 2 + epochs // 2
        log = tmp_path / "killed" / f"trial-{number:03d}" / "log.jsonl"
        wait_for(lambda: log.exists() and log.read_text().count('"epoch"') >= epochs)  # noqa: B023
        process.send(signal.SIGKILL)
        assert process.wait().status == -signal.SIGKILL
        run = Run.open(log.parent)
        inside += len(run.epochs()) < 6
        process = forks.start(tmp_path, *words, "--study", "killed")
    assert process.wait().status == 0
    again = forks.run(tmp_path, *words, "--study", "killed", "--json")
    first, second = (json.loads(told.out) for told in (straight, again))
    for a, b in zip(first["trials"], second["trials"], strict=True):
        assert end_of(tmp_path / a["run"]) == end_of(tmp_path / b["run"])
        assert [a[key] for key in ("state", "values", "value", "epochs")] == [
            b[key] for key in ("state", "values", "value", "epochs")
        ]
    assert inside, "no kill was inside a trial"


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_two_processes_share_a_study(forks: Forks, tmp_path: Path) -> None:
    words = ["tune", *QUICK, *SPACE, "--trials", "6", "--seeds", "2", "--study", "shared"]
    processes = [forks.start(tmp_path, *words) for _ in range(2)]
    told = [process.wait() for process in processes]
    assert [one.status for one in told] == [0, 0], told
    trained = [
        [line.split(":")[0] for line in one.out.splitlines() if line.startswith("trial ")]
        for one in told
    ]
    assert sorted(trained[0] + trained[1]) == [f"trial {number}" for number in range(1, 7)]
    assert len(list((tmp_path / "shared").glob("trial-*/recipe.toml"))) == 6
    verdicts = [[x for x in one.out.splitlines() if x.startswith("verdict")] for one in told]
    assert verdicts[0] == verdicts[1] != []


def test_ctrl_c_says_how_to_continue(forks: Forks, tmp_path: Path) -> None:
    words = ["tune", *QUICK, *SPACE, "--trials", "20", "--study", "stopped"]
    process = forks.start(tmp_path, *words)
    wait_for((tmp_path / "stopped" / "trial-002" / "log.jsonl").exists)
    process.send(signal.SIGINT)
    told = process.wait()
    assert told.status == 130, told
    assert "lost." in told.err
    assert f"Continue with: hydrofoil {words[0]} digits" in told.err


def test_without_validation_images_the_error_says_what_to_set() -> None:
    with pytest.raises(HydrofoilError, match=r"no validation images[\s\S]*data\.valid=0\.2"):
        search("none", "valid=0", "select=last")


def test_a_trial_that_diverges_does_not_end_the_search(tmp_path: Path) -> None:
    name, *fixed = QUICK
    ended = hf.tune(
        name, ["optimizer.lr=log:0.01..1e9"], [*fixed, "lr=0.01"], trials=4, seeds=0,
        study=tmp_path / "s",
    )  # fmt: skip
    diverged = [trial for trial in ended.trials if trial.state == "diverged"]
    assert diverged
    assert all("expected finite numbers" in trial.note for trial in diverged)


def test_values_that_do_not_fit_together_are_noted_and_the_search_goes_on(tmp_path: Path) -> None:
    name, *fixed = QUICK
    ended = hf.tune(
        name, ["nesterov=true|false", "momentum=0|0.9"], [*fixed, "momentum=0.5", "nesterov=false"],
        trials=8, seeds=0, study=tmp_path / "s",
    )  # fmt: skip
    impossible = [trial for trial in ended.trials if trial.state == "impossible"]
    assert impossible
    for trial in impossible:
        assert trial.values == {"optimizer.nesterov": True, "optimizer.momentum": 0}
        assert "expected optimizer.momentum above 0" in trial.note
        assert not Path(trial.run).exists()


def test_values_that_do_not_fit_the_images_are_noted_and_block_no_study(tmp_path: Path) -> None:
    name, *fixed = QUICK
    for trials in (2, 3):
        ended = hf.tune(
            name, ["augment.shift=0|8|9|10"], [*fixed, "epochs=1"], trials=trials, seeds=0,
            study=tmp_path / "s", prune=False,
        )  # fmt: skip
        assert len(ended.trials) == trials
    for trial in ended.trials:
        too_far = trial.values["augment.shift"] >= 8
        assert trial.state == ("impossible" if too_far else "complete")
        assert ("augment.shift" in trial.note) == too_far
    assert {trial.state for trial in ended.trials} == {"impossible", "complete"}


def test_a_trial_is_judged_by_the_averaged_weights_that_are_saved(tmp_path: Path) -> None:
    name, *fixed = QUICK
    ended = hf.tune(
        name, SPACE, [*fixed, "epochs=3", "train.average=ema", "train.ema_decay=0.9"], trials=2,
        seeds=0, study=tmp_path / "s",
    )  # fmt: skip
    for trial in ended.trials:
        epochs = Run.open(trial.run).epochs()
        averaged = [epoch.averaged.loss for epoch in epochs if epoch.averaged]
        assert trial.value == trial.loss == min(averaged)
        assert trial.value not in [epoch.valid.loss for epoch in epochs if epoch.valid]


@pytest.fixture
def ten_seconds_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each trial take 10 s by a clock that the trials set."""
    monkeypatch.setattr(Study, "elapsed", lambda self: 10.0 * len(self.trials()))
    original = Study._trial

    def slow(self: Study, frozen: Any) -> Any:
        from dataclasses import replace

        return replace(original(self, frozen), seconds=10.0)

    monkeypatch.setattr(Study, "_trial", slow)


@pytest.mark.usefixtures("ten_seconds_each")
def test_a_budget_ends_the_search_with_time_left_for_the_comparison(tmp_path: Path) -> None:
    name, *fixed = QUICK
    words = (name, SPACE, [*fixed, "epochs=1"], Limits.of(None, 100.0, 2))
    running = session.Search.begin(*words, prune=False, study=tmp_path / "s")
    running.run(lambda trial, best: None)
    # 40 s are for the four runs of the comparison; six trials of 10 s fill the rest.
    assert len(running.study.trials()) == 6
    assert running.comparison_seconds() == 40.0


@pytest.mark.usefixtures("ten_seconds_each")
def test_a_comparison_that_does_not_fit_the_budget_has_fewer_seeds(tmp_path: Path) -> None:
    ended = search(
        str(tmp_path / "s"), "lr=0.001", "epochs=1", trials=None, budget=100.0, seeds=3,
        prune=False,
    )  # fmt: skip
    # Five trials of 10 s leave 50 s, and each seed takes two runs of 10 s.
    assert len(ended.trials) == 5
    assert ended.comparison is not None
    assert ended.comparison.a.seeds == ended.comparison.b.seeds == (1, 2)
    assert "2 fresh seeds instead of 3: more do not fit the budget" in ended.notes


def test_a_journal_whose_last_line_is_cut_off_is_read(found: Tuning, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(found.study, tmp_path / "study"))
    journal = folder / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 6, "wor')
    assert same(search(str(folder), "lr=0.001", trials=8), found)
    journal.write_bytes(b"no journal\n" * 2)
    with pytest.raises(HydrofoilError, match="not a journal"):
        search(str(folder), "lr=0.001", trials=8)


def test_importance_is_that_of_the_field_that_matters(tmp_path: Path) -> None:
    name, *fixed = QUICK
    ended = hf.tune(
        name, ["lr=log:1e-6..0.1", "decay_biases=true|false"], [*fixed, "epochs=2"], trials=12,
        seeds=0, prune=False, study=tmp_path / "s",
    )  # fmt: skip
    assert ended.importance["optimizer.lr"] > 0.9
    assert sum(ended.importance.values()) < 1.001
    assert "<h3>Importance</h3>" in (tmp_path / "s" / "tune.html").read_text("utf-8")
