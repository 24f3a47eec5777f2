"""Fixtures that several files share."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch

from hydrofoil.cli.main import main
from tests import published

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))  # literal.py is an oracle here

# No deadline: shared machines stall. In CI the same examples each time, elsewhere new ones.
hypothesis.settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("house")

Cli = Callable[..., tuple[int, str, str]]
REAL_RECIPES = ["cifar10-lenet", "cifar10-cnn3", "mnist-mlp", "cifar10-lenet-linear", "mnist-cnn"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks gain nothing from threads, and the suite already runs on all cores."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what the thread rule asks first


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small set of each kind, in the published formats."""
    root = tmp_path_factory.mktemp("data")
    published.write_mnist(root)
    published.write_mnist(root, folder="FashionMNIST")
    published.write_cifar10(root)
    published.write_cifar100(root)
    published.write_others(root)
    return root


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's cache folder for what the tests build."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def only_made_data(
    data_root: Path, caches: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No test sees this machine's data or leaves runs behind."""
    monkeypatch.setenv("HYDROFOIL_DATA", str(data_root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line in this process; return its exit status, output and error output."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        output, errors = capfd.readouterr()
        return int(left.value.code or 0), output, errors

    return call
