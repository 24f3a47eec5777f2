"""Standard trackers: what a run's folder holds, as the users of TensorBoard or MLflow expect it.

log.jsonl stays the truth. A tracker is told what stands there, and shown the figures that `test`
drew; nothing is computed for it. So it can be added to a run at any time and is told the whole run,
and one that fails is left out with a word on it while the run goes on.
"""

import importlib
import json
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.recipe.schema import Recipe
from hydrofoil.report.text import flat
from hydrofoil.run.folder import Run
from hydrofoil.train.feed import count_steps
from hydrofoil.train.loop import Progress

TELL_SECONDS = 1.0  # between two looks into the log: a look reads all of it
FIGURES = ("predictions", "mistakes", "confusion")  # as `test` names them
NOT_TOLD = ("about", "data.root")  # of a recipe: prose, and a path of this machine


@dataclass(frozen=True)
class Scalar:
    """One number of a run.

    Args:
        name: Such as "loss/valid".
        step: The epoch; of "loss/running" the steps since training began; of "test/…" and
            "recall/…" which opening of the test split it was.
        value: As in the log or in test.json.
        at: When, in seconds since 1970; the past of a run is put together from its seconds.
    """

    name: str
    step: int
    value: float
    at: float


class Tracker(Protocol):
    """What takes a run's numbers and figures; whatever it raises ends it, and not the run."""

    needs: ClassVar[tuple[str, ...]]
    """Modules that must be there."""
    install: ClassVar[str]
    """What installs them."""
    environment: ClassVar[dict[str, str]]
    """Variables for them, where they are not set."""

    def __init__(self, run: Run, at: float) -> None:
        """Begin, or go on with what was told of this run before; `at`: when training began."""

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Take the log's next numbers; the first call brings all that there are so far."""

    def end(self, status: str, figures: Mapping[str, Path], opened: int) -> None:
        """Take the figures of the latest test, and how the run ended: finished, failed, stopped."""


