"""The native executor: what it refuses, and what it leaves behind.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hydrofoil import Classifier, HydrofoilError
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.native import Native, Unsupported
from hydrofoil.train.executors.eager import Eager
from tests.feeds import take_steps
from tests.native_cases import (
    CPU,
    check_evaluation,
    classifier,
    made_pictures,
    need_compiler,
    sgd,
)

need_compiler()


def test_adams_weights_without_gradient_stay_where_vectors_are_filled() -> None:
    model = classifier((1, 3, 3), ["conv 3 3 1 1", "tanh", "flatten", "linear 5", "tanh"])
    assert model
    optimizer = torch.optim.Adam(model.network.parameters(), eps=0.0)
    with pytest.raises(Unsupported, match="eps"):
        Native(model, optimizer, made_pictures((1, 3, 3), 4), batch_size=4)


def test_a_single_number_has_no_variance() -> None:
    model = classifier((1, 2, 2), ["flatten", "linear 3", "norm"])
    assert model
    pictures, index_N = made_pictures((1, 2, 2), 5), torch.arange(5)
    native = Native(model, sgd(model, 0.1), pictures, batch_size=2)
    for refuses in (native, Eager(model, sgd(model, 0.1), pictures, batch_size=2)):
        with pytest.raises(HydrofoilError, match="a batch of one image: batch norm needs"):
            take_steps(refuses, index_N, 1, 1, Sums(CPU))
    assert len(native.logits(index_N)) == 5


class Doubled(nn.BatchNorm2d):
    """A user's layer, which is not batch normalization any more."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.BatchNorm2d(4, momentum=None), "BatchNorm2d without running means"),
        (nn.BatchNorm2d(4, track_running_stats=False), "BatchNorm2d without running means"),
        (nn.BatchNorm1d(4), "BatchNorm1d before Flatten"),
        (Doubled(4), "no native code for Doubled"),
        (nn.Conv2d(4, 4, 3, groups=2), "groups=2"),
        (nn.Conv2d(4, 4, 3, dilation=2), "dilation"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode"),
        (nn.Conv2d(4, 4, 3, padding="same"), "padding"),
        (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.MaxPool2d(2, dilation=2), "dilation"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "count_include_pad"),
        (nn.GELU(), "GELU"),
        (nn.Dropout(0.5), "Dropout"),
        (nn.Linear(8, 8), "not flattened"),
        (nn.Flatten(2), "Flatten of other axes"),
    ],
)
def test_what_has_no_code_is_named(layer: nn.Module, text: str) -> None:
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 4))
    model = Classifier(network, (4, 8, 8), list("abcd"))
    with pytest.raises(Unsupported, match=text):
        Native(model, sgd(model, 0.1), made_pictures((4, 8, 8), 4), batch_size=4)


def test_what_runs_more_than_its_layers_is_refused() -> None:
    class Own(Classifier):
        pass

    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    pictures = made_pictures((4, 8, 8), 4)
    model = Own(network, (4, 8, 8), list("abcd"))
    with pytest.raises(Unsupported, match="another class"):
        Native(model, sgd(model, 0.1), pictures, batch_size=4)
    model = Classifier(network, (4, 8, 8), list("abcd"))
    handle = network[1].register_forward_hook(lambda *_: None)
    with pytest.raises(Unsupported, match="Linear with hooks"):
        Native(model, sgd(model, 0.1), pictures, batch_size=4)
    handle.remove()
    Native(model, sgd(model, 0.1), pictures, batch_size=4, flags=("-O1",))


def test_weights_in_two_places_and_hooks_on_them_are_refused() -> None:
    pictures = made_pictures((1, 4, 4), 4)

    def refused(model: Classifier, optimizer: Any, text: str) -> None:
        with pytest.raises(Unsupported, match=text):
            Native(model, optimizer, pictures, batch_size=4)

    layers = (nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 4))
    model = Classifier(nn.Sequential(*layers), (1, 4, 4), list("abcd"))
    optimizer = sgd(model, 0.1)
    hook = model.network[1].weight.register_hook(lambda g: g * 0)
    refused(model, optimizer, "parameters with hooks")
    hook.remove()
    hook = optimizer.register_step_pre_hook(lambda *_: None)
    refused(model, optimizer, "an optimizer with hooks")
    hook.remove()
    model.network[3].weight = model.network[1].weight
    refused(model, sgd(model, 0.1), "layers that share weights")


