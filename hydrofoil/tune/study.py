"""A study: a folder of trials, and a journal that several processes and machines may share.

    study.json         the recipe, the space and the seed, which every process has to agree on
    journal.log        Optuna's journal: one operation a line, appended under a lock
    .claims/           a lock for each trial, which the system releases with the process
    trial-001/         the run folder of a trial
    default.toml       the recipe as it was given
    best.toml          with the best trial's values
    fresh/             the runs of both on fresh seeds, and their comparison
    tune.html          the page; tune.json has its figures

A trial's values are a function of the seed, its number and the results of the trials before it: a
study that was killed continues as if it had not been.
"""

import contextlib
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.files import write_whole
from hydrofoil.tune.plan import Plan
from hydrofoil.tune.result import State, Trial
from hydrofoil.tune.space import Choices, Dimension, has_field, with_values
from hydrofoil.tune.storage import check_installed, open_storage, try_lock, waiting_lock

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

JOURNAL, SPEC, CLAIMS = "journal.log", "study.json", ".claims"
REDUCTION = 3  # each rung of successive halving keeps the best third
RUNGS = 6  # the first rung comes after this part of the epochs, the next after three times as many
STARTUP = 10  # trials with random values before the sampler learns from them


class Study:
    """The trials of a plan in a folder.

    Args:
        folder: Is made if it is missing.
        plan: What is searched.
        say: Takes a line where the disk has no locks.

    Raises:
        HydrofoilError: The folder holds another study or something else, or cannot be written;
            Optuna is not installed.
    """

    def __init__(
        self, folder: Path, plan: Plan, say: Callable[[str], None] = lambda line: None
    ) -> None:
        check_installed()
        self.folder, self.plan, self.say = folder, plan, say
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CLAIMS).mkdir(exist_ok=True)
        except OSError as error:
            raise HydrofoilError(
                f"{folder}: the study's folder cannot be made: {reason(error)}."
            ) from error
        with self._locked():
            self._check_plan()
            self.storage = open_storage(folder / JOURNAL)
            self._load()

    def _check_plan(self) -> None:
        """Write the plan, or refuse a folder that has another.

        Raises:
            HydrofoilError: It says what differs.
        """
        path, mine = self.folder / SPEC, json.loads(json.dumps(self.plan.document()))
        if not path.exists():
            if (self.folder / "recipe.toml").exists() or (self.folder / JOURNAL).exists():
                raise HydrofoilError(
                    f"{self.folder}: not a study: it holds no {SPEC}.\nChoose another --study."
                )
            write_whole(path, f"{json.dumps(mine, indent=1, ensure_ascii=False)}\n".encode())
            return
        try:
            theirs = json.loads(path.read_text("utf-8"))
            differing = _differing(theirs, mine)
        except (OSError, ValueError, AttributeError) as error:
            raise HydrofoilError(f"{path}: cannot be read: {error}.") from error
        if differing:
            raise HydrofoilError(
                f"{self.folder}: holds a study of another recipe or space; it differs in "
                f"{', '.join(differing[:4])}.\nGive the same recipe, fields and seed, or choose "
                "another --study."
            )

    def _load(self) -> None:
        """Open the study in its storage, or make it."""
        import optuna

        plan, prune = self.plan, optuna.pruners.NopPruner()
        self.name = f"hydrofoil-{plan.digest()[:16]}"
        self.study = optuna.create_study(
            storage=self.storage, study_name=self.name, direction=plan.goal.direction,
            load_if_exists=True, pruner=prune,
        )  # fmt: skip
        self.study_id = self.storage.get_study_id_from_name(self.name)
        self.pruner = None
        if plan.prune and plan.epochs >= REDUCTION:
            self.pruner = optuna.pruners.HyperbandPruner(
                min_resource=max(1, plan.epochs // RUNGS), max_resource=plan.epochs,
                reduction_factor=REDUCTION,
            )  # fmt: skip

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the study's lock for a moment."""
        lock = waiting_lock(self.folder / ".lock", self.say)
        try:
            yield
        finally:
            lock()

    def trials(self) -> list[Trial]:
        """Return all trials, in the order in which they began."""
        return [self._trial(frozen) for frozen in self._frozen()]

    def _frozen(self) -> "list[FrozenTrial]":
        return self.study.get_trials(deepcopy=False)

    def _trial(self, frozen: "FrozenTrial") -> Trial:
        from optuna.trial import TrialState

        known, state = frozen.user_attrs, frozen.state
        outcome: State = "running" if not state.is_finished() else known.get("outcome", "complete")
        if state == TrialState.PRUNED and outcome != "diverged":
            outcome = "pruned"
        figures = known.get("figures", {})
        steps = frozen.intermediate_values
        return Trial(
            number=frozen.number + 1,
            state=outcome,
            values=known.get("values", {}),
            run=str(self.run_path(frozen.number)),
            epochs=figures.get("epochs", max(steps, default=0)),
            value=figures.get("value", steps[max(steps)] if steps else None),
            loss=figures.get("loss"),
            accuracy=figures.get("accuracy"),
            seconds=sum(end - begin for begin, end in self._sessions(frozen)),
            note=known.get("note", ""),
            default=known.get("default", False),
        )

    def run_path(self, number: int) -> Path:
        """Return the run folder of a trial, by its number counted from 0."""
        return self.folder / f"trial-{number + 1:03d}"

    def elapsed(self) -> float:
        """Return the wall-clock seconds of the search: while at least one process trained."""
        spans = sorted(span for frozen in self._frozen() for span in self._sessions(frozen))
        total, until = 0.0, 0.0
        for begin, end in spans:
            total += max(0.0, end - max(begin, until))
            until = max(until, end)
        return total

    def _sessions(self, frozen: "FrozenTrial") -> Iterator[tuple[float, float]]:
        """Yield begin and end of each session that trained a trial, in seconds since 1970.

        A session that was killed ended when it last wrote the log or a checkpoint.
        """
        written = [0.0]
        for name in ("log.jsonl", "last.safetensors", "recipe.toml"):
            with contextlib.suppress(OSError):
                written.append((self.run_path(frozen.number) / name).stat().st_mtime)
        sessions = frozen.user_attrs.get("sessions", [])
        for number, (begin, end) in enumerate(sessions):
            later = sessions[number + 1][0] if number + 1 < len(sessions) else max(written)
            yield begin, max(begin, later if end is None else end)

    def claim(self, most: int | None, *, more: bool = True) -> "Claim | None":
        """Return a trial for this process alone: one that was interrupted, or a new one.

        Args:
            most: How many trials the study may have; None: any number.
            more: Whether a new one may begin.
        """
        from optuna.trial import Trial as OptunaTrial
        from optuna.trial import TrialState

        with self._locked():
            trials = self._frozen()
            for frozen in trials:
                if frozen.state == TrialState.RUNNING and (free := self._claimed(frozen.number)):
                    self.study.sampler = self._sampler(frozen.number)
                    values = frozen.user_attrs.get("values")
                    if values is None:  # it was killed while its values were chosen
                        trial = OptunaTrial(self.study, self._id(frozen.number))
                        values = self._choose(trial, frozen.number)
                    return Claim(self, frozen.number, values, free)
            if not more or (most is not None and len(trials) >= most):
                return None
            number = len(trials)
            free = self._claimed(number)
            assert free is not None  # noqa: S101 - nobody else makes a trial under the study's lock
            self.study.sampler = self._sampler(number)
            return Claim(self, number, self._choose(self.study.ask(), number), free)

    def is_running(self) -> bool:
        """Tell whether a trial has begun and not ended, in any process."""
        return any(not frozen.state.is_finished() for frozen in self._frozen())

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)

    def _claimed(self, number: int) -> Callable[[], None] | None:
        """Return what releases a trial that is now this process's; None: it is another's."""
        return try_lock(self.folder / CLAIMS / f"{number + 1:03d}.lock", self.say)

    def _sampler(self, number: int) -> Any:
        """Return the sampler of a trial, seeded by its number; the first has the recipe's values.

        TPE: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.
        """
        import optuna

        text = f"{self.plan.seed}:{number}".encode()
        seed = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        recipe, space = self.plan.recipe, self.plan.space
        if number or space.outside(recipe):
            return sampler
        own = space.values_of(recipe)
        fixed = {d.field: _for_optuna(d, own[d.field]) for d in space.of(recipe)}
        with _quietly():
            return optuna.samplers.PartialFixedSampler(fixed, sampler)

    def _choose(self, trial: "OptunaTrial", number: int) -> dict[str, Any]:
        """Choose a trial's values, names first: they decide which other fields there are."""
        recipe, values = self.plan.recipe, dict[str, Any]()
        for dimension in self.plan.space.dimensions:
            if has_field(recipe, dimension.field):
                values[dimension.field] = _suggest(trial, dimension)
                if dimension.field.endswith(".name"):
                    recipe = with_values(recipe, {dimension.field: values[dimension.field]})
        own = self.plan.space.values_of(self.plan.recipe)
        self._note(number, "default", values == own)
        self._note(number, "values", values)  # last: it makes the trial one that can be resumed
        return values

    def _note(self, number: int, key: str, value: Any) -> None:
        self.storage.set_trial_user_attr(self._id(number), key, value)

    def importance(self) -> dict[str, float]:
        """Return what share of the variance of the figure each field explains, by dotted name.

        fANOVA (Hutter, Hoos and Leyton-Brown 2014), a random forest with a fixed seed, over the
        complete trials; fields that only some of them have are left out. Empty for fewer than ten
        trials, or for a single field.
        """
        import optuna

        done = [t for t in self._frozen() if t.state == optuna.trial.TrialState.COMPLETE]
        values = {t.value for t in done}
        if len(done) < STARTUP or len(self.plan.space.dimensions) < 2 or len(values) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        with _quietly():
            found = optuna.importance.get_param_importances(
                self.study, evaluator=evaluator, normalize=False
            )
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))


