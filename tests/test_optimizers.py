"""Every optimizer is torch's, of the parameters that a recipe means, and resumes exactly."""

from typing import Any, get_args

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz

from hydrofoil import HydrofoilError, State, build, draw_split, fit, load, read_recipe
from hydrofoil.native import Unsupported
from hydrofoil.native.optimizer import make_rule
from hydrofoil.recipe import optimizers as specs
from hydrofoil.recipe.schema import tags
from hydrofoil.train import optimizers
from hydrofoil.train.optimizers import OPTIMIZERS, biases_and_norms, build_optimizer
from hydrofoil.train.state import Snapshot

TORCHS: dict[str, Any] = {
    "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam, "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad,
}  # fmt: skip
SPECS: list[Any] = [
    specs.Sgd(name="sgd", lr=0.1),
    specs.Sgd(name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    specs.Adam(name="adam", weight_decay=0.1),
    specs.Adam(name="adamw", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    specs.NAdam(name="nadam", weight_decay=0.01, momentum_decay=0.01),
    specs.RmsProp(name="rmsprop"),
    specs.RmsProp(name="rmsprop", momentum=0.9, centered=True, weight_decay=0.01),
    specs.Adagrad(name="adagrad", lr_decay=0.1, initial_accumulator_value=0.1, weight_decay=0.01),
]


class Weights(nn.Module):
    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        tensors = [torch.randn(shape, generator=draw) for shape in shapes]
        self.weights = nn.ParameterList(nn.Parameter(tensor) for tensor in tensors)


def steps(
    ours: torch.optim.Optimizer, ours_of: nn.Module, theirs: list[Any], theirs_of: list[Tensor]
) -> None:
    """Give both sides the same gradients five times, and compare every weight after each."""
    draw = torch.Generator().manual_seed(1)
    for _ in range(5):
        for mine, their in zip(ours_of.parameters(), theirs_of, strict=True):
            mine.grad = torch.randn(mine.shape, generator=draw)
            their.grad = mine.grad.reshape(their.shape).clone()
        for optimizer in (ours, *theirs):
            optimizer.step()
        for mine, their in zip(ours_of.parameters(), theirs_of, strict=True):
            assert torch.equal(mine, their.view_as(mine))


def test_the_schema_names_the_optimizers_of_the_table() -> None:
    assert tags("optimizer") == list(OPTIMIZERS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_optimizers_are_torchs_to_the_last_bit(spec: Any) -> None:
    """`foreach` is how the update is carried out; it may not change what it computes."""
    ours, theirs = Weights((50,), (7, 5)), Weights((50,), (7, 5))
    options = spec.model_dump(exclude={"name", "decay_biases", "decoupled"})
    weights = list(theirs.parameters())
    oracle = TORCHS[spec.name](weights, foreach=False, **options)
    steps(build_optimizer(spec, ours), ours, [oracle], weights)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_decoupled_decay_shrinks_the_weights_beside_the_momentum(momentum: float) -> None:
    """The literal formula: v = m v + g, w = w - lr λ w, w = w - lr (g + m v)."""
    spec = specs.Sgd(
        name="sgd", lr=0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=0.3,
        decoupled=True,
    )  # fmt: skip
    ours = Weights((5, 4))
    optimizer, draw = build_optimizer(spec, ours), torch.Generator().manual_seed(1)
    w = ours.weights[0].detach().clone().double()
    v = torch.zeros_like(w)
    for lr in (0.1, 0.1, 0.05):
        g = torch.randn(w.shape, generator=draw)
        ours.weights[0].grad = g.clone()
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        assert optimizer.param_groups[0]["weight_decay"] == 0.3
        v = momentum * v + g
        w = w - lr * 0.3 * w
        w = w - lr * (g + momentum * v if momentum else g)
        torch.testing.assert_close(ours.weights[0].detach().double(), w, rtol=1e-5, atol=1e-6)


def test_decoupled_decay_of_weights_leaves_out_biases() -> None:
    spec = specs.Sgd(name="sgd", lr=0.5, weight_decay=0.2, decoupled=True, decay_biases=False)
    network = nn.Linear(3, 2)
    before = [p.detach().clone() for p in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(spec, network).step()
    torch.testing.assert_close(network.weight.detach(), before[0] * 0.9)
    assert torch.equal(network.bias, before[1])


def test_native_steps_have_decoupled_decay() -> None:
    plain = specs.Sgd(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
    rules = [
        make_rule(build_optimizer(spec, Weights((5, 4))))
        for spec in (plain, plain.model_copy(update={"decoupled": True}))
    ]
    assert [rule.decoupled for rule in rules] == [False, True]


@pytest.mark.parametrize("spec", [s for s in SPECS if s.weight_decay], ids=lambda s: s.name)
def test_without_decay_of_biases_only_weights_shrink(spec: Any) -> None:
    spec = spec.model_copy(update={"decay_biases": False})
    network = torchvision.models.resnet18(num_classes=3)
    network.fc = nn.Sequential(nn.LayerNorm((512,)), nn.Linear(512, 3))  # type: ignore[assignment]
    optimizer = build_optimizer(spec, network)
    decay = {p: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay.keys() == set(network.parameters())
    for name, parameter in network.named_parameters():
        is_weight = name.endswith("weight") and parameter.ndim > 1
        assert decay[parameter] == (spec.weight_decay if is_weight else 0), name
    with pytest.raises(Unsupported, match=r"several groups|optimi[sz]er"):
        make_rule(optimizer)


def test_a_norm_of_several_axes_is_a_norm() -> None:
    network = nn.Sequential(nn.LayerNorm((3, 4, 4)), nn.Flatten(), nn.Linear(48, 2))
    assert biases_and_norms(network) == set(network.parameters()) - {network[2].weight}


@pytest.fixture
def slow_bfloat16(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    """Let the processor have, or not have, instructions for bfloat16."""
    monkeypatch.setattr(optimizers, "fast_bfloat16", lambda kind: not request.param)
    return request.param


@pytest.mark.parametrize("slow_bfloat16", [False, True], indirect=True)
@pytest.mark.parametrize("ratio", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("rest", ["adamw", "sgd", "sgd without momentum"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_muon_is_torchs_for_hidden_matrices_and_another_for_the_rest(
    ratio: Any, rest: str, channels_last: bool, slow_bfloat16: bool
) -> None:
    momentum = 0.0 if "without" in rest else 0.8
    spec = specs.Muon(
        name="muon", weight_decay=0.1, adjust_lr_fn=ratio, others=rest.partition(" ")[0],  # type: ignore[arg-type]
        others_lr=0.005, others_momentum=momentum, others_weight_decay=0.2,
    )  # fmt: skip

    def network() -> nn.Sequential:
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, bias=False),
            nn.Flatten(), nn.Linear(16, 12), nn.Linear(12, 5),
        )  # fmt: skip

    ours, theirs = network(), network()
    if channels_last:
        ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    matrices, others, flat = [], [], []
    for name, parameter in theirs.named_parameters():
        hidden = parameter.ndim > 1 and not name.startswith("5")
        leaf = nn.Parameter(parameter.detach().flatten(1)) if hidden else parameter
        (matrices if hidden else others).append(leaf)
        flat.append(leaf)
    assert len(matrices) == 3
    oracles = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn=ratio),
        torch.optim.AdamW(others, lr=0.005, weight_decay=0.2, foreach=True)
        if rest == "adamw"
        else DecoupledSGD(others, lr=0.005, momentum=momentum, nesterov=momentum > 0),
    ]
    optimizer = build_optimizer(spec, ours)
    if not channels_last and not slow_bfloat16:
        return steps(optimizer, ours, oracles, flat)
    draw = torch.Generator().manual_seed(1)  # sums may run in another order: near, not equal
    for _ in range(3):
        for mine, their in zip(ours.parameters(), flat, strict=True):
            mine.grad = torch.randn(mine.shape, generator=draw)
            their.grad = mine.grad.reshape(their.shape).clone()
        before = [parameter.detach().clone() for parameter in ours.parameters()]
        for one in (optimizer, *oracles):
            one.step()
        for was, mine, their in zip(before, ours.parameters(), flat, strict=True):
            moved, expected = mine.detach() - was, their.detach().view(mine.shape) - was
            # torch rounds to 8 bits in each of some 15 products: 2^-8 * sqrt(15) is 1.5%.
            assert (moved - expected).norm() < 0.05 * expected.norm() + 1e-7
            their.data.copy_(mine.detach().reshape(their.shape))
    optimizer_state = [slots["momentum_buffer"] for slots in optimizer.state.values()
                       if set(slots) == {"momentum_buffer"} and len(slots)]  # fmt: skip
    assert len(optimizer_state) >= 3


class DecoupledSGD(torch.optim.SGD):
    """SGD after weights have shrunk by lr times 0.2."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(1 - group["lr"] * 0.2)
        super().step()


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), steps=st.integers(1, 6),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_orthogonalizing_by_gram_matrices_is_the_newton_schulz_iteration(
    rows: int, columns: int, steps: int, seed: int
) -> None:
    """The oracle is the iteration as Jordan et al. (2024) write it, in float64."""
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=draw)
    a, b, c = coefficients = (3.4445, -4.775, 2.0315)
    X = matrix.double() / matrix.double().norm()
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    found = optimizers.orthogonalize(matrix, steps, coefficients, 1e-7)
    # Of small singular values the rounding grows, 3.4 times a step: below 8 bits as in bfloat16.
    assert (found - X).norm() <= 2**-8 * X.norm()
    theirs = _zeropower_via_newtonschulz(matrix, coefficients, steps, 1e-7).double()
    assert (found - X).norm() <= (theirs - X).norm() + 1e-5 * X.norm()  # torch's own is no better


def test_normalized_muon_first_brings_each_filter_to_the_norm_of_a_matrix_of_unit_rows() -> None:
    """The oracle is torch's Muon, its matrices scaled by hand before each of its steps."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(24, 4))
    spec = specs.Muon(name="muon", lr=0.1, momentum=0.6, normalize=True)
    optimizer = build_optimizer(spec, network)
    leaf = nn.Parameter(network[0].weight.detach().flatten(1).clone())
    oracle = torch.optim.Muon([leaf], lr=0.1, momentum=0.6, weight_decay=0, adjust_lr_fn="original")
    for _ in range(3):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape)
        assert network[0].weight.grad is not None
        leaf.grad = network[0].weight.grad.flatten(1).clone()
        leaf.data *= 6**0.5 / leaf.data.norm()
        optimizer.step()
        oracle.step()
        torch.testing.assert_close(network[0].weight.flatten(1), leaf, rtol=0.02, atol=0.005)


def test_a_schedule_changes_both_of_muons_rates_in_proportion() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = build_optimizer(specs.Muon(name="muon", lr=0.1, others_lr=0.01), network)
    before = [p.detach().clone() for p in network.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(map(torch.equal, before, network.parameters()))
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    optimizer.step()
    # AdamW's second step with a constant gradient moves by its rate.
    moved = (before[1] - network[0].bias).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.005))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_resumes_bit_for_bit(name: str) -> None:
    options = ["train.execute=eager", "train.epochs=2", "train.batch_size=200"]
    lr = ["optimizer.lr=0.01"] if name == "sgd" else []
    recipe = read_recipe(
        "digits", [*options, f"optimizer.name={name}", *lr, "optimizer.weight_decay=0.01"]
    )
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    straight, begun, resumed = (build(recipe, pictures.shape, pictures.classes) for _ in "123")
    list(fit(straight, pictures, split, recipe))
    state = State.fresh(begun, recipe)
    next(fit(begun, pictures, split, recipe, state=state))
    tensors = {n: t.clone() for n, t in state.tensors(begun).items()}
    assert any(n.startswith("optimizer/") for n in tensors)
    fresh = State.fresh(resumed, recipe)
    fresh.restore(resumed, tensors, state.numbers())
    list(fit(resumed, pictures, split, recipe, state=fresh))
    assert resumed.weights_hash() == straight.weights_hash()
    assert straight.weights_hash() != begun.weights_hash()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_snapshot_from_before_the_first_step_repeats_it(name: str) -> None:
    recipe = read_recipe("digits", [f"optimizer.name={name}", "optimizer.lr=0.01"])
    model = build(recipe, (1, 8, 8), list("0123456789"))
    state, ends = State.fresh(model, recipe), []
    snapshot = Snapshot(model, state)
    for _ in range(2):
        for step in range(3):
            for parameter in model.network.parameters():
                parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
            state.optimizer.step()
        ends.append(model.weights_hash())
        snapshot.put_back()
    assert ends[0] == ends[1]


def test_nothing_to_train_is_refused() -> None:
    network = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(HydrofoilError, match=r"no parameter to train(.|\n)*train\.freeze"):
        build_optimizer(specs.Sgd(name="sgd", lr=0.1), network)


def test_every_optimizers_defaults_are_torchs_but_muons_rate() -> None:
    for spec in get_args(specs.AnyOptimizer):
        for name in spec.model_fields["name"].annotation.__args__:
            given = {"lr": 0.1} if name == "sgd" else {}
            made = spec(name=name, **given)
            if name in ("muon", "sgd"):
                continue
            torchs = TORCHS[name]([nn.Parameter(torch.ones(1))]).defaults
            for field, value in made.model_dump(exclude={"name", "decay_biases"}).items():
                expected = 0.0 if field == "weight_decay" else torchs[field]
                assert value == expected, (name, field)
