"""Steps over augmented images: the same by any executor, window and call, and after a resume.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from pathlib import Path
from unittest import mock

import pytest
import torch

import hydrofoil as hf
from hydrofoil.native import Unsupported
from hydrofoil.train.executors import expected
from hydrofoil.train.executors.augmented import Augmented, Augmenter, augmenting, make_buffer
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.executors.graph import Graph
from hydrofoil.train.feed import Pairs, make_feed
from hydrofoil.train.step import Step
from tests.fake_cuda import emulated

SMALL = {"epochs": 2, "hidden": [8], "batch_size": 32, "train": 150, "valid": 0.1}
EVERYTHING = {
    "flip": "alternating", "shift": 2, "rotate": 10.0, "scale": 0.1, "brightness": 0.2,
    "contrast": 0.2, "cutout": 3, "policy": "trivialaugment",
}  # fmt: skip


def weights_of(run: hf.Run) -> str:
    return run.weights.load(torch.device("cpu"))[0].weights_hash()


def trained(folder: Path, name: str, **fields: object) -> hf.Run:
    return hf.train("digits", run=folder / name, **{**SMALL, **fields})


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_training_is_the_same_in_small_and_large_buffers_in_c_and_in_torch_and_in_windows(
    tmp_path: Path, execute: str
) -> None:
    fields = {**EVERYTHING, "execute": execute}
    run = trained(tmp_path, "whole", **fields)
    assert run.log.executor() == execute
    with mock.patch("hydrofoil.train.executors.augmented.BYTES", 1):
        small = trained(tmp_path, "small", **fields)
    refused = mock.Mock(side_effect=Unsupported("no compiler here"))
    with mock.patch("hydrofoil.train.executors.augmented.NativePass", refused):
        torchs = trained(tmp_path, "torch", **fields)
    first = [weights_of(each) for each in (run, small, torchs)]
    assert len(set(first)) == 1
    windows = [
        trained(tmp_path, f"w{resident}", **fields, window=64, resident=resident)
        for resident in (True, False)
    ]
    assert weights_of(windows[0]) == weights_of(windows[1])
    assert windows[0].epochs()[-1].valid == windows[1].epochs()[-1].valid


def test_native_takes_the_same_steps_as_eager(tmp_path: Path) -> None:
    runs = [trained(tmp_path, execute, **EVERYTHING, execute=execute, epochs=1)
            for execute in ("eager", "native")]  # fmt: skip
    models = [run.weights.load(torch.device("cpu"))[0] for run in runs]
    for mine, theirs in zip(*(model.network.parameters() for model in models), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert runs[0].epochs()[0].train.correct == runs[1].epochs()[0].train.correct


@pytest.mark.parametrize("fields", [EVERYTHING, {"mixup": 0.4, "cutmix": 1.0}], ids=["all", "mix"])
def test_a_run_resumes_bit_identically_inside_an_epoch(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    whole = trained(tmp_path, "whole", **fields)

    calls = 0
    real = Augmented.train_steps

    def interrupted(self: Augmented, feed: object, first: int, stop: int, sums: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        real(self, feed, first, min(stop, first + 2), sums)  # pyright: ignore[reportArgumentType]

    with (
        mock.patch.object(Augmented, "steps_per_call", 2),
        mock.patch.object(Augmented, "train_steps", interrupted),
        pytest.raises(hf.Stopped),
    ):
        trained(tmp_path, "parts", **fields, save_steps=2)
    resumed = hf.resume(tmp_path / "parts")
    assert weights_of(resumed) == weights_of(whole)
    assert resumed.epochs()[-1].train == whole.epochs()[-1].train


def test_images_are_mixed_by_eager_alone_and_the_line_says_why(tmp_path: Path) -> None:
    run = trained(tmp_path, "mixed", mixup=0.2, execute="native")
    assert run.log.executor() == "eager"
    recipe = hf.read_recipe("digits", mixup=0.2)
    line, _ = expected(recipe, torch.device("cpu"))
    assert line == (
        "executor: eager; native is not available: mixup and cutmix give an image two labels"
    )


def test_the_loss_of_mixed_images_is_the_mean_of_both_labels_losses_by_their_shares() -> None:
    recipe = hf.read_recipe("digits", label_smoothing=0.1)
    pictures = hf.load("digits")
    model = hf.build(recipe, pictures.shape, pictures.classes)
    step = Step(model, torch.optim.SGD(model.parameters()), pictures)
    random = torch.Generator().manual_seed(0)
    logits_NK = torch.randn(8, 10, generator=random)
    labels_N, others_N = (torch.randint(10, (8,), generator=random) for _ in range(2))
    shares_N = torch.rand(8, generator=random)
    pairs = Pairs(others_N, shares_N)
    log_NK = logits_NK.log_softmax(1)
    each_N = -sum(
        share_N * log_NK.gather(1, at_N[:, None])[:, 0]
        for share_N, at_N in ((shares_N, labels_N), (1 - shares_N, others_N))
    )
    got = step._loss(logits_NK, labels_N, mixed=pairs)
    assert got.item() == pytest.approx(each_N.mean().item(), rel=1e-5)
    larger_N = pairs.larger(labels_N)
    assert larger_N.tolist() == [
        a if s >= 0.5 else b
        for s, a, b in zip(shares_N, labels_N.tolist(), others_N.tolist(), strict=True)
    ]


def test_default_feeds_have_no_changes_and_another_device_gets_those_of_the_first() -> None:
    labels_N = torch.zeros(20, dtype=torch.int64)
    assert make_feed(hf.read_recipe("digits"), torch.arange(20), labels_N, 1, 0).changes_NA is None
    feed = make_feed(hf.read_recipe("digits", shift=1), torch.arange(20), labels_N, 1, 0)
    assert feed.changes_NA is not None
    assert len(feed.changes_NA) == 20


def test_a_shift_that_the_images_do_not_have_room_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hf.HydrofoilError, match=r"augment\.shift = 8: expected at most 7"):
        trained(tmp_path, "far", shift=8)


def test_without_a_compiler_torch_augments_and_the_executor_line_says_so() -> None:
    refused = mock.Mock(side_effect=Unsupported("no C compiler (cc)"))
    with mock.patch("hydrofoil.train.executors.augmented.NativePass", refused):
        spec = hf.read_recipe("digits", flip="random").augment
        made = Augmenter(spec, (1, 8, 8), None, torch.device("cpu"), 1)
    assert made.note == "torch augments the images (no C compiler (cc))"


def test_a_graph_of_one_capture_takes_the_steps_of_all_buffers() -> None:
    pictures, ends = hf.load("digits"), list[str]()
    split = hf.Split(torch.arange(1, 300), (), (), pictures)
    recipe = hf.read_recipe("digits", **{**EVERYTHING, "batch_size": 32, "epochs": 2})
    with emulated() as world, mock.patch("hydrofoil.train.executors.augmented.BYTES", 3 * 32 * 64):
        for kind in (Graph, Eager):
            model = hf.build(recipe, pictures.shape, pictures.classes)
            state = hf.State.fresh(model, recipe)
            buffer = make_buffer(recipe, pictures, len(split.train))
            assert len(buffer) == 3 * 32
            inner = kind(model, state.optimizer, buffer, batch_size=32)
            executor = augmenting(inner, model, recipe, pictures, buffer, 1)
            list(hf.fit(model, pictures, split, recipe, state=state, executor=executor))
            ends.append(model.weights_hash())
    assert ends[0] == ends[1]
    assert world.captures == 1
    assert not world.races


def test_a_step_that_is_not_finite_is_found_and_undone(tmp_path: Path) -> None:
    """The steps since the last check are repeated one by one, over the same augmented images."""
    with pytest.raises(hf.HydrofoilError, match=r"epoch 1, step \d+: .*update was discarded"):
        trained(tmp_path, "far", **EVERYTHING, lr=1e20)
