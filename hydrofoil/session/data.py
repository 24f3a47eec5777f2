"""What every verb needs first: the run or the recipe that was named, its images and its split."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from hydrofoil.check.copies import kept_together, quick_copies
from hydrofoil.check.duplicates import leaks, repeated
from hydrofoil.check.result import Check
from hydrofoil.data.convert import as_pictures, as_split, kind_of
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.source import load
from hydrofoil.data.split import PARTS, Split, draw_split
from hydrofoil.errors import HydrofoilError, InputError, closest
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.models.derived import Named, derived_from, recipe_of, section_of
from hydrofoil.recipe.changes import optimizer_notes
from hydrofoil.recipe.derive import Choice
from hydrofoil.recipe.naming import all_overrides, is_field, short_names
from hydrofoil.recipe.read import override, source_of
from hydrofoil.recipe.schema import Data, Recipe
from hydrofoil.recipe.source import is_path
from hydrofoil.run.events import BudgetPlanned, DataLoaded, ImagesChecked, RecipeDerived
from hydrofoil.run.folder import Run
from hydrofoil.run.reference import keep_statistics
from hydrofoil.session.resolve import split_notes, with_normalization, with_parts, with_window
from hydrofoil.timing import CPU, Stopwatch


def find_recipe(
    recipe: Any,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    pictures: Any = None,
    split: Any = None,
    data_root: str | Path = "",
    network: Network | None = None,
    watcher: Watcher | None = None,
) -> Named:
    """Return a recipe by name, path or value, or one derived from images, with its images.

    Args:
        recipe: Or images: by path, by a published set's name, or as `hf.Pictures` takes them.
        overrides: Of its fields, as "train.epochs=3".
        seed: Of train.seed.
        pictures: The images that replace the recipe's.
        split: Which of them train, validate and test.
        data_root: Where the published datasets are.
        network: The user's own network.
        watcher: Follows a download.

    Raises:
        HydrofoilError: There is no such recipe, or an override does not fit it.
    """
    if isinstance(recipe, Run):
        raise HydrofoilError(
            f"{recipe.path}: a run, where a recipe was expected.\n"
            f"Continue it with hf.resume(run, epochs={recipe.recipe.train.epochs + 1}), "
            "or train its recipe again: hf.train(run.recipe)."
        )
    changes = [*overrides, *([] if seed is None else [f"train.seed={seed}"])]
    if isinstance(recipe, Recipe):
        changed = override(recipe, changes) if changes else recipe
        named = Named(changed, tuple(optimizer_notes(recipe, changed, changes)))
    elif isinstance(recipe, str | Path):
        bare = isinstance(recipe, Path) and recipe.suffix != ".toml" and not is_path(str(recipe))
        name = f"./{recipe}" if bare else str(recipe)
        if pictures is not None and source_of(name):
            raise InputError(f"pictures: given twice: {name} are images as well.")
        named = recipe_of(name, changes, data_root=data_root, watcher=watcher, network=network)
    elif pictures is not None:
        raise InputError(f"pictures: given twice: {kind_of(recipe)} is images as well.")
    else:
        data = section_of("./", changes) if hasattr(recipe, "columns") else None
        pictures = given_pictures(recipe, data, watcher)
        found = derived_from(pictures, changes, split=split, network=network)
        named = Named(found.recipe, (), found.choices)
    if named.pictures is not None:
        return named
    images, seconds = read_pictures(named.recipe, data_root, pictures, watcher)
    given = None if pictures is None else images
    return replace(named, pictures=images, seconds=seconds, given=given)


def given_overrides(
    function: Callable[..., Any],
    overrides: Sequence[str] | Mapping[str, Any],
    fields: Mapping[str, Any],
) -> list[str]:
    """Return what a function was given for a recipe's fields: its overrides, then its keywords.

    Args:
        function: Its own parameters may be mistyped, and then come as fields.
        overrides: As "train.epochs=3", or values by dotted or short name.
        fields: Its keywords.

    Raises:
        HydrofoilError: A keyword is no field, or a value is not one that a field takes.
    """
    parameters = signature(function).parameters
    for name in fields:
        near = "" if is_field(name) else closest(name, [*parameters, *short_names()])
        if near in parameters:
            raise HydrofoilError(
                f"{name}: neither an argument of {function.__name__} nor a field of a recipe. "
                f"Did you mean {near}?"
            )
    return all_overrides(overrides, fields)


def find_run(run: Any) -> Run:
    """Return a run as its folder is now.

    Raises:
        HydrofoilError: There is no such run, or it is something else.
    """
    if isinstance(run, Classifier | Recipe):
        raise InputError(
            f"{kind_of(run)}, where a run was expected: expected a Run or its folder.\n"
            + (
                "Score a model with hf.score(model, pictures, split.test)."
                if isinstance(run, Classifier)
                else f"Train it first: run = hf.train({run.name!r})."
            )
        )
    return Run.open(run.path if isinstance(run, Run) else run)


def given_for(
    run: Any, network: Network | None, pictures: Any, data_root: str | Path
) -> tuple[Network | None, Any, str | Path]:
    """Return what a call gives for a run, or else what the run remembers: `hydrofoil.Run` does."""
    return (
        getattr(run, "network", None) if network is None else network,
        getattr(run, "pictures", None) if pictures is None else pictures,
        data_root or getattr(run, "data_root", ""),
    )


def read_pictures(
    recipe: Recipe, data_root: str | Path, pictures: Any, watcher: Watcher | None
) -> tuple[Pictures, float]:
    """Return the images that are given, or the recipe's, and the seconds that reading them took."""
    clock = Stopwatch(CPU)
    if pictures is not None:
        images = given_pictures(pictures, recipe.data, watcher)
        return images, clock.seconds() if images is not pictures else 0.0
    pictures = load(recipe.data, data_root or recipe.data.root, watcher)
    return pictures, clock.seconds()


