"""A network that is not in the table: the user's own class, instance or function.

Code runs here, so it runs only if the call or command requests it explicitly: by
`model=…` in Python, or by `--model-code FILE.py:NAME`. A recipe names such code and its SHA-256,
and can cause none of it to run.
"""

import copy
import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from hydrofoil.errors import HydrofoilError, InputError, nearest, reason
from hydrofoil.models.layers import Dropout, evaluating
from hydrofoil.recipe.models import Custom
from hydrofoil.recipe.schema import Recipe
from hydrofoil.wording import by

KEPT_CODE = "model.py"  # in the run folder


@dataclass(frozen=True)
class NetworkCode:
    """A network's code, and how to make the network.

    Args:
        make: A class or function that returns a module, or a module, which is copied.
        name: Its name.
        text: The Python text that defines it; empty where that is not known.
    """

    make: Callable[..., nn.Module] | nn.Module
    name: str
    text: str = ""

    @property
    def section(self) -> Custom:
        """The [model] section of a recipe that trains it."""
        digest = hashlib.sha256(self.text.encode()).hexdigest() if self.text else ""
        return Custom(name="custom", code=self.name, sha256=digest)

    def __call__(self, shape: Sequence[int], classes: int) -> nn.Module:
        """Return a new network, on the CPU.

        Parameters of the class or function that are called as below get these values.

        Raises:
            HydrofoilError: The code raises, or returns something else.
        """
        if isinstance(self.make, nn.Module):
            return copy.deepcopy(self.make).cpu()
        channels, height, width = shape
        known = {
            "shape": tuple(shape), "channels": channels, "in_channels": channels,
            "height": height, "width": width, "classes": classes, "num_classes": classes,
        }  # fmt: skip
        try:
            wanted = inspect.signature(self.make).parameters
            network = self.make(**{name: known[name] for name in known if name in wanted})
        except Exception as error:
            raise HydrofoilError(f"{self.name}: it cannot be made: {said(error)}.") from error
        if not isinstance(cast("object", network), nn.Module):
            raise HydrofoilError(
                f"{self.name}: it returned {type(network).__name__}: expected a torch.nn.Module."
            )
        return network.cpu()


Network = nn.Module | NetworkCode | Callable[..., nn.Module]


def as_code(network: Network) -> NetworkCode:
    """Return the code of an instance, class or function, with its text as far as Python knows it.

    >>> as_code(nn.Linear(4, 2)).name
    'Linear'
    """
    if isinstance(network, NetworkCode):
        return network
    if isinstance(network, str):
        raise InputError(
            f"model: got the text {network!r}: expected a class, a function or a module.\n"
            f'A network of hydrofoil\'s own is a field of the recipe: model__name="{network}".'
        )
    made = type(network) if isinstance(network, nn.Module) else network
    try:
        text = inspect.getsource(made)
    except (OSError, TypeError):  # typed at a prompt, or written in C
        text = ""
    return NetworkCode(network, getattr(made, "__name__", type(made).__name__), text)


def text_of(network: Network | None) -> str:
    """Return the Python text of a network's code, as far as it is known."""
    return "" if network is None else as_code(network).text


