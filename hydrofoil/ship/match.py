"""Whose weights these are: names and shapes of a file against a network's, and the sizes in them.

Layers are compared, not single tensors: a layer is what shares a name up to the last dot.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from hydrofoil.errors import HydrofoilError
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.recipe.models import Convolutional, Custom, Mlp
from hydrofoil.recipe.schema import Recipe
from hydrofoil.ship.import_weights import FoundWeights
from hydrofoil.wording import by

Layers = dict[str, dict[str, Tensor]]
PREFIXES = ("module", "_orig_mod", "net", "model", "network")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Imported:
    """A model with weights from elsewhere.

    Args:
        model: Holds them.
        recipe: With the sizes that were read from the weights.
        mapping: The network's name to the file's, in the network's order.
        notes: What was taken off, converted or filled in, in sentences.
    """

    model: Classifier
    recipe: Recipe
    mapping: dict[str, str]
    notes: list[str]


def import_weights(
    recipe: Recipe,
    shape: tuple[int, int, int],
    classes: Sequence[str],
    found: FoundWeights,
    network: Network | None = None,
) -> Imported:
    """Return the recipe's model with a file's weights; its widths are the weights' own.

    Args:
        recipe: Says the family of the network.
        shape: Channels, height and width of its images.
        classes: Their names.
        found: What the file holds.
        network: Takes the place of the recipe's model.

    Raises:
        HydrofoilError: They are no network of this family, or for other images or classes.
    """
    notes = list(found.notes)
    stripped = without_prefixes(found.tensors, notes)
    _check_kernel(recipe, found.path, stripped)
    recipe = _with_sizes(recipe, found, stripped, notes)
    model = build(recipe, shape, classes, network)
    weights, mapping = match(model.network, found, stripped, notes, expected_by(model))
    model.load_weights(weights, str(found.path))
    return Imported(model, recipe, mapping, notes)


def expected_by(model: Classifier) -> str:
    """Return what a model takes, for an error."""
    shape = by(model.shape)
    return f"The model here takes {shape} images of {len(model.classes)} classes."


def match(
    network: nn.Module,
    found: FoundWeights,
    tensors: Mapping[str, Tensor],
    notes: list[str],
    expected: str,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a network's weights among a file's tensors, and the file's name for each.

    By name if all names are there, else by order and shape, layer by layer.

    Raises:
        HydrofoilError: They do not fit, or fit in several ways.
    """
    own = network.state_dict()
    names = _by_name(own, tensors, notes) or _by_layer(own, found, tensors, notes)
    if names is None:
        raise _other_network(own, found, tensors, expected)
    originals = _originals(found.tensors, tensors)
    weights: dict[str, Tensor] = {}
    mapping: dict[str, str] = {}
    for name, tensor in own.items():
        if name in names:
            weights[name] = tensors[names[name]]
            mapping[name] = originals[names[name]]
        else:  # a bias that the file's layer has not, or a counter
            weights[name] = tensor.new_zeros(tensor.shape)
            if not name.endswith(COUNTER):
                notes.append(f"{name} is not in the file: zeros")
    return weights, mapping


def _by_name(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], notes: list[str]
) -> dict[str, str] | None:
    """Return the names as they are, or under one prefix beside other things, such as a loss's."""
    prefixes = {""} | {name[: at.end()] for name in tensors for at in re.finditer(r"\.", name)}
    needed = {name for name in own if not name.endswith(COUNTER)}
    fitting = [p for p in sorted(prefixes, key=len) if needed <= _under(p, tensors)]
    exact = [p for p in fitting if _under(p, tensors) <= own.keys()]
    if len(exact or fitting) != 1:
        return None
    (prefix,) = exact or fitting
    names = {name: prefix + name for name in own if prefix + name in tensors}
    if any(own[name].shape != tensors[names[name]].shape for name in names):
        return None
    ignored = sorted(tensors.keys() - set(names.values()))
    if prefix:
        notes.append(f"prefix '{prefix}' removed")
    if ignored:
        notes.append(f"not used: {', '.join(ignored[:4])}{' …' if len(ignored) > 4 else ''}")
    return names


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> set[str]:
    return {name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}


def _by_layer(
    own: Mapping[str, Tensor],
    found: FoundWeights,
    tensors: Mapping[str, Tensor],
    notes: list[str],
) -> dict[str, str] | None:
    """Return the names by order and shape of layers; by shape alone where every shape is unique."""
    ours, theirs = _layers(own), _layers(tensors)
    if len(ours) != len(theirs):
        return None
    orders = [list(theirs)] if found.ordered else []
    orders.append(sorted(theirs, key=_natural))
    for order in orders:
        pairs = list(zip(ours, order, strict=True))
        if all(_fits(ours[one], theirs[its]) for one, its in pairs):
            notes.append("matched by order and shape: the names are others")
            return _named(ours, theirs, pairs)
    choices = {one: [its for its in theirs if _fits(ours[one], theirs[its])] for one in ours}
    taken = {its[0] for its in choices.values() if len(its) == 1}
    if len(taken) != len(ours):
        return None
    notes.append("matched by shape: names and order are others")
    return _named(ours, theirs, [(one, its[0]) for one, its in choices.items()])


