"""The run folder: what lies in it, who may write it, and how it is known to be whole.

    recipe.toml           resolved: every field, also the defaults
    environment.json      versions, device, threads, git revision, command line
    split.npz             indices of train, valid and test, and the hash of the set they index
    log.jsonl             one object an epoch, and one an event
    best.safetensors      the weights that `select` chose, with what using them takes as metadata
    last.safetensors      the last checkpoint: all that going on needs, the best weights included
    previous.safetensors  the checkpoint before it
    test.json             what `test` found, and how often the test split was opened
    answers.npz           the logits of that test, and of the validation split by the same weights
    shown.npz             the few pictures that test.json names, so that a report needs no data set
    reference.npz         statistics of the training images, and what novelty is measured against
    figures/              what was drawn
    manifest.json         the SHA-256 of all these: see manifest.py

Nothing that is read back is a pickle, and a reader needs no process that wrote.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import zipfile
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.evaluate.score import Answers
from hydrofoil.files import (
    discard,
    is_staged,
    not_written,
    npz,
    put_in_place,
    read_file,
    read_npz,
    stage_all,
    sync_folder,
    write_all,
)
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.read import read_recipe
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run import manifest
from hydrofoil.run.manifest import Digest, Manifest
from hydrofoil.run.reference import attach_reference

if TYPE_CHECKING:  # a reader of runs, such as the report, needs no training code
    from hydrofoil.train.state import State

# What reading something else than was written may raise.
MALFORMED = (KeyError, ValueError, TypeError, AttributeError, RecursionError)
ANSWER_FIELDS = ("index_N", "labels_N", "logits_NK")
CHECKPOINTS = ("last.safetensors", "previous.safetensors")
BEGINNINGS = {".lock", manifest.NAME, "environment.json", "split.npz"}  # before it is a run


def command(verb: str, path: Path, data_root: str = "") -> str:
    """Return a command to type, which works as it stands, also where a path has spaces."""
    root = ["--data-root", data_root] if data_root else []
    return shlex.join(["hydrofoil", verb, str(path), *root])


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Args:
        path: Where it lies.
        recipe: What it trains.
        written: What files are known by that this process has written: see `write_files`.
    """

    path: Path
    recipe: Recipe
    written: dict[str, Digest] = field(
        default_factory=dict[str, Digest], compare=False, repr=False, kw_only=True
    )

    @classmethod
    def create(
        cls, path: Path | None, recipe: Recipe, split: Split, environment: Mapping[str, Any]
    ) -> "Run":
        """Make the folder of a new run; without a path, the next free runs/<recipe>-<n>.

        Raises:
            HydrofoilError: Something is there already, or the folder cannot be written.
        """
        run = cls(_claim_folder(path, recipe.name), recipe)
        files = {
            "environment.json": _json(environment),
            "split.npz": split.to_bytes(),
            "recipe.toml": recipe.toml().encode(),  # last: it makes a folder a run
        }
        with _locked(run.path):
            _check_free(run.path)  # of two that saw it empty, one was first
            try:
                run.write_files(files)
            except BaseException:
                shutil.rmtree(run.path, ignore_errors=True)  # it was made, or empty, a moment ago
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
        _read_checked(path, "recipe.toml")
        return cls(path, read_recipe(str(path / "recipe.toml")))

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def writing(self) -> Generator[None]:
        """Hold the run's lock, so that one process writes it at a time.

        The system frees it with the process.

        Raises:
            HydrofoilError: Another process holds it, or the folder cannot be written.
        """
        with _locked(self.path):
            for hidden in self.path.rglob(".*-*"):
                if is_staged(hidden):  # of a writer that was killed
                    discard(hidden)
            try:
                yield
            except BaseException:
                with contextlib.suppress(HydrofoilError):  # the first error is the one to tell
                    self.write_files({})
                raise
            self.write_files({})

    def write(self, name: str, content: bytes) -> Path:
        """Write one file of the run, whole or not at all, and return its path."""
        self.write_files({name: content})
        return self.path / name

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write one file of the run as JSON."""
        return self.write(name, _json(content))

    def write_files(
        self, contents: Mapping[str, bytes], aside: Mapping[str, str] | None = None
    ) -> None:
        """Write files of the run in this order, each whole or not at all.

        The manifest goes first and names what is there and what comes, so that a process that dies
        anywhere in between leaves files that are known. Costs three waits for the disk.

        Args:
            contents: By name; with none, the manifest forgets what has been replaced.
            aside: Names under which to keep the files that are replaced: new name by old.

        Raises:
            HydrofoilError: The system refused; what lies there is still whole.
        """
        before = Manifest.read(self.path)
        # A broken file is not kept: it would take the place of the whole one before it.
        moves = {old: new for old, new in (aside or {}).items() if self._on_disk(old, before)}
        now = {name: self._on_disk(name, before) for name in (*contents, *moves.values())}
        coming = {name: Digest.of(content) for name, content in contents.items()}
        coming |= {new: moved for old, new in moves.items() if (moved := now[old])}
        known = self._certified(before)
        for name, new in coming.items():
            known[name] = tuple(dict.fromkeys(one for one in (new, now[name]) if one))
            self.written.pop(name, None)  # until all is done, only the disk can tell
        first = {manifest.NAME: Manifest(known).to_bytes()} if Manifest(known) != before else {}
        grown = [self.path / name for name in manifest.GROWING if (self.path / name).exists()]
        files = {self.path / name: content for name, content in {**first, **contents}.items()}
        staged = stage_all(files, sync=grown) if files else {}
        try:
            for name in first:
                put_in_place(staged[self.path / name], self.path / name)
                sync_folder(self.path)
            for name in contents:
                if name in moves:
                    put_in_place(self.path / name, self.path / moves[name])
                put_in_place(staged[self.path / name], self.path / name)
        finally:
            for beside in staged.values():  # what is in place is not there any more
                discard(beside)
        for folder in {(self.path / name).parent for name in contents}:
            sync_folder(folder)
        self.written.update(coming)

    def _certified(self, before: Manifest | None) -> dict[str, tuple[Digest, ...]]:
        """Return what the manifest should say of the files as they are; the log is read anew."""
        if before is None:  # a run from before there were manifests: taken as it is
            names = [path for path in self.path.rglob("[!.]*") if path.is_file()]
            return {
                str(path.relative_to(self.path)): (Digest.of(read_file(path)),) for path in names
            }
        known = dict(before.files)
        for name, some in before.files.items():
            settled = name in self.written or len(some) > 1
            digest = self._on_disk(name, before) if settled else None
            known[name] = (digest,) if digest else some
        for name in manifest.GROWING:
            if (self.path / name).exists():
                content = self.read(name)
                whole = content.rfind(b"\n") + 1  # `log` puts another in an unfinished line's place
                known[name] = (Digest.of(content[:whole]),)
        return known

    def _on_disk(self, name: str, known: Manifest | None) -> Digest | None:
        """Return by what the file is known that lies there now; None: none, or a broken one."""
        if name in self.written:
            return self.written[name]
        path = self.path / name
        if not path.exists():
            return None
        content = read_file(path)
        return known.knows(name, content) if known else Digest.of(content)

    def read(self, name: str) -> bytes:
        """Return a file of the run as it was written.

        Raises:
            HydrofoilError: It is missing, or its content is not what was written.
        """
        return _read_checked(self.path, name)

    # ── the log ──────────────────────────────────────────────────────────────────────────────────

    def log(self, *events: Mapping[str, Any]) -> None:
        """Append objects to log.jsonl, in the place of a line that was left unfinished.

        The disk is waited for with the next file of the run, whose manifest then knows them.
        """
        if not events:
            return
        path = self.path / "log.jsonl"
        content = self.read("log.jsonl") if path.exists() else b""
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                whole = content.rfind(b"\n") + 1
                try:
                    os.ftruncate(handle, whole)
                    os.lseek(handle, whole, os.SEEK_SET)
                    write_all(handle, _lines(events))
                except OSError:
                    os.ftruncate(handle, whole)  # all of the lines, or none
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            raise not_written(path, error) from error

    def events(self) -> list[dict[str, Any]]:
        """Return the log; a last line that a dying process left unfinished is passed over."""
        path, known = self.path / "log.jsonl", Manifest.read(self.path)
        if not path.exists() and not (known and known.files.get("log.jsonl")):
            return []
        lines = self.read("log.jsonl").decode("utf-8", errors="replace").splitlines()
        events: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                events.append(_event(json.loads(line)))
            except (TypeError, ValueError, RecursionError) as error:
                if number < len(lines):
                    raise HydrofoilError(f"{path}: line {number} is broken: {error}.") from error
        return events

    def epochs(self) -> list[dict[str, Any]]:
        """Return the log's epochs, up to the last whose weights are kept.

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
        last = max(self.epochs_kept(), self._epoch_of_best())
        return [epoch for epoch in epochs if epoch["epoch"] <= last or not last]

    def epochs_kept(self) -> int:
        """Return how many epochs a resumed run would not have to repeat."""
        return int(self._last_numbers().get("epoch", 0))

    def steps_kept(self) -> int:
        """Return how many steps of the epoch after these it would not have to repeat."""
        return int(self._last_numbers().get("step", 0))

    def times_tested(self) -> int:
        """Return how often this run opened the test split; the log counts, test.json repeats it."""
        return sum(event.get("event") == "test" for event in self.events())

    def executor(self) -> str | None:
        """Return what ran the steps last, as the log has it; None: nothing yet."""
        names = [event.get("name") for event in self.events() if event.get("event") == "executor"]
        return names[-1] if names and isinstance(names[-1], str) else None

    def imported(self) -> bool:
        """Tell whether the weights came from elsewhere."""
        return any(event.get("event") == "imported" for event in self.events())

    def forget_after(self, epoch: int, step: int = 0) -> None:
        """Drop from the log what came after some steps of the epoch that follows: it comes again.

        Args:
            epoch: Whole epochs to keep.
            step: Steps of the next one whose running losses are kept.
        """

        def stays(event: Mapping[str, Any]) -> bool:
            number = event.get("epoch", 0) if event.get("event") in ("epoch", "loss") else 0
            return number <= epoch or (number == epoch + 1 and event.get("step", step + 1) <= step)

        events = self.events()
        kept = [event for event in events if stays(event)]
        if len(kept) < len(events):
            self.write("log.jsonl", _lines(kept))

    # ── weights ──────────────────────────────────────────────────────────────────────────────────

    def save_best(self, model: Classifier, epoch: int) -> None:
        """Keep the network's parameters, and nothing else, as best.safetensors."""
        self.write("best.safetensors", self._best(model, model.network.state_dict(), epoch))

    def _best(self, model: Classifier, weights: Mapping[str, torch.Tensor], epoch: int) -> bytes:
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
        return _safetensors(weights, metadata)

    def load_best(self, device: torch.device) -> tuple[Classifier, int]:
        """Return the model with the run's best weights, and their epoch.

        Raises:
            HydrofoilError: There are none yet, or they are broken or another model's.
        """
        path = self.path / "best.safetensors"
        if not path.exists() and self.epochs_kept():
            raise HydrofoilError(f"{path}: missing, so there are no weights.{manifest.cure(path)}")
        if not path.exists():
            raise HydrofoilError(
                f"{self.path}: no epoch is finished yet, so there are no weights.\n"
                f"Go on with: {command('resume', self.path)}"
            )
        tensors, metadata = self._tensors("best.safetensors")
        try:
            shape, classes = json.loads(metadata["shape"]), json.loads(metadata["classes"])
            epoch = int(metadata["epoch"])
            channels, height, width = shape
        except (KeyError, ValueError, TypeError) as error:
            raise HydrofoilError(
                f"{path}: not weights that hydrofoil wrote: {error!r} in its metadata."
            ) from error
        model = build(self.recipe, (channels, height, width), classes)
        model.load_weights(tensors, str(path))
        attach_reference(self, model)
        return model.to(device), epoch

    def save(
        self,
        model: Classifier,
        tensors: Mapping[str, torch.Tensor],
        numbers: Mapping[str, Any],
    ) -> None:
        """Keep a checkpoint and the best weights that it tells of.

        The best weights come first: best.safetensors is never behind the checkpoint. But a first
        checkpoint comes before them: where there are best weights and no checkpoint, it was lost.

        Args:
            model: Whose training it is.
            tensors: What `State.tensors` returned, perhaps a while ago.
            numbers: What `State.numbers` returned then.
        """
        files: dict[str, bytes] = {}
        best, epoch = _part(tensors, "best/"), int(numbers["best_epoch"])
        if best and epoch != self._epoch_of_best():
            files["best.safetensors"] = self._best(model, best, epoch)
        # The numbers travel in the tensors' file, so that the two cannot come from two moments.
        metadata = {"numbers": json.dumps(numbers), "recipe": self.recipe.hash()}
        files["last.safetensors"] = _safetensors(tensors, metadata)
        if not any((self.path / name).exists() for name in CHECKPOINTS):
            files = dict(reversed(files.items()))
        self.write_files(files, aside={"last.safetensors": "previous.safetensors"})

    def load_last(self, model: Classifier, state: "State", *, only_read: bool = False) -> list[str]:
        """Put the last whole checkpoint back into a fresh model and state, if there is one.

        Also lets best.safetensors be what it was then, and the log end there, unless it shall
        only read.

        Returns:
            What a person should know: which file was broken, and what was used instead.

        Raises:
            HydrofoilError: Checkpoints are missing, or all are broken or another recipe's.
        """
        notes: list[str] = []
        broken: list[HydrofoilError] = []
        for name in CHECKPOINTS:
            if not (self.path / name).exists():
                notes += [f"{self.path / name}: missing"] if self._is_lost(name) else []
                continue
            try:
                self._restore(name, model, state)
            except HydrofoilError as error:
                broken.append(error)
                notes.append(str(error))
                continue
            if not only_read:
                self._put_best_back(model, state)
                self.forget_after(state.epoch, state.step)
            return [*notes, *([f"going on from {name}"] if notes else [])]
        if broken:
            raise broken[0]
        if (self.path / "best.safetensors").exists():  # so there was a checkpoint: see `save`
            raise HydrofoilError(
                f"{self.path / 'last.safetensors'}: missing, so there is nothing to go on from.\n"
                f"Train anew with: {command('train', self.path / 'recipe.toml')}"
            )
        if not only_read:
            self.forget_after(0)  # what was logged before a first save that did not end
        return [*notes, *(["beginning anew, as no epoch was whole"] if notes else [])]

    def _is_lost(self, name: str) -> bool:
        """Tell whether a missing file was there, and no process died while it was replaced."""
        known = Manifest.read(self.path)
        return known is not None and len(known.files.get(name, ())) == 1

    def _restore(self, name: str, model: Classifier, state: "State") -> None:
        tensors, metadata = self._tensors(name)
        try:
            numbers = _numbers(metadata)
        except MALFORMED as error:
            raise HydrofoilError(
                f"{self.path / name}: not a checkpoint that hydrofoil wrote: {error!r}."
            ) from error
        state.restore(model, tensors, numbers)

    def _put_best_back(self, model: Classifier, state: "State") -> None:
        """Write the best weights of the checkpoint, unless they lie there.

        A run that was killed in a save, or went on with other bits, may have left another epoch's.
        """
        if not state.best:  # checkpoints of older versions had none
            return
        with contextlib.suppress(HydrofoilError):
            tensors, _ = self._tensors("best.safetensors")
            same = tensors.keys() == state.best.keys() and all(
                torch.equal(tensor, state.best[name].cpu()) for name, tensor in tensors.items()
            )
            if same and self._epoch_of_best() == state.best_epoch:
                return
        self.write("best.safetensors", self._best(model, state.best, state.best_epoch))

    def _tensors(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return the tensors and metadata of a file that this recipe's training wrote."""
        path, content = self.path / name, self.read(name)
        try:
            tensors, metadata = load_tensors(content), _metadata(content)
        except (SafetensorError, *MALFORMED) as error:
            raise HydrofoilError(
                f"{path}: not a safetensors file, or cut short: {error}."
            ) from error
        if metadata.get("recipe", self.recipe.hash()) != self.recipe.hash():
            raise HydrofoilError(
                f"{path}: trained by another recipe than the recipe.toml beside it.\n"
                "Put the old one back, or train the new one in a run of its own."
            )
        return tensors, metadata

    def _last_numbers(self) -> dict[str, Any]:
        """Return the numbers of the last checkpoint; nothing if there is none that is whole."""
        for name in CHECKPOINTS:
            with contextlib.suppress(HydrofoilError, *MALFORMED):
                return _numbers(_metadata(self.read(name)))
        return {}

    def _epoch_of_best(self) -> int:
        """Return the epoch of best.safetensors; 0 if there is none that is whole."""
        with contextlib.suppress(HydrofoilError, *MALFORMED):
            return int(_metadata(self.read("best.safetensors"))["epoch"])
        return 0

    # ── other files ──────────────────────────────────────────────────────────────────────────────

    def split(self) -> Split:
        """Return the run's split."""
        self.read("split.npz")
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
        self.write("answers.npz", npz(arrays))

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
        self.write("shown.npz", npz({"index_N": index_N.numpy(), "pictures_NCHW": shown_NCHW}))

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
            shape = pictures_NCHW.shape[1:]
            if pictures_NCHW.dtype != torch.uint8 or len(shape) != 3 or 0 in shape:
                raise TypeError("pictures are uint8 N×C×H×W")
            return dict(zip(arrays["index_N"].tolist(), pictures_NCHW, strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error

    def _read_json(self, name: str) -> dict[str, Any]:
        path, text = self.path / name, self.read(name)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HydrofoilError(
                f"{path}: broken: {error}.\nDelete it; hydrofoil test writes test.json again."
            ) from error
        if not isinstance(content, dict):
            raise HydrofoilError(f"{path}: broken: it holds no object.")
        return content


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    content = _read_checked(path.parent, path.name)
    try:
        return read_npz(content)
    except (TypeError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _lines(events: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(event) + "\n" for event in events).encode()


def _safetensors(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file, the same bytes for the same content.

    The library writes the metadata in another order each time, so the head is written anew: eight
    bytes for its length, then JSON, padded with spaces so that the tensors stay aligned.
    """
    content = save_tensors(_plain(tensors), metadata)
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file's content: see its format's description."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header.get("__metadata__", {}))


def _event(found: Any) -> dict[str, Any]:
    """Return a line of the log.

    Raises:
        TypeError, ValueError: It is no object, or its place in the training is no count.
    """
    event = dict(found)
    for name in ("epoch", "step"):
        if type(event.get(name, 0)) is not int:
            raise TypeError(f"{name} = {event[name]!r}")
    return event


def _numbers(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the numbers of a checkpoint, as `State.numbers` gave them.

    Raises:
        ValueError: One is not of its kind; or one of `MALFORMED`.
    """
    numbers = dict(json.loads(metadata["numbers"]))
    step, best = numbers.get("step", 0), numbers["best_value"]
    told, told_count = numbers.get("told", (0.0, 0))
    loss, right, count = numbers.get("sums", (0.0, 0, 0))
    for one in (numbers["epoch"], step, numbers["best_epoch"], told_count, right, count):
        if type(one) is not int or not 0 <= one < 1 << 53:
            raise ValueError(f"{one!r} where a count was expected")
    for one in (numbers.get("seconds", 0.0), best or 0.0, told, loss):
        if type(one) not in (int, float) or not abs(one) < 1e300:
            raise ValueError(f"{one!r} where a finite number was expected")
    if bool(step) != bool(count) or told_count > count:
        raise ValueError(f"{step} steps of {count} pictures, of which {told_count} are told")
    return numbers


def _read_checked(folder: Path, name: str) -> bytes:
    """Return a run's file, checked against the manifest.

    A writer may replace both meanwhile: what does not match is read again if the manifest changed.
    """
    path, seen = folder / name, None
    while True:
        known, content = Manifest.read(folder), read_file(path)
        if known is None or known.knows(name, content):
            return content
        if known == seen:
            known.check(path, name, content)
        seen = known


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Hold a folder's lock; a dead process holds none."""
    path = folder / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise not_written(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HydrofoilError(
                f"{folder}: another process is writing this run"
                f"{_holder(handle)}.\nWait for it to end, or stop it."
            ) from error
        except OSError as error:
            raise HydrofoilError(f"{folder}: cannot be locked: {reason(error)}.") from error
        with contextlib.suppress(OSError):  # for the sentence above alone
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _holder(lock: int) -> str:
    """Return who says to hold a lock."""
    number = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
    return f", number {number}" if number.isdigit() else ""


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
    """Make a folder, or take it if it is empty, or but the beginnings of a run that was killed."""
    folder.mkdir(exist_ok=True)
    _check_free(folder)


def _check_free(folder: Path) -> None:
    if all(path.name in BEGINNINGS or is_staged(path) for path in folder.iterdir()):
        return
    go_on = (
        f", or go on with it: {command('resume', folder)}"
        if (folder / "recipe.toml").exists()
        else "."
    )
    raise HydrofoilError(
        f"{folder}: not empty, and what is there stays as it is.\nChoose another --run{go_on}"
    )


def _runs_beside(path: Path) -> str:
    """Name the latest runs where a mistyped one was looked for."""
    folder = next((at for at in (path, path.parent) if any(at.glob("*/recipe.toml"))), Path("runs"))
    with contextlib.suppress(OSError):
        runs = sorted(folder.glob("*/recipe.toml"), key=lambda file: -file.stat().st_mtime)
        if runs:
            return f"\nThe latest runs there: {', '.join(str(file.parent) for file in runs[:4])}"
    return "\nA run folder is made by: hydrofoil train RECIPE"
