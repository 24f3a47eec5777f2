"""A classifier as scikit-learn has them: fit, predict, predict_proba and score on arrays.

It trains by the same loop and steps as everything else, writes no run and prints nothing.

Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from collections.abc import Mapping, Sequence
from math import ceil, isqrt, prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from hydrofoil.data.convert import as_images
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.errors import InputError
from hydrofoil.evaluate.metrics import probabilities
from hydrofoil.evaluate.score import logits_of
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.naming import overrides_of
from hydrofoil.recipe.read import override, read_recipe
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.loop import fit
from hydrofoil.wording import by

SQUARE = 49  # features: from here on a square number of them is taken for an image
STEPS = 600  # that a training has at least, however few its images are
EPOCHS = 25  # likewise


class ClassifierEstimator(ClassifierMixin, BaseEstimator):
    """Trains a small network on arrays of images, or of features, as scikit-learn's classifiers do.

    Parameters that are None come from the recipe; without a recipe the network follows the size of
    the images, and the epochs their number.

    Args:
        recipe: A shipped recipe's name, or a file's path.
        image_shape: (C, H, W) of flat rows; default: a square number of features from 49 on is an
            image of one channel, anything else a row of features for a perceptron.
        model: The network: cnn3, cnn, mlp, lenet.
        hidden: Units of each hidden layer.
        widths: Channels of each convolution.
        dropout: The fraction of activations set to zero while training.
        optimizer: sgd, adam, adamw, …; starts from its own learning rate.
        lr: The learning rate.
        weight_decay: The weight decay.
        batch_size: Images per step.
        epochs: Passes over the images.
        schedule: Of the learning rate: constant, cosine, ….
        overrides: Any other field of a recipe, by its name: {"momentum": 0.95}.
        random_state: The seed, or a RandomState to draw one from.

    Attributes:
        classes_: The labels that occur, sorted.
        n_features_in_: The second dimension of the training array.
        recipe_: Everything that the training was set to.
        model_: The trained `Classifier`, on the CPU.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = ClassifierEstimator(model="mlp", epochs=5).fit(X[:1000], y[:1000])
    >>> classifier.score(X[1000:], y[1000:]) > 0.8
    True
    """

    def __init__(
        self,
        recipe: str | Path | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        model: str | None = None,
        hidden: int | Sequence[int] | None = None,
        widths: Sequence[int] | None = None,
        dropout: float | None = None,
        optimizer: str | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        schedule: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        random_state: Any = 0,
    ) -> None:
        self.recipe = recipe
        self.image_shape = image_shape
        self.model = model
        self.hidden = hidden
        self.widths = widths
        self.dropout = dropout
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.schedule = schedule
        self.overrides = overrides
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train on images and their labels.

        Args:
            X: N×H×W, N×H×W×C, N×C×H×W or flat rows N×D: uint8, or floats of any range, which are
                scaled to bytes by what occurs here; or a list of Pillow images.
            y: N labels: numbers or strings.

        Raises:
            ValueError: Shapes do not fit, values are not finite, or there is one class only.
            HydrofoilError: A parameter is not one that the recipe takes.
        """
        checked: Any = validate_data(self, _as_array(X), y, allow_nd=True, dtype=None)
        given, labels = checked
        check_classification_targets(labels)
        self.classes_, numbers_N = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y: one class only, {self.classes_[0]!r}: expected two or more.")
        self._scale(given)
        images_NCHW = self._images(given)
        pictures = Pictures(
            images_NCHW, torch.from_numpy(numbers_N.reshape(-1)), _names(self.classes_), "X"
        )
        self.recipe_ = self._resolved(pictures)
        trained = build(self.recipe_, pictures.shape, pictures.classes)
        split = Split(torch.arange(len(pictures)), (), (), pictures)
        for _ in fit(trained, pictures, split, self.recipe_):
            pass
        self.model_: Classifier = trained.cpu().eval()
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, N×K, in the order of `classes_`."""
        check_is_fitted(self)
        given: Any = validate_data(self, _as_array(X), allow_nd=True, dtype=None, reset=False)
        images_NCHW = self._images(given)
        if tuple(images_NCHW.shape[1:]) != self.model_.shape:
            raise InputError(
                f"X: images of {by(images_NCHW.shape[1:])}: expected {by(self.model_.shape)}, "
                "as in fit."
            )
        return probabilities(logits_of(self.model_, images_NCHW)).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each image."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def _scale(self, given: NDArray[Any]) -> None:
        """Learn which values become 0 and 255: of each feature, or of all pixels together."""
        flat = given.ndim == 2 and self._shape_of_rows(given.shape[1])[1] == 1
        low, high = (
            pick(given.astype(float), axis=0 if flat else None) for pick in (np.min, np.max)
        )
        if given.dtype == np.uint8:
            low, high = 0.0, 255.0
        elif not flat and given.dtype.kind == "f" and low >= 0 and high <= 1:
            low, high = 0.0, 1.0  # images from 0 to 1, whatever their brightest pixel is
        self.low_, self.span_ = low, np.where(high > low, np.subtract(high, low), 1.0)

    def _images(self, given: NDArray[Any]) -> torch.Tensor:
        """Return images as bytes, by the scale of the training images."""
        if given.dtype != np.uint8 or given.ndim == 2:
            scaled = 255 * (given.astype(float) - self.low_) / self.span_
            given = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        if given.ndim == 2:
            rows_ND = torch.from_numpy(np.array(given))  # a copy: a memory map may be read-only
            return rows_ND.view(-1, *self._shape_of_rows(given.shape[1]))
        return as_images(given)

    def _shape_of_rows(self, features: int) -> tuple[int, int, int]:
        """Return channels, height and width of flat rows."""
        if self.image_shape is not None:
            shape = tuple(int(side) for side in self.image_shape)
            shape = (1,) * (3 - len(shape)) + shape
            if len(shape) != 3 or prod(shape) != features:
                raise InputError(
                    f"image_shape = {self.image_shape}: expected (C, H, W) of {features} features."
                )
            return shape
        side = isqrt(features)
        return (1, side, side) if side**2 == features >= SQUARE else (1, 1, features)

    def _resolved(self, pictures: Pictures) -> Recipe:
        """Return the recipe of a training on these images."""
        flat = pictures.shape[1] == 1
        names = (
            "model", "hidden", "widths", "dropout", "optimizer", "lr", "weight_decay", "batch_size",
            "epochs", "schedule",
        )  # fmt: skip
        chosen = {name: getattr(self, name) for name in names}
        fields = {name: value for name, value in chosen.items() if value is not None}
        fields |= self.overrides or {}
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        fixed = {"valid": 0.0, "test": 0.0, "select": "last", "seed": int(seed)}
        if self.recipe is not None:
            return read_recipe(str(self.recipe), overrides_of(fixed | fields))
        means, deviations = pictures.channel_statistics(torch.arange(len(pictures)))
        fixed |= {"mean": means, "std": [deviation or 1.0 for deviation in deviations]}
        if flat or min(pictures.shape[1:]) < 8:
            fixed |= {"model": "mlp", "hidden": [64, 64], "dropout": 0.0, "lr": 0.05}
        if flat:  # compiling the step would take longer than these steps
            fixed |= {"execute": "eager"}
        recipe = read_recipe("digits", overrides_of({"name": "estimator", **fixed}))
        if "epochs" not in fields:
            steps = ceil(len(pictures) / fields.get("batch_size", recipe.train.batch_size))
            fields["epochs"] = max(EPOCHS, ceil(STEPS / steps))
        return override(recipe, overrides_of(fields))


def _as_array(X: Any) -> Any:
    """Return Pillow images and tensors as an array; anything else as it is."""
    if isinstance(X, Pictures):
        return X.pictures_NCHW.cpu().numpy()
    if isinstance(X, torch.Tensor):
        return X.detach().cpu().numpy()
    if isinstance(X, list) and X and hasattr(X[0], "getbands"):
        return as_images(X).numpy()
    return X


def _names(classes: NDArray[Any]) -> list[str]:
    names = [str(one) for one in classes.tolist()]
    return names if len(set(names)) == len(names) else [str(at) for at in range(len(names))]
