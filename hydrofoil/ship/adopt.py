"""Weights from elsewhere: a state dict as the tutorials save it."""

import zipfile
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from hydrofoil.errors import HydrofoilError, reason


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a .safetensors or torch.save file; no code in it is run.

    Raises:
        HydrofoilError: The file is missing, broken, or holds anything but a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes())
        _check_room(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise HydrofoilError(f"{path}: the weights cannot be read: {reason(error)}.") from error
    except Exception as error:  # torch's reader of broken files raises whatever it stumbles on
        if type(error).__name__ == "UnpicklingError":  # by name: nothing here imports pickle
            raise HydrofoilError(
                f"{path}: not a plain state dict; loading it could run code, so it is refused.\n"
                "Save one with: torch.save(model.state_dict(), path)"
            ) from error
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        why = "".join(letter if letter.isprintable() else "?" for letter in first)  # the file's own
        raise HydrofoilError(f"{path}: broken, or not weights: {why}") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise HydrofoilError(
            f"{path}: expected a state dict, names to tensors; it holds something else.\n"
            "Save one with: torch.save(model.state_dict(), path)"
        )
    return weights


def _check_room(path: Path) -> None:
    """Refuse a file that grows when it is read: torch.save stores and does not pack."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        size = sum(part.file_size for part in file.infolist())
    if size > path.stat().st_size:
        raise ValueError(f"it would unpack to {size} bytes")
