"""Sets that are larger than memory: orders within windows, and steps that read them.

Axes: N images, C channels, H rows, W columns.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import windows as benchmark
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import hydrofoil as hf
from hydrofoil.data.batches import BLOCK, epoch_order
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.window import Window, read_images
from hydrofoil.session.resolve import with_window
from hydrofoil.timing import CPU
from hydrofoil.train.executors import prepare
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.executors.graph import Graph
from hydrofoil.train.executors.windowed import Windowed, make_window, windowed
from hydrofoil.train.feed import order_of
from tests.conftest import Cli
from tests.fake_cuda import emulated
from tests.resume_steps import fingerprint, kept_at_each_step
from tests.sets import write_folder

SMALL = ("train.epochs=2", "train.batch_size=4", "model.name=mlp", "model.hidden=[8]")


def mapped_digits(path: Path) -> Pictures:
    """Return the digits in a file that is mapped into memory."""
    digits = hf.load("digits")
    np.save(path / "digits.npy", digits.pictures_NCHW.numpy())
    mapped_NCHW = np.load(path / "digits.npy", mmap_mode="r")
    return Pictures(mapped_NCHW, digits.labels_N, digits.classes)


# ── the order ────────────────────────────────────────────────────────────────────────────────────


@given(
    st.sets(st.integers(0, 10**6), min_size=1, max_size=400).map(sorted),
    st.integers(0, 500),
    st.integers(0, 2**40),
    st.integers(1, 1000),
)
def test_every_index_comes_once_an_epoch_whatever_the_window(
    indices: list[int], window: int, seed: int, epoch: int
) -> None:
    index_N = torch.tensor(indices)
    order_N = epoch_order(index_N, seed, epoch, window)
    assert order_N.sort().values.tolist() == indices
    assert torch.equal(order_N, epoch_order(index_N, seed, epoch, window))
    if not 0 < window < len(indices):
        assert torch.equal(order_N, epoch_order(index_N, seed, epoch))


@given(st.integers(BLOCK, 50 * BLOCK), st.integers(0, 99))
def test_a_window_is_read_in_blocks_of_neighbors(window: int, seed: int) -> None:
    order_N = epoch_order(torch.arange(3 * window), seed, 1, window)
    block = min(BLOCK, max(1, window // 1024))
    blocks = 0
    for part_N in order_N.split(window):
        ascending_N = part_N.sort().values
        blocks += 1 + int((ascending_N[1:] != ascending_N[:-1] + 1).sum())
    assert blocks <= 3 * window / block + 1 + 3  # a block may be cut by the end of a window


def test_a_window_of_a_file_that_is_sorted_by_class_has_every_class_at_its_rate() -> None:
    labels_N = torch.arange(10).repeat_interleave(20_000)
    order_N = epoch_order(torch.arange(200_000), seed=0, epoch=1, window=20_480)
    block = 20_480 // 1024
    for part_N in order_N.split(20_480)[:-1]:
        counts_K = labels_N[part_N].bincount(minlength=10).double()
        # Of 1,024 blocks, each of one class: five deviations of a binomial distribution.
        assert (counts_K - 2048).abs().max() < 5 * block * (1024 * 0.1 * 0.9) ** 0.5


def test_epochs_and_seeds_have_other_blocks_and_orders() -> None:
    index_N = torch.arange(4096)
    orders = [epoch_order(index_N, seed, epoch, 1024) for seed in (0, 1) for epoch in (1, 2)]
    windows = [set(order_N[:1024].tolist()) for order_N in orders]
    assert len({tuple(order_N.tolist()) for order_N in orders}) == 4
    assert all(len(one & other) < 512 for one in windows for other in windows if one is not other)


def test_a_balanced_epoch_has_the_same_draws_in_windows() -> None:
    labels_N = torch.arange(3).repeat_interleave(torch.tensor([100, 20, 5]))
    orders: list[Tensor] = []
    for window in (0, 32):
        recipe = hf.read_recipe("digits", balance="sampling", window=window, batch_size=8)
        orders.append(order_of(recipe, torch.arange(125), labels_N, 3))
    assert torch.equal(orders[0].sort().values, orders[1].sort().values)
    assert not torch.equal(*orders)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 99), min_size=1, max_size=50), st.integers(1, 60))
def test_images_are_read_into_the_places_of_their_indices(indices: list[int], chunk: int) -> None:
    pictures = Pictures(torch.arange(100 * 6).view(100, 1, 2, 3).to(torch.uint8), range(100))
    into_NCHW = torch.full((60, 1, 2, 3), 255, dtype=torch.uint8)
    with mock.patch("hydrofoil.data.window.CHUNK", 6 * chunk):
        read_images(pictures, torch.tensor(indices), into_NCHW)
    assert torch.equal(into_NCHW[: len(indices)], pictures.pictures_NCHW[indices])
    assert (into_NCHW[len(indices) :] == 255).all()


def test_a_window_holds_what_is_asked_for_and_what_is_expected_is_read_by_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = Pictures(torch.arange(40).view(40, 1, 1, 1).to(torch.uint8), torch.arange(40) % 4)
    readers: list[str] = []

    def read(pictures: Pictures, index_N: Tensor, into_NCHW: Tensor) -> None:
        readers.append(threading.current_thread().name)
        read_images(pictures, index_N, into_NCHW)

    monkeypatch.setattr("hydrofoil.data.window.read_images", read)
    window = Window(pictures, 5, CPU)
    address = window.held.pictures_NCHW.data_ptr()
    first_N, next_N, other_N = (
        torch.tensor([7, 3, 9]),
        torch.tensor([1, 2, 0, 4, 8]),
        torch.tensor([5]),
    )
    window.hold(first_N)
    window.expect(next_N)
    for index_N in (other_N, next_N):  # validation comes between, and nothing is read again for it
        window.hold(index_N)
        held = window.held
        assert held.pictures_NCHW.flatten()[: len(index_N)].tolist() == index_N.tolist()
        assert held.labels_N[: len(index_N)].tolist() == (index_N % 4).tolist()
    assert window.held.pictures_NCHW.data_ptr() == address
    assert ["window" in name for name in readers] == [False, True, False]


def test_an_error_of_the_reader_is_raised_where_its_images_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("hydrofoil.data.window.read_images", fail)
    window = Window(hf.load("digits"), 5, CPU)
    window.expect(torch.arange(5))
    with pytest.raises(OSError, match="the disk is gone"):
        window.hold(torch.arange(5))


# ── training ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("execute", "window", "balance"),
    [("eager", 60, "none"), ("native", 60, "none"), ("native", 0, "none"),
     ("native", 10**6, "none"),
     ("native", 60, "loss"), ("eager", 60, "sampling"), ("native", 0, "sampling")],
)  # fmt: skip
def test_training_from_a_file_is_bit_identical_to_training_in_memory(
    execute: str, window: int, balance: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {
        "epochs": 2, "data__window": window, "execute": execute, "data__valid": 0.3,
        "data__test": 0.2, "train__select": "valid.loss", "train__balance": balance,
    }  # fmt: skip
    inside = hf.train("digits", run="inside", test=True, data__resident=True, **fields)
    mapped = mapped_digits(tmp_path)
    read = hf.train(
        "digits", run="read", test=True, pictures=mapped, data__resident=False, **fields
    )
    assert fingerprint("read") == fingerprint("inside")
    assert read.results.test() is not None
    assert read.recipe.hash() == inside.recipe.hash()
    assert read.recipe.data.resident is False
    assert hf.resume(read).path == read.path  # nothing to do, and nothing wrong


def test_a_graph_of_one_capture_takes_the_steps_of_all_windows() -> None:
    pictures, ends = hf.load("digits"), list[str]()
    split = hf.Split(torch.arange(1, 300), (), (), pictures)
    with emulated() as world:
        for resident in (True, False):
            recipe = hf.read_recipe("digits", window=96, batch_size=32, epochs=2, resident=resident)
            model = hf.build(recipe, pictures.shape, pictures.classes)
            state = hf.State.fresh(model, recipe)
            window = make_window(recipe, pictures, split, CPU)
            kind, images = (Graph, window.held) if window else (Eager, pictures)
            executor = kind(model, state.optimizer, images, batch_size=32)
            if window:
                executor = windowed(executor, model, window, recipe, split)
            list(hf.fit(model, pictures, split, recipe, state=state, executor=executor))
            ends.append(model.weights_hash())
    assert ends[0] == ends[1]
    assert world.captures == 1
    assert not world.races


def test_validation_images_are_scored_in_parts_that_fit_the_window(tmp_path: Path) -> None:
    mapped = mapped_digits(tmp_path)
    recipe = hf.read_recipe("digits", window=100, resident=False, execute="native")
    split = hf.draw_split(mapped, valid=0.5)
    model = hf.build(recipe, mapped.shape, mapped.classes)
    executor = prepare(model, mapped, split, recipe, hf.State.fresh(model, recipe)).executor
    assert isinstance(executor, Windowed)
    assert executor.window.size < len(split.valid)
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"resident": True})})
    alone = prepare(model, mapped, split, other, hf.State.fresh(model, other)).executor
    assert not isinstance(alone, Windowed)
    assert executor.score(split.valid) == alone.score(split.valid)


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_run_resumed_inside_an_epoch_of_windows_ends_as_one_that_was_not_stopped(
    execute: str,
) -> None:
    write_folder(Path("pets"), each=9)
    source = ("data.source=./pets", "data.resident=false", "data.window=8", *SMALL)
    copies = kept_at_each_step("saved", "digits", [*source, f"train.execute={execute}"])
    assert len(copies) > 8
    copies = copies[::3]  # in the middle of a window, and between two
    done = subprocess.run(
        [sys.executable, "-m", "tests.resume_steps", "plain", *map(str, copies)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    expected = json.loads(json.dumps(fingerprint("saved")))
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [at for at, end in enumerate(ends) if end != expected] == []


def test_every_verb_works_on_a_run_that_reads_its_images(cli: Cli) -> None:
    write_folder(Path("pets"))
    fields = ("data.source=./pets", "data.resident=false", "data.window=8", *SMALL)
    status, out, err = cli("train", "digits", *fields, "--run", "r", "--test")
    assert status == 0, err
    assert "test accuracy" in out
    for verb in (
        ("test", "r"), ("predict", "r", "pets/cat/1.png"), ("explain", "r", "pets/cat/1.png"),
        ("report", "r"), ("resume", "r", "train.epochs=3"), ("resume", "r", "--prove"),
        ("show", "r"), ("compare", "digits", "digits", *fields, "b.lr=0.1", "--seeds", "2"),
    ):  # fmt: skip
        status, _, err = cli(*verb)
        assert status == 0, (verb, err)


def test_a_step_that_diverges_is_found_and_undone_with_the_images_that_it_read(
    tmp_path: Path,
) -> None:
    ends: set[tuple[str, str]] = set()
    for pictures, resident in ((hf.load("digits"), True), (mapped_digits(tmp_path), False)):
        recipe = hf.read_recipe(
            "digits", window=100, resident=resident, lr=1e4, execute="native", train__batch_size=4
        )
        model = hf.build(recipe, pictures.shape, pictures.classes)
        with pytest.raises(hf.HydrofoilError, match="expected finite numbers") as error:
            list(hf.fit(model, pictures, hf.draw_split(pictures), recipe))
        ends.add((str(error.value), model.weights_hash()))
    assert len(ends) == 1


# ── which sets are read, and in which windows ────────────────────────────────────────────────────


GIGABYTE = 10**9


def resolved(
    free: int | None, monkeypatch: pytest.MonkeyPatch, *, mapped: bool = True, **fields: Any
) -> tuple[bool | None, int, list[str]]:
    """Return what is decided for 115,008 bytes of digits with so many bytes free."""
    digits = hf.load("digits")
    pictures = Pictures(digits.pictures_NCHW, digits.labels_N, digits.classes, mapped=mapped)
    monkeypatch.setattr("hydrofoil.session.resolve.free_memory", lambda _: free)
    recipe = hf.read_recipe("digits", train__batch_size=32, **fields)
    split = hf.draw_split(pictures, test=0.2)
    recipe, notes = with_window(recipe, pictures, split, CPU)
    return recipe.data.resident, recipe.data.window, notes


@pytest.mark.parametrize(
    ("free", "fields", "expected"),
    [
        (230_100, {}, (None, 0)),  # just half of it
        (229_900, {}, (False, 896)),  # 229,900 / 4 bytes are 898 images of 64 bytes: 28 batches
        (None, {}, (None, 0)),
        (None, {"resident": False}, (False, 0)),
        (GIGABYTE, {"resident": False}, (False, 0)),  # all of them fit into one window
        (100_000, {"resident": True}, (True, 0)),
        (100_000, {"window": 500}, (False, 500)),
        (GIGABYTE, {"window": 500}, (None, 500)),
        (100_000, {"resident": False}, (False, 384)),
        (10, {}, (False, 32)),  # no smaller than a batch
        (100_000, {"mapped": False}, (None, 0)),  # they are in memory already
    ],
)
def test_a_set_is_read_in_windows_where_it_does_not_fit_in_half_of_the_free_memory(
    free: int | None,
    fields: dict[str, Any],
    expected: tuple[bool | None, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resident, window, notes = resolved(free, monkeypatch, **fields)
    assert (resident, window) == expected
    given = (fields.get("resident"), fields.get("window", 0))
    assert bool(notes) == (given != (resident, window))


def test_a_note_says_why_the_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolved(100_000, monkeypatch)[2] == [
        "data.resident = false and data.window = 384: the images take 0.00 GB, "
        "more than half of the free memory (0.00 GB)"
    ]


def test_a_run_records_the_window_in_which_it_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = mapped_digits(tmp_path)
    monkeypatch.setattr("hydrofoil.session.resolve.free_memory", lambda _: 100_000)
    run = hf.train("digits", run="small", epochs=1, pictures=mapped, train__batch_size=32)
    assert (run.recipe.data.resident, run.recipe.data.window) == (False, 384)
    monkeypatch.setattr("hydrofoil.session.resolve.free_memory", lambda _: GIGABYTE)
    more = hf.resume(run, epochs=2)
    assert (more.recipe.data.resident, more.recipe.data.window) == (False, 384)


def test_the_benchmark_trains_on_its_set_with_all_images_in_memory_and_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "PART", 90)
    benchmark.make(tmp_path / "images.npy", 200)
    images_NCHW = np.load(tmp_path / "images.npy")
    assert images_NCHW.shape == (200, 3, 32, 32)
    assert len(np.unique(images_NCHW[:, 0, 20], axis=0)) == 200  # noise, never twice the same
    monkeypatch.setattr("hydrofoil.session.resolve.free_memory", lambda _: 1_000_000)
    (resident, cold) = (
        benchmark.train(tmp_path / "images.npy", way, 60, 1) for way in ("resident", "cold")
    )
    assert (resident["window"], cold["window"]) == (0, 80)  # 250,000 bytes: 4 batches of 20
    assert resident["images"] == cold["images"] == 200


def test_an_npz_in_fortrans_order_is_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydrofoil.data.npz.LARGE", 1)
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(tmp_path / "set.npz", images=np.asfortranarray(images), labels=np.arange(12) % 2)
    read = hf.load(str(tmp_path / "set.npz")).pictures_NCHW
    assert np.array_equal(read[:, 0].numpy(), images)
