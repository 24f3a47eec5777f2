"""Trains and evaluates a model by its generated code, in the model's and the optimiser's tensors.

Weights and optimiser state are copied into the code's layout when a run of steps begins and back
when it ends, so that checkpoints, and another executor afterwards, find them where torch has them.

Axes: N pictures, C channels, H rows, W columns, K classes, S steps, F weights as the code lays
them out.
"""

import ctypes
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from hydrofoil.data.pictures import Pictures
from hydrofoil.device import available_threads
from hydrofoil.evaluate.metrics import Metrics, Sums, measure
from hydrofoil.models.classifier import Classifier
from hydrofoil.native import emit_conv, emit_linear
from hydrofoil.native.build import build, is_built
from hydrofoil.native.emit_optimizer import make_rule, numbers
from hydrofoil.native.plan import WEIGHTED, Conv, Linear, Norm, Unsupported, make_plan, padded
from hydrofoil.native.program import layout, program

if TYPE_CHECKING:
    from hydrofoil.train.feed import Feed

CALL_SECONDS = 0.2  # between returns to Python, for Ctrl-C and progress
TRIAL_SECONDS = 0.01  # of steps, to compare numbers of threads
MOST_THREADS = 64


class _Job(ctypes.Structure):
    """The C program's Job, field by field."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("threads", ctypes.c_int64),
        ("pictures", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("index", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("keys", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("numbers", ctypes.c_void_p),
        ("smoothing", ctypes.c_double),
        ("step", ctypes.c_int64),
        ("w", ctypes.c_void_p),
        ("s0", ctypes.c_void_p),
        ("s1", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("loss", ctypes.c_double),
        ("right", ctypes.c_int64),
    )


def source(model: Classifier, optimizer: torch.optim.Optimizer, batch_size: int) -> str:
    """Return the C that would train a model, to be read.

    Raises:
        Unsupported: There is no native code for it.
    """
    _check_parameters(model, optimizer)
    return program(make_plan(model, batch_size), make_rule(optimizer))


def _check_parameters(model: Classifier, optimizer: torch.optim.Optimizer) -> None:
    parameters = list(model.network.parameters())
    for parameter in parameters:
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise Unsupported(f"parameters of {parameter.dtype} on {parameter.device}")
        if not parameter.requires_grad:
            raise Unsupported("parameters that are not trained")
    if len(list(model.network.named_parameters(remove_duplicate=False))) != len(parameters):
        raise Unsupported("layers that share weights")
    hooked = ("_backward_hooks", "_post_accumulate_grad_hooks")
    if any(getattr(p, name, None) for p in parameters for name in hooked):
        raise Unsupported("parameters with hooks")
    if any(getattr(optimizer, f"_optimizer_step_{when}_hooks", None) for when in ("pre", "post")):
        raise Unsupported("an optimiser with hooks")
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if trained != {id(parameter) for parameter in parameters}:
        raise Unsupported("an optimiser of other parameters than the model's")


class Native:
    """The executor that runs C, generated and built for one network, batch size and optimiser.

    Building takes a second or two, finding it built some milliseconds.

    Args:
        model: Whose weights are trained in place; on the CPU, in float32.
        optimizer: Of exactly the model's parameters; its rates are read at each call, and its state
            is kept up in place.
        pictures: The set, on the CPU.
        batch_size: Pictures per step.
        label_smoothing: As torch's cross-entropy has it.
        threads: How many work at a step; default: the number that a short trial finds fastest. The
            bits do not depend on it.
        flags: More options for the compiler, such as those of sanitizers.

    Raises:
        Unsupported: A layer, an option, the optimiser or the machine is not served.
        ValueError: The pictures are not the model's.
    """

    name = "native"

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        pictures: Pictures,
        *,
        batch_size: int,
        label_smoothing: float = 0.0,
        threads: int | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        _check_parameters(model, optimizer)
        if pictures.pictures_NCHW.device.type != "cpu":
            raise ValueError(f"pictures on {pictures.pictures_NCHW.device}: expected the CPU")
        if pictures.shape != model.shape or pictures.K > len(model.classes):
            raise ValueError("pictures of another shape or more classes than the model's")
        self.model, self.optimizer, self.pictures = model, optimizer, pictures
        self.plan, self.rule = make_plan(model, batch_size), make_rule(optimizer)
        self.label_smoothing = label_smoothing
        code, began = program(self.plan, self.rule), perf_counter()
        built_before = is_built(code, flags)
        library = build(code, flags)
        self.build_seconds = 0.0 if built_before else perf_counter() - began
        self._run = library.run
        self._run.argtypes, self._run.restype = [ctypes.POINTER(_Job)], ctypes.c_int
        library.memory_bytes.argtypes = [ctypes.c_int64]
        library.memory_bytes.restype = ctypes.c_int64
        most = min(threads or available_threads(), MOST_THREADS)
        memory = torch.zeros(library.memory_bytes(most) + 64, dtype=torch.uint8)
        self._memory = memory[-memory.data_ptr() % 64 :]
        floats = layout(self.plan).floats
        self._flat_F = [torch.zeros(floats + 16) for _ in range(1 + len(self.rule.slots))]
        self._flat_F = [flat[-flat.data_ptr() % 64 // 4 :][:floats] for flat in self._flat_F]
        self._pictures_NCHW = pictures.pictures_NCHW.contiguous()
        self._labels_N = pictures.labels_N.contiguous()
        bytes_1CH1 = torch.arange(256, dtype=torch.uint8).expand(model.shape[0], 1, 256)
        self._table = model.normalise(bytes_1CH1.unsqueeze(0)).flatten().contiguous()
        self.step_seconds = 0.0  # of the trial, then of the last call
        self.threads = most
        self._load()
        if threads is None:
            self.threads = self._fastest(most)
        else:
            self.step_seconds = self._trial(most, 1)

    @property
    def steps_per_call(self) -> int:
        """Steps per call, so that Python is back a few times a second."""
        return max(1, int(CALL_SECONDS / max(self.step_seconds, 1e-7)))

    def train_steps(self, feed: "Feed", first: int, stop: int, sums: Sums) -> None:
        """Train on some batches of an epoch, in order, and add to the sums.

        Args:
            feed: The epoch's tables, for batches of the size that the code was built for, or one
                batch of fewer.
            first: The first step to take, counted from 0.
            stop: The step to stop before.
            sums: Loss and correct predictions are added, in float64.

        Raises:
            ValueError: An index is outside the set, batch normalisation has a single number to take
                the mean of, or the optimiser has other terms than the code was built for.
        """
        index_N, steps = self._checked(feed.span(first, stop)), stop - first
        _check_parameters(self.model, self.optimizer)
        if make_rule(self.optimizer) != self.rule:
            raise ValueError("the optimiser's terms have changed: prepare an executor anew")
        self._check_norms(len(index_N) % self.plan.batch or self.plan.batch)
        done_before = self._load()
        began = perf_counter()
        keys = feed.draws_SL2[first:stop].contiguous()
        job = self._job(index_N, keys, feed.rates_S[first:stop], done_before)
        job.loss = sums.loss.item()  # picture by picture: no bit depends on where calls are cut
        self._call(job)
        self.step_seconds = (perf_counter() - began) / steps
        self._store(done_before + steps, steps)
        sums.loss.fill_(job.loss)
        sums.right += job.right
        sums.count += len(index_N)

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        return measure(self.logits(index_N), self._labels_N[index_N])

    def logits(self, index_N: Tensor) -> Tensor:
        """Return logits_NK of the indexed pictures, in evaluation mode."""
        index_N = self._checked(index_N)
        self._load()
        logits_NK = torch.empty(len(index_N), self.plan.logits.channels)
        part = self.steps_per_call * self.plan.batch  # a forward pass takes less than a step
        for part_N, out_NK in zip(index_N.split(part), logits_NK.split(part), strict=True):
            job = self._job(part_N, torch.zeros(0), torch.zeros(0), 0)
            job.logits = out_NK.data_ptr()
            self._call(job)
        return logits_NK

    def _checked(self, index_N: Tensor) -> Tensor:
        """Return the indices as the code reads them: nothing there would stop a wrong one."""
        index_N = index_N.to("cpu", torch.int64).contiguous()
        if not len(index_N) or int(index_N.min()) < 0 or int(index_N.max()) >= len(self.pictures):
            raise ValueError(f"no index, or one outside the {len(self.pictures)} pictures")
        return index_N

    def _check_norms(self, last: int) -> None:
        """Refuse what torch refuses: a variance of one number."""
        for operation in self.plan.operations:
            if isinstance(operation, Norm) and operation.area * last == 1:
                raise ValueError("Expected more than 1 value per channel when training")

    def _job(self, index_N: Tensor, keys: Tensor, rates_S: Tensor, step: int) -> _Job:
        """Return the work on some batches; the tensors must live until it is done."""
        # A row of the optimizer's numbers for each step: the first is the learning rate.
        rates = torch.tensor(numbers(self.optimizer), dtype=torch.float64).repeat(len(rates_S), 1)
        rates[:, 0] = rates_S
        slots = [flat.data_ptr() for flat in self._flat_F[1:]]
        job = _Job(
            memory=self._memory.data_ptr(),
            threads=self.threads,
            pictures=self._pictures_NCHW.data_ptr(),
            labels=self._labels_N.data_ptr(),
            index=index_N.data_ptr(),
            count=len(index_N),
            keys=keys.data_ptr(),
            table=self._table.data_ptr(),
            numbers=rates.data_ptr(),
            smoothing=self.label_smoothing,
            step=step,
            w=self._flat_F[0].data_ptr(),
            s0=slots[0] if slots else None,
            s1=slots[1] if len(slots) > 1 else None,
        )
        job.tensors = (index_N, keys, rates)
        return job

    def _call(self, job: _Job) -> None:
        error = self._run(ctypes.byref(job))
        if error:
            raise OSError(error, f"{job.threads} threads could not be started")

    def _fastest(self, most: int) -> int:
        """Return the number of threads whose steps are fastest; more of them only if it pays.

        The trial changes the flat arrays alone, which every call fills anew; the optimiser's rates
        do not matter to it.
        """
        batch, chosen, best = self.plan.batch, 1, float("inf")
        for threads in sorted({*(1 << i for i in range(most.bit_length())), most}):
            try:
                steps, seconds = 1, self._trial(threads, 1)  # the first call warms the caches
            except OSError:
                if threads == 1:
                    raise
                break  # the system gives no more threads
            while steps * seconds < TRIAL_SECONDS and steps * batch < len(self.pictures):
                steps = max(2 * steps, int(TRIAL_SECONDS / seconds / 2))
                seconds = min(self._trial(threads, steps), self._trial(threads, steps))
            if seconds < 0.9 * best:
                chosen, best = threads, seconds
        self.step_seconds = best
        return chosen

    def _trial(self, threads: int, steps: int) -> float:
        """Return the seconds a step that some threads take."""
        index_N = torch.arange(steps * self.plan.batch) % len(self.pictures)
        keys = torch.zeros(steps, max(self.plan.dropouts, 1), 2, dtype=torch.int32)
        job = self._job(index_N, keys, torch.zeros(steps), 0)
        job.threads = threads
        began = perf_counter()
        self._call(job)
        return (perf_counter() - began) / steps

    # Between torch's tensors and the code's layout.

    def _pairs(self, slot: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield torch's tensor (weights or state) and the same numbers' view in the flat array.

        Both views have the same shape and order, so that copying goes either way.
        """
        flat_F, starts = self._flat_F[slot], layout(self.plan).starts
        for operation in self.plan.operations:
            if not isinstance(operation, WEIGHTED):
                continue
            for name, view in _views(operation, flat_F, starts[operation.name]):
                tensor: Tensor | None = getattr(operation.layer, name)
                if tensor is None:
                    continue  # no biases, say
                if slot and not isinstance(tensor, nn.Parameter):
                    continue  # running means have no optimiser state
                if slot:
                    tensor = cast("Tensor", self.optimizer.state[tensor][self.rule.slots[slot - 1]])
                yield _ordered(operation, tensor.detach()), view

    def _load(self) -> int:
        """Copy weights and state in; return how many steps the optimiser has done.

        Raises:
            ValueError: The parameters have done different numbers of steps.
        """
        self._fresh_state()
        for flat in self._flat_F:
            flat.zero_()  # what fills vectors, too: a trial that diverged has left NaN there
        for slot in range(len(self._flat_F)):
            for tensor, view in self._pairs(slot):
                view.copy_(tensor)
        states = [self.optimizer.state[p] for p in self.model.network.parameters()]
        done = {int(state["step"]) for state in states if "step" in state}
        if len(done) > 1:
            raise ValueError("parameters that have done different numbers of steps")
        return done.pop() if done else 0

    def _fresh_state(self) -> None:
        """Give the optimiser the state that torch would make at its first step."""
        for parameter in self.model.network.parameters():
            state = self.optimizer.state[parameter]
            for name in self.rule.slots:
                if state.get(name) is None:
                    state[name] = torch.zeros_like(parameter)
            if self.rule.kind != "sgd" and "step" not in state:
                state["step"] = torch.tensor(0.0)

    def _store(self, done: int, steps: int) -> None:
        """Copy weights and state back, and set the counts of steps."""
        with torch.no_grad():
            for slot in range(len(self._flat_F)):
                for tensor, view in self._pairs(slot):
                    tensor.copy_(view)
        for parameter in self.model.network.parameters():
            state = self.optimizer.state[parameter]
            if "step" in state:
                state["step"].fill_(done)
        for operation in self.plan.operations:
            if isinstance(operation, Norm) and operation.layer.num_batches_tracked is not None:
                operation.layer.num_batches_tracked += steps


