"""A model before its first step: its network, the weights it starts from, and optimizer."""

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.device import use_threads
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network, unasked, with_network
from hydrofoil.models.timm import stem_note
from hydrofoil.recipe.models import Custom
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.folder import Run
from hydrofoil.ship.initial import initialize
from hydrofoil.train.executors import Prepared, prepare
from hydrofoil.train.state import State


def untrained(
    recipe: Recipe,
    pictures: Pictures,
    split: Split,
    device: torch.device,
    network: Network | None = None,
) -> tuple[Classifier, State, Prepared, list[str]]:
    """Return a model before its first step, and set torch's CPU threads for it.

    Args:
        recipe: Names the model and its initial weights.
        pictures: The dataset.
        split: Which images train.
        device: Where to train.
        network: Replaces the recipe's model.

    Returns:
        The model, its state, its executor with the resolved recipe, and notes for the user.
    """
    recipe = with_network(recipe, network)
    model = build(recipe, pictures.shape, pictures.classes, network)
    recipe, notes = initialize(model, recipe)
    model.to(device)
    state = State.fresh(model, recipe)
    prepared = prepare(model, pictures, split, recipe, state)
    use_threads(prepared.recipe.train.threads)
    notes += [note] if (note := stem_note(model.network)) else []
    return model, state, prepared, notes


def restored(
    run: Run,
    pictures: Pictures,
    device: torch.device,
    network: Network | None = None,
    *,
    only_read: bool = False,
) -> tuple[Classifier, State, list[str]]:
    """Return a run's model and state as its last checkpoint has them, and notes for the user.

    A run that was killed before its first checkpoint starts again, from `train.init` if it has one.

    Args:
        run: Has the recipe.
        pictures: Its dataset.
        device: Where it is trained.
        network: Of a run whose network is the user's own code.
        only_read: The run folder is not repaired.

    Raises:
        HydrofoilError: The network's code is needed and was not given; the checkpoint is broken.
    """
    if network is None and isinstance(run.recipe.model, Custom):
        raise unasked(run.recipe, run.path)
    model = build(run.recipe, pictures.shape, pictures.classes, network).to(device)
    state = State.fresh(model, run.recipe)
    notes = run.checkpoints.load(model, state, only_read=only_read)
    if not state.epoch + state.step:
        initialize(model, run.recipe)
        state.executor = run.log.executor()
    return model, state, notes
