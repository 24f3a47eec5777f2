# The public names, listed once: a type checker reads this file, and __init__.py imports from it.

from hydrofoil.compare.several import Comparisons as Comparisons
from hydrofoil.compare.verdict import Comparison as Comparison
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
from hydrofoil.evaluate.result import Epoch as Epoch
from hydrofoil.evaluate.result import TestResult as TestResult
from hydrofoil.evaluate.score import Answers as Answers
from hydrofoil.evaluate.score import answer as answer
from hydrofoil.evaluate.score import score as score
from hydrofoil.models import build as build
from hydrofoil.models.classifier import Classifier as Classifier
from hydrofoil.models.summary import summarize as summarize
from hydrofoil.observe.console import Console as Console
from hydrofoil.observe.observer import Ended as Ended
from hydrofoil.observe.observer import Observer as Observer
from hydrofoil.observe.observer import Start as Start
from hydrofoil.observe.signals import Stopped as Stopped
from hydrofoil.recipe.read import read_recipe as read_recipe
from hydrofoil.recipe.read import shipped_recipes as shipped_recipes
from hydrofoil.recipe.schema import Recipe as Recipe
from hydrofoil.session.compare import compare as compare
from hydrofoil.session.estimator import ClassifierEstimator as ClassifierEstimator
from hydrofoil.session.keep import keep as keep
from hydrofoil.session.prove import Proof as Proof
from hydrofoil.session.prove import prove as prove
from hydrofoil.session.resume import resume as resume
from hydrofoil.session.run import Run as Run
from hydrofoil.session.test import test as test
from hydrofoil.session.train import train as train
from hydrofoil.ship.predict import Prediction as Prediction
from hydrofoil.ship.predict import predict as predict
from hydrofoil.train.executors import prepare as prepare
from hydrofoil.train.loop import Progress as Progress
from hydrofoil.train.loop import fit as fit
from hydrofoil.train.state import State as State

__version__: str
