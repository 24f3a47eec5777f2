"""The run folder: its files, its lock and its verification.

    recipe.toml           resolved: every field, also the defaults
    model.py              the code of a network that is the user's own; run only on request
    environment.json      versions, device, threads, git revision, command line
    split.npz             indices of train, valid and test, and the hash of the set they index
    log.jsonl             one object an epoch, and one an event
    best.safetensors      the weights that `select` chose, with what using them takes as metadata
    last.safetensors      the last checkpoint: all that resuming needs, best weights included
    previous.safetensors  the checkpoint before it
    test.json             the test result, and how often the test split was opened
    answers.npz           the logits of that test, and of the validation split by the same weights
    shown.npz             the images that test.json names, so that a report needs no dataset
    reference.npz         statistics and features of training images, to compare new images with
    figures/              saved figures
    manifest.json         the SHA-256 of all these: see manifest.py

No file is a pickle.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

import torch

from hydrofoil.data.split import Split
from hydrofoil.display import notebook_html
from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.evaluate.diagnosis import Finding
from hydrofoil.evaluate.result import Epoch
from hydrofoil.files import discard, is_staged
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import KEPT_CODE, Network
from hydrofoil.recipe.read import parse_recipe
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.checkpoints import Checkpoints
from hydrofoil.run.commands import command
from hydrofoil.run.diagnosis import of_log
from hydrofoil.run.events import Event
from hydrofoil.run.files import Files, json_bytes
from hydrofoil.run.find import find_run_folder
from hydrofoil.run.lock import locked
from hydrofoil.run.log import Log
from hydrofoil.run.manifest import NAME
from hydrofoil.run.results import Results
from hydrofoil.run.weights import Weights

BEGINNINGS = {
    ".lock",
    NAME,
    "environment.json",
    "split.npz",
    KEPT_CODE,
}  # files of a run whose creation was interrupted


class Run:
    """One run's folder; `hydrofoil.Run` adds the verbs.

    Args:
        path: Where it lies.
        recipe: What it trains.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self.files = Files(path)
        self.log = Log(self.files)
        self.weights = Weights(self.files, recipe)
        self.checkpoints = Checkpoints(self.files, recipe, self.log, self.weights)
        self.results = Results(self.files)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Show learning curves in a notebook."""
        return notebook_html("run", self)

    @classmethod
    def create(
        cls,
        path: str | Path | None,
        recipe: Recipe,
        split: Split | None,
        environment: Mapping[str, Any],
        code: str = "",
    ) -> Self:
        """Make the folder of a new run; without a path, the next free runs/<recipe>-<n>.

        Args:
            path: Where.
            recipe: What it trains.
            split: Of its dataset; None: imported weights, whose first test makes the split.
            environment: What `environment` returned.
            code: The Python text of the user's own network; it is saved, and not run.

        Raises:
            HydrofoilError: The folder is not empty or cannot be written.
        """
        path = Path(path) if path else None
        if path is not None:
            _check_portable(path)
        run = cls(_claim_folder(path, recipe.name), recipe)
        files = {
            "environment.json": json_bytes(environment),
            **({"split.npz": split.to_bytes()} if split else {}),
            **({KEPT_CODE: code.encode()} if code else {}),
            "recipe.toml": recipe.toml().encode(),  # last: it makes a folder a run
        }
        with locked(run.path):
            _check_free(run.path)  # of two that saw it empty, one was first
            try:
                run.files.write_all(files)
            except BaseException:
                shutil.rmtree(run.path, ignore_errors=True)  # it was made, or empty, a moment ago
                raise
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Return an existing run.

        Args:
            path: Its folder; or its name in runs/, such as digits-1; or last, the newest there.

        Raises:
            HydrofoilError: The folder is missing, not a run, or its recipe is damaged.
        """
        path = find_run_folder(path)
        text = Files(path).parse("recipe.toml", bytes.decode)
        return cls(path, parse_recipe(text, str(path / "recipe.toml")))

    @contextlib.contextmanager
    def writing(self, say: Callable[[str], None] = lambda line: None) -> Generator[None]:
        """Hold the run's lock, so that one process writes it at a time.

        The system releases it with the process.

        Args:
            say: Takes a line if there are no file locks.

        Raises:
            HydrofoilError: Another process holds it, or the folder cannot be written.
        """
        with locked(self.path, say):
            for hidden in self.path.rglob(".*-*"):
                if is_staged(hidden):  # of a writer that was killed
                    discard(hidden)
            try:
                yield
            except BaseException:
                with contextlib.suppress(HydrofoilError):  # the first error is reported
                    self.files.write_all({})
                raise
            self.files.write_all({})

    def load_best(
        self, device: str | torch.device = "cpu", network: Network | None = None
    ) -> tuple[Classifier, int]:
        """Return the model with the run's best weights, and their epoch: see `Weights.load`."""
        return self.weights.load(torch.device(device), network)

    def has_split(self) -> bool:
        """Tell whether the dataset was split; imported weights need none before their test."""
        return (self.path / "split.npz").exists() or not self.log.imported()

    def save_split(self, split: Split) -> None:
        """Write the split of a run that has none."""
        self.files.write("split.npz", split.to_bytes())

    def split(self) -> Split:
        """Return the run's split."""
        return self.files.parse("split.npz", Split.from_bytes)

    def environment(self) -> dict[str, Any]:
        """Return the environment of the run's start; empty if the file is missing."""
        known = (self.path / "environment.json").exists()
        return self.files.read_json("environment.json") if known else {}

    def diagnosis(self) -> list[Finding]:
        """Return what the learning curves show, the most serious first; nothing if all is well."""
        events = self.log.events()
        return of_log(events, self.epochs(events), self.recipe)

    def epochs(self, events: Sequence[Event] | None = None) -> list[Epoch]:
        """Return the log's epochs, up to the last one whose weights are saved.

        Args:
            events: The log, where it has been read already.
        """
        log = self.log.events() if events is None else events
        epochs = [event for event in log if isinstance(event, Epoch)]
        last = max(self.checkpoints.epoch(), self.weights.epoch())
        return [epoch for epoch in epochs if epoch.number <= last or not last]


