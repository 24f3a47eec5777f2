import gzip
import hashlib
import os
import pickle
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.datasets import load_digits

from hydrofoil import HydrofoilError, load
from hydrofoil.data.published import download
from hydrofoil.data.published.blocks import Block
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.data.published.cifar import read_batch
from hydrofoil.data.published.download import RetryPolicy
from hydrofoil.data.published.idx import read_idx
from hydrofoil.data.source import data_root
from tests import published

REAL_DATA = os.environ.get("HYDROFOIL_DATA", "")  # read before any fixture hides it


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_loads_as_it_says(name: str) -> None:
    pictures = load(name)
    assert pictures.source == name
    assert pictures.shape == SOURCES[name].shape
    assert len(pictures.classes) == SOURCES[name].classes
    assert pictures.pictures_NCHW.dtype == torch.uint8
    assert (pictures.published_test > 0) == bool(SOURCES[name].files)
    assert len(set(pictures.labels_N.tolist())) == SOURCES[name].classes


def test_digits_are_scikit_learns_digits() -> None:
    theirs, ours = load_digits(), load("digits")
    assert ours.labels_N.tolist() == theirs.target.tolist()
    pixels = ours.pictures_NCHW[:, 0].numpy()
    np.testing.assert_array_equal(np.rint(pixels / 255 * 16), theirs.images)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_idx_files_are_read_as_torchvision_reads_them(
    name: str, theirs: str, data_root: Path
) -> None:
    ours = load(name)
    parts = [getattr(torchvision.datasets, theirs)(data_root, train=part) for part in (True, False)]
    expected = torch.cat([part.data for part in parts])
    assert torch.equal(ours.pictures_NCHW[:, 0], expected)
    assert torch.equal(ours.labels_N, torch.cat([part.targets for part in parts]))
    assert ours.published_test == len(parts[1])
    if name == "fashion-mnist":
        assert ours.classes == tuple(parts[0].classes)


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")  # the published pickles name it
@pytest.mark.parametrize(("name", "theirs"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar_is_read_as_torchvision_reads_it(
    name: str, theirs: str, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    ours = load(name)
    parts = [getattr(torchvision.datasets, theirs)(data_root, train=part) for part in (True, False)]
    expected = np.concatenate([part.data for part in parts]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(ours.pictures_NCHW.numpy(), expected)
    assert ours.labels_N.tolist() == [label for part in parts for label in part.targets]
    assert ours.classes == tuple(parts[0].classes)


def test_cifar100s_published_names_are_read(data_root: Path, tmp_path: Path) -> None:
    content = published.published_cifar100_meta()
    assert hashlib.md5(content).hexdigest() == torchvision.datasets.CIFAR100.meta["md5"]
    shutil.copytree(data_root / "cifar-100-python", tmp_path / "cifar-100-python")
    (tmp_path / "cifar-100-python/meta").write_bytes(content)
    assert " ".join(load("cifar100", tmp_path).classes) == published.CIFAR100_FINE


PICKLED = st.dictionaries(
    st.binary(max_size=300),
    st.one_of(
        st.binary(max_size=300),
        st.integers(-(2**31), 2**31 - 1),
        st.lists(st.integers(-(2**31), 2**31 - 1), max_size=1100),
        st.lists(st.integers(0, 255), max_size=70),
        st.lists(st.binary(max_size=300), max_size=30),
        arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40)),
        arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)).map(np.asfortranarray),
    ),
    max_size=5,
)


@settings(suppress_health_check=list(HealthCheck), max_examples=100, deadline=None)
@given(batch=PICKLED, memos=st.booleans())
def test_batches_are_read_as_pickle_reads_them(
    batch: dict[bytes, Any], memos: bool, tmp_path: Path
) -> None:
    """Whatever Python 2 would have written in the published form."""
    path = tmp_path / "batch"
    path.write_bytes(published.Python2Pickle(memos).whole(batch))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the form names numpy.core
        theirs = pickle.loads(path.read_bytes(), encoding="bytes")
    ours = read_batch(path)
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        if isinstance(value, Block):
            array = np.empty(value.shape, np.uint8)
            value.read(array)
            np.testing.assert_array_equal(array, theirs[key])
        else:
            assert value == theirs[key]


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA, reason="needs the real sets under HYDROFOIL_DATA")
@pytest.mark.parametrize("name", [name for name in SOURCES if SOURCES[name].pictures_hash])
def test_the_real_sets_are_the_published_ones(name: str) -> None:
    assert load(name, REAL_DATA).hash == SOURCES[name].pictures_hash


def test_gzipped_idx_files_serve_as_well(tmp_path: Path) -> None:
    published.write_mnist(tmp_path)
    plain = load("mnist", tmp_path)
    for path in (tmp_path / "MNIST" / "raw").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load("mnist", tmp_path).hash == plain.hash