def load_network(given: str | None) -> NetworkCode | None:
    """Run a file and return the network that it defines: the user requested it.

    The file has to stand alone: a run keeps its text, and nothing that it imports.

    Args:
        given: FILE.py:NAME; empty: nothing is run.

    Raises:
        HydrofoilError: The file cannot be read or run, or defines no such class or function.
    """
    if not given:
        return None
    file, colon, name = given.rpartition(":")
    if not colon or not name.isidentifier() or not file.endswith(".py"):
        raise HydrofoilError(
            f"--model-code {given}: expected FILE.py:NAME, such as networks.py:MyNet, "
            "where NAME is a class, or a function that returns the network."
        )
    path = Path(file)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "not UTF-8"
        raise HydrofoilError(f"{path}: the model code cannot be read: {why}.") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    module = ModuleType(f"hydrofoil_model_{digest[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look themselves up there
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except Exception as error:
        raise HydrofoilError(f"{path}: the model code does not run: {said(error)}.") from error
    made = getattr(module, name, None)
    if not callable(made):
        known = [
            n for n, v in vars(module).items() if callable(v) and v.__module__ == module.__name__
        ]
        raise HydrofoilError(
            f"{path}: it defines no class or function {name}. {nearest(name, known)}"
        )
    return NetworkCode(cast("Network", made), name, text)


def with_network(recipe: Recipe, network: Network | None) -> Recipe:
    """Return a recipe that trains this network instead of its own model.

    Raises:
        HydrofoilError: The recipe is for other code.
    """
    if network is None:
        return recipe
    section = as_code(network).section
    check_code(recipe, section, recipe.name)
    return recipe.model_copy(update={"model": section})


def check_code(recipe: Recipe, given: Custom, where: object) -> None:
    """Refuse code that is not what a recipe or run names, by its hash.

    Code whose text is not known, as from a Python prompt, is not checked.
    """
    known = recipe.model
    if not isinstance(known, Custom) or not known.sha256 or not given.sha256:
        return
    if given.sha256 != known.sha256:
        raise HydrofoilError(
            f"{where}: its network is {known.code} of SHA-256 {known.sha256[:12]}…, "
            f"and the given {given.code} has {given.sha256[:12]}….\n"
            "Give the same code, or train a new run with this one."
        )


def unasked(recipe: Recipe, run: Path | None) -> HydrofoilError:
    """Return the error for a network whose code was not requested: what to type."""
    name = getattr(recipe.model, "code", "") or "unnamed"
    if run is None:
        return HydrofoilError(
            f"model.name = custom: the recipe's network is code ({name}), "
            "and a recipe runs none.\nAdd --model-code FILE.py:NAME, or model=… in Python."
        )
    kept = run / KEPT_CODE
    flag = f"--model-code {kept}:{name}" if kept.exists() else "--model-code FILE.py:NAME"
    return HydrofoilError(
        f"{run}: its network is the user's code ({name}), which runs only on request.\n"
        f"Read it first, then add {flag}, or model=… in Python."
    )


def said(error: Exception) -> str:
    """Return an exception of the user's code in one line, with the line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    at = [frame for frame in frames if frame.filename.endswith(".py")][-1:]
    place = f" (line {at[0].lineno} of {Path(at[0].filename).name})" if at else ""
    if isinstance(error, SyntaxError):
        place = f" (line {error.lineno})"
        error = SyntaxError(error.msg)
    first = (str(error).splitlines() or [""])[0][:160].rstrip(".")
    return f"{type(error).__name__}: {first}{place}"


# ── what any network needs to be trained here ────────────────────────────────────────────────────


class _Draws(Dropout):
    """Holds the key of each step for a network that draws random numbers of its own."""

    saved: Tensor | None = None


def prepare_network(network: nn.Module, shape: Sequence[int], classes: int, name: str) -> None:
    """Check that a network maps images to logits, and let its randomness follow the step's key.

    Dropout layers become ours, so that their masks are a function of seed, epoch and step. Where a
    network draws otherwise (functional dropout, stochastic depth), torch's global generator is
    seeded with the step's key while it runs, so that such a run, too, resumes exactly.

    Raises:
        HydrofoilError: The network does not run on such images, or gives something else.
    """
    for layer in network.modules():
        if type(layer) is nn.Dropout:
            layer.__class__ = Dropout  # the same layer, with masks by key
    images = torch.zeros(2, *shape)
    try:
        with torch.no_grad(), evaluating(network):
            logits: Any = network(images)
    except Exception as error:
        size = by(shape)
        raise HydrofoilError(
            f"{name}: it does not take images of {size}: {said(error)}."
        ) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, classes):
        got = (
            f"a tensor of {'×'.join(map(str, logits.shape))}"
            if isinstance(logits, Tensor)
            else type(logits).__name__
        )
        raise HydrofoilError(
            f"{name}: for 2 images it gives {got}: expected 2×{classes}, a logit for each class."
        )
    if "hydrofoil_draws" in dict(network.named_children()):
        return  # prepared before: hooks that run twice would not restore the generator
    if _draws_globally(network, images):
        network.add_module("hydrofoil_draws", _Draws(0.0))
        network.register_forward_pre_hook(_seed)
        network.register_forward_hook(_put_generator_back)


def _draws_globally(network: nn.Module, images: Tensor) -> bool:
    """Tell whether a training pass uses torch's global generator; leaves all as it was."""
    modes = [(layer, layer.training) for layer in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    for layer in network.modules():
        if isinstance(layer, Dropout):
            layer.draw = 0
    before = torch.get_rng_state()
    try:
        with torch.no_grad():
            network.train()(images)
        return not torch.equal(before, torch.get_rng_state())
    except Exception:  # it wants larger batches to train on, say: no reason to refuse it here
        return True
    finally:
        torch.set_rng_state(before)
        for layer, training in modes:
            layer.training = training
        for buffer, value in buffers:
            buffer.copy_(value)
        for layer in network.modules():
            if isinstance(layer, Dropout):
                layer.draw = None


def _seed(network: nn.Module, _: object) -> None:
    draws = cast("_Draws", network.get_submodule("hydrofoil_draws"))
    if not network.training or draws.draw is None:
        return
    draws.saved = torch.get_rng_state()
    parts = draws.draw.tolist() if isinstance(draws.draw, Tensor) else [draws.draw, 0]
    torch.manual_seed((parts[0] ^ (parts[1] << 32)) & (1 << 63) - 1)


def _put_generator_back(network: nn.Module, *_: object) -> None:
    draws = cast("_Draws", network.get_submodule("hydrofoil_draws"))
    if draws.saved is not None:
        torch.set_rng_state(draws.saved)
        draws.saved = None
