"""Makes a run of what `hydrofoil.fit` has trained.

Axes: C channels, 1 one.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError, InputError
from hydrofoil.evaluate.result import Epoch
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network, NetworkCode, as_code, text_of
from hydrofoil.models.given import as_training
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.environment import environment
from hydrofoil.run.events import Kept
from hydrofoil.run.reference import keep_reference
from hydrofoil.session.data import log_data, own_threads
from hydrofoil.session.observing import say_for
from hydrofoil.session.resolve import with_parts
from hydrofoil.session.run import Run
from hydrofoil.train.executors import threads_of
from hydrofoil.train.precision import with_precision
from hydrofoil.train.state import State
from hydrofoil.wording import plural


@own_threads()
def keep(
    model: Any,
    pictures: Any,
    split: Any,
    recipe: Any,
    epochs: Iterable[Epoch],
    *,
    state: State | None = None,
    run: str | Path | None = None,
    code: Network | None = None,
) -> Run:
    """Make a run of a training by `fit`: what was given to `fit`, and the epochs that it yielded.

    With the state, the run has the best weights and can be resumed. Without it, the run has the
    model's weights, those of the last epoch, and cannot be resumed. If that was not the best epoch,
    the run's recipe says train.select = "last", and a warning says so.

    Args:
        model: The trained model; a bare network counts as one with the recipe's normalization.
        pictures: The images, as `hf.Pictures` takes them; the run remembers them for its methods.
        split: Which of them train, validate and test.
        recipe: The settings, or their name or path.
        epochs: All of them: epochs = list(hf.fit(…)).
        state: The one that was given to `fit`.
        run: The folder; default: the next free runs/<recipe>-<n>.
        code: The class or function that made the network, if it is not the recipe's: the run keeps
            its text. Default: the network's class.

    Raises:
        HydrofoilError: These do not belong together; a weight is not finite; a folder in use.
    """
    network = model.network if isinstance(model, Classifier) else model
    model, images, split, recipe = as_training(model, pictures, split, recipe)
    split.check(images)
    logged = _checked_epochs(epochs, recipe)
    _check_state(state, recipe, model, logged)
    made = _own_network(model, recipe, network, code)
    resolved = _resolved(model, images, recipe, made, state)
    notes: tuple[str, ...] = ()
    if state is None and not logged[-1].best:
        resolved, logged, notes = _with_last(resolved, logged)
    # Before the folder is made: the code makes this network, and the weights are finite.
    build(resolved, model.shape, model.classes, made).load_weights(
        model.network.state_dict(), "model"
    )
    created = Run.create(run, resolved, split, environment(model.device, ()), text_of(made))
    say = say_for(None)
    with created.writing(say):
        log_data(created.with_given(made, images, ""), images, split, 0.0)
        _write(created, model, logged, state, notes)
        keep_reference(created, model.device, images, split, made)
    for note in notes:
        say(f"{created.path}: {note}.")
    return created


def _with_last(recipe: Recipe, epochs: list[Epoch]) -> tuple[Recipe, list[Epoch], tuple[str, ...]]:
    """Return recipe and epochs of a training that selects its last weights, and a note on it."""
    note = (
        f"the weights are of epoch {epochs[-1].number}: those of epoch {_best(epochs)}, the best, "
        "were not given. Pass state= to hf.fit and hf.keep for the best weights"
    )
    train = recipe.train.model_copy(update={"select": "last", "patience": 0})
    recipe = recipe.model_copy(update={"train": train})
    return recipe, [epoch.model_copy(update={"best": True}) for epoch in epochs], (note,)


def _best(epochs: list[Epoch]) -> int:
    return max((epoch.number for epoch in epochs if epoch.best), default=0)


def _write(
    run: Run, model: Classifier, epochs: list[Epoch], state: State | None, notes: tuple[str, ...]
) -> None:
    """Write the log, and the weights or the checkpoint."""
    executor = (state.executor or "") if state else ""
    run.log.append(
        Kept(epochs=len(epochs), resumable=state is not None, executor=executor, notes=notes),
        *epochs,
    )
    if state is None:
        run.weights.save(model, len(epochs))
    else:
        run.checkpoints.save(model, state.tensors(model), state.numbers())


def _checked_epochs(given: Iterable[Epoch], recipe: Recipe) -> list[Epoch]:
    """Return the epochs that `fit` yielded.

    Raises:
        HydrofoilError: They are something else, incomplete, or more than the recipe trains.
    """
    how = "expected what hf.fit yields: epochs = list(hf.fit(model, pictures, split, recipe))."
    found: list[Any] = [*given] if hasattr(given, "__iter__") else []
    if not hasattr(given, "__iter__") or not all(isinstance(epoch, Epoch) for epoch in found):
        raise InputError(f"epochs: {how}")
    numbers = [epoch.number for epoch in found]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        came = ", ".join(map(str, numbers[:8])) or "none"
        raise HydrofoilError(f"epochs: {came}: expected every epoch from 1 on; {how}")
    if len(found) > recipe.train.epochs:
        raise HydrofoilError(
            f"epochs: {len(found)}, where the recipe trains {plural(recipe.train.epochs, 'epoch')}"
            ": expected the recipe that fit was given."
        )
    return found


def _check_state(
    state: State | None, recipe: Recipe, model: Classifier, epochs: list[Epoch]
) -> None:
    """Refuse a state that is not the one of this training.

    Raises:
        HydrofoilError: It is of another model, or of another epoch; it holds the averaged weights
            and was not given.
    """
    if state is None and recipe.train.average == "none":
        return
    if state is None:
        raise HydrofoilError(
            f"state: missing, and with it the averaged weights (train.average = "
            f"{recipe.train.average}): expected the state of this training:\n"
            "state = hf.State.fresh(model, recipe), then hf.fit(…, state=state)."
        )
    trained = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    if not trained & {id(parameter) for parameter in model.network.parameters()}:
        raise HydrofoilError(
            "state: of another model: expected the state of this training:\n"
            "state = hf.State.fresh(model, recipe), then hf.fit(…, state=state)."
        )
    best = _best(epochs)
    if (state.epoch, state.best_epoch) != (len(epochs), best):
        raise HydrofoilError(
            f"state: {state.epoch} epochs done, the best {state.best_epoch}: expected "
            f"{len(epochs)} and {best}, as the epochs have it.\n"
            "Pass the state that fit was given, and all epochs that it yielded."
        )


def _own_network(
    model: Classifier, recipe: Recipe, network: nn.Module, code: Network | None
) -> Network | None:
    """Return the user's own network, or None if it is the one that the recipe names."""
    if code is not None:
        return as_code(code)
    try:
        described = repr(build(recipe, model.shape, model.classes).network)
    except HydrofoilError:  # the recipe's network is code, or does not take such images
        return _class_of(network)
    return None if described == repr(model.network) else _class_of(network)


