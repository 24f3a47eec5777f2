"""Checkpoints as forks of the tutorials save them: other widths, names, wrappers and formats."""

# ruff: noqa: E501 - a fork is easiest to read as its author would write it

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import literal
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hydrofoil import HydrofoilError, Run, read_recipe
from hydrofoil.cli.main import main
from hydrofoil.ship.import_weights import read_weights
from hydrofoil.ship.match import Imported, import_weights

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}
TEN = tuple("abcdefghij")


class Numbered(nn.Module):
    """features.0, classifier.1: convolutions without biases and batch norm; other widths."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(40 * 64, 50), nn.ReLU(), nn.Linear(50, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Layered(nn.Module):
    """layer1.0, layer2.0, fc: the widths of a popular fork."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.layer2 = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(32 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(x)).flatten(1))


class LastFirst(nn.Module):
    """A LeNet whose constructor names its layers in another order than it calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.dense = nn.Linear(70, 10), nn.Linear(16 * 25, 70)
        self.c2, self.c1 = nn.Conv2d(8, 16, 5), nn.Conv2d(3, 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        return self.out(F.relu(self.dense(x.flatten(1))))


def deep_mlp() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((784, 300), (300, 200), (200, 100)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def ten_layers() -> nn.Module:
    """Numbered names of which the tenth sorts before the second."""
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(11):
        layers += [nn.Linear(784 if len(layers) == 1 else 20, 20), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(20, 10))


FORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    **{name: (name, tutorial.network) for name, tutorial in literal.TUTORIALS.items()},
    "numbered": ("cifar10-cnn3", Numbered),
    "layered": ("mnist-cnn", Layered),
    "last first": ("cifar10-lenet", LastFirst),
    "deep mlp": ("mnist-mlp", deep_mlp),
    "ten layers": ("mnist-mlp", ten_layers),
    "two linear layers": ("mnist-cnn", lambda: nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10),
    )),
}  # fmt: skip


def imported(fork: str, path: Path, **options: Any) -> Imported:
    recipe = read_recipe(FORKS[fork][0])
    return import_weights(recipe, SHAPES[recipe.data.source], TEN, read_weights(path, **options))


def network(fork: str) -> nn.Module:
    torch.manual_seed(4)
    made = FORKS[fork][1]().eval()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 2)  # type: ignore[arg-type]
    return made


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda weights: weights,
    "DataParallel": lambda weights: prefixed(weights, "module."),
    "compiled": lambda weights: prefixed(weights, "_orig_mod."),
    "both": lambda weights: prefixed(weights, "module._orig_mod."),
    "held": lambda weights: prefixed(weights, "net."),
    "any name": lambda weights: prefixed(weights, "my_encoder.backbone."),
    "example of ImageNet": lambda weights: {
        "epoch": 3, "arch": "lenet", "best_acc1": torch.tensor(54.2),
        "state_dict": prefixed(weights, "module."),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
    },
    "model_state_dict": lambda weights: {"epoch": 3, "model_state_dict": weights, "loss": 0.5},
    "model": lambda weights: {"model": weights, "acc": 91.2},
    "net": lambda weights: {"net": prefixed(weights, "module."), "epoch": 200},
    "nested": lambda weights: {"checkpoint": {"model": weights}},
    "Lightning": lambda weights: {
        "epoch": 3, "state_dict": prefixed(weights, "model."), "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}], "callbacks": {},
    },
    "ordered": lambda weights: OrderedDict(weights),
}  # fmt: skip


def assert_same(fork: str, found: Imported, tolerance: float = 0) -> None:
    images = torch.randint(256, (5, *found.model.shape), dtype=torch.uint8)
    with torch.no_grad():
        ours = found.model.eval()(images)
        theirs = network(fork)(found.model.normalize(images))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("fork", FORKS)
def test_a_forks_weights_answer_as_in_the_fork(fork: str) -> None:
    torch.save(network(fork).state_dict(), "w.pt")
    assert_same(fork, imported(fork, Path("w.pt")), 1e-5)


@pytest.mark.parametrize(
    "fork", ["numbered", "ten layers", "deep mlp", "cifar10-cnn3", "last first"]
)
def test_safetensors_lose_the_order_and_are_matched_all_the_same(fork: str) -> None:
    save_file(network(fork).state_dict(), "w.bin")
    if fork == "ten layers":
        order = list(read_weights(Path("w.bin")).tensors)
        assert order != list(network(fork).state_dict())
    assert_same(fork, imported(fork, Path("w.bin")), 1e-5)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("fork", ["cifar10-lenet", "layered"])
def test_wrappers_and_prefixes_are_taken_off(fork: str, wrapper: str) -> None:
    torch.save(WRAPPERS[wrapper](network(fork).state_dict()), "w.pth.tar")
    found = imported(fork, Path("w.pth.tar"))
    assert_same(fork, found, 1e-5)
    notes = " ".join(found.notes)
    assert ("removed" in notes) == (
        wrapper not in ("plain", "model_state_dict", "model", "nested", "ordered")
    ) or fork == "layered"
    assert ("taken from" in notes) == isinstance(WRAPPERS[wrapper]({"x": torch.ones(1)}), dict) * (
        wrapper
        in ("example of ImageNet", "model_state_dict", "model", "net", "nested", "Lightning")
    )


def test_a_loss_beside_the_model_is_left_out_and_said() -> None:
    weights = prefixed(network("cifar10-lenet").state_dict(), "model.")
    torch.save({"state_dict": {**weights, "criterion.weight": torch.ones(10)}}, "w.ckpt")
    found = imported("cifar10-lenet", Path("w.ckpt"))
    assert_same("cifar10-lenet", found)
    assert "prefix 'model.' removed" in found.notes
    assert "not used: criterion.weight" in found.notes
    assert found.mapping["conv1.weight"] == "model.conv1.weight"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats_are_converted_and_said(dtype: torch.dtype) -> None:
    weights = {n: t.to(dtype) for n, t in network("mnist-cnn").state_dict().items()}
    torch.save(weights, "w.pt")
    found = imported("mnist-cnn", Path("w.pt"))
    assert f"6 tensors converted from {str(dtype)[6:]} to float32" in found.notes
    expected = weights["fc1.weight"].float()
    assert torch.equal(found.model.network.state_dict()["fc1.weight"], expected)


def test_files_of_old_versions_of_torch_are_read() -> None:
    torch.save(network("mnist-mlp").state_dict(), "w", _use_new_zipfile_serialization=False)
    assert Path("w").read_bytes()[:2] != b"PK"
    assert_same("mnist-mlp", imported("mnist-mlp", Path("w")), 1e-6)


def test_tensors_that_were_saved_on_a_gpu_are_read_on_the_cpu() -> None:
    torch.save(network("mnist-cnn").state_dict(), "w.pt")
    content = Path("w.pt").read_bytes()
    # In the pickle a storage's place is a string; only its length has to change with it.
    parts = content.count(b"X\x03\x00\x00\x00cpu")
    assert parts
    import io
    import zipfile

    source, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            file.writestr(name, data)
    Path("cuda.pt").write_bytes(out.getvalue() + b"\0" * 0)
    assert_same("mnist-cnn", imported("mnist-cnn", Path("cuda.pt")), 1e-6)


def test_of_several_state_dicts_one_has_to_be_named() -> None:
    weights = network("mnist-cnn").state_dict()
    other = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save({"model": weights, "ema": {"shadow": other}}, "w.pt")
    with pytest.raises(HydrofoilError, match=r"w\.pt: it holds 2 state dicts: model, ema\.shadow"):
        imported("mnist-cnn", Path("w.pt"))
    with pytest.raises(
        HydrofoilError, match=r"no state dict is called 'mode'\. Did you mean 'model'"
    ):
        imported("mnist-cnn", Path("w.pt"), key="mode")
    assert_same("mnist-cnn", imported("mnist-cnn", Path("w.pt"), key="model"), 1e-6)


def test_widths_are_said_and_kept_in_the_recipe() -> None:
    torch.save(network("numbered").state_dict(), "w.pt")
    found = imported("numbered", Path("w.pt"))
    model = found.recipe.model.model_dump()
    assert (model["widths"], model["hidden"], model["norm"]) == ((24, 40), (50,), "batch")
    assert "model.widths = [24, 40], as in the weights" in found.notes
    assert "conv1.bias is not in the file: zeros" in found.notes
    assert found.mapping["fc2.weight"] == "classifier.3.weight"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x1f\x8b\x08", "compressed by gzip: unpack it first"),
        (b"\x89HDF\r\n", "an HDF5 file, as Keras writes it"),
        (b"<!DOCTYPE html>", "a web page: the download has failed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
)
def test_files_of_other_kinds_are_named_for_what_they_are(content: bytes, message: str) -> None:
    Path("w.pt").write_bytes(content)
    with pytest.raises(HydrofoilError, match=message):
        read_weights(Path("w.pt"))


def test_a_whole_model_and_a_program_are_refused_without_running() -> None:
    torch.save(network("mnist-cnn"), "model.pt")
    with pytest.raises(HydrofoilError, match="could run code, so it is refused"):
        read_weights(Path("model.pt"))


@pytest.mark.parametrize(
    ("recipe", "fork", "message"),
    [
        (
            "cifar10-lenet",
            "cifar10-cnn3",
            r"filters are 3×3, not those of lenet\.\nTry model\.name=cnn3 or cnn",
        ),
        ("mnist-mlp", "mnist-cnn", r"of another model"),
        ("mnist-cnn", "numbered", r"another model, or for other images or classes: "),
        (
            "mnist-cnn",
            "deep mlp",
            r"of another model: 4 layers \(1, 4, 7, 10\), expected 3 \(conv1",
        ),
    ],
)
def test_another_network_is_refused_by_its_layers(recipe: str, fork: str, message: str) -> None:
    torch.save(network(fork).state_dict(), "w.pt")
    spec = read_recipe(recipe)
    with pytest.raises(HydrofoilError, match=message):
        import_weights(spec, SHAPES[spec.data.source], TEN, read_weights(Path("w.pt")))


def cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_import_prints_the_mapping_needs_no_dataset_and_says_imported_everywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data_root: Path
) -> None:
    torch.save({"state_dict": prefixed(network("layered").state_dict(), "module.")}, "w.tar")
    empty = tmp_path / "nothing"
    empty.mkdir()
    status, out, err = cli(
        capsys, "import", "mnist-cnn", "w.tar", "--run", "r", "--data-root", empty
    )
    assert status == 0, err
    assert "conv1.weight  from  module.layer1.0.weight" in out
    assert "note: taken from 'state_dict' of the checkpoint" in out
    assert "note: model.widths = [16, 32], as in the weights" in out
    run = Run.open("r")
    assert run.log.imported()
    status, out, _ = cli(capsys, "show", "r")
    assert "imported weights" in out
    assert cli(capsys, "report", "r")[0] == 0
    status, out, err = cli(capsys, "test", "r", "--data-root", data_root)
    assert status == 0, err
    assert "; imported weights" in out
    assert "epoch 0" not in out
    assert cli(capsys, "report", "r")[0] == 0
    page = Path("r/report.html").read_text()
    assert "imported weights" in page
    assert "epoch 0" not in page


def test_class_names_are_given_or_counted_against_the_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 2))
    torch.save(small.state_dict(), "w.pt")
    arguments = ("import", "digits", "w.pt", "model.name=mlp")
    status, _, err = cli(capsys, *arguments)
    assert status == 2
    assert "3.weight is 2×5, expected fc2.weight is 10×5" in err
    status, out, err = cli(capsys, *arguments, "--classes", "cat, dog", "--run", "r", "--json")
    assert status == 0, err
    assert json.loads(out)["mapping"]["fc1.weight"] == "1.weight"
    model, epoch = Run.open("r").weights.load(torch.device("cpu"))
    assert (model.classes, epoch) == (("cat", "dog"), 0)
    assert cli(capsys, *arguments, "--classes", "cat,cat")[0] == 2