def test_a_trial_that_diverges_leaves_nothing_behind() -> None:
    ours, pictures = (
        classifier((1, 5, 5), ["flatten", "linear 20", "relu"]),
        made_pictures((1, 5, 5), 8),
    )
    theirs = copy.deepcopy(ours)
    optimizer = sgd(ours, 1e25)
    native = Native(ours, optimizer, pictures, batch_size=4)
    optimizer.param_groups[0]["lr"] = 0.1
    eager = Eager(theirs, sgd(theirs, 0.1), pictures, batch_size=4)
    for run in (native, eager):
        take_steps(run, torch.arange(8), 1, 1, Sums(CPU))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match="terms have changed"):
        take_steps(native, torch.arange(8), 1, 1, Sums(CPU))


def test_a_system_that_gives_no_more_threads_is_asked_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, pictures = classifier((1, 5, 5), ["flatten", "linear 20"]), made_pictures((1, 5, 5), 8)
    call = Native._call

    def limited(self: Any, *a: Any, threads: int | None = None, **more: Any) -> Any:
        if (threads or 1) > 1:
            raise OSError(11, "no more threads")
        return call(self, *a, threads=threads, **more)

    monkeypatch.setattr(Native, "_call", limited)
    monkeypatch.setattr("hydrofoil.native.executor.available_threads", lambda: 4)
    assert Native(model, sgd(model, 0.1), pictures, batch_size=4).threads == 1


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: torch.optim.RMSprop(p), "RMSprop"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "maximize"),
        (lambda p: torch.optim.SGD(list(p)[1:], lr=0.1), "other parameters"),
        (lambda p: torch.optim.SGD([{"params": [x]} for x in p], lr=0.1), "several groups"),
    ],
)
def test_an_optimizer_that_has_no_code_is_named(make: Any, text: str) -> None:
    model = classifier((1, 2, 2), [])
    assert model
    with pytest.raises(Unsupported, match=text):
        Native(model, make(model.network.parameters()), made_pictures((1, 2, 2), 4), batch_size=4)


def test_what_would_be_read_beyond_the_set_is_refused() -> None:
    model = classifier((1, 4, 4), [])
    assert model
    native = Native(model, sgd(model, 0.1), made_pictures((1, 4, 4), 6), batch_size=4)
    for index_N in (torch.tensor([0, 6]), torch.tensor([-1]), torch.tensor([], dtype=torch.int64)):
        for refuses in (lambda i: take_steps(native, i, 1, 1, Sums(CPU)), native.logits):
            with pytest.raises(ValueError, match="outside the 6 images"):
                refuses(index_N)
    for pictures in (made_pictures((1, 4, 5), 6), made_pictures((1, 4, 4), 6, classes=5)):
        with pytest.raises(ValueError, match="another shape or more classes"):
            Native(model, sgd(model, 0.1), pictures, batch_size=4)


def test_layers_may_have_any_name() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 3, 1), nn.Tanh(), nn.AvgPool2d(2),
              nn.Sigmoid(), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(27, 9), nn.Tanh(),
              nn.Linear(9, 4), nn.Linear(4, 4)]  # fmt: skip
    # "layer1" and "layer_20" are what "1" and " " could be called; "a" has a gradient d_a.
    names = ["my conv-1", "1st", "é", "1", "layer1", " ", "layer_20", "a", "d_a", "int", "²", "a*/"]
    network = nn.Sequential()
    for name, layer in zip(names, layers, strict=True):
        network.add_module(name, layer)
    model, pictures = Classifier(network, (1, 8, 8), list("abcd")), made_pictures((1, 8, 8), 6)
    native = Native(model, sgd(model, 0.1), pictures, batch_size=4)
    take_steps(native, torch.arange(6), 1, 1, Sums(CPU))
    check_evaluation(native, 6)