class TensorBoard:
    """Event files in RUN/tensorboard, so that `tensorboard --logdir runs` shows each run by name.

    Every process writes one file with the whole run in it, and takes the earlier ones away: a
    resumed run repeats the epochs after its checkpoint, and no reader sees them twice. The records
    are written here: torch's SummaryWriter draws pictures anew, puts hyperparameters into a run of
    their own and the machine's name into the file's, and its thread keeps a full disk to itself.
    """

    needs: ClassVar[tuple[str, ...]] = (
        "tensorboard.compat.proto.event_pb2",
        "tensorboard.compat.proto.summary_pb2",
        "tensorboard.summary.writer.record_writer",
        "tensorboard.plugins.hparams.summary_v2",
        "tensorboard.plugins.hparams.plugin_data_pb2",
        "tensorboard.plugins.hparams.api_pb2",
    )
    install: ClassVar[str] = "pip install -e '.[track]'"
    environment: ClassVar[dict[str, str]] = {}

    def __init__(self, run: Run, at: float) -> None:
        modules: list[Any] = [importlib.import_module(name) for name in self.needs]
        self.event, self.summary, self.record, self.hparams, self.plugin, self.api = modules
        folder = run.path / "tensorboard"
        folder.mkdir(exist_ok=True)
        self.earlier = sorted(folder.glob("events.out.tfevents.*.hydrofoil"))
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.hydrofoil"
        start = self.event.SessionLog(status=self.event.SessionLog.START)
        self._write(
            self._event(at, file_version="brain.Event:2"),
            # Whoever looks on meanwhile drops what the earlier files said, from step 0 on.
            self._event(at, session_log=start),
            # No trial's name: TensorBoard would show the mean of runs that have the same.
            self._event(at, summary=self.hparams.hparams_pb(hyperparameters(run.recipe), "", at)),
        )

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Append scalars; the first call brings the whole run, so earlier files can go."""
        values = [self.summary.Summary.Value(tag=s.name, simple_value=s.value) for s in scalars]
        self._write(
            *(
                self._event(scalar.at, scalar.step, summary=self.summary.Summary(value=[value]))
                for scalar, value in zip(scalars, values, strict=True)
            )
        )
        while self.earlier:
            self.earlier.pop().unlink(missing_ok=True)

    def end(self, status: str, figures: Mapping[str, Path], opened: int) -> None:
        """Append the figures, byte for byte, and how the session ended."""
        now = time.time()
        for name, path in figures.items():
            png = path.read_bytes()
            width, height = struct.unpack(">II", png[16:24])  # where PNG has them
            image = self.summary.Summary.Image(
                width=width, height=height, colorspace=3, encoded_image_string=png
            )
            value = self.summary.Summary.Value(tag=f"test/{name}", image=image)
            self._write(self._event(now, opened, summary=self.summary.Summary(value=[value])))
        statuses = {"finished": self.api.STATUS_SUCCESS, "failed": self.api.STATUS_FAILURE}
        info = self.plugin.SessionEndInfo(
            status=statuses.get(status, self.api.STATUS_UNKNOWN), end_time_secs=now
        )
        value = self.summary.Summary.Value(tag="_hparams_/session_end_info")
        value.metadata.plugin_data.plugin_name = "hparams"
        content = self.plugin.HParamsPluginData(session_end_info=info)
        value.metadata.plugin_data.content = content.SerializeToString()
        value.tensor.dtype = 1  # an empty float tensor: the plugin reads the metadata alone
        value.tensor.tensor_shape.dim.add()
        self._write(self._event(now, summary=self.summary.Summary(value=[value])))

    def _event(self, at: float, step: int = 0, **content: Any) -> Any:
        return self.event.Event(wall_time=at, step=step, **content)

    def _write(self, *events: Any) -> None:
        with open(self.path, "ab") as file:
            writer = self.record.RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())


class MLflow:
    """A run of MLflow, on the server or in the store that MLFLOW_TRACKING_URI names.

    The log keeps the run's id, and `resume` and `test` go on with that run. MLflow forgets nothing,
    so what it was told up to a step is not told again.
    """

    needs: ClassVar[tuple[str, ...]] = ("mlflow", "mlflow.entities")
    install: ClassVar[str] = "pip install mlflow"
    # MLflow waits minutes for a server that is away, and reports its own use over the network.
    environment: ClassVar[dict[str, str]] = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }

    def __init__(self, run: Run, at: float) -> None:
        modules: list[Any] = [importlib.import_module(name) for name in self.needs]
        mlflow, entities = modules
        self.metric, self.param, self.missing = (
            entities.Metric,
            entities.Param,
            mlflow.MlflowException,
        )
        self.run, self.client = run, mlflow.MlflowClient()
        self.told: dict[str, int] = {}  # the last step of each metric
        known = self._known()
        self.new = known is None
        self.id = known or self._create(at)

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Log what was not told before, a thousand metrics a request: MLflow's limit."""
        new = [one for one in scalars if one.step > self._last_step(metric_name(one.name))]
        metrics = [
            self.metric(metric_name(one.name), one.value, int(one.at * 1000), one.step)
            for one in new
        ]
        for first in range(0, len(metrics), 1000):
            self.client.log_batch(self.id, metrics=metrics[first : first + 1000])
        for one in new:
            self.told[metric_name(one.name)] = one.step

    def end(self, status: str, figures: Mapping[str, Path], opened: int) -> None:
        """Keep recipe, test and figures as artifacts, and say how the run ended."""
        for path in (self.run.path / name for name in ("recipe.toml", "test.json")):
            if path.exists():
                self.client.log_artifact(self.id, str(path))
        for path in figures.values():
            self.client.log_artifact(self.id, str(path), "figures")
        statuses = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
        self.client.set_terminated(self.id, statuses[status])

    def _last_step(self, name: str) -> int:
        if name not in self.told:
            history = [] if self.new else self.client.get_metric_history(self.id, name)
            self.told[name] = max((metric.step for metric in history), default=-1)
        return self.told[name]

    def _known(self) -> str | None:
        """Return the id under which this run was begun, if MLflow still knows it."""
        ids = [event["id"] for event in self.run.events() if event.get("tracker") == "mlflow"]
        if not ids:
            return None
        try:
            known = self.client.get_run(ids[-1])
        except self.missing as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if known.info.lifecycle_stage != "active":
            return None
        self.client.update_run(ids[-1], status="RUNNING")
        return ids[-1]

    def _create(self, at: float) -> str:
        """Begin a run of MLflow's, named as the folder, and keep its id in the log."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "hydrofoil")
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        folder = self.run.path.resolve().name
        made = self.client.create_run(
            number, run_name=folder, start_time=int(at * 1000)
        ).info.run_id
        self.run.log({"event": "tracked", "tracker": "mlflow", "id": made})
        params = [self.param(k, str(v)) for k, v in hyperparameters(self.run.recipe).items()]
        self.client.log_batch(made, params=params)
        return made


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that are unknown or cannot be imported, before anything is trained.

    Raises:
        HydrofoilError: It says what is known, or what to install.
    """
    for name in names:
        if name not in TRACKERS:
            raise HydrofoilError(f"--track {name}: no such tracker. {nearest(name, TRACKERS)}")
        tracker = TRACKERS[name]
        for variable, value in tracker.environment.items():
            os.environ.setdefault(variable, value)
        try:
            for module in tracker.needs:
                importlib.import_module(module)
        except ImportError as error:
            raise HydrofoilError(
                f"--track {name}: not installed: {error}.\nInstall it with: {tracker.install}"
            ) from error


