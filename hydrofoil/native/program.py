"""The complete program of a plan: memory, the step, the evaluation, the loop over steps, threads.

A thread has either its own images or, after an operation that is shared by outputs or channels, its
own columns of all images. A barrier stands wherever a thread reads next what others have written.
No sum depends on the number of threads: see MOST_GROUPS. Nothing here knows a particular operation.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import torch

from hydrofoil.models.classifier import Classifier
from hydrofoil.native import boundary, job, optimizer
from hydrofoil.native.layout import Buffer
from hydrofoil.native.operations import Operation, Place, Sharing
from hydrofoil.native.optimizer import Rule, make_rule
from hydrofoil.native.plan import Plan, make_plan
from hydrofoil.native.prelude import INCLUDES
from hydrofoil.native.text import c
from hydrofoil.native.unsupported import Unsupported

SPINS = 500  # tries of a barrier before it yields the processor: some 10 µs

THREADS = """
typedef struct { Job *job; int t; } Thread;

static void *work(void *argument) {
    const Thread *thread = argument;
    Job *job = thread->job;
    Net *net = job->memory;
    Worker *workers = (Worker *)(net + 1);
#ifdef __SSE__
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);  /* numbers below 1e-38 are zero: they would be slow */
#endif
    for (int64_t s = 0; s * BATCH < job->count; s++)
        (job->logits ? answer : step)(job, net, workers + thread->t, thread->t, s);
#ifdef __SSE__
    _mm_setcsr(before);
#endif
    return NULL;
}

static void *start(void *argument) {
    atomic_int *gate = &((Net *)((Thread *)argument)->job->memory)->gate;
    while (!atomic_load(gate)) sched_yield();
    return atomic_load(gate) > 0 ? work(argument) : NULL;
}