FRAME_FIELDS = ("size", "fit", "path", "label", "split", "group", "unreadable")


def given_pictures(given: Any, data: Data | None, watcher: Watcher | None) -> Pictures:
    """Return images that are given in Python, as `hf.Pictures` takes them or as a pandas frame.

    Args:
        given: The images.
        data: Says how the columns of a frame are called, and what size the images get.
        watcher: Shows progress.
    """
    if not hasattr(given, "columns"):
        return as_pictures(given)
    fields = {name: getattr(data, name) for name in FRAME_FIELDS} if data else {}
    return load(given, watcher=watcher, **fields)


def resolve_data(
    recipe: Recipe,
    pictures: Pictures,
    split: Split | None,
    notes: Sequence[str] = (),
    *,
    device: torch.device = CPU,
    for_test: bool = False,
) -> tuple[Recipe, Split, list[str]]:
    """Return a recipe that leaves nothing to its images, their split, and notes for the user.

    Args:
        recipe: As it was given.
        pictures: Its images.
        split: Their split; None: it is drawn.
        notes: For the user, so far.
        device: Where to train.
        for_test: Whether there has to be a test split.

    Raises:
        HydrofoilError: As `find_split`; or train.select needs validation images.
    """
    _check_flag(for_test)
    recipe, chosen = with_parts(recipe, pictures)
    drawn = find_split(recipe, pictures, split, for_test=for_test)
    if split is None and is_path(recipe.data.source):
        chosen += split_notes(pictures, drawn)
    recipe, windows = with_window(recipe, pictures, drawn, device)
    return with_normalization(recipe, pictures, drawn), drawn, [*notes, *chosen, *windows]


def _check_flag(test: object) -> None:
    """Refuse a fraction of images where `train` takes whether to test.

    Raises:
        HydrofoilError: It is neither True nor False.
    """
    if test not in (True, False):
        raise HydrofoilError(
            f"test = {test!r}: expected True or False: whether to test after training.\n"
            f"Set the fraction of images for testing with data__test={test!r}."
        )


def find_split(recipe: Recipe, pictures: Pictures, split: Any, *, for_test: bool = False) -> Split:
    """Return the split that is given, or draw the recipe's.

    Raises:
        HydrofoilError: It is of other images, or has no test split where there is to be a test.
    """
    if split is None:
        split = drawn_split(recipe, pictures)
    else:
        split = as_split(split, pictures)
        split.check(pictures)
    if for_test:
        check_testable(recipe, split)
    return split


def drawn_split(recipe: Recipe, pictures: Pictures) -> Split:
    """Draw a recipe's split; of the user's own images, copies of an image stay in one part.

    If too few images are left for a part then, copies are drawn apart, which the check reports.
    """
    options = recipe.split_options()
    if is_path(recipe.data.source):
        with suppress(HydrofoilError):
            return draw_split(kept_together(pictures, quick_copies(pictures)), **options)
    return draw_split(pictures, **options)


def copies_check(pictures: Pictures, split: Split) -> Check:
    """Return what the copies in a set mean for a split, as far as they are found quickly."""
    copies = quick_copies(pictures)
    return Check(
        pictures, [*leaks(pictures, split, copies), *repeated(pictures, copies, split)], split
    )


def check_testable(recipe: Recipe, split: Split) -> None:
    """Refuse to test what has no test split.

    Raises:
        HydrofoilError: The test split is empty.
    """
    if not len(split.test):
        raise HydrofoilError(
            f"{recipe.name}: no test split: {recipe.data.source} publishes none, and data.test = 0."
            "\nTrain with data.test=0.2, for example."
        )


def log_data(
    run: Run,
    pictures: Pictures,
    split: Split,
    seconds: float,
    choices: Sequence[Choice] = (),
    checked: Check | None = None,
    planned: Sequence[BudgetPlanned] = (),
) -> None:
    """Log how long reading the images took, and how many of each class each part has.

    Also logs why a derived recipe is as it is, what a check of the images found, and by which
    measurement a budget chose the epochs; and saves the
    statistics of the training images.
    """
    counts = {part: tuple(pictures.counts(getattr(split, part))) for part in PARTS}
    run.log.append(
        DataLoaded(
            seconds=seconds, counts=counts, differs=pictures.differs, classes=pictures.classes
        )
    )
    if choices:
        run.log.append(RecipeDerived(choices=tuple((c.field, c.value, c.reason) for c in choices)))
    if checked is not None:
        findings = tuple((one.level, one.title) for one in checked.findings)
        run.log.append(ImagesChecked(findings=findings))
    run.log.append(*planned)
    keep_statistics(run, pictures, split)


@contextmanager
def own_threads() -> Generator[None]:
    """Let a session set torch's number of threads, and restore it for the caller."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