class Tracking:
    """Tells trackers what a run's folder holds, from entering to leaving.

    Args:
        run: Whose lock is held.
        names: Of trackers, checked; none is well.
        warn: Takes the line on a tracker that failed.
    """

    def __init__(self, run: Run, names: Iterable[str], warn: Callable[[str], None]) -> None:
        self.run, self.names, self.warn = run, list(dict.fromkeys(names)), warn
        self.trackers: dict[str, Tracker] = {}
        self.steps = 0  # of an epoch
        self.events = 0  # of the log that were told
        self.at = self.looked = time.time()

    def __enter__(self) -> Self:
        if self.names:
            self._attempt(self.names, self._prepare)
        for name in self.names:
            self._attempt([name], lambda name=name: self._begin(name))
        self._tell()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell()
        status = "finished" if error is None else "stopped"
        status = "failed" if isinstance(error, HydrofoilError) else status
        for name in list(self.trackers):
            self._attempt([name], lambda name=name: self._end(name, status))

    def watch(self, follow: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Return what follows the steps and now and then tells the trackers."""

        def both(progress: Progress) -> None:
            follow(progress)
            if self.trackers and time.time() - self.looked > TELL_SECONDS:
                self._tell()

        return both

    def _attempt(self, names: Iterable[str], act: Callable[[], None]) -> None:
        """Do it; if that fails, whatever the reason, go on without these trackers."""
        try:
            act()
        except Exception as error:  # foreign code, disks and servers
            said = (str(error).splitlines() or [""])[0][:200]
            for name in names:
                self.trackers.pop(name, None)
            self.warn(
                f"--track {', '.join(names)}: {type(error).__name__}: {said}: the run goes on "
                "without; log.jsonl has everything, and another --track tells it."
            )

    def _prepare(self) -> None:
        """Find where the run's past began, as if it had not paused, and how long an epoch is."""
        pictures = len(self.run.split().train)
        self.steps = count_steps(pictures, self.run.recipe.train.batch_size)
        self.at = time.time() - sum(map(_seconds, self.run.events()))

    def _begin(self, name: str) -> None:
        self.trackers[name] = TRACKERS[name](self.run, self.at)

    def _tell(self) -> None:
        """Tell what came into the log since the last time."""
        if not self.trackers:
            return
        scalars: list[Scalar] = []
        self._attempt(list(self.trackers), lambda: scalars.extend(self._news()))
        for name, tracker in list(self.trackers.items()):
            self._attempt([name], lambda tracker=tracker: tracker.tell(scalars))
        self.looked = time.time()

    def _news(self) -> list[Scalar]:
        events = self.run.events()
        new, self.events = events[self.events :], len(events)
        now = time.time()
        self.at = max(self.at, now - sum(map(_seconds, new)))
        scalars: list[Scalar] = []
        for event in new:
            self.at = min(self.at + _seconds(event), now)
            step, values = event_values(event, self.steps)
            scalars += [Scalar(name, step, value, self.at) for name, value in values.items()]
        return scalars

    def _end(self, name: str, status: str) -> None:
        """Tell a tracker the latest test whole, and that this is the end."""
        test, figures = self.run.test(), dict[str, Path]()
        opened = test["opened"] if test else 0
        if test:
            scalars = [Scalar(n, opened, v, time.time()) for n, v in result_values(test).items()]
            self.trackers[name].tell(scalars)
            drawn = [
                kind for kind in FIGURES if kind != "mistakes" or test["right"] < test["count"]
            ]
            paths = {kind: self.run.path / "figures" / f"{kind}.png" for kind in drawn}
            figures = {kind: path for kind, path in paths.items() if path.exists()}
        self.trackers[name].end(status, figures, opened)


def hyperparameters(recipe: Recipe) -> dict[str, bool | float | str]:
    """Return a recipe's fields by their dotted names, lists as JSON, without what is not set."""
    fields = flat(recipe.model_dump(mode="json", exclude_none=True))
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in fields.items()
        if name not in NOT_TOLD
    }