int64_t memory_bytes(int64_t threads) {
    return (int64_t)(sizeof(Net) + (size_t)threads * sizeof(Worker));
}
"""

CUT = """
/* Share t of total things. */
static inline int cut(int total, int t, int threads) {
    return (int)((int64_t)total * t / threads);
}
"""


@dataclass(frozen=True)
class Program:
    """The generated code of one network, optimizer and batch size.

    Args:
        plan: The network's operations and the layout of its weights.
        rule: The optimizer's update.
        source: The C.
        weighted: Whether the loss has class weights.
    """

    plan: Plan
    rule: Rule
    source: str
    weighted: bool = False


def make_program(
    model: Classifier, optimizer: torch.optim.Optimizer, batch_size: int, weighted: bool = False
) -> Program:
    """Return the program that trains a model, with class weights or not: some milliseconds.

    Raises:
        Unsupported: There is no native code for it.
    """
    check_trainable(model, optimizer)
    plan, rule = make_plan(model, batch_size), make_rule(optimizer)
    return Program(plan, rule, write(plan, rule, weighted), weighted)


def check_trainable(model: Classifier, optimizer: torch.optim.Optimizer) -> None:
    """Refuse parameters that cannot be copied, or for which torch would do more than update them.

    Raises:
        Unsupported: Names the reason.
    """
    parameters = list(model.network.parameters())
    for parameter in parameters:
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise Unsupported(f"parameters of {parameter.dtype} on {parameter.device}")
        if not parameter.requires_grad:
            raise Unsupported("frozen parameters")
    if len(list(model.network.named_parameters(remove_duplicate=False))) != len(parameters):
        raise Unsupported("layers that share weights")
    hooked = ("_backward_hooks", "_post_accumulate_grad_hooks")
    if any(getattr(p, name, None) for p in parameters for name in hooked):
        raise Unsupported("parameters with hooks")
    if any(getattr(optimizer, f"_optimizer_step_{when}_hooks", None) for when in ("pre", "post")):
        raise Unsupported("an optimizer with hooks")
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if trained != {id(parameter) for parameter in parameters}:
        raise Unsupported("an optimizer of other parameters than the model's")


def write(plan: Plan, rule: Rule, weighted: bool = False) -> str:
    """Return the C of a plan's training, for one optimizer's rule, with class weights or not."""
    parts = [
        c(
            """
            /* Written by hydrofoil.native for one network, batch size and optimizer:

            $table
            */
            #define BATCH $batch
            #define GROUPS $groups  /* of images, in a batch */
            #define SPINS $spins
            """,
            table="\n".join(f"    {operation.summary}" for operation in plan.operations),
            batch=plan.batch, groups=plan.groups, spins=SPINS,
        ),
        INCLUDES.strip("\n"),
        optimizer.rates(rule),
        _memory(plan),
        boundary.gather(plan.pictures),
        *(_functions(operation, len(rule.slots)) for operation in plan.operations),
        boundary.loss(plan.logits, weighted),
        _Step(plan, rule).training(weighted),
        _Step(plan, rule).evaluation(),
        _main(plan, rule),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _functions(operation: Operation, slots: int) -> str:
    title = f"/* ---- {operation.summary} ---- */"
    return "\n\n".join([title, *(part for part in operation.functions(slots) if part)])


def _holders(plan: Plan) -> dict[str, str]:
    """Return who holds each operation's input: "" where each thread has its own images.

    Otherwise the name of the operation whose outputs the threads share, for all images.
    """
    held: dict[str, str] = {}
    holder = ""
    for operation in plan.operations:
        held[operation.name] = holder
        if operation.sharing is not Sharing.IMAGES:
            holder = operation.name if operation.sharing is Sharing.OUTPUTS else ""
    return held


def _passing(plan: Plan) -> set[str]:
    """Return the buffers whose gradient a thread makes and uses while it has one image."""
    held = _holders(plan)
    return {
        first.result.name
        for first, second in pairwise(plan.operations)
        if first.sharing is second.sharing is Sharing.IMAGES
        if not held[first.name] and not held[second.name]
    }


def _memory(plan: Plan) -> str:
    """Return the types of what the threads share, of what each has for itself, and of the job."""
    shared = [f"float {plan.pictures.name}[BATCH * {plan.pictures.stride}];"]
    own: list[str] = []
    passing = _passing(plan)
    for operation in plan.operations:
        result = operation.result
        shared.append(f"float {result.name}[BATCH * {result.stride}];")
        if result.name in passing:
            own.append(f"float d_{result.name}[{result.stride}];")
        else:
            shared.append(f"float d_{result.name}[BATCH * {result.stride}];")
        shared += operation.memory()
    return c(
        """
        /* Shared by all threads: activations and their gradients, a row for each image. */
        typedef struct {
            Barrier barrier;
            atomic_int gate;  /* 0: wait; 1: all threads exist; -1: give up */
            double losses[BATCH];
            int32_t right[BATCH];
            $shared
        } Net;

        /* One thread's own memory. */
        typedef struct {
            $own
            _Alignas(64) float scratch[$scratch];  /* a convolution before pooling */
        } Worker;

        $job

        $cut
        """,
        shared="\n".join(f"_Alignas(64) {line}" for line in shared),
        own="\n".join(f"_Alignas(64) {line}" for line in own), job=job.struct(), cut=CUT.strip(),
        scratch=max(8, *(operation.scratch_floats for operation in plan.operations)),
    )  # fmt: skip


@dataclass
class _Step:
    """Writes `step` and `answer` while it tracks who holds what.

    `holder` is as in `_holders`. `waiting` are calls for one image that get a common loop, so that
    an image stays in the cache from one layer to the next; `grouped` says that one of them adds to
    the gradient of a group.
    """

    plan: Plan
    rule: Rule
    lines: list[str] = field(default_factory=list[str])
    waiting: list[str] = field(default_factory=list[str])
    grouped: bool = False
    holder: str = ""

    def __post_init__(self) -> None:
        self.held, self.passing = _holders(self.plan), _passing(self.plan)

    def training(self, weighted: bool) -> str:
        """Return the function `step`: forward, loss, with class weights or not, backward, update."""
        plan = self.plan
        self._forward(training=True)
        self._hold("")
        logits = plan.logits
        origin = f" + {logits.origin}" if logits.origin else ""
        self.waiting.append(
            f"net->losses[n] = cross_entropy({self._at(logits)}{origin}, "
            f"{self._gradient(logits)}{origin}, job->labels[index[n]], "
            f"{'job->weights, weight' if weighted else 'count'}, "
            "(float)job->smoothing, &net->right[n]);"
        )
        self._backward()
        self._update()
        keys = f"const uint32_t *keys = job->keys + s * {2 * plan.draws};"
        rates = "const Rates r = rates(job->numbers + 5 * s, job->step + s + 1);"
        weight = "const float weight = batch_weight(job->weights, job->labels, index, count);"
        first = [rates, *([keys] if plan.draws else []), *([weight] if weighted else [])]
        return self._function("step", first)

    def evaluation(self) -> str:
        """Return the function `answer`: forward in evaluation mode; it writes logits."""
        self._forward(training=False)
        self._hold("")
        logits = self.plan.logits
        self.waiting.append(
            f"memcpy(job->logits + (s * BATCH + n) * {logits.channels}, "
            f"{self._at(logits)} + {logits.origin}, {logits.channels * 4});"
        )
        self._flush()
        self._barrier()
        return self._function("answer", [])

    def _function(self, name: str, first: list[str]) -> str:
        """Return the lines as a function of one batch."""
        shares = [
            f"const int {o.name}_o0 = cut({o.shared_vectors}, t, threads) * 8, "
            f"{o.name}_o1 = cut({o.shared_vectors}, t + 1, threads) * 8;"
            for o in self.plan.operations
            if o.shared_vectors
        ]
        return c(
            """
            static void $name(Job *job, Net *net, Worker *me, int t, int64_t s) {
                const int threads = (int)job->threads;
                const int64_t left = job->count - s * BATCH, *index = job->index + s * BATCH;
                const int count = left < BATCH ? (int)left : BATCH;
                const int k0 = cut(GROUPS, t, threads), k1 = cut(GROUPS, t + 1, threads);
                const int n0 = cut(count, k0, GROUPS), n1 = cut(count, k1, GROUPS);  /* own */
                $first
                $shares

                $lines
            }
            """,
            name=name, first="\n".join(first), shares="\n".join(shares),
            lines="\n".join(self.lines),
        )  # fmt: skip

    # Loops and barriers.

    def _barrier(self) -> None:
        self.lines.append("barrier(&net->barrier, threads);")

    def _flush(self) -> None:
        """Write the loop of the waiting calls; by groups where a group's gradient is added to."""
        if not self.waiting:
            return
        if self.holder:
            self.lines.append("for (int n = 0; n < count; n++) {")
        elif self.grouped:
            self.lines += [
                "for (int k = k0; k < k1; k++)",
                "for (int n = cut(count, k, GROUPS); n < cut(count, k + 1, GROUPS); n++) {",
            ]
        else:
            self.lines.append("for (int n = n0; n < n1; n++) {")
        self.lines += [*(f"    {line}" for line in self.waiting), "}"]
        self.waiting, self.grouped = [], False

    def _hold(self, holder: str) -> None:
        """Change the holder."""
        if holder != self.holder:
            self._flush()
            self._barrier()
            self.holder = holder

    def _at(self, buffer: Buffer) -> str:
        """Return the address of image n's activations."""
        return f"net->{buffer.name} + n * {buffer.stride}"

    def _gradient(self, buffer: Buffer) -> str:
        """Return the address of image n's gradient of a buffer."""
        if buffer.name in self.passing:
            return f"me->d_{buffer.name}"
        return f"net->d_{buffer.name} + n * {buffer.stride}"

    def place(self, operation: Operation) -> Place:
        """Return the expressions for an operation's next call."""
        source, result = operation.source, operation.result
        return Place(
            self._at(source), self._at(result), self._gradient(source), self._gradient(result),
            self.plan.layout.starts[operation.name], len(self.rule.slots), self.holder,
        )  # fmt: skip

    def _forward(self, training: bool) -> None:
        """Write the forward pass."""
        pictures = self.plan.pictures
        self.waiting = [
            f"gather(job->pictures + index[n] * {pictures.features}, job->table, "
            f"{self._at(pictures)});"
        ]
        for operation in self.plan.operations:
            sharing = operation.sharing if training else operation.sharing_in_evaluation
            if sharing is Sharing.IMAGES:
                if not operation.by_columns:
                    self._hold("")
                self.waiting += operation.forward(self.place(operation), training)
                continue
            self._flush()
            if sharing is not Sharing.SPAN or self.holder:
                self._barrier()
            self.holder = operation.name if sharing is Sharing.OUTPUTS else ""
            self.lines += operation.forward(self.place(operation), training)
            if sharing is Sharing.CHANNELS:
                self._barrier()

    def _backward(self) -> None:
        """Write the backward pass, down to the first operation with weights."""
        for operation in self.plan.operations:
            self.lines += operation.clear()
        for operation in reversed(self.plan.operations):
            if operation.sharing is Sharing.IMAGES:
                self._hold(self.held[operation.name])
                self.waiting += operation.back(self.place(operation))
                self.grouped = self.grouped or operation.sums_by_group
            else:
                self._shared_backward(operation, self.held[operation.name])
            if operation.first:
                break
        self._flush()

    def _shared_backward(self, operation: Operation, holder: str) -> None:
        """Write the backward pass of an operation that is called once for a batch."""
        self._flush()
        if operation.sharing is Sharing.CHANNELS:
            self._barrier()
            self.lines += operation.back(self.place(operation))
            self._barrier()
            self.holder = ""
        elif not operation.first:
            if self.holder or holder:
                self._barrier()
            self.holder = holder
            self.lines += operation.back(self.place(operation))

    def _update(self) -> None:
        """Write the updates, which wait for the gradients of all images, and the running sums."""
        self._barrier()
        for operation in self.plan.operations:
            self.lines += operation.update(self.place(operation))
        self.lines.append(
            "if (t == 0) for (int n = 0; n < count; n++) "
            "job->loss += net->losses[n], job->right += net->right[n];"
        )
        self._barrier()


def _main(plan: Plan, rule: Rule) -> str:
    """Return the threads and the functions that Python calls."""
    step = _Step(plan, rule)
    setup = [line for o in plan.operations for line in o.setup(step.place(o))]
    return c(
        """
        $threads

        /* Train, or predict; return 0, or an error number if a thread could not be started. */
        int run(Job *job) {
            Net *net = job->memory;
            const int threads = (int)job->threads;
            pthread_t handles[64];
            Thread arguments[64];
            $setup
            /* No thread may begin before all exist, or the barrier would wait forever. */
            atomic_store(&net->gate, 0);
            for (int t = 0; t < threads; t++) arguments[t] = (Thread){job, t};
            for (int t = 1; t < threads; t++) {
                const int error = pthread_create(&handles[t], NULL, start, &arguments[t]);
                if (error) {
                    atomic_store(&net->gate, -1);
                    while (--t > 0) pthread_join(handles[t], NULL);
                    return error;
                }
            }
            atomic_store(&net->gate, 1);
            work(&arguments[0]);
            for (int t = 1; t < threads; t++) pthread_join(handles[t], NULL);
            return 0;
        }
        """,
        setup="\n".join(setup),
        threads=THREADS.strip(),
    )
