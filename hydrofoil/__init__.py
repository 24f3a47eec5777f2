"""From small pictures to a tested model: sets are tensors, recipes are data, numbers have counts.

The names below are the whole public surface. They are imported when first used, so that
``import hydrofoil`` and ``hydrofoil --help`` cost no import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Answers": "evaluate.score",
    "Classifier": "models.classifier",
    "Epoch": "train.loop",
    "HydrofoilError": "errors",
    "Metrics": "evaluate.metrics",
    "Pictures": "data.pictures",
    "Prediction": "ship.predict",
    "Progress": "train.loop",
    "Recipe": "recipe.schema",
    "Run": "run.folder",
    "Scores": "evaluate.metrics",
    "Split": "data.split",
    "State": "train.state",
    "answer": "evaluate.score",
    "build": "models",
    "draw_split": "data.split",
    "fit": "train.loop",
    "grad_cam": "evaluate.explain",
    "load": "data.source",
    "measure": "evaluate.metrics",
    "occlusion": "evaluate.explain",
    "pick_device": "device",
    "predict": "ship.predict",
    "prepare": "train.executors",
    "read_recipe": "recipe.read",
    "score": "evaluate.score",
    "shipped_recipes": "recipe.read",
    "summarize": "models.summary",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from hydrofoil.data.pictures import Pictures as Pictures
    from hydrofoil.data.source import load as load
    from hydrofoil.data.split import Split as Split
    from hydrofoil.data.split import draw_split as draw_split
    from hydrofoil.device import pick_device as pick_device
    from hydrofoil.errors import HydrofoilError as HydrofoilError
    from hydrofoil.evaluate.explain import grad_cam as grad_cam
    from hydrofoil.evaluate.explain import occlusion as occlusion
    from hydrofoil.evaluate.metrics import Metrics as Metrics
    from hydrofoil.evaluate.metrics import Scores as Scores
    from hydrofoil.evaluate.metrics import measure as measure
    from hydrofoil.evaluate.score import Answers as Answers
    from hydrofoil.evaluate.score import answer as answer
    from hydrofoil.evaluate.score import score as score
    from hydrofoil.models import build as build
    from hydrofoil.models.classifier import Classifier as Classifier
    from hydrofoil.models.summary import summarize as summarize
    from hydrofoil.recipe.read import read_recipe as read_recipe
    from hydrofoil.recipe.read import shipped_recipes as shipped_recipes
    from hydrofoil.recipe.schema import Recipe as Recipe
    from hydrofoil.run.folder import Run as Run
    from hydrofoil.ship.predict import Prediction as Prediction
    from hydrofoil.ship.predict import predict as predict
    from hydrofoil.train.executors import prepare as prepare
    from hydrofoil.train.loop import Epoch as Epoch
    from hydrofoil.train.loop import Progress as Progress
    from hydrofoil.train.loop import fit as fit
    from hydrofoil.train.state import State as State


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hydrofoil' has no attribute '{name}'")
    value = getattr(import_module(f"hydrofoil.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