def _check_portable(path: Path) -> None:
    """Refuse a folder that Windows could not open, on every system: runs are copied."""
    for part in path.parts:
        reserved = re.fullmatch(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", part, re.IGNORECASE)
        if reserved or (part.endswith((".", " ")) and part.strip(".")):
            why = "a reserved name" if reserved else "a name that ends in a dot or space"
            raise HydrofoilError(
                f"{path}: '{part}' is {why} on Windows: expected a name that every system allows.\n"
                "Choose another --run."
            )


def _claim_folder(path: Path | None, name: str) -> Path:
    """Make and return a folder that was not there, or was empty; of two that try, one gets it."""
    for number in count(1):
        folder = path or Path("runs") / f"{name}-{number}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if path is None:
                folder.mkdir()
            else:
                _claim_given(folder)
            return folder
        except FileExistsError as error:
            if path is not None or not Path("runs").is_dir():
                raise HydrofoilError(
                    f"{folder}: a file of this name exists. Choose another --run."
                ) from error
        except OSError as error:
            raise HydrofoilError(
                f"{folder}: the run folder cannot be made: {reason(error)}."
            ) from error
    raise AssertionError("count() does not end")


def _claim_given(folder: Path) -> None:
    """Make a folder, or take one that is empty or holds only an interrupted run's first files."""
    folder.mkdir(exist_ok=True)
    _check_free(folder)


def _check_free(folder: Path) -> None:
    if all(path.name in BEGINNINGS or is_staged(path) for path in folder.iterdir()):
        return
    resume = (
        f", or resume it: {command('resume', folder)}" if (folder / "recipe.toml").exists() else "."
    )
    raise HydrofoilError(f"{folder}: not empty; nothing was changed.\nChoose another --run{resume}")
