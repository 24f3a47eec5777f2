"""Networks for the native executor's tests, drawn or listed, and what to run them on.

A network is a list of words, such as `conv 7 3 1 1`, so that hypothesis can shrink it and a failing
one can be read. As a program it runs `SANITIZED` under a sanitizer: see test_native_sanitizers.py.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import copy
import re
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import Phase
from torch import Tensor, nn

from hydrofoil import Classifier, Pictures
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.evaluate.score import score
from hydrofoil.models.layers import Dropout
from hydrofoil.native import Native, Unsupported, build, program
from hydrofoil.native.operations import linear
from tests.feeds import take_steps

CPU = torch.device("cpu")
Shape = tuple[int, ...]
POINTWISE = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(
        p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam-decay": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink is to compile for minutes
many = pytest.mark.parametrize("many", [5, pytest.param(60, marks=pytest.mark.slow)])


def need_compiler() -> None:
    """Skip the module that calls this where there is no compiler."""
    try:
        build.compiler()
    except Unsupported:
        pytest.skip("no C compiler", allow_module_level=True)


def layer(word: str, shape: Shape) -> nn.Module:
    """Return the layer that a word names, for activations of a shape."""
    kind, *rest = word.split()
    numbers = [float(x) if "." in x else int(x) for x in rest]
    # A kernel, stride or padding of two digits, 31 say, is one of 3×1.
    window: list[Any] = [divmod(int(x), 10) if len(x) == 2 else int(x) for x in rest[1:]]
    if kind == "conv":  # outputs, kernel, stride, padding; one more number: no biases
        return nn.Conv2d(shape[0], int(numbers[0]), *window[:3], bias=len(window) < 4)
    if kind == "linear":
        return nn.Linear(shape[0], int(numbers[0]), bias=len(numbers) < 2)
    if kind == "norm":  # 0: without weights
        made = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
        return made(shape[0], affine=0 not in numbers, momentum=0.3)
    if kind == "drop":
        return Dropout(numbers[0])
    if kind in POOLS:
        return POOLS[kind](int(numbers[0]), *window)
    return nn.Flatten() if kind == "flatten" else POINTWISE[kind]()


def classifier(shape: Shape, words: Sequence[str], classes: int = 4) -> Classifier | None:
    """Return the model of the words, flattened and with a linear layer at the end.

    None where a window finds no place. Normalization begins away from 0 and 1.
    """
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    size: Shape = shape
    flat = [] if "flatten" in words else ["flatten"]
    for word in [*words, *flat, f"linear {classes}"]:
        made = layer(word, size)
        try:
            with torch.no_grad():
                size = tuple(made.eval()(torch.zeros(1, *size)).shape[1:])
        except RuntimeError:
            return None
        layers.append(made)
    for norm in layers:
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for name, least, most in (
                ("weight", 0.5, 1.5),
                ("bias", -0.5, 0.5),
                ("running_mean", -0.3, 0.3),
                ("running_var", 0.5, 2.0),
            ):
                if (tensor := getattr(norm, name)) is not None:
                    nn.init.uniform_(tensor, least, most)
    names = [f"l{i}_{type(x).__name__.lower()}" for i, x in enumerate(layers)]
    network = nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
    return Classifier(network, shape, list(map(str, range(classes))), (0.4,), (0.3,)).train()  # type: ignore[arg-type]


def made_pictures(shape: Shape, count: int, classes: int = 4, levels: int = 255) -> Pictures:
    """Return random pictures; few gray levels make many ties in pooling."""
    generator = torch.Generator().manual_seed(1)
    bytes_NCHW = torch.randint(0, levels, (count, *shape), generator=generator) * (255 // levels)
    labels_N = torch.randint(0, classes, (count,), generator=generator)
    return Pictures(bytes_NCHW.to(torch.uint8), labels_N, tuple(map(str, range(classes))), "made")


def in_float64(model: Classifier) -> Classifier:
    """Return a copy that computes in float64 from the same pixels."""
    exact = copy.deepcopy(model).double()
    exact.normalize = lambda x: model.normalize(x).double()  # type: ignore[method-assign]
    return exact


def has_near_tie(model: Classifier, pictures: Pictures) -> bool:
    """Whether a max-pooling has two elements that float32 cannot order: either's gradient is right.

    Elements that are exactly equal are no such tie: everybody takes the first.
    """
    exact, close = in_float64(model).eval(), list[bool]()  # dropout off: it needs draws

    def look(pool: torch.nn.MaxPool2d, inputs: tuple[Tensor]) -> None:
        size, step, pad = (
            (one, one) if isinstance(one, int) else one
            for one in (pool.kernel_size, pool.stride, pool.padding)
        )
        padded_NCHW = torch.nn.functional.pad(
            inputs[0], (pad[1], pad[1], pad[0], pad[0]), value=-torch.inf
        )
        windows = padded_NCHW.unfold(2, size[0], step[0]).unfold(3, size[1], step[1]).flatten(4)
        if windows.shape[-1] > 1:
            top = windows.topk(2).values
            gap = top[..., 0] - top[..., 1]
            close.append(bool(((gap > 0) & (gap < 1e-6 * top[..., 0].abs().clamp(min=1))).any()))

    for module in exact.network.modules():
        if isinstance(module, torch.nn.MaxPool2d):
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        exact.network(exact.normalize(pictures.pictures_NCHW))
    return any(close)


def sgd(model: Classifier, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.network.parameters(), lr=lr)


def check_evaluation(native: Native, count: int) -> None:
    """Hold logits and scores against torch's in evaluation mode, of the weights as they are now."""
    index_N = torch.arange(count).repeat(2)[1:].flip(0)  # not whole batches
    model, pictures = native.model, native.pictures
    logits_NK = native.logits(index_N)
    exact = in_float64(model).eval()
    with torch.no_grad():
        wanted_NK = exact(pictures.pictures_NCHW[index_N])
        single_NK = copy.deepcopy(model).eval()(pictures.pictures_NCHW[index_N])
    scale = float(wanted_NK.abs().max())
    torch.testing.assert_close(logits_NK.double(), wanted_NK, rtol=1e-5, atol=2e-6 * (1 + scale))
    torch.testing.assert_close(logits_NK, single_NK, rtol=2e-5, atol=4e-6 * (1 + scale))
    ours, theirs = native.score(index_N), score(model, pictures, index_N)
    assert ours.count == theirs.count == len(index_N)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5, abs=4e-6 * (1 + scale))