def _views(
    operation: Conv | Linear | Norm, flat_F: Tensor, start: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield a layer's weights and biases in a flat array, without what only fills vectors."""
    if isinstance(operation, Norm):
        names = ("weight", "bias", "running_mean", "running_var")
        for name, row in zip(names, flat_F[start:].split(padded(operation.channels)), strict=False):
            yield name, _spread(operation, row[: operation.channels])
        return
    if isinstance(operation, Conv):
        (rows, _), outputs = operation.kernel, operation.outputs
        row = emit_conv.gradient_row(operation)
        size = outputs * rows * row
        weights = flat_F[start : start + size].view(outputs, rows, row)[..., : operation.run]
        weights = weights.unflatten(2, (operation.kernel[1], operation.source.channels))
    else:
        row, outputs = emit_linear.inputs(operation), operation.result.features
        size = emit_linear.outputs(operation) * row
        weights = flat_F[start : start + size].view(-1, row)[:outputs, : operation.source.features]
        buffer = operation.source
        weights = weights.unflatten(1, (buffer.height, buffer.width, buffer.channels))
    yield "weight", weights
    yield "bias", flat_F[start + size : start + size + outputs]


def _spread(norm: Norm, row_F: Tensor) -> Tensor:
    """Return a view by row, column and channel of what has a number for each feature."""
    buffer = norm.source
    return row_F.view(buffer.height, buffer.width, buffer.channels) if norm.flat else row_F


def _ordered(operation: Conv | Linear | Norm, tensor: Tensor) -> Tensor:
    """Return a view of torch's tensor in the code's order: rows, columns, then channels."""
    buffer = operation.source
    if isinstance(operation, Norm) and operation.flat:
        return tensor.view(buffer.channels, buffer.height, buffer.width).permute(1, 2, 0)
    if tensor.ndim == 1:
        return tensor
    if isinstance(operation, Conv):
        return tensor.permute(0, 2, 3, 1)
    return tensor.view(-1, buffer.channels, buffer.height, buffer.width).permute(0, 2, 3, 1)
