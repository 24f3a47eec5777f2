"""Trains and evaluates a model by its generated code, in the model's and the optimizer's tensors.

Weights and optimizer state are copied into the code's layout when a run of steps begins and back
when it ends, so that checkpoints, and another executor afterwards, find them where torch has them.

Axes: N images, C channels, H rows, W columns, K classes, S steps, F weights as the code lays them
out.
"""

import ctypes
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.device import available_threads
from hydrofoil.evaluate.metrics import Metrics, Sums, measure
from hydrofoil.models.classifier import Classifier
from hydrofoil.native.build import build
from hydrofoil.native.job import SLOTS, Job
from hydrofoil.native.optimizer import make_rule, numbers
from hydrofoil.native.program import Program, check_trainable, make_program

if TYPE_CHECKING:
    from hydrofoil.train.feed import Feed

CALL_SECONDS = 0.2  # between returns to Python, for Ctrl-C and progress
TRIAL_SECONDS = 0.01  # of steps, to compare numbers of threads
MOST_THREADS = 64


class Native:
    """The executor that runs C, generated and built for one network, batch size and optimizer.

    Building takes a second or two, loading a cached library some milliseconds.

    Args:
        model: Its weights are trained in place; on the CPU, in float32.
        optimizer: Of exactly the model's parameters; its rates are read at each call, and its state
            is updated in place.
        pictures: The set, on the CPU.
        batch_size: Images per step.
        label_smoothing: As in torch's cross-entropy.
        class_weights_K: As torch's cross-entropy takes them; default: none.
        threads: CPU threads per step; default: the number that a short trial finds fastest. The
            results do not depend on it, bit for bit.
        flags: More options for the compiler, such as those of sanitizers.
        program: The generated code, if `make_program` was called before.

    Attributes:
        note: What was given up to run here, in one line; empty if nothing.
        build_seconds: What compiling took; 0 if the library was cached.
        step_seconds: Duration of a step: of the trial, then of the last call.

    Raises:
        Unsupported: There is no native code for a layer, an option or the optimizer, or it cannot
            be built here.
        ValueError: The images, or the program, do not fit the model.
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
        class_weights_K: Tensor | None = None,
        threads: int | None = None,
        flags: tuple[str, ...] = (),
        program: Program | None = None,
    ) -> None:
        if pictures.pictures_NCHW.device.type != "cpu":
            raise ValueError(f"images on {pictures.pictures_NCHW.device}: expected the CPU")
        if pictures.shape != model.shape or pictures.K > len(model.classes):
            raise ValueError("images of another shape or more classes than the model's")
        weighted = class_weights_K is not None
        program = program or make_program(model, optimizer, batch_size, weighted)
        if program.plan.batch != batch_size:
            raise ValueError(f"code for batches of {program.plan.batch}, not of {batch_size}")
        if program.weighted != weighted:
            raise ValueError("code for a loss with class weights, or class weights without it")
        self.model, self.optimizer, self.pictures = model, optimizer, pictures
        self.plan, self.rule = program.plan, program.rule
        self._layers = dict(model.network.named_children())
        self.label_smoothing = label_smoothing
        self._weights_K = _checked_weights(class_weights_K, model)
        began = perf_counter()
        built = build(program.source, flags)
        library, self.note = built.handle, built.note
        self.build_seconds = perf_counter() - began if built.compiled else 0.0
        self._run = library.run
        self._run.argtypes, self._run.restype = [ctypes.POINTER(Job)], ctypes.c_int
        library.memory_bytes.argtypes = [ctypes.c_int64]
        library.memory_bytes.restype = ctypes.c_int64
        self.threads = min(threads or available_threads(), MOST_THREADS)
        self._memory = _aligned_zeros(library.memory_bytes(self.threads), torch.uint8)
        floats, arrays = self.plan.layout.floats, 1 + len(self.rule.slots)
        self._flat_F = [_aligned_zeros(floats, torch.float32) for _ in range(arrays)]
        self._pictures_NCHW = pictures.pictures_NCHW.contiguous()
        self._labels_N = pictures.labels_N.contiguous()
        bytes_1CH1 = torch.arange(256, dtype=torch.uint8).expand(model.shape[0], 1, 256)
        self._table = model.normalize(bytes_1CH1.unsqueeze(0)).flatten().contiguous()
        self.step_seconds = 0.0
        self._load()
        if threads is None:
            self.threads = self._fastest(self.threads)
        else:
            self.step_seconds = self._trial(self.threads, 1)

    @property
    def steps_per_call(self) -> int:
        """Steps per call, so that Python regains control a few times a second."""
        return max(1, int(CALL_SECONDS / max(self.step_seconds, 1e-7)))

    def train_steps(self, feed: "Feed", first: int, stop: int, sums: Sums) -> None:
        """Train on some batches of an epoch, in order, and add to the sums.

        Args:
            feed: The epoch's tables, for batches of the size that the code was built for, or one
                batch of fewer images.
            first: The first step to take, counted from 0.
            stop: The step to stop before.
            sums: Loss and correct answers are added, in float64.

        Raises:
            ValueError: An index is outside the set, or the optimizer has other terms than the code
                was built for.
            HydrofoilError: Batch normalization has a single number per channel.
        """
        index_N, steps = self._checked(feed.span(first, stop)), stop - first
        self._check_unchanged(len(index_N) % self.plan.batch or self.plan.batch)
        done_before, keys = self._load(), feed.draws_SL2[first:stop].contiguous()
        began = perf_counter()
        # The sum continues image by image: results do not depend on where calls begin and end.
        job = self._call(
            index_N, keys, feed.rates_S[first:stop], done_before, loss=sums.loss.item()
        )
        self.step_seconds = (perf_counter() - began) / steps
        self._store(done_before + steps, steps)
        sums.loss.fill_(job.loss)
        sums.correct += job.right
        sums.count += len(index_N)

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed images, in evaluation mode."""
        return measure(self.logits(index_N), self._labels_N[index_N])

    def logits(self, index_N: Tensor) -> Tensor:
        """Return logits_NK of the indexed images, in evaluation mode."""
        index_N = self._checked(index_N)
        self._load()
        logits_NK = torch.empty(len(index_N), self.plan.logits.channels)
        part = self.steps_per_call * self.plan.batch  # a forward pass takes less than a step
        for part_N, out_NK in zip(index_N.split(part), logits_NK.split(part), strict=True):
            self._call(part_N, torch.zeros(0), torch.zeros(0), 0, logits=out_NK.data_ptr())
        return logits_NK

    def _checked(self, index_N: Tensor) -> Tensor:
        """Return the indices as the code reads them; the code itself does not check them."""
        index_N = index_N.to("cpu", torch.int64).contiguous()
        if not len(index_N) or int(index_N.min()) < 0 or int(index_N.max()) >= len(self.pictures):
            raise ValueError(f"no index, or one outside the {len(self.pictures)} images")
        return index_N

    def _check_unchanged(self, last: int) -> None:
        """Refuse a model or optimizer that the code is no longer of, and a too small last batch."""
        check_trainable(self.model, self.optimizer)
        if make_rule(self.optimizer) != self.rule:
            raise ValueError("the optimizer's terms have changed: prepare a new executor")
        for operation in self.plan.operations:
            operation.check_batch(last)

    def _call(
        self,
        index_N: Tensor,
        keys: Tensor,
        rates_S: Tensor,
        step: int,
        *,
        threads: int | None = None,
        loss: float = 0.0,
        logits: int | None = None,
    ) -> Job:
        """Run the code on some batches and return the finished job.

        Args:
            index_N: The images, as `_checked` returns them.
            keys: Of dropout's masks.
            rates_S: The learning rate of each step.
            step: Steps that the optimizer has done before.
            threads: Default: the executor's.
            loss: The sum to add to.
            logits: The address to write logits to instead of training.

        Raises:
            OSError: The system does not start so many threads.
        """
        # A row of the optimizer's numbers for each step: the first is the learning rate.
        rates = torch.tensor(numbers(self.optimizer), dtype=torch.float64).repeat(len(rates_S), 1)
        rates[:, 0] = rates_S
        job = Job(
            memory=self._memory.data_ptr(),
            threads=threads or self.threads,
            pictures=self._pictures_NCHW.data_ptr(),
            labels=self._labels_N.data_ptr(),
            index=index_N.data_ptr(),
            count=len(index_N),
            keys=keys.data_ptr(),
            table=self._table.data_ptr(),
            numbers=rates.data_ptr(),
            smoothing=self.label_smoothing,
            weights=None if self._weights_K is None else self._weights_K.data_ptr(),
            step=step,
            w=self._flat_F[0].data_ptr(),
            logits=logits,
            loss=loss,
        )
        for name, flat_F in zip(SLOTS, self._flat_F[1:], strict=False):
            setattr(job, name, flat_F.data_ptr())
        error = self._run(ctypes.byref(job))
        if error:
            raise OSError(error, f"{job.threads} threads could not be started")
        return job

    def _fastest(self, most: int) -> int:
        """Return the number of threads whose steps are fastest; more of them only if it pays.

        The trial changes only the flat arrays, which every call fills again; the optimizer's rates
        do not matter to it.
        """
        batch, chosen, best = self.plan.batch, 1, float("inf")
        for threads in sorted({*(1 << i for i in range(most.bit_length())), most}):
            try:
                steps, seconds = 1, self._trial(threads, 1)  # the first call warms the caches
            except OSError:
                if threads == 1:
                    raise
                break  # the system starts no more threads
            while steps * seconds < TRIAL_SECONDS and steps * batch < len(self.pictures):
                steps = max(2 * steps, int(TRIAL_SECONDS / seconds / 2))
                seconds = min(self._trial(threads, steps), self._trial(threads, steps))
            if seconds < 0.9 * best:
                chosen, best = threads, seconds
        self.step_seconds = best
        return chosen

    def _trial(self, threads: int, steps: int) -> float:
        """Return the seconds per step with some number of threads."""
        index_N = torch.arange(steps * self.plan.batch) % len(self.pictures)
        keys = torch.zeros(steps, max(self.plan.draws, 1), 2, dtype=torch.int32)
        began = perf_counter()
        self._call(index_N, keys, torch.zeros(steps), 0, threads=threads)
        return (perf_counter() - began) / steps

    # Between torch's tensors and the code's layout.

    def _pairs(self, slot: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield torch's tensor (weights or state) and the same numbers' view in the flat array.

        Both views have the same shape and order, so that copying goes either way.
        """
        flat_F, starts = self._flat_F[slot], self.plan.layout.starts
        for operation in self.plan.operations:
            for view in operation.views(flat_F, starts[operation.name]):
                tensor: Tensor = getattr(self._layers[operation.layer], view.name)
                if slot:
                    if not view.trained:
                        continue  # running means have no optimizer state
                    tensor = cast("Tensor", self.optimizer.state[tensor][self.rule.slots[slot - 1]])
                yield operation.ordered(tensor.detach()), view.numbers

    def _load(self) -> int:
        """Copy weights and state in; return how many steps the optimizer has done.

        Raises:
            ValueError: The parameters have done different numbers of steps.
        """
        self._fresh_state()
        for flat in self._flat_F:
            flat.zero_()  # the padding, too: a trial that diverged leaves NaN there
        for slot in range(len(self._flat_F)):
            for tensor, view in self._pairs(slot):
                view.copy_(tensor)
        states = [self.optimizer.state[p] for p in self.model.network.parameters()]
        done = {int(state["step"]) for state in states if "step" in state}
        if len(done) > 1:
            raise ValueError("parameters that have done different numbers of steps")
        return done.pop() if done else 0

    def _fresh_state(self) -> None:
        """Give the optimizer the state that torch would make at its first step."""
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
            operation.count_steps(self._layers[operation.layer], steps)


def _checked_weights(class_weights_K: Tensor | None, model: Classifier) -> Tensor | None:
    """Return class weights as the code reads them; the code itself does not check them."""
    if class_weights_K is None:
        return None
    if class_weights_K.shape != (len(model.classes),):
        raise ValueError(f"{len(class_weights_K)} weights for {len(model.classes)} classes")
    return class_weights_K.to("cpu", torch.float32).contiguous()


def _aligned_zeros(count: int, dtype: torch.dtype) -> Tensor:
    """Return zeros that begin at a cache line."""
    width = dtype.itemsize
    zeros = torch.zeros(count + 64 // width, dtype=dtype)
    return zeros[-zeros.data_ptr() % 64 // width :][:count]
