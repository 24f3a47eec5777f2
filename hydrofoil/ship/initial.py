"""`train.init`: begin with given weights instead of drawn ones."""

import hashlib
from pathlib import Path

from safetensors.torch import load as load_safetensors
from torch import Tensor

from hydrofoil.errors import HydrofoilError
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.folder import Run
from hydrofoil.run.weights import BEST
from hydrofoil.ship.import_weights import FoundWeights, classes_in, read_weights
from hydrofoil.ship.match import expected_by, match, without_prefixes


def initialize(model: Classifier, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Give a new model the weights that a recipe starts from; nothing if it names none.

    The last layer keeps its own first weights where the other classes are not these.

    Args:
        model: As `build` made it, before its optimizer is.
        recipe: Says train.init.

    Returns:
        The recipe with the weights' SHA-256, and notes for the user.

    Raises:
        HydrofoilError: There are no such weights, they do not fit, or they are not those that the
            recipe was resolved with.
    """
    given = recipe.train.init
    if not given:
        return recipe, []
    found = _find(Path(given))
    digest = hashlib.sha256()
    for name, tensor in sorted(found.tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    sha256, known = digest.hexdigest(), recipe.train.init_sha256
    if known and known != sha256:
        raise HydrofoilError(
            f"train.init = {given}: these weights have SHA-256 {sha256[:12]}…, "
            f"expected {known[:12]}….\n"
            "Put the weights back, or start a new run with train.init_sha256=''."
        )
    notes = [f"starts from the weights of {given}", *found.notes]
    tensors = without_prefixes(found.tensors, notes)
    tensors = _without_other_classes(model, tensors, found, notes)
    expected = f"{expected_by(model)} train.init takes weights of the same network."
    weights, _ = match(model.network, found, tensors, notes, expected)
    model.load_weights(weights, given)
    train = recipe.train.model_copy(update={"init_sha256": sha256})
    return recipe.model_copy(update={"train": train}), notes


def _find(path: Path) -> FoundWeights:
    """Return the weights of a run folder, checked against its manifest, or of a file."""
    if not path.is_dir():
        return read_weights(path)
    content = Run.open(path).files.read(BEST)
    tensors = load_safetensors(content)
    return FoundWeights(path, tensors, ordered=False, classes=classes_in(content))


def _without_other_classes(
    model: Classifier, tensors: dict[str, Tensor], found: FoundWeights, notes: list[str]
) -> dict[str, Tensor]:
    """Put the model's own last layer in the file's place if the classes are others."""
    own = model.network.state_dict()
    last = [name.rpartition(".")[0] for name, tensor in own.items() if tensor.ndim == 2][-1:]
    theirs = _last_layer(tensors, last)
    if not last or not theirs or f"{theirs}.weight" not in tensors:
        return tensors
    weight, its = own[f"{last[0]}.weight"], tensors[f"{theirs}.weight"]
    renamed = found.classes is not None and found.classes != model.classes
    if its.shape[1:] != weight.shape[1:] or (len(its) == len(weight) and not renamed):
        return tensors
    which = "other classes" if len(its) == len(weight) else f"{len(its)} classes"
    notes.append(f"{last[0]} is new, for {len(weight)} classes: the given weights are for {which}")
    new = {f"{theirs}.{leaf}": own[f"{last[0]}.{leaf}"] for leaf in ("weight", "bias")}
    return {name: new.get(name, tensor) for name, tensor in tensors.items()}


def _last_layer(tensors: dict[str, Tensor], own: list[str]) -> str:
    """Return the file's last linear layer: of the same name, else the one that comes last."""
    names = [name.rpartition(".")[0] for name, tensor in tensors.items() if tensor.ndim == 2]
    return own[0] if own and own[0] in names else (names[-1] if names else "")
