"""TensorBoard's event files, written by the parts of its own package that import quickly."""

import importlib
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydrofoil.observe.scalars import Scalar, hyperparameters
from hydrofoil.run.folder import Run


class TensorBoard:
    """Event files in RUN/tensorboard, so that `tensorboard --logdir runs` shows each run by name.

    Every process writes one file with the whole run in it, and takes the earlier ones away: a
    resumed run repeats the epochs after its checkpoint, and no reader sees them twice. The records
    are written here: torch's SummaryWriter encodes images again, puts hyperparameters into a run of
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
