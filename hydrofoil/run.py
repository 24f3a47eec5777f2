"""The run folder: what lies in it, who may write it, and how its files appear whole or not at all.

    recipe.toml         resolved: every field, also the defaults
    environment.json    versions, device, threads, git revision, command line
    split.npz           indices of train, valid and test, and the hash of the set that they index
    log.jsonl           one object an epoch, and one an event
    best.safetensors    the weights that `select` chose, with what is needed to use them as metadata
    last.safetensors    weights and optimiser after the last whole epoch; last.json has the numbers
    test.json           what `test` found, and how often the test split was opened
    answers.npz         the logits of that test, and of the validation split by the same weights
    shown.npz           the few pictures that test.json names, so that a report needs no data set
    figures/            what was drawn

Nothing that is read back is a pickle, and a reader needs no process that wrote.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import contextlib
import fcntl
import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from hydrofoil import __version__
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.device import describe_device
from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.evaluate.score import Answers
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe import Recipe, read_recipe

if TYPE_CHECKING:  # a reader of runs, such as the report, needs no training code
    from hydrofoil.train.state import State

ANSWER_FIELDS = ("index_N", "labels_N", "logits_NK")


def command(verb: str, path: Path, data_root: str = "") -> str:
    """Return a command to type, which works as it stands, also where a path has spaces."""
    root = ["--data-root", data_root] if data_root else []
    return shlex.join(["hydrofoil", verb, str(path), *root])


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one and never a part.

    Raises:
        HydrofoilError: The system refused: disk full, read-only, no such folder.
    """
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be written: {reason(error)}.") from error
    finally:
        if beside is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Args:
        path: Where it lies.
        recipe: What it trains.
    """

    path: Path
    recipe: Recipe

    @classmethod
    def create(
        cls, path: Path | None, recipe: Recipe, split: Split, environment: Mapping[str, Any]
    ) -> "Run":
        """Make the folder of a new run; without a path, the next free runs/<recipe>-<n>.

        Raises:
            HydrofoilError: Something is there already, or the folder cannot be written.
        """
        run = cls(_claim_folder(path, recipe.name), recipe)
        try:
            run.write_json("environment.json", environment)
            run.write("split.npz", split.to_bytes())
            run.write("recipe.toml", recipe.toml().encode())  # last: it makes a folder a run
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)  # it was made, or was empty, a moment ago
            raise
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Return an existing run.

        Raises:
            HydrofoilError: There is no such folder, or it is not a run's, or its recipe is broken.
        """
        path = Path(path)
        if path.is_file():
            raise HydrofoilError(
                f"{path}: a file, where a run folder was expected.{_runs_beside(path)}"
            )
        if not path.is_dir():
            raise HydrofoilError(f"{path}: there is no such run folder.{_runs_beside(path)}")
        if not (path / "recipe.toml").is_file():
            raise HydrofoilError(
                f"{path}: not a run folder: it holds no recipe.toml.{_runs_beside(path)}"
            )
        return cls(path, read_recipe(str(path / "recipe.toml")))

    @contextlib.contextmanager
    def writing(self) -> Generator[None]:
        """Hold the run's lock, so that one process writes it at a time.

        The system frees it with the process.

        Raises:
            HydrofoilError: Another process holds it, or the folder cannot be written.
        """
        try:
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise HydrofoilError(f"{self.path}: cannot be written: {reason(error)}.") from error
        try:
            self._take(handle)
            for leftover in self.path.glob(".*-*"):  # of a writer that was killed
                leftover.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        """Lock, or say who holds it."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HydrofoilError(
                f"{self.path}: another process is writing this run.\n"
                "Wait for it to end, or stop it."
            ) from error
        except OSError as error:
            raise HydrofoilError(f"{self.path}: cannot be locked: {reason(error)}.") from error

    def write(self, name: str, content: bytes) -> Path:
        """Write one file of the run, whole or not at all, and return its path."""
        write_whole(self.path / name, content)
        return self.path / name

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write one file of the run as JSON."""
        return self.write(name, _json(content))

    # ── the log ──────────────────────────────────────────────────────────────────────────────────

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one object to log.jsonl, in the place of a line that was left unfinished."""
        path = self.path / "log.jsonl"
        try:
            with open(path, "ab+") as file:
                file.seek(0)
                whole = file.read().rfind(b"\n") + 1
                file.truncate(whole)
                file.write(json.dumps(event).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise HydrofoilError(f"{path}: cannot be written: {reason(error)}.") from error

    def events(self) -> list[dict[str, Any]]:
        """Return the log; a last line that a dying process left unfinished is passed over."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        try:
            lines = path.read_text("utf-8", errors="replace").splitlines()
        except OSError as error:
            raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error
        events: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                events.append(dict(json.loads(line)))
            except (TypeError, ValueError) as error:
                if number < len(lines):
                    raise HydrofoilError(f"{path}: line {number} is broken: {error}.") from error
        return events

    def epochs(self) -> list[dict[str, Any]]:
        """Return the log's epochs.

        Raises:
            HydrofoilError: One lacks what every epoch has.
        """
        epochs = [event for event in self.events() if event.get("event") == "epoch"]
        fields = {"epoch", "train", "valid", "best", "train_seconds", "valid_seconds"}
        for epoch in epochs:
            if not fields <= epoch.keys() or not isinstance(epoch["train"], dict):
                raise HydrofoilError(
                    f"{self.path / 'log.jsonl'}: an epoch in it is broken: {epoch}"
                )
        return epochs

    def epochs_kept(self) -> int:
        """Return how many epochs a resumed run would not have to repeat."""
        kept = self.path / "last.json"
        return int(self._read_json("last.json").get("epoch", 0)) if kept.exists() else 0

    def times_tested(self) -> int:
        """Return how often this run opened the test split; the log counts, test.json repeats it."""
        return sum(event.get("event") == "test" for event in self.events())

    def imported(self) -> bool:
        """Tell whether the weights came from elsewhere."""
        return any(event.get("event") == "imported" for event in self.events())

    def forget_after(self, epoch: int) -> None:
        """Drop from the log what came after an epoch: a resumed run will log it again."""
        kept = [event for event in self.events() if event.get("epoch", 0) <= epoch]
        self.write("log.jsonl", "".join(json.dumps(event) + "\n" for event in kept).encode())

    # ── weights ──────────────────────────────────────────────────────────────────────────────────

    def save_best(self, model: Classifier, epoch: int) -> None:
        """Keep the network's parameters, and nothing else, as best.safetensors."""
        for name, content in self.best_files(model, epoch).items():
            self.write(name, content)

    def best_files(self, model: Classifier, epoch: int) -> dict[str, bytes]:
        """Return what `save_best` writes."""
        metadata = {
            "format": "hydrofoil 1",
            "model": json.dumps(self.recipe.model.model_dump(mode="json")),
            "source": self.recipe.data.source,
            "shape": json.dumps(model.shape),
            "classes": json.dumps(model.classes),
            "mean": json.dumps(self.recipe.data.mean),
            "std": json.dumps(self.recipe.data.std),
            "epoch": str(epoch),
            "recipe": self.recipe.hash(),
        }
        tensors = _plain(model.network.state_dict())
        return {"best.safetensors": save_tensors(tensors, metadata)}

    def load_best(self, device: torch.device) -> tuple[Classifier, int]:
        """Return the model with the run's best weights, and their epoch.

        Raises:
            HydrofoilError: There are none yet, or they are broken or another model's.
        """
        path = self.path / "best.safetensors"
        if not path.exists() and self.epochs_kept():
            raise HydrofoilError(f"{path}: missing, so there are no weights.{self._anew()}")
        if not path.exists():
            raise HydrofoilError(
                f"{self.path}: no epoch is finished yet, so there are no weights.\n"
                f"Go on with: {command('resume', self.path)}"
            )
        metadata = _read_metadata(path)
        self._check_recipe(path, metadata)
        try:
            shape, classes = json.loads(metadata["shape"]), json.loads(metadata["classes"])
            epoch = int(metadata["epoch"])
            channels, height, width = shape
        except (KeyError, ValueError, TypeError) as error:
            raise HydrofoilError(
                f"{path}: not weights that hydrofoil wrote: {error!r} in its metadata."
            ) from error
        model = build(self.recipe, (channels, height, width), classes)
        model.load_weights(_read_tensors(path), str(path))
        return model.to(device), epoch

    def save_last(self, model: Classifier, state: "State") -> None:
        """Keep everything that going on from here needs."""
        for name, content in self.last_files(model, state).items():
            self.write(name, content)

    def last_files(self, model: Classifier, state: "State") -> dict[str, bytes]:
        """Return what `save_last` writes."""
        numbers = state.numbers()
        # The numbers travel in the tensors' file too, so that the pair cannot come from two epochs.
        metadata = {"numbers": json.dumps(numbers), "recipe": self.recipe.hash()}
        tensors = save_tensors(_plain(state.tensors(model)), metadata)
        return {"last.safetensors": tensors, "last.json": _json(numbers)}

    def load_last(self, model: Classifier, state: "State") -> None:
        """Put the last whole epoch back into a fresh model and state, if one was finished."""
        path = self.path / "last.safetensors"
        if not path.exists():
            if len(self.epochs()) > 1:  # one may have been logged just before the process died
                raise HydrofoilError(
                    f"{path}: missing, so there is nothing to go on from.{self._anew()}"
                )
            return
        metadata = _read_metadata(path)
        self._check_recipe(path, metadata)
        try:
            numbers = json.loads(metadata["numbers"])
        except (KeyError, ValueError) as error:
            raise HydrofoilError(
                f"{path}: not a checkpoint that hydrofoil wrote: {error!r}."
            ) from error
        state.restore(model, _read_tensors(path), numbers)

    def _anew(self) -> str:
        return f"\nTrain anew with: {command('train', self.path / 'recipe.toml')}"

    def _check_recipe(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Refuse weights that were trained by another recipe than the one beside them."""
        if metadata.get("recipe", self.recipe.hash()) != self.recipe.hash():
            raise HydrofoilError(
                f"{path}: trained by another recipe than the recipe.toml beside it.\n"
                "Put the old one back, or train the new one in a run of its own."
            )

    # ── other files ──────────────────────────────────────────────────────────────────────────────

    def split(self) -> Split:
        """Return the run's split."""
        return Split.read(self.path / "split.npz")

    def environment(self) -> dict[str, Any]:
        """Return what the run was started on; nothing if that was lost: no verb depends on it."""
        known = (self.path / "environment.json").exists()
        return self._read_json("environment.json") if known else {}

    def test(self) -> dict[str, Any] | None:
        """Return what `test` found, or None if it has not been run."""
        return self._read_json("test.json") if (self.path / "test.json").exists() else None

    def keep_answers(self, **parts: Answers | None) -> None:
        """Write answers.npz: what the kept weights answered to each part of the split."""
        arrays = {
            f"{part}_{field}": getattr(answers, field).numpy()
            for part, answers in parts.items()
            if answers is not None
            for field in ANSWER_FIELDS
        }
        self.write("answers.npz", _npz(arrays))

    def answers(self) -> dict[str, Answers]:
        """Return what `test` kept: "test", and "valid" where there is a validation split.

        Raises:
            HydrofoilError: The file is broken, or it was not written: the run is not tested, or was
                by an older hydrofoil.
        """
        path = self.path / "answers.npz"
        if not path.exists():
            raise HydrofoilError(
                f"{path}: missing: the answers to each picture are not known.\n"
                f"Write them with: {command('test', self.path)}"
            )
        arrays = _read_npz(path)
        parts = {name.partition("_")[0] for name in arrays}
        try:
            return {
                part: Answers(
                    *(torch.from_numpy(arrays[f"{part}_{field}"]) for field in ANSWER_FIELDS)
                )
                for part in sorted(parts)
            }
        except (KeyError, TypeError) as error:
            raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error

    def keep_shown(self, pictures: Pictures, index_N: torch.Tensor) -> None:
        """Write shown.npz: the indexed pictures."""
        shown_NCHW = pictures.pictures_NCHW[index_N].cpu().numpy()
        self.write("shown.npz", _npz({"index_N": index_N.numpy(), "pictures_NCHW": shown_NCHW}))

    def shown(self) -> dict[int, torch.Tensor]:
        """Return the pictures that were kept to be shown, uint8 picture_CHW by its number.

        Raises:
            HydrofoilError: The file is broken.
        """
        path = self.path / "shown.npz"
        if not path.exists():
            return {}
        arrays = _read_npz(path)
        try:
            pictures_NCHW = torch.from_numpy(arrays["pictures_NCHW"])
            if pictures_NCHW.dtype != torch.uint8 or pictures_NCHW.ndim != 4:
                raise TypeError("pictures are uint8 N×C×H×W")
            return dict(zip(arrays["index_N"].tolist(), pictures_NCHW, strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error
        except ValueError as error:
            raise HydrofoilError(
                f"{path}: broken: {error}.\nDelete it; hydrofoil test writes test.json again."
            ) from error
        if not isinstance(content, dict):
            raise HydrofoilError(f"{path}: broken: it holds no object.")
        return content


def _npz(arrays: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error
    except (TypeError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise HydrofoilError(f"{path}: not a safetensors file, or cut short: {error}.") from error


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error
    except SafetensorError as error:
        raise HydrofoilError(f"{path}: not a safetensors file, or cut short: {error}.") from error


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
                    f"{folder}: a file stands in its place. Choose another --run."
                ) from error
        except OSError as error:
            raise HydrofoilError(
                f"{folder}: the run folder cannot be made: {reason(error)}."
            ) from error
    raise AssertionError("count() does not end")


def _claim_given(folder: Path) -> None:
    """Make a folder, or take it if it is empty."""
    folder.mkdir(exist_ok=True)
    if any(folder.iterdir()):
        go_on = (
            f", or go on with it: {command('resume', folder)}"
            if (folder / "recipe.toml").exists()
            else "."
        )
        raise HydrofoilError(
            f"{folder}: not empty, and what is there stays as it is.\nChoose another --run{go_on}"
        )
    # The lock's file, made only if it is not there, tells two processes apart that saw it empty.
    os.close(os.open(folder / ".lock", os.O_CREAT | os.O_EXCL, 0o666))


def _runs_beside(path: Path) -> str:
    """Name the latest runs where a mistyped one was looked for."""
    folder = next((at for at in (path, path.parent) if any(at.glob("*/recipe.toml"))), Path("runs"))
    with contextlib.suppress(OSError):
        runs = sorted(folder.glob("*/recipe.toml"), key=lambda file: -file.stat().st_mtime)
        if runs:
            return f"\nThe latest runs there: {', '.join(str(file.parent) for file in runs[:4])}"
    return "\nA run folder is made by: hydrofoil train RECIPE"


def environment(device: torch.device, arguments: Sequence[str]) -> dict[str, Any]:
    """Describe what a run is about to be computed with; names no host and no user."""
    return {
        "hydrofoil": __version__,
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "device": str(device),
        "device_name": describe_device(device),
        "threads": torch.get_num_threads(),
        "command": ["hydrofoil", *(text.replace(str(Path.home()), "~") for text in arguments)],
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _git_revision() -> str | None:
    """Return the running code's revision, with "+" if it was changed since; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    tracked = [*git, "ls-files", "--error-unmatch", Path(__file__).name]  # not a project around us
    describe = [*git, "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        subprocess.run(tracked, capture_output=True, timeout=5, check=True)
        done = subprocess.run(describe, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
