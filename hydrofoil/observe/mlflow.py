"""MLflow: a run of its own for each run folder, which `resume` and `test` continue."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydrofoil.observe.scalars import Scalar, hyperparameters, metric_name
from hydrofoil.run.events import Tracked
from hydrofoil.run.folder import Run


class MLflow:
    """A run of MLflow, on the server or in the store that MLFLOW_TRACKING_URI names.

    The log keeps the run's id, and `resume` and `test` continue that run. MLflow forgets nothing,
    so what was logged up to a step is not logged again.
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
        self.logged: dict[str, int] = {}  # the last step of each metric
        known = self._known()
        self.new = known is None
        self.id = known or self._create(at)

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Log what is new, a thousand metrics per request: MLflow's limit."""
        new = [one for one in scalars if one.step > self._last_step(metric_name(one.name))]
        metrics = [
            self.metric(metric_name(one.name), one.value, int(one.at * 1000), one.step)
            for one in new
        ]
        for first in range(0, len(metrics), 1000):
            self.client.log_batch(self.id, metrics=metrics[first : first + 1000])
        for one in new:
            self.logged[metric_name(one.name)] = one.step

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
        if name not in self.logged:
            history = [] if self.new else self.client.get_metric_history(self.id, name)
            self.logged[name] = max((metric.step for metric in history), default=-1)
        return self.logged[name]

    def _known(self) -> str | None:
        """Return the id under which this run was begun, if MLflow still knows it."""
        ids = [event.id for event in self.run.log.all(Tracked) if event.tracker == "mlflow"]
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
        self.run.log.append(Tracked(tracker="mlflow", id=made))
        params = [self.param(k, str(v)) for k, v in hyperparameters(self.run.recipe).items()]
        self.client.log_batch(made, params=params)
        return made
