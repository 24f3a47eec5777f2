"""Weights from elsewhere: the one state dict in a file, whatever it is wrapped in.

The file's first bytes decide what it is, not its name. Nothing in it is run: torch reads it with
weights_only=True.
"""

import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from hydrofoil.data.published.catalogue import CIFAR10_CLASSES, FASHION_CLASSES
from hydrofoil.data.published.readers import DIGIT_CLASSES
from hydrofoil.errors import HydrofoilError, nearest, reason
from hydrofoil.run.weights import metadata_of

HOW_TO_SAVE = "Save one with: torch.save(model.state_dict(), path)"
# What other files begin with, and what to do about it.
OTHER_KINDS = {
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "compressed by xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x89HDF": "an HDF5 file, as Keras writes it: expected PyTorch's weights",
    b"\x93NUMPY": "an array of NumPy: expected PyTorch's weights",
    b"<": "a web page: the download has failed",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
}


# The class names that are known without a dataset's files.
KNOWN_CLASSES: dict[str, tuple[str, ...]] = {
    "digits": DIGIT_CLASSES,
    "mnist": DIGIT_CLASSES,
    "fashion-mnist": FASHION_CLASSES,
    "cifar10": CIFAR10_CLASSES,
}


@dataclass(frozen=True)
class FoundWeights:
    """What a file holds.

    Args:
        path: The file.
        tensors: The state dict's float32 and integer tensors, on the CPU, in the file's order.
        ordered: The order is the network's; safetensors files keep none.
        notes: What was taken off or converted, in sentences.
        classes: The class names in a file that hydrofoil wrote.
    """

    path: Path
    tensors: dict[str, Tensor]
    ordered: bool = True
    notes: list[str] = field(default_factory=list[str])
    classes: tuple[str, ...] | None = None


def read_weights(path: Path, key: str = "") -> FoundWeights:
    """Return the state dict in a .safetensors or torch.save file; no code in it is run.

    Args:
        path: The file, of any name.
        key: Which of several state dicts in it, by its dotted key.

    Raises:
        HydrofoilError: The file is missing, broken, or holds no state dict, or several.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise HydrofoilError(f"{path}: the weights cannot be read: {reason(error)}.") from error
    if not head:
        raise HydrofoilError(f"{path}: broken, or not weights: the file is empty.")
    for begin, what in OTHER_KINDS.items():
        if head.startswith(begin):
            raise HydrofoilError(f"{path}: not weights: {what}.")
    notes: list[str] = []
    safetensors = _is_safetensors(path, head)
    content = _read_safetensors(path) if safetensors else _read_torch(path)
    tensors = _unwrapped(path, content, key, notes)
    classes = classes_in(path.read_bytes()) if safetensors else None
    return FoundWeights(path, _converted(path, tensors, notes), not safetensors, notes, classes)


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Tell by the first bytes: the length of a JSON object, then the object."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and length + 8 <= path.stat().st_size


def _read_safetensors(path: Path) -> object:
    try:
        return load_safetensors(path.read_bytes())
    except Exception as error:  # its reader raises what it stumbles on
        raise _broken(path, error) from error


def classes_in(content: bytes) -> tuple[str, ...] | None:
    """Return the class names in a safetensors file that hydrofoil wrote."""
    try:
        names = json.loads(metadata_of(content)["classes"])
    except (KeyError, ValueError, TypeError):
        return None
    return tuple(map(str, cast("list[object]", names))) if isinstance(names, list) else None


def _read_torch(path: Path) -> object:
    """Return what torch reads, in the zip form or the one before it, from any device."""
    try:
        _check_room(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise HydrofoilError(f"{path}: the weights cannot be read: {reason(error)}.") from error
    except Exception as error:  # torch's reader of broken files raises whatever it stumbles on
        if "torch.jit" in str(error) or "TorchScript" in str(error):
            raise HydrofoilError(
                f"{path}: a TorchScript program, not weights; it is not run.\n{HOW_TO_SAVE}"
            ) from error
        if type(error).__name__ == "UnpicklingError":  # by name: nothing here imports pickle
            raise HydrofoilError(
                f"{path}: not a plain state dict; loading it could run code, so it is refused.\n"
                f"{HOW_TO_SAVE}"
            ) from error
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> HydrofoilError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    why = "".join(letter if letter.isprintable() else "?" for letter in first)  # the file's own
    return HydrofoilError(f"{path}: broken, or not weights: {why}")


def _check_room(path: Path) -> None:
    """Refuse a file that grows when it is read: torch.save stores and does not pack."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        size = sum(part.file_size for part in file.infolist())
    if size > path.stat().st_size:
        raise ValueError(f"it would unpack to {size} bytes")


def _unwrapped(path: Path, content: object, key: str, notes: list[str]) -> dict[str, Tensor]:
    """Return the one state dict in a checkpoint."""
    found = dict(_state_dicts(content))
    if key:
        if key not in found:
            raise HydrofoilError(f"{path}: no state dict is called '{key}'. {nearest(key, found)}")
        found = {key: found[key]}
    if not found:
        raise HydrofoilError(
            f"{path}: expected a state dict, names to tensors; it holds something else.\n"
            f"{HOW_TO_SAVE}"
        )
    if len(found) > 1:
        first = next(iter(found))
        raise HydrofoilError(
            f"{path}: it holds {len(found)} state dicts: {', '.join(found)}.\n"
            f"Choose one with --key, such as --key {first}"
        )
    ((name, tensors),) = found.items()
    if name:
        notes.append(f"taken from '{name}' of the checkpoint")
    return tensors


def _state_dicts(content: object, name: str = "", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Yield every state dict in a checkpoint by its dotted key; the optimizer's is none."""
    if not isinstance(content, Mapping) or not depth:
        return
    entries = cast("Mapping[object, object]", content)
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    weights = any(isinstance(key, str) and value.ndim for key, value in tensors.items())
    if weights and all(isinstance(key, str) for key in tensors):
        yield name, tensors
        return
    for key, value in entries.items():
        if isinstance(key, str) and "optim" not in key.lower():
            yield from _state_dicts(value, f"{name}.{key}" if name else key, depth - 1)


def _converted(path: Path, tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Return plain tensors, floats as float32."""
    plain: dict[str, Tensor] = {}
    changed: dict[torch.dtype, int] = {}
    for name, tensor in tensors.items():
        if tensor.is_quantized or tensor.is_sparse or tensor.is_complex() or tensor.is_meta:
            raise HydrofoilError(
                f"{path}: {name} is {tensor.dtype}, {tensor.layout}: expected a dense tensor of "
                "real numbers."
            )
        tensor = tensor.detach()
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            changed[tensor.dtype] = changed.get(tensor.dtype, 0) + 1
            tensor = tensor.to(torch.float32)
        plain[name] = tensor
    for dtype, count in changed.items():
        plural = "tensor" if count == 1 else "tensors"
        notes.append(f"{count} {plural} converted from {str(dtype)[6:]} to float32")
    return plain
