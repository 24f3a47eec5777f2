"""The session API: what hf.train, resume, prove, test and compare do, and what observers see."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import hydrofoil as hf
from hydrofoil.observe.recorder import Recorder
from hydrofoil.session.compare import Completed
from hydrofoil.train.executors.eager import Eager
from tests.resume_steps import command, fingerprint

QUICK = ["train.epochs=3", "train.execute=eager", "train.log_every=10"]


class Witness(hf.Observer):
    """Writes down every call, and may raise or act in one of them."""

    def __init__(self, **acts: Any) -> None:
        self.calls: list[str] = []
        self.acts, self.last = acts, hf.Ended
        self.numbers: list[int] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.acts:
            self.acts[name]()

    def prepared(self, start: hf.Start) -> None:
        self.start = start
        self._called("prepared")

    def steps(self, progress: hf.Progress) -> None:
        self._called("steps")

    def epoch(self, epoch: hf.Epoch) -> None:
        self.numbers.append(epoch.number)
        self._called("epoch")

    def ended(self, end: hf.Ended) -> None:
        self.end = end
        self._called("ended")


def fail() -> None:
    raise RuntimeError("an observer's own bug")


def test_a_run_from_python_is_the_run_of_the_command_line_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = hf.train("digits", QUICK, run="a", test=True)
    assert capfd.readouterr() == ("", "")
    assert command("train", "digits", *QUICK, "--run", "b", "--test")[0] == 0
    assert fingerprint(run.path) == fingerprint("b")
    names = [{path.name for path in Path(run).rglob("[!.]*")} for run in "ab"]
    assert names[0] ^ names[1] <= {"previous.safetensors"}  # of a slow epoch
    assert names[0] >= {"test.json", "answers.npz", "confusion.png", "best.safetensors"}


def test_resume_test_prove_and_compare_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    run = hf.train("digits", QUICK, seed=3, run="a")
    assert not hf.prove(run).differing
    assert hf.resume(run, epochs=4).recipe.train.epochs == 4
    hf.test(run)
    hf.test("a", again=True)
    assert hf.Run.open("a").log.times_tested() == 2
    seen: list[Completed] = []
    fields = [*QUICK, "b.optimizer.lr=0.001"]
    first = hf.compare("digits", "digits", fields, seeds=2, completed=seen.append)
    assert [(one.side, one.run.recipe.train.seed, one.done) for one in seen] == [
        (side, seed, "trained") for seed in (0, 1) for side in "AB"
    ]
    seen.clear()
    again = hf.compare("digits", "digits", fields, seeds=2, completed=seen.append)
    assert {one.done for one in seen} == {"ready"}
    assert first.difference == again.difference
    assert capfd.readouterr() == ("", "")


def test_observers_see_the_training_in_order() -> None:
    witness = Witness()
    run = hf.train("digits", QUICK, observers=[witness])
    assert witness.calls[0] == "prepared"
    assert witness.calls[-1] == "ended"
    assert witness.numbers == [1, 2, 3]
    assert witness.calls.count("ended") == witness.calls.count("prepared") == 1
    assert witness.start.run.path == witness.end.run.path == run.path
    assert witness.end.error is None
    assert witness.end.best_epoch == 3
    assert len(witness.end.save_seconds) >= 1
    middle = witness.calls[1:-1]
    assert set(middle[: middle.index("epoch")]) == {"steps"}


def test_a_resumed_training_tells_its_observers_where_it_starts() -> None:
    run = hf.train("digits", QUICK)
    witness = Witness()
    hf.resume(run, epochs=5, observers=[witness])
    assert witness.start.resumed
    assert any("5" in note for note in witness.start.notes)
    assert witness.numbers == [4, 5]


@pytest.mark.parametrize("where", ["prepared", "steps", "epoch", "ended"])
def test_an_observer_that_fails_ends_the_training_and_loses_nothing(where: str) -> None:
    broken, other = Witness(**{where: fail}), Witness()
    with pytest.raises(RuntimeError, match="own bug"):
        hf.train("digits", QUICK, run="a", observers=[broken, other])
    assert isinstance(other.end.error, RuntimeError)
    straight = hf.train("digits", QUICK, run="b")
    resumed = hf.resume("a")
    assert fingerprint(resumed.path) == fingerprint(straight.path)
    hf.resume("a")  # its lock is free


def test_ctrl_c_raises_stopped_with_the_run_which_resumes_bit_identically() -> None:
    interrupt = Witness(epoch=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(hf.Stopped) as caught:
        hf.train("digits", QUICK, run="a", observers=[interrupt])
    stopped = caught.value
    assert isinstance(stopped, KeyboardInterrupt)
    assert stopped.run is not None
    assert stopped.run.path == Path("a")
    assert str(stopped) == "stopped after 1 of 3 epochs. Resume with hydrofoil.resume('a')."
    assert interrupt.end.error is stopped
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    hf.resume(stopped.run)
    hf.train("digits", QUICK, run="b")
    assert fingerprint("a") == fingerprint("b")


def test_the_second_ctrl_c_interrupts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Eager.train_steps
    sent = list[int]()

    def endless(self: Any, *arguments: Any) -> None:
        steps(self, *arguments)
        while len(sent) < 1000:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Eager, "train_steps", endless)
        with pytest.raises(hf.Stopped) as caught:
            hf.train("digits", QUICK, run="a")
    assert len(sent) == 2
    assert caught.value.run is not None
    hf.resume("a")
    hf.train("digits", QUICK, run="b")
    assert fingerprint("a") == fingerprint("b")


def test_a_thread_may_train() -> None:
    runs: list[hf.Run] = []
    thread = threading.Thread(target=lambda: runs.append(hf.train("digits", QUICK)))
    thread.start()
    thread.join()
    assert len(runs[0].epochs()) == 3


def test_given_images_and_split_are_the_ones_that_are_used() -> None:
    pictures = hf.load("digits")
    split = hf.draw_split(pictures, valid=0.3, test=0.3, seed=9)
    run = hf.train("digits", QUICK, pictures=pictures, split=split)
    assert torch.equal(run.split().train, split.train)
    train = run.epochs()[0].train
    assert train.count == len(split.train)
    other = hf.draw_split(hf.load("mnist"), valid=0.3)
    with pytest.raises(hf.HydrofoilError, match="not the images"):
        hf.train("digits", QUICK, pictures=pictures, split=other, run="b")
    assert not Path("b").exists()


def test_a_recipe_as_a_value_can_be_overridden() -> None:
    recipe = hf.read_recipe("digits", QUICK)
    run = hf.train(recipe, ["optimizer.lr=0.5", "train.epochs=1"], seed=5)
    assert (run.recipe.optimizer.lr, run.recipe.train.epochs) == (0.5, 1)
    assert run.recipe.train.seed == 5
    with pytest.raises(hf.HydrofoilError, match="optimizer"):
        hf.train(recipe, ["optimizer.rate=0.5"])


def test_a_test_that_cannot_be_made_is_refused_before_training() -> None:
    with pytest.raises(hf.HydrofoilError, match="no test split"):
        hf.train("digits", ["data.test=0"], run="a", test=True)
    assert not Path("a").exists()


def test_the_callers_number_of_threads_is_restored() -> None:
    torch.set_num_threads(2)
    hf.train("digits", QUICK)
    assert torch.get_num_threads() == 2


def test_a_signal_in_the_middle_of_a_save_is_heard_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = Recorder._save

    def signalled(self: Recorder, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, *arguments)

    monkeypatch.setattr(Recorder, "_save", signalled)
    with pytest.raises(hf.Stopped) as caught:
        hf.train("digits", QUICK, run="a")
    assert caught.value.number == signal.SIGTERM
    assert len(hf.Run.open("a").epochs()) == 3


def test_functions_keep_their_names_whatever_was_imported_before() -> None:

    assert callable(hf.train)
    assert callable(hf.compare)
    from hydrofoil.train import loop

    assert loop.fit is hf.fit
