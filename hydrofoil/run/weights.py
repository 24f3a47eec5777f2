"""best.safetensors: the best weights, with metadata that describes the model."""

import json
from collections.abc import Mapping
from typing import cast

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from hydrofoil.errors import HydrofoilError
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network, unasked
from hydrofoil.recipe.models import Custom
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.commands import command
from hydrofoil.run.files import Files
from hydrofoil.run.manifest import cure
from hydrofoil.run.reference import attach_reference

BEST = "best.safetensors"
LAST, PREVIOUS = "last.safetensors", "previous.safetensors"
CHECKPOINTS = LAST, PREVIOUS


class Weights:
    """The best weights of one run.

    Args:
        files: Of the run.
        recipe: That it trains.
    """

    def __init__(self, files: Files, recipe: Recipe) -> None:
        self.files, self.recipe, self.path = files, recipe, files.path / BEST

    def save(self, model: Classifier, epoch: int) -> None:
        """Write the network's parameters, and nothing else, as best.safetensors."""
        content = self.to_bytes(model, model.network.state_dict(), epoch)
        self.files.write(BEST, content, epoch=epoch)

    def to_bytes(self, model: Classifier, weights: Mapping[str, torch.Tensor], epoch: int) -> bytes:
        """Return weights of an epoch as a file, with metadata that describes the model."""
        metadata = {
            "format": "hydrofoil 1",
            "model": json.dumps(self.recipe.model.model_dump(mode="json")),
            "source": self.recipe.data.source,
            "shape": json.dumps(model.shape),
            "classes": json.dumps(model.classes),
            "mean": json.dumps(self.recipe.data.mean),
            "std": json.dumps(self.recipe.data.std),
            "fit": self.recipe.data.fit,
            "epoch": str(epoch),
            "recipe": self.recipe.hash(),
        }
        return safetensors_bytes(weights, metadata)

    def load(self, device: torch.device, network: Network | None = None) -> tuple[Classifier, int]:
        """Return the model with the run's best weights, and their epoch.

        Args:
            device: Where to put it.
            network: The code of a run whose network is the user's own: it runs only when given.

        Raises:
            HydrofoilError: No epoch is finished, or the file is missing or has changed.
        """
        path, folder = self.path, self.files.path
        if not path.exists() and any((folder / name).exists() for name in CHECKPOINTS):
            raise HydrofoilError(f"{path}: missing.{cure(path)}")
        if not path.exists():
            raise HydrofoilError(
                f"{folder}: no epoch is finished yet, so there are no weights.\n"
                f"Resume with: {command('resume', folder)}"
            )
        tensors, metadata = read_tensors(self.files, self.recipe, BEST)
        if isinstance(self.recipe.model, Custom) and network is None:
            raise unasked(self.recipe, folder)
        with self.files.parsing(BEST):
            shape, classes, epoch = _described(metadata)
            model = build(self.recipe, shape, classes, network)
            model.load_weights(tensors, str(path))
        attach_reference(self.files, model)
        return model.to(device), epoch

    def epoch(self) -> int:
        """Return the epoch of the best weights, as the manifest has it; 0 if there are none."""
        entry = self.files.entry(BEST)
        return entry.epoch or 0 if entry else 0


def _described(metadata: Mapping[str, str]) -> tuple[tuple[int, int, int], tuple[str, ...], int]:
    """Return the images' shape, the classes and the epoch that best.safetensors states."""
    channels, height, width = map(int, json.loads(metadata["shape"]))
    classes = json.loads(metadata["classes"])
    if not isinstance(classes, list):
        raise TypeError("classes are not a list")
    names = tuple(map(str, cast("list[object]", classes)))
    return (channels, height, width), names, int(metadata["epoch"])


def read_tensors(
    files: Files, recipe: Recipe, name: str
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and metadata of a file that this recipe's training wrote.

    Raises:
        HydrofoilError: It is missing, has changed, or belongs to another recipe.
    """
    tensors, metadata = files.parse(
        name, lambda content: (load_tensors(content), metadata_of(content))
    )
    if metadata.get("recipe") != recipe.hash():
        raise HydrofoilError(
            f"{files.path / name}: trained by another recipe than the recipe.toml beside it.\n"
            "Put the old recipe back, or train the new one in its own run."
        )
    return tensors, metadata


def safetensors_bytes(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file, the same bytes for the same content.

    The library writes the metadata in a different order each time, so the head is rewritten: eight
    bytes for its length, then JSON, padded with spaces so that the tensors stay aligned.
    """
    content = save_tensors(_plain(tensors), metadata)
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors as safetensors takes them: on the CPU, and no two of one memory."""
    plain: dict[str, torch.Tensor] = {}
    seen = set[int]()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()  # weights that two layers share, or a part of others
        seen.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor
    return plain


def metadata_of(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file's content: see its format's description."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header.get("__metadata__", {}))