def test_the_data_root_is_the_one_given_or_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HYDROFOIL_DATA", "/from/environment")
    assert data_root("/given") == Path("/given")
    assert data_root() == Path("/from/environment")
    monkeypatch.delenv("HYDROFOIL_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_root().name == "hydrofoil"


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "classes", "seed"),
    [
        ("emnist-letters", 156, 52, (1, 28, 28), 26, 2),
        ("emnist-digits", 60, 20, (1, 28, 28), 10, 2),
        ("emnist-balanced", 282, 94, (1, 28, 28), 47, 2), ("svhn", 60, 20, (3, 32, 32), 10, 4),
        ("stl10", 60, 20, (3, 96, 96), 10, 4),
    ],
)  # fmt: skip
def test_images_come_out_as_they_were_before_the_publishers_format(
    name: str, train: int, test: int, shape: tuple[int, int, int], classes: int, seed: int
) -> None:
    pictures = load(name)
    parts = [
        published.class_pictures(count, shape, seed + at, classes)
        for at, count in enumerate((train, test))
    ]
    expected_NCHW = np.concatenate([images for images, _ in parts])
    np.testing.assert_array_equal(pictures.pictures_NCHW.numpy(), expected_NCHW)
    assert pictures.labels_N.tolist() == np.concatenate([labels for _, labels in parts]).tolist()
    assert pictures.published_test == test


@pytest.mark.parametrize("file", ["SVHN/train_32x32.mat", "stl10_binary/test_X.bin"])
def test_damaged_files_of_the_other_sets_are_named(
    file: str, data_root: Path, tmp_path: Path
) -> None:
    folder = file.partition("/")[0]
    shutil.copytree(data_root / folder, tmp_path / folder)
    content = (tmp_path / file).read_bytes()
    name = "svhn" if folder == "SVHN" else "stl10"
    for broken in (content[: len(content) // 2], content[:100], b"x" * 200):
        (tmp_path / file).write_bytes(broken)
        with pytest.raises(HydrofoilError, match=Path(file).name):
            load(name, tmp_path)


def test_a_set_without_known_digests_is_only_compared_by_its_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differs = load("kmnist").differs
    assert differs == "600 training images instead of 60,000; 100 test images instead of 10,000"
    monkeypatch.setitem(SOURCES, "kmnist", replace(SOURCES["kmnist"], counts=(600, 100)))
    assert load("kmnist").differs is None


def test_emnist_alone_is_answered_with_its_sets() -> None:
    with pytest.raises(HydrofoilError, match=r"unknown dataset 'emnist'.*emnist-letters"):
        load("emnist")


def test_an_unknown_source_is_answered_with_the_nearest() -> None:
    with pytest.raises(HydrofoilError, match=r"unknown dataset 'cifar11'\. Did you mean 'cifar10'"):
        load("cifar11")


@pytest.mark.parametrize("name", [name for name in SOURCES if SOURCES[name].files])
def test_without_network_the_error_names_folder_and_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr(download, "RETRY_POLICY", RetryPolicy(wait_seconds=0))
    with pytest.raises(HydrofoilError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / SOURCES[name].folder) in message
    assert all(file in message for file in SOURCES[name].files)
    assert "--data-root" in message
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("keep", [0, 3, 10, 500, -1])
@pytest.mark.parametrize(
    "file", ["MNIST/raw/train-images-idx3-ubyte", "cifar-10-batches-py/data_batch_3"]
)
def test_a_truncated_file_is_named(file: str, keep: int, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root, tmp_path / "copy")
    path = tmp_path / "copy" / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(HydrofoilError, match=path.name) as caught:
        load("mnist" if "MNIST" in file else "cifar10", tmp_path / "copy")
    assert "Delete it" in str(caught.value)


def test_an_overlong_file_is_named(tmp_path: Path) -> None:
    published.write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(HydrofoilError, match="t10k-labels-idx1-ubyte"):
        load("mnist", tmp_path)


def test_labels_and_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    published.write_mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    published.write_idx(raw / "train-labels-idx1-ubyte", np.zeros(599))
    with pytest.raises(HydrofoilError, match="600×28×28 for 599 labels"):
        load("mnist", tmp_path)
    published.write_idx(raw / "train-labels-idx1-ubyte", np.full(600, 10))
    with pytest.raises(HydrofoilError, match="expected 0 to 9"):
        load("mnist", tmp_path)


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    published.write_mnist(tmp_path)
    images = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    published.write_idx(images, np.zeros((100, 27, 27)))
    with pytest.raises(
        HydrofoilError, match=r"t10k-images(.|\n)*expected one 28×28 image for each label"
    ):
        load("mnist", tmp_path)


class Canary:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("canary"),))


def test_a_batch_file_that_carries_code_is_refused_and_runs_nothing(
    data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_root, tmp_path / "copy")
    batch = {b"data": Canary(), b"labels": [1]}
    (tmp_path / "copy/cifar-10-batches-py/data_batch_1").write_bytes(
        pickle.dumps(batch, protocol=2)
    )
    with pytest.raises(HydrofoilError, match="data_batch_1"):
        load("cifar10", tmp_path / "copy")
    assert not Path("canary").exists()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(content=st.binary(max_size=64))
def test_no_bytes_break_the_idx_reader(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    try:
        array = read_idx(path)
    except HydrofoilError as error:
        assert str(path) in str(error)
    else:
        assert array.nbytes == len(content) - 4 - 4 * array.ndim
