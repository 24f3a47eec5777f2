"""The generated code of each layer and optimizer against torch, in float64 and float32.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import copy
from typing import Any

import pytest
import torch
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from hydrofoil import Classifier
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.native import Native
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.optimizers import SGD
from hydrofoil.train.options import StepOptions
from tests.feeds import take_steps
from tests.native_cases import (
    CPU,
    OPTIMIZERS,
    PHASES,
    check_evaluation,
    classifier,
    has_near_tie,
    in_float64,
    made_pictures,
    many,
    need_compiler,
    sgd,
    share_rows,
)

need_compiler()

# Some examples are built as shipped: gcc's -O3 has been wrong where -O1 was right. The others are
# built in a third of the time.
FLAGS = st.sampled_from([("-O1",), (), ("-O1",)])


def check(
    shape: Any, words: Any, *, count: int = 4, batch: int | None = None, threads: int = 1,
    rows: bool = False, levels: int = 255, smoothing: float = 0.0, flags: tuple[str, ...] = (),
    class_weights: Any = None,
) -> None:  # fmt: skip
    """Hold training and evaluation against torch in float64 and float32, and threads' bits.

    A single step of size 1 leaves weights minus gradient. Torch in float64 is the judge; a network
    with normalization may be off by four times what torch's own float32 is off, for a variance of a
    few numbers may be small and magnifies rounding.
    """
    model = classifier(shape, words)
    if model is None:
        reject()
    pictures, index_N = made_pictures(shape, count, levels=levels), torch.arange(count)
    if has_near_tie(model, pictures):
        reject()
    batch = batch or count
    normed = any("norm" in word for word in words)
    lr = 0.05 if batch < count else 1.0
    options: dict[str, Any] = {"batch_size": batch, "label_smoothing": smoothing}
    weights_K = None if class_weights is None else torch.tensor(class_weights)
    if weights_K is not None:
        options["class_weights_K"] = weights_K
    judges = in_float64(model), copy.deepcopy(model)
    sums = Sums(CPU), Sums(CPU), Sums(CPU)
    for judge, total in zip(judges, sums, strict=False):
        own_K = None if weights_K is None else weights_K.to(next(judge.parameters()).dtype)
        eager = Eager(
            judge, sgd(judge, lr), pictures, batch_size=batch, options=StepOptions(smoothing, own_K)
        )
        take_steps(eager, index_N, 1, 1, total)
    again = copy.deepcopy(model)
    with pytest.MonkeyPatch.context() as patch:
        share_rows(patch, rows)
        native = Native(model, sgd(model, lr), pictures, threads=threads, flags=flags, **options)
        take_steps(native, index_N, 1, 1, sums[2])
        other = Native(again, sgd(again, lr), pictures, threads=threads % 3 + 1, flags=flags,
                       **options)  # fmt: skip
        for first in range(0, count, batch):  # a step a call
            part_N = index_N[first : first + batch]
            take_steps(other, part_N, 1, first // batch + 1, Sums(CPU))
    assert again.weights_hash() == model.weights_hash()
    exact, single, found = (float(s.loss) for s in sums)
    assert (sums[2].count, int(sums[2].correct)) == (count, int(sums[1].correct))
    assert found == pytest.approx(exact, rel=2e-6, abs=1e-6 + 4 * abs(single - exact) * normed)
    networks = (m.network.state_dict() for m in (model, *judges))
    for (name, ours), double, float32 in zip(
        next(networks).items(), *(n.values() for n in networks), strict=True
    ):
        off = float((float32.double() - double).abs().max()) if normed else 0.0
        assert off < 1e-2, f"{name}: torch's float32 is no judge here"
        for judge, rtol, atol in ((double, 2e-5, 2e-6 + 4 * off), (float32, 5e-5, 5e-6 + 5 * off)):
            torch.testing.assert_close(
                ours.double(), judge.double(), rtol=rtol, atol=atol,
                msg=lambda m, n=name: f"{n}: {m}",
            )  # fmt: skip
    check_evaluation(native, count)


sides = st.integers(1, 3)
SHAPES = st.tuples(st.integers(1, 4), st.integers(5, 13), st.integers(5, 13))
COMMON: dict[str, Any] = {"count": st.integers(1, 5), "threads": st.integers(1, 8), "flags": FLAGS}
TAILS = [
    [], ["relu"], ["relu", "max 2"], ["max 3 2 1", "relu"], ["tanh"], ["sigmoid", "avg 2 1 1"],
]  # fmt: skip


@many
def test_two_convolutions_have_torchs_gradients(many: int) -> None:
    @settings(max_examples=many, phases=PHASES)
    @given(
        shape=SHAPES, out=st.integers(1, 19), kernel=st.tuples(sides, sides),
        stride=st.tuples(sides, sides), padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        bias=st.booleans(), after=st.sampled_from(TAILS), **COMMON,
    )  # fmt: skip
    @example(  # rows of 6 floats: gcc 12 took masked loads' masks from other elements
        shape=(1, 11, 5), out=3, kernel=(1, 1), stride=(1, 2), padding=(0, 0), count=2, threads=1,
        bias=True, after=["max 3 2 1", "relu"], flags=(),
    )  # fmt: skip
    @example(  # fewer channels than threads: the biases were updated by both
        shape=(1, 5, 5), out=1, kernel=(1, 1), stride=(1, 1), padding=(0, 0), count=2, threads=2,
        bias=True, after=[], flags=(),
    )  # fmt: skip
    def holds(
        shape: Any, out: int, kernel: Any, stride: Any, padding: Any, bias: bool, after: Any,
        **common: Any,
    ) -> None:  # fmt: skip
        window = [f"{a}{b}" for a, b in (kernel, stride, padding)]
        second = " ".join(["conv", str(out), *window, *([] if bias else ["1"])])
        check(shape, ["conv 7 3 1 1", "relu", second, *after], **common)

    holds()


@many
def test_pooling_by_itself_and_its_ties_are_torchs(many: int) -> None:
    # A 1×1 convolution before a sigmoid keeps the ties of equal pixels: the first of them is kept.
    @settings(max_examples=many, phases=PHASES)
    @given(
        shape=SHAPES, kernel=sides, stride=sides, kind=st.sampled_from(["max", "avg"]),
        levels=st.sampled_from([2, 255]), padded=st.booleans(), **COMMON,
    )  # fmt: skip
    def holds(shape: Any, kernel: int, stride: int, kind: str, padded: bool, **common: Any) -> None:
        pool = f"{kind} {kernel} {stride} {kernel // 2 * padded}"
        check(shape, ["conv 3 1 1 0", "sigmoid", pool], **common)

    holds()


@many
def test_linear_layers_have_torchs_gradients(many: int) -> None:
    @settings(max_examples=many, phases=PHASES)
    @given(
        shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
        hidden=st.lists(st.integers(1, 40), min_size=0, max_size=3), rows=st.booleans(),
        kind=st.sampled_from(["relu", "tanh", "sigmoid"]), p=st.sampled_from([0.0, 0.3]),
        bias=st.booleans(), **COMMON | {"count": st.integers(1, 9)},
    )  # fmt: skip
    def holds(
        shape: Any, hidden: list[int], kind: str, p: float, bias: bool, **common: Any
    ) -> None:
        words = [(f"linear {n}" + " 0" * (not bias), kind, f"drop {float(p)}") for n in hidden]
        check(shape, ["flatten", *(word for three in words for word in three)], **common)

    holds()


@many
def test_normalization_of_channels_is_torchs(many: int) -> None:
    @settings(max_examples=many, phases=PHASES)
    @given(
        shape=SHAPES, out=st.integers(1, 19), affine=st.booleans(),
        before=st.sampled_from([[], ["relu"], ["tanh"]]), after=st.sampled_from(TAILS),
        rest=st.integers(0, 2), **COMMON,
    )  # fmt: skip
    def holds(
        shape: Any, out: int, affine: bool, before: Any, after: Any, rest: int, count: int,
        **common: Any,
    ) -> None:  # fmt: skip
        norm = "norm" + " 0" * (not affine)
        words = [f"conv {out} 3 1 1", *before, norm, *after, "conv 3 1 1 0", "tanh"]
        check(shape, words, count=count + min(rest, count), batch=count, **common)

    holds()


@many
def test_normalization_of_features_is_torchs(many: int) -> None:
    @settings(max_examples=many, phases=PHASES)
    @given(
        shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
        outs=st.lists(st.integers(1, 21), min_size=1, max_size=2), conv=st.integers(0, 9),
        affine=st.booleans(), rows=st.booleans(), kind=st.sampled_from(["relu", "tanh"]),
        rest=st.sampled_from([0, 3]), **COMMON | {"count": st.integers(4, 9)},
    )  # fmt: skip
    def holds(
        shape: Any, outs: list[int], conv: int, affine: bool, kind: str, rest: int, count: int,
        **common: Any,
    ) -> None:  # fmt: skip
        norm = "norm" + " 0" * (not affine)
        words = [f"conv {conv} 1 1 0", "tanh"] if conv else []
        words += ["flatten", norm] + [w for n in outs for w in (f"linear {n}", norm, kind)]
        check(shape, words, count=count + rest, batch=count, **common)

    holds()


@many
def test_label_smoothing_is_torchs(many: int) -> None:
    @settings(max_examples=many, phases=PHASES)
    @given(smoothing=st.floats(0, 0.5), count=st.integers(1, 9), threads=st.integers(1, 3))
    def holds(**options: Any) -> None:
        check((1, 5, 5), ["conv 3 3 1 0", "tanh"], **options)

    holds()


@many
def test_class_weights_are_torchs_with_label_smoothing_and_a_smaller_last_batch(many: int) -> None:
    @settings(max_examples=many, phases=PHASES)
    @given(
        class_weights=st.lists(st.floats(0.125, 9, width=32), min_size=4, max_size=4),
        smoothing=st.floats(0, 0.5), count=st.integers(2, 9), threads=st.integers(1, 3),
    )  # fmt: skip
    def holds(count: int, **options: Any) -> None:
        check((1, 5, 5), ["conv 3 3 1 0", "tanh"], count=count, batch=count - count // 3, **options)

    holds()


def test_layers_without_biases_learn_none_in_a_second_step() -> None:
    words = ["conv 3 3 1 1 1", "tanh", "flatten", "linear 9 0", "tanh"]
    for rows in (False, True):
        check((1, 5, 5), words, count=7, batch=3, threads=2, rows=rows)


@pytest.mark.parametrize("width", [2, 3, 5, 6, 11])
def test_relu_by_itself_passes_the_gradient_of_rows_of_any_length(width: int) -> None:
    # A pooling between keeps the ReLU by itself; gcc unrolls short rows and vectorizes over rows.
    check((1, 6, width), ["conv 3 1 1 0", "avg 1", "relu"])


def test_pooling_by_its_stride_alone_is_pooling() -> None:
    check((1, 9, 9), ["conv 3 3", "max 1 2", "max 2 2"])
    check((1, 9, 9), ["conv 3 3", "max 1 2", "relu", "max 2 1"])


def test_dropout_before_flatten_draws_torchs_masks() -> None:
    check((3, 9, 7), ["conv 6 3 1 0", "relu", "drop 0.4", "max 2"], count=5, threads=2)


def test_a_row_sharing_network_of_every_kind_is_torchs() -> None:
    words = ["conv 5 3 1 1", "norm", "relu", "max 2", "flatten", "norm", "linear 35", "norm",
             "tanh", "drop 0.3", "linear 20", "sigmoid", "linear 17", "norm 0"]  # fmt: skip
    check((2, 9, 8), words, count=24, batch=9, threads=3, rows=True, smoothing=0.1)


EVERY_OPTIMIZER: dict[str, Any] = {
    **OPTIMIZERS,
    "decoupled": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=0.5, decoupled=True),
}


@pytest.mark.parametrize("name", EVERY_OPTIMIZER)
def test_optimizers_take_torchs_steps_and_go_on_from_each_others_state(name: str) -> None:
    # A smooth network: no kink turns rounding into a difference. No biases before normalization:
    # their gradient is zero but for rounding, which Adam divides by itself.
    shape, words = (1, 8, 8), ["conv 3 3 1 0 1", "norm", "tanh"]
    ours, theirs = classifier(shape, words), classifier(shape, words)
    assert ours
    assert theirs
    pictures, index_N = made_pictures(shape, 44), torch.arange(44)
    optimizers = [EVERY_OPTIMIZER[name](model.network.parameters()) for model in (ours, theirs)]
    native = Native(ours, optimizers[0], pictures, batch_size=8, threads=2)
    eager = Eager(ours, optimizers[0], pictures, batch_size=8)
    reference = Eager(theirs, optimizers[1], pictures, batch_size=8)
    for runs in (native, eager, native):  # the last batch has 4 pictures
        take_steps(runs, index_N, 1, 1, Sums(CPU))
        take_steps(reference, index_N, 1, 1, Sums(CPU))
        compare_states(ours, optimizers[0], theirs, optimizers[1])


def compare_states(ours: Classifier, our: Any, theirs: Classifier, their: Any) -> None:
    """Hold weights, running means and optimizer state against torch's."""
    for (name, a), b in zip(
        ours.network.state_dict().items(), theirs.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n} {m}")
    for a, b in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        for field, value in their.state[b].items():
            if value is not None:
                torch.testing.assert_close(our.state[a][field], value, rtol=1e-3, atol=1e-6)


def test_training_is_torchs_loss_to_the_end() -> None:
    """The loss that is reported is that of the weights before each step."""
    model = classifier((1, 4, 4), ["flatten", "linear 8", "tanh"])
    assert model
    pictures, sums = made_pictures((1, 4, 4), 7), Sums(CPU)
    native = Native(model, sgd(model, 0.5), pictures, batch_size=7, label_smoothing=0.2)
    with torch.no_grad():
        before = cross_entropy(
            model(pictures.pictures_NCHW), pictures.labels_N, label_smoothing=0.2
        )
    take_steps(native, torch.arange(7), 1, 1, sums)
    assert sums.read().loss == pytest.approx(float(before), rel=1e-6)