def _named(ours: Layers, theirs: Layers, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {
        _join(one, leaf): _join(its, leaf)
        for one, its in pairs
        for leaf in ours[one]
        if leaf in theirs[its]
    }


def _fits(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Tell whether one layer's tensors are another's; a bias may lack, and counts as zeros."""
    mine, its = ours.keys() - {COUNTER}, theirs.keys() - {COUNTER}
    if its - mine or (mine - its) - {"bias"}:
        return False
    return all(ours[leaf].shape == theirs[leaf].shape for leaf in its)


def _layers(tensors: Mapping[str, Tensor]) -> Layers:
    layers: Layers = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        layers.setdefault(layer, {})[leaf] = tensor
    return layers


def _join(layer: str, leaf: str) -> str:
    return f"{layer}.{leaf}" if layer else leaf


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts names as people number them: conv2 before conv10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def without_prefixes(tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Take off wrappers' prefixes that all names share, such as module. and _orig_mod."""
    plain, removed = dict(tensors), ""
    while plain:
        firsts = {name.partition(".")[0] for name in plain}
        (first,) = firsts if len(firsts) == 1 else ("",)
        if first not in PREFIXES or any("." not in name for name in plain):
            break
        plain = {name.partition(".")[2]: tensor for name, tensor in plain.items()}
        removed += f"{first}."
    if removed:
        notes.append(f"prefix '{removed}' removed")
    return plain


def _originals(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, str]:
    return dict(zip(after, before, strict=True))


def _with_sizes(
    recipe: Recipe, found: FoundWeights, tensors: Mapping[str, Tensor], notes: list[str]
) -> Recipe:
    """Return the recipe with the number and widths of layers that the weights have."""
    model = recipe.model
    if isinstance(model, Custom):
        return recipe
    layers = _layers(tensors)
    order = list(layers) if found.ordered else sorted(layers, key=_natural)
    shapes = [tuple(layers[name]["weight"].shape) for name in order if "weight" in layers[name]]
    filters = _chained([shape for shape in shapes if len(shape) == 4])
    matrices = _chained([shape for shape in shapes if len(shape) == 2])
    if not matrices or (bool(filters) == isinstance(model, Mlp)):
        return recipe  # another family: matching says so
    hidden = [shape[0] for shape in matrices[:-1]]
    sizes: dict[str, object] = {}
    if isinstance(model, Mlp):
        sizes["hidden"] = tuple(hidden)
    else:
        sizes["widths"] = tuple(shape[0] for shape in filters)
        if "hidden" in type(model).model_fields:
            sizes["hidden"] = tuple(hidden)
    if any("running_mean" in layer for layer in layers.values()):
        sizes["norm"] = "batch"
    changed = {name: value for name, value in sizes.items() if getattr(model, name) != value}
    for name, value in changed.items():
        shown = list(value) if isinstance(value, tuple) else value
        notes.append(f"model.{name} = {shown}, as in the weights")
    return recipe.model_copy(update={"model": model.model_copy(update=changed)})


def _chained(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return layers' shapes so that each takes what the one before gives, if that is one order."""
    outputs = {shape[0] for shape in shapes}
    chain = [shape for shape in shapes if shape[1] not in outputs]
    if len(chain) != 1 or all(after[1] == before[0] for before, after in pairwise(shapes)):
        return shapes
    rest = [shape for shape in shapes if shape is not chain[0]]
    while rest:
        following = [shape for shape in rest if shape[1] == chain[-1][0]]
        if len(following) != 1:
            return shapes
        chain.append(following[0])
        rest.remove(following[0])
    return chain


def _other_network(
    own: Mapping[str, Tensor], found: FoundWeights, tensors: Mapping[str, Tensor], expected: str
) -> HydrofoilError:
    """Return the error that names the first layer which does not fit."""
    ours, theirs = _layers(own), _layers(tensors)
    order = list(theirs) if found.ordered else sorted(theirs, key=_natural)
    if len(ours) != len(theirs):
        return HydrofoilError(
            f"{found.path}: of another model: {len(theirs)} layers ({_few(order)}), "
            f"expected {len(ours)} ({_few(list(ours))}).\n{expected}"
        )
    for one, its in zip(ours, order, strict=True):
        if not _fits(ours[one], theirs[its]):
            return HydrofoilError(
                f"{found.path}: of another model, or for other images or classes: "
                f"{_shown(its, theirs[its])}, expected {_shown(one, ours[one])}.\n{expected}"
            )
    return HydrofoilError(f"{found.path}: its layers fit in several ways.\n{expected}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")


def _shown(name: str, layer: Mapping[str, Tensor]) -> str:
    leaf = "weight" if "weight" in layer else next(iter(layer))
    return f"{_join(name, leaf)} is {by(layer[leaf].shape)}"


def _check_kernel(recipe: Recipe, path: object, tensors: Mapping[str, Tensor]) -> None:
    """Refuse filters of another size than the family has, and name the families that have it."""
    sizes = {tuple(t.shape[2:]) for t in tensors.values() if t.ndim == 4}
    if len(sizes) != 1 or not isinstance(recipe.model, Convolutional):
        return
    side = next(iter(sizes))[0]
    fitting = {3: ("cnn3", "cnn"), 5: ("lenet", "lenet-linear")}.get(side, ())
    if recipe.model.name not in fitting:
        cure = f"Try model.name={' or '.join(fitting)}." if fitting else "No family here has them."
        raise HydrofoilError(
            f"{path}: of another model: its filters are {side}×{side}, "
            f"not those of {recipe.model.name}.\n{cure}"
        )
