"""The whole program of a plan: memory, the step, the evaluation, the loop over steps and threads.

A thread holds either its own pictures or, of a linear layer marked `rows`, its own columns of all
pictures. A barrier stands wherever what a thread reads next was made by others. No sum depends on
how many threads there are: see MOST_GROUPS.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from hydrofoil.native import emit_conv, emit_linear, emit_norm, emit_optimizer, emit_pointwise
from hydrofoil.native.emit_optimizer import Rule
from hydrofoil.native.plan import (
    WEIGHTED,
    Buffer,
    Conv,
    Drop,
    Linear,
    Norm,
    Operation,
    Plan,
    Pool,
    padded,
)
from hydrofoil.native.prelude import INCLUDES
from hydrofoil.native.text import c

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

JOB = """
typedef struct {
    void *memory;             /* Net, then a Worker for each thread; zero at first */
    int64_t threads;
    const uint8_t *pictures;
    const int64_t *labels;
    const int64_t *index;     /* the pictures to train on, in order */
    int64_t count;            /* how many; the last batch may be smaller */
    const uint32_t *keys;     /* for each step and dropout layer: low and high half */
    const float *table;       /* for each channel: the normalised value of each byte */
    const double *numbers;    /* five of the optimiser's for each step: see rates() */
    double smoothing;         /* of the labels */
    int64_t step;             /* steps that the optimiser has done before these */
    float *w;                 /* all weights */
    float *s0, *s1;           /* the optimiser's state, laid out as the weights */
    float *logits;            /* where to write a row for each picture; NULL: train */
    double loss;              /* out: summed over pictures */
    int64_t right;            /* out: right answers */
} Job;

/* Share t of total things. */
static inline int cut(int total, int t, int threads) {
    return (int)((int64_t)total * t / threads);
}
"""


@dataclass(frozen=True)
class Layout:
    """Where each layer's weights begin in the flat array that the code updates; and its size."""

    starts: dict[str, int]
    floats: int


def layout(plan: Plan) -> Layout:
    """Return where the weights lie: each layer's behind the one before, from a cache line on."""
    starts: dict[str, int] = {}
    at = 0
    for operation in plan.operations:
        if isinstance(operation, WEIGHTED):
            starts[operation.name] = at
            at += padded(_weight_floats(operation), 16)
    return Layout(starts, at)


def _weight_floats(operation: Conv | Linear | Norm) -> int:
    if isinstance(operation, Conv):
        return emit_conv.weight_floats(operation)
    if isinstance(operation, Linear):
        return emit_linear.weight_floats(operation)
    return emit_norm.weight_floats(operation)


def _holders(plan: Plan) -> dict[str, str]:
    """Return who holds each operation's input: "" where each thread holds its own pictures.

    Else the name of the linear layer whose output rows the threads hold for all pictures.
    """
    held: dict[str, str] = {}
    holder = ""
    for operation in plan.operations:
        held[operation.name] = "" if isinstance(operation, Norm) else holder
        if isinstance(operation, Linear | Norm):
            holder = operation.name if isinstance(operation, Linear) and operation.rows else ""
    return held


def _passing(plan: Plan) -> set[str]:
    """Return the buffers whose gradient a thread makes and uses while it holds one picture."""
    held = _holders(plan)
    return {
        first.result.name
        for first, second in pairwise(plan.operations)
        if not isinstance(first, Linear | Norm) and not isinstance(second, Linear | Norm)
        if not held[first.name] and not held[second.name]
    }