@dataclass
class Claim:
    """A trial that this process trains.

    Args:
        study: Its study.
        number: Counted from 0.
        values: What was chosen, by dotted name.
        free: Releases it for other processes.
    """

    study: Study
    number: int
    values: dict[str, Any]
    free: Callable[[], None]

    @property
    def path(self) -> Path:
        """Its run folder."""
        return self.study.run_path(self.number)

    @property
    def frozen(self) -> "FrozenTrial":
        """The trial as the storage has it now."""
        return self.study.storage.get_trial(self.study._id(self.number))  # pyright: ignore[reportPrivateUsage]

    def trial(self) -> Trial:
        """Return the trial as it is now."""
        return self.study._trial(self.frozen)  # pyright: ignore[reportPrivateUsage]

    def begin(self) -> None:
        """Note that a session trains it from now on."""
        sessions = self.frozen.user_attrs.get("sessions", [])
        self._note("sessions", [*sessions, [time.time(), None]])

    def end(self) -> None:
        """Note that the session is over, and let others have the trial."""
        *earlier, [begin, _] = self.frozen.user_attrs["sessions"]
        if not self.frozen.state.is_finished():
            self._note("sessions", [*earlier, [begin, time.time()]])
        self.free()

    def _note(self, key: str, value: Any) -> None:
        self.study._note(self.number, key, value)  # pyright: ignore[reportPrivateUsage]

    def report(self, epoch: int, value: float) -> None:
        """Note the figure after an epoch, once."""
        study = self.study
        if epoch not in self.frozen.intermediate_values:
            number = study._id(self.number)  # pyright: ignore[reportPrivateUsage]
            study.storage.set_trial_intermediate_value(number, epoch, value)

    def is_bad(self) -> bool:
        """Tell whether the trial should stop: others were better after as many epochs."""
        pruner = self.study.pruner
        return pruner is not None and pruner.prune(self.study.study, self.frozen)

    def finish(
        self,
        state: Literal["complete", "pruned", "diverged", "impossible"],
        *,
        value: float | None = None,
        figures: dict[str, Any] | None = None,
        note: str = "",
    ) -> None:
        """End the trial.

        Args:
            state: How.
            value: The figure; only a complete trial needs one.
            figures: epochs, value, loss and accuracy.
            note: Why, for the user.
        """
        from optuna.trial import TrialState

        *earlier, [begin, _] = self.frozen.user_attrs["sessions"]
        self._note("sessions", [*earlier, [begin, time.time()]])
        self._note("figures", figures or {})
        self._note("outcome", state)
        self._note("note", note)
        if state == "complete":
            self.study.study.tell(self.number, value)
        else:
            ended = TrialState.FAIL if state == "impossible" else TrialState.PRUNED
            self.study.study.tell(self.number, state=ended)