def share_rows(patch: pytest.MonkeyPatch, rows: bool) -> None:
    """Let threads share every linear layer by rows, or none."""
    patch.setattr(linear, "ROWS_FROM_BYTES", 0 if rows else 1 << 40)


# ruff: noqa: E501 - a case is easiest to read in a line
# Every emitter and, between them, every way of sharing the work; shape, words, optimizer, batch,
# pictures, threads, whether linear layers are shared by rows.
SANITIZED: list[tuple[Any, ...]] = [
    ((3, 32, 32), ["conv 6 5 1 0", "relu", "max 2", "conv 16 5 1 0", "relu", "max 2", "flatten",
                   "linear 120", "relu", "linear 84", "relu"], "momentum", 4, 10, 2, False),
    ((1, 28, 28), ["flatten", "linear 64", "relu", "drop 0.2", "linear 40"], "adam", 8, 20, 3, True),
    ((3, 9, 7), ["conv 7 3 1 1", "relu", "max 3 2 1", "conv 19 31 12 2"], "nesterov", 5, 12, 4, True),
    ((1, 5, 5), ["conv 1 1 1 0"], "sgd", 2, 3, 2, False),
    ((2, 11, 5), ["conv 3 1 12 0", "max 3 2 1", "relu", "drop 0.4"], "adamw", 3, 7, 3, False),
    ((4, 6, 13), ["max 2", "conv 9 2 1 1", "sigmoid", "avg 2 1 1"], "adam-decay", 1, 3, 1, False),
    ((1, 8, 8), ["avg 3 1 1", "tanh", "conv 5 3 2 1 0", "tanh"], "sgd", 6, 13, 8, True),
    ((3, 8, 8), ["conv 5 3 1 1", "norm", "relu", "max 2", "flatten", "norm", "linear 11", "norm 0"],
     "momentum", 5, 13, 3, True),
    ((1, 6, 6), ["norm", "conv 17 3 1 0", "relu", "norm 0", "conv 3 2 1 1"], "adam", 7, 16, 8, False),
    ((2, 1, 1), ["flatten", "norm", "linear 1", "norm", "tanh"], "adamw", 3, 9, 2, False),
    ((1, 3, 50), ["conv 33 3 1 0", "relu", "max 1 2"], "nesterov", 9, 20, 5, False),
    ((5, 7, 7), ["conv 24 3 1 1", "relu", "conv 24 3 1 1", "relu", "max 2"], "adam", 8, 17, 4, False),
    ((1, 4, 4), ["flatten", "linear 130", "sigmoid", "linear 7", "drop 0.5", "linear 41", "relu"],
     "adam-decay", 4, 11, 7, True),
    ((1, 4, 4), ["flatten", "linear 3", "relu"], "sgd", 64, 100, 64, False),
    ((1, 12, 12), ["conv 4 5 1 2", "norm", "max 5 1 2", "tanh"], "momentum", 3, 8, 6, False),
]  # fmt: skip