def program(plan: Plan, rule: Rule) -> str:
    """Return the C of a plan's training, for one optimiser's rule."""
    parts = [
        c(
            """
            /* Written by hydrofoil.native for one network, batch size and optimiser:

            $table
            */
            #define BATCH $batch
            #define GROUPS $groups  /* of pictures, in a batch */
            #define SPINS $spins
            """,
            table="\n".join(f"    {_summary(operation)}" for operation in plan.operations),
            batch=plan.batch, groups=plan.groups, spins=SPINS,
        ),
        INCLUDES.strip("\n"),
        emit_optimizer.rates(rule),
        _memory(plan),
        emit_pointwise.gather(plan),
        *(_functions(operation, len(rule.slots)) for operation in plan.operations),
        emit_pointwise.loss(plan),
        _Step(plan, rule).training(),
        _Step(plan, rule).evaluation(),
        _main(plan),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(operation: Operation) -> str:
    source, result = operation.source, operation.result
    text = f"{operation.name}: {type(operation).__name__} {source.shape} -> {result.shape}"
    if isinstance(operation, Conv):
        text += f", {operation.kernel[0]}×{operation.kernel[1]}" + ", ReLU" * operation.relu
        text += ", max-pooling" * emit_conv.pooled(operation)
    if isinstance(operation, Linear):
        text += ", shared by rows" if operation.rows else ", shared by pictures"
    return text


def _functions(operation: Operation, slots: int) -> str:
    """Return the functions of one operation."""
    title = f"/* ---- {_summary(operation)} ---- */"
    if isinstance(operation, Conv):
        emit = emit_conv
        body = [emit.forward(operation), emit.back(operation), emit.update(operation, slots)]
    elif isinstance(operation, Linear):
        body = [
            emit_linear.forward(operation),
            emit_linear.input_gradient(operation),
            emit_linear.update(operation, slots),
        ]
    elif isinstance(operation, Norm):
        body = [emit_norm.forward(operation), emit_norm.back(operation, slots)]
    elif isinstance(operation, Pool):
        body = [emit_pointwise.pool(operation)]
    elif isinstance(operation, Drop):
        body = [emit_pointwise.dropout(operation)]
    else:
        body = [emit_pointwise.pointwise(operation)]
    return "\n\n".join([title, *(part for part in body if part)])


def _memory(plan: Plan) -> str:
    """Return the types that hold what the threads share, what each has for itself, and the job."""
    shared = [f"float {plan.pictures.name}[BATCH * {plan.pictures.stride}];"]
    own: list[str] = []
    scratch, passing = 8, _passing(plan)
    for operation in plan.operations:
        name, source, result = operation.name, operation.source, operation.result
        shared.append(f"float {result.name}[BATCH * {result.stride}];")
        if result.name in passing:
            own.append(f"float d_{result.name}[{result.stride}];")
        else:
            shared.append(f"float d_{result.name}[BATCH * {result.stride}];")
        if isinstance(operation, Conv):
            scratch = max(scratch, emit_conv.scratch_floats(operation) + 16)
            laid = operation.kernel[0] * operation.run * emit_conv.forward_width(operation)
            shared.append(f"int32_t {name}_kept[BATCH * {_kept(operation)}];")
            shared.append(f"float {name}_laid[{laid}];")
            shared.append(f"float {name}_gradient[GROUPS][{emit_conv.weight_floats(operation)}];")
        if isinstance(operation, Pool):
            shared.append(f"int32_t {name}_kept[BATCH * {_kept(operation)}];")
        if isinstance(operation, Drop):
            shared.append(f"float {name}_factor[BATCH * {source.stride}];")
        if isinstance(operation, Norm):
            shared += [f"float {name}_{what}[{padded(operation.channels)}];"
                       for what in ("means", "rates")]  # fmt: skip
    return c(
        """
        /* What all threads see: activations and their gradients, a row for each picture. */
        typedef struct {
            Barrier barrier;
            atomic_int gate;  /* 0: wait; 1: all threads are there; -1: give up */
            double losses[BATCH];
            int32_t right[BATCH];
            $shared
        } Net;

        /* What one thread has for itself. */
        typedef struct {
            $own
            _Alignas(64) float scratch[$scratch];  /* a convolution before pooling */
        } Worker;

        $job
        """,
        shared="\n".join(f"_Alignas(64) {line}" for line in shared),
        own="\n".join(f"_Alignas(64) {line}" for line in own), job=JOB.strip(), scratch=scratch,
    )  # fmt: skip


def _kept(operation: Conv | Pool) -> int:
    """Return how many places a picture's pooling notes."""
    result = operation.result
    if isinstance(operation, Pool):
        return result.features
    return result.height * result.width * emit_conv.forward_width(operation)


@dataclass
class _Step:
    """Writes `step` and `answer` while it tracks who holds what.

    `holder` is as in `_holders`. `waiting` are calls for one picture that get a common loop, so that
    a picture stays in the cache from one layer to the next.
    """

    plan: Plan
    rule: Rule
    lines: list[str] = field(default_factory=list[str])
    waiting: list[str] = field(default_factory=list[str])
    holder: str = ""

    def training(self) -> str:
        """Return the function `step`: forward, loss, back, update."""
        plan = self.plan
        self._forward(training=True)
        self._hold("")
        logits = plan.logits
        origin = f" + {logits.origin}" if logits.origin else ""
        self.waiting.append(
            f"net->losses[n] = cross_entropy({self._at(logits)}{origin}, "
            f"{self._gradient(logits)}{origin}, job->labels[index[n]], count, "
            "(float)job->smoothing, &net->right[n]);"
        )
        self._back()
        self._update()
        keys = f"const uint32_t *keys = job->keys + s * {2 * plan.dropouts};"
        rates = "const Rates r = rates(job->numbers + 5 * s, job->step + s + 1);"
        return self._function("step", [rates, *([keys] if plan.dropouts else [])])

    def evaluation(self) -> str:
        """Return the function `answer`: forward without dropout; writes logits."""
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
            f"const int {o.name}_o0 = cut({vectors}, t, threads) * 8, "
            f"{o.name}_o1 = cut({vectors}, t + 1, threads) * 8;"
            for o, vectors in self._shared_by_columns()
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

    def _shared_by_columns(self) -> list[tuple[Operation, int]]:
        """Return the operations whose columns the threads share, and how many vectors there are."""
        shared: list[tuple[Operation, int]] = []
        for operation in self.plan.operations:
            if isinstance(operation, Linear) and operation.rows:
                shared.append((operation, emit_linear.outputs(operation) // 8))
            if isinstance(operation, Norm):
                shared.append((operation, padded(operation.channels) // 8))
        return shared

    # What the lines are made of.

    def _barrier(self) -> None:
        self.lines.append("barrier(&net->barrier, threads);")

    def _flush(self) -> None:
        """Write the loop of what waits; by groups where a group's gradient is added to."""
        if not self.waiting:
            return
        if self.holder:
            self.lines.append("for (int n = 0; n < count; n++) {")
        elif any("_gradient[k]" in line for line in self.waiting):
            self.lines += [
                "for (int k = k0; k < k1; k++)",
                "for (int n = cut(count, k, GROUPS); n < cut(count, k + 1, GROUPS); n++) {",
            ]
        else:
            self.lines.append("for (int n = n0; n < n1; n++) {")
        self.lines += [*(f"    {line}" for line in self.waiting), "}"]
        self.waiting = []

    def _hold(self, holder: str) -> None:
        """Go over to another holder."""
        if holder != self.holder:
            self._flush()
            self._barrier()
            self.holder = holder

    def _columns(self, operation: Operation) -> str:
        """Return which activations of a row the thread computes of a layer without weights."""
        if not self.holder:
            return f"0, {emit_pointwise.run_length(operation.source)}"
        last, features = f"{self.holder}_o1", operation.source.features
        return f"{self.holder}_o0, {last} < {features} ? {last} : {features}"

    def _at(self, buffer: Buffer) -> str:
        return f"net->{buffer.name} + n * {buffer.stride}"

    def _gradient(self, buffer: Buffer) -> str:
        """Return where picture n's gradient of a buffer stands."""
        if buffer.name in _passing(self.plan):
            return f"me->d_{buffer.name}"
        return f"net->d_{buffer.name} + n * {buffer.stride}"

    def _weights(self, operation: Conv | Linear | Norm) -> str:
        return f"job->w + {layout(self.plan).starts[operation.name]}"

    def _slots(self, operation: Conv | Linear | Norm) -> str:
        start = layout(self.plan).starts[operation.name]
        return "".join(f", job->s{i} + {start}" for i in range(len(self.rule.slots)))

    def _bias(self, operation: Conv | Linear) -> str:
        start = layout(self.plan).starts[operation.name]
        if isinstance(operation, Conv):
            return f"job->w + {start + operation.outputs * emit_conv.channel_weights(operation)}"
        rows = emit_linear.outputs(operation)
        return f"job->w + {start + rows * emit_linear.inputs(operation)}"

    # Forward.

    def _forward(self, training: bool) -> None:
        area = self.plan.pictures.features
        self.waiting = [
            f"gather(job->pictures + index[n] * {area}, job->table, {self._at(self.plan.pictures)});"
        ]
        for operation in self.plan.operations:
            if isinstance(operation, Linear):
                self._linear(operation)
            elif isinstance(operation, Norm):
                self._norm(operation, training)
            else:
                self.waiting += self._one_forward(operation, training)

    def _one_forward(self, operation: Operation, training: bool) -> list[str]:
        """Return the calls that take picture n through an operation."""
        name, columns = operation.name, self._columns(operation)
        source, result = self._at(operation.source), self._at(operation.result)
        if isinstance(operation, Conv):
            bias, kept = self._bias(operation), f"net->{name}_kept + n * {_kept(operation)}"
            return [
                f"{name}_convolve({source}, net->{name}_laid, {bias}, me->scratch);",
                f"{name}_finish(me->scratch, {result}, {kept});",
            ]
        if isinstance(operation, Drop) and training:
            key = f"keys[{2 * operation.number}], keys[{2 * operation.number + 1}]"
            factor = f"net->{name}_factor + n * {operation.source.stride}"
            return [f"{name}_forward({source}, {result}, {factor}, n, {key}, {columns});"]
        if isinstance(operation, Pool):
            kept = f"net->{name}_kept + n * {_kept(operation)}"
            return [f"{name}_forward({source}, {result}, {kept});"]
        way = "pass" if isinstance(operation, Drop) else "forward"
        return [f"{name}_{way}({source}, {result}, {columns});"]

    def _linear(self, operation: Linear) -> None:
        name = operation.name
        self._flush()
        if operation.rows or self.holder:
            self._barrier()
        self.holder = name if operation.rows else ""
        span = f"n0, n1, 0, {emit_linear.outputs(operation)}"
        if operation.rows:
            span = f"0, count, {name}_o0, {name}_o1"
        self.lines.append(
            f"{name}_forward({self._weights(operation)}, {self._bias(operation)}, "
            f"net->{operation.source.name}, net->{operation.result.name}, {span});"
        )

    def _norm(self, operation: Norm, training: bool) -> None:
        name, weights = operation.name, self._weights(operation)
        if not training:
            self._hold("")
            source, result = self._at(operation.source), self._at(operation.result)
            self.waiting.append(f"{name}_pass({weights}, {source}, {result});")
            return
        self._flush()
        self._barrier()
        self.lines.append(
            f"{name}_forward({weights}, net->{operation.source.name}, net->{operation.result.name}, "
            f"net->{name}_means, net->{name}_rates, count, {name}_o0, {name}_o1);"
        )
        self._barrier()
        self.holder = ""

    # Backward.

    def _back(self) -> None:
        """Write the way back, down to the first layer with weights."""
        plan, held = self.plan, _holders(self.plan)
        self.lines += [
            f"memset(net->{o.name}_gradient[k0], 0, (size_t)(k1 - k0) * sizeof net->{o.name}_gradient[0]);"
            for o in plan.operations
            if isinstance(o, Conv)
        ]
        for operation in reversed(plan.operations):
            if isinstance(operation, Linear):
                self._linear_back(operation, held[operation.name])
            elif isinstance(operation, Norm):
                self._norm_back(operation)
            else:
                self._hold(held[operation.name])
                self.waiting += self._one_back(operation)
            if isinstance(operation, WEIGHTED) and operation.first:
                break
        self._flush()

    def _linear_back(self, operation: Linear, holder: str) -> None:
        """Write the gradient of a linear layer's input, for whoever holds it."""
        self._flush()
        if operation.first:
            return
        if self.holder or holder:
            self._barrier()
        self.holder = holder
        span = f"n0, n1, 0, {emit_linear.inputs(operation)}"
        if holder:
            span = f"0, count, {holder}_o0, {holder}_o1"
        self.lines.append(
            f"{operation.name}_input({self._weights(operation)}, "
            f"net->d_{operation.result.name}, net->d_{operation.source.name}, {span});"
        )

    def _norm_back(self, operation: Norm) -> None:
        name, source = operation.name, operation.source.name
        dsource = "NULL" if operation.first else f"net->d_{source}"
        self._flush()
        self._barrier()
        self.lines.append(
            f"{name}_back(&r, {self._weights(operation)}{self._slots(operation)}, net->{source}, "
            f"net->d_{operation.result.name}, {dsource}, net->{name}_means, net->{name}_rates, "
            f"count, {name}_o0, {name}_o1);"
        )
        self._barrier()
        self.holder = ""

    def _one_back(self, operation: Operation) -> list[str]:
        """Return the calls that take picture n's gradient back through an operation."""
        name, columns = operation.name, self._columns(operation)
        first = isinstance(operation, Conv) and operation.first
        source = "NULL" if first else self._gradient(operation.source)
        result = self._gradient(operation.result)
        if isinstance(operation, Conv):
            clear = [f"memset({source}, 0, {operation.source.stride * 4});"]
            biases = operation.outputs * emit_conv.channel_weights(operation)
            gradient = f"net->{name}_gradient[k]"
            return [
                *([] if first else clear),
                f"{name}_back({self._at(operation.source)}, {self._at(operation.result)}, {result}, "
                f"net->{name}_kept + n * {_kept(operation)}, {self._weights(operation)}, {source}, "
                f"{gradient}, {gradient} + {biases});",
            ]
        if isinstance(operation, Drop):
            factor = f"net->{name}_factor + n * {operation.source.stride}"
            return [f"{name}_back({factor}, {result}, {source}, {columns});"]
        if isinstance(operation, Pool):
            kept = f"net->{name}_kept + n * {_kept(operation)}"
            return [f"{name}_back({kept}, {result}, {source});"]
        return [f"{name}_back({self._at(operation.result)}, {result}, {source}, {columns});"]

    # Update.

    def _update(self) -> None:
        """Write the updates, which wait for all pictures' gradients, and the running sums."""
        self._barrier()
        for operation in self.plan.operations:
            if isinstance(operation, Conv):
                outputs, name = operation.outputs, operation.name
                self.lines.append(
                    f"{name}_update(&r, {self._weights(operation)}{self._slots(operation)}, "
                    f"net->{name}_gradient[0], net->{name}_laid, "
                    f"cut({outputs}, t, threads), cut({outputs}, t + 1, threads));"
                )
            if isinstance(operation, Linear):
                self._linear_update(operation)
        self.lines.append(
            "if (t == 0) for (int n = 0; n < count; n++) "
            "job->loss += net->losses[n], job->right += net->right[n];"
        )
        self._barrier()

    def _linear_update(self, operation: Linear) -> None:
        """Write a linear layer's update: by the rows that a thread holds, or by equal shares."""
        name, start = operation.name, f"&r, {self._weights(operation)}{self._slots(operation)}"
        dy, most = f"net->d_{operation.result.name}", emit_linear.items(operation)
        vectors, chunks = emit_linear.outputs(operation) // 8, emit_linear.chunks(operation)
        tiles = f"cut({most}, t, threads), cut({most}, t + 1, threads)"
        rows = f"cut({vectors}, t, threads) * 8, cut({vectors}, t + 1, threads) * 8"
        if operation.rows:
            rows = f"{name}_o0, {name}_o1"
            tiles = ", ".join(
                f"({o} / 4 * {chunks} < {most} ? {o} / 4 * {chunks} : {most})"
                for o in rows.split(", ")
            )
        self.lines.append(
            f"{name}_update({start}, net->{operation.source.name}, {dy}, count, {tiles});"
        )
        if "bias" in dict(operation.layer.named_parameters()):  # else they are zeros, and stay it
            self.lines.append(f"{name}_update_bias({start}, {dy}, count, {rows});")


def _main(plan: Plan) -> str:
    """Return the threads and the functions that Python calls."""
    starts = layout(plan).starts
    lay_out = [
        f"{o.name}_lay_out(job->w + {starts[o.name]}, net->{o.name}_laid, 0, {o.outputs});"
        for o in plan.operations
        if isinstance(o, Conv)
    ]
    return c(
        """
        $threads

        /* Train, or answer; return 0, or an error number where a thread could not be started. */
        int run(Job *job) {
            Net *net = job->memory;
            const int threads = (int)job->threads;
            pthread_t handles[64];
            Thread arguments[64];
            $lay_out
            /* Nobody may begin before all are there, or the barrier would wait for ever. */
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
        lay_out="\n".join(lay_out),
        threads=THREADS.strip(),
    )