@contextlib.contextmanager
def _quietly() -> Generator[None]:
    """Leave out that Optuna calls something experimental; all of it has been there since 3.0."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _suggest(trial: "OptunaTrial", dimension: Dimension) -> Any:
    """Return the value of a dimension that the sampler chooses for a trial."""
    field = dimension.field
    if isinstance(dimension, Choices):
        return dimension.values[int(trial.suggest_categorical(field, _keys(dimension)))]
    if dimension.whole:
        return trial.suggest_int(field, int(dimension.low), int(dimension.high), log=dimension.log)
    found = trial.suggest_float(field, dimension.low, dimension.high, log=dimension.log)
    return dimension.as_value(found)


def _keys(dimension: Choices) -> list[str]:
    """Return the choices as Optuna gets them, which takes no lists: by their places."""
    return [str(place) for place in range(len(dimension.values))]


def _for_optuna(dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Choices):
        return str(dimension.values.index(value))
    return value


def _differing(theirs: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    """Return the names of what is not the same in two plans."""
    found: list[str] = []
    for part in ("recipe", "space"):
        ours, others = mine[part], theirs.get(part, {})
        names = dict.fromkeys([*ours, *others])
        found += [name for name in names if ours.get(name) != others.get(name)]
    return [*found, *(["--no-prune"] if theirs.get("prune") != mine["prune"] else [])]