def _class_of(network: nn.Module) -> NetworkCode:
    """Return a network with the text of its class, unless that is torch's own.

    The text of nn.Sequential does not say what it holds.
    """
    code = as_code(network)
    own = type(network).__module__.partition(".")[0] != "torch"
    return code if own else replace(code, text="")


def _resolved(
    model: Classifier,
    pictures: Pictures,
    recipe: Recipe,
    network: Network | None,
    state: State | None,
) -> Recipe:
    """Return the recipe with what the training says beside it: network, normalization, executor."""
    recipe, _ = with_precision(recipe, model.device)
    select = recipe.train.select or "last"  # as fit reads it
    last = recipe.train.model_copy(update={"select": "last"})
    recipe, _ = with_parts(recipe.model_copy(update={"train": last}), pictures)
    train = recipe.train.model_copy(
        update={
            "select": select,
            "threads": threads_of(recipe, model),
            "execute": (state and state.executor) or recipe.train.execute,
        }
    )
    changes: dict[str, Any] = {"train": train}
    mean, std = (tensor.flatten().tolist() for tensor in (model.mean_C11, model.std_C11))
    if not _same(recipe.data.mean, mean) or not _same(recipe.data.std, std):
        data = recipe.data.model_copy(update={"mean": tuple(mean), "std": tuple(std)})
        changes["data"] = data
    if network is not None:
        changes["model"] = as_code(network).section
    return recipe.model_copy(update=changes)


def _same(given: tuple[float, ...] | None, used: list[float]) -> bool:
    """Tell whether a recipe's mean or deviation is the one that the model normalizes with."""
    if given is None:
        return False
    return torch.equal(torch.tensor(given).expand(len(used)), torch.tensor(used))