def guarded(code: str) -> str:
    """Return a program with poisoned gaps between the arrays of its structures.

    A sanitizer sees the end of what was allocated, not where one array of a structure meets the
    next.
    """
    arrays = r"(_Alignas\(64\) \w+ (\w+)(?:\[[^;]+\])+;)"
    head, net, worker, rest = re.split(r"(?<=} Net;\n)|(?<=} Worker;\n)|(?=/\* What all)", code)
    poison = ""
    guarded_parts = []
    for part, owner in ((net, "net"), (worker, "w")):
        guarded_parts.append(re.sub(arrays, r"\1 _Alignas(64) char guard_\2[64];", part))
        names = [name for _, name in re.findall(arrays, part)]
        poison += f"    for (int t = 0; t < {'1' if owner == 'net' else 'threads'}; t++) {{\n"
        poison += "        Worker *w = (Worker *)(net + 1) + t; (void)w;\n"
        poison += "".join(f"        GUARD({owner}->guard_{name})\n" for name in names) + "    }\n"
    gate = "    atomic_store(&net->gate, 0);\n"
    if rest.count(gate) != 1:
        raise AssertionError("the program is written otherwise: mend the guards")
    define = (
        "#include <sanitizer/asan_interface.h>\n"
        "#define GUARD(array) ASAN_POISON_MEMORY_REGION(array, 64);\n"
    )
    return define + head + "".join(guarded_parts) + rest.replace(gate, poison + gate)


def broken(code: str) -> str:
    """Return a program that writes its last picture's logits a picture further on."""
    return code.replace("cross_entropy(net->", "cross_entropy(BATCH * 32 + net->")


def run_sanitized(mode: str, flags: tuple[str, ...]) -> None:
    """Train and evaluate every case with code built by these flags.

    Args:
        mode: plain; guards: with gaps between arrays; broken: that, and an error to be seen.
        flags: The compiler's.
    """
    torch.set_num_threads(1)
    write = program.write
    with pytest.MonkeyPatch.context() as patch:
        if mode != "plain":
            spoil = broken if mode == "broken" else str
            patch.setattr(program, "write", lambda *a: guarded(spoil(write(*a))))
        for number, case in enumerate(SANITIZED):
            shape, words, optimizer, batch, count, threads, rows = case
            share_rows(patch, rows)
            model = classifier(shape, words)
            assert model
            native = Native(
                model, OPTIMIZERS[optimizer](model.network.parameters()),
                made_pictures(shape, count), batch_size=batch, threads=threads, flags=flags,
                class_weights_K=torch.rand(len(model.classes)) if number % 2 else None,
            )  # fmt: skip
            take_steps(native, torch.arange(count), 1, 1, Sums(CPU))
            native.logits(torch.arange(count).repeat(2)[1:])
            take_steps(native, torch.arange(count).flip(0), 2, 1, Sums(CPU))
    print(f"{len(SANITIZED)} cases ran")


if __name__ == "__main__":
    run_sanitized(sys.argv[1], tuple(sys.argv[2:]))