def event_values(event: Mapping[str, Any], steps: int) -> tuple[int, dict[str, float]]:
    """Return the step of a log's event, and its numbers by the names that trackers show.

    Args:
        event: As it stands in log.jsonl.
        steps: Of an epoch.
    """
    if event.get("event") == "epoch":
        values: dict[str, float] = {}
        for part in ("train", "valid"):
            if event[part]:
                values[f"loss/{part}"] = event[part]["loss"]
                values[f"accuracy/{part}"] = event[part]["accuracy"]
        values["learning_rate"] = event["learning_rate"]
        if event["train_seconds"]:
            values["pictures_per_second"] = event["train"]["count"] / event["train_seconds"]
        return event["epoch"], values
    if event.get("event") == "loss":
        return (event["epoch"] - 1) * steps + event["step"], {"loss/running": event["loss"]}
    if event.get("event") == "test":
        return event["opened"], {"test/accuracy": event["accuracy"]}
    return 0, {}


def result_values(test: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of test.json that the log has not: loss, interval, recall by class."""
    low, high = test["interval"]
    values = {"test/loss": test["loss"], "test/accuracy_low": low, "test/accuracy_high": high}
    recalls = {f"recall/{one['class']}": one["accuracy"] for one in test["classes"]}
    return values | {name: value for name, value in recalls.items() if value is not None}


def metric_name(name: str) -> str:
    """Return a name that MLflow takes, with what it refuses in a class's name as hexadecimal.

    >>> metric_name("loss/valid"), metric_name("recall/6/9?")
    ('loss/valid', 'recall/6_2f_9_3f_')
    """
    group, slash, rest = name.partition("/")
    return group + slash + re.sub(r"[^\w -]", lambda found: f"_{ord(found[0]):x}_", rest)


def _seconds(event: Mapping[str, Any]) -> float:
    """Return how long an epoch took, its validation included; 0 for what is no epoch."""
    return event["train_seconds"] + event["valid_seconds"] if event.get("event") == "epoch" else 0.0
