"""A search as lines of text: what it chooses, a line a trial, and what became of the winner."""

from collections.abc import Mapping
from typing import Any

from hydrofoil.compare.labels import field_text
from hydrofoil.compare.plan import Plan as ComparisonPlan
from hydrofoil.compare.statistics import p_words, span
from hydrofoil.compare.verdict import NONE, Comparison
from hydrofoil.data.split import PART_WORDS
from hydrofoil.recipe.naming import short_name
from hydrofoil.recipe.schema import toml_value
from hydrofoil.report.comparison import about
from hydrofoil.terminal import columns, length, shortened, table
from hydrofoil.tune.plan import Plan
from hydrofoil.tune.result import Goal, Trial, Tuning
from hydrofoil.wording import all_of, percent, plural

LEAST_VALUES = 12  # columns of a line for a trial's values, however narrow the terminal


def plan_lines(plan: Plan, study: str, trials: int | None, budget: float | None, done: int) -> str:
    """Say what is searched, how long, and where it is kept.

    Args:
        plan: What is searched.
        study: Its folder.
        trials: The number at which it ends; None: any.
        budget: The seconds after which it ends; None: any.
        done: How many trials there are already.
    """
    chosen = all_of([f"{short_name(f)} {text}" for f, text in plan.space.texts.items()])
    limits = [plural(trials, "trial")] if trials else []
    limits += [about(budget)] if budget else []
    stop = "; bad trials are stopped early" if plan.prune and plan.epochs > 2 else ""
    better = "lowest" if plan.goal.direction == "minimize" else "highest"
    has = f", which has {plural(done, 'trial')} already" if done else ""
    return (
        f"Searching {chosen} of {plan.recipe.name} for the {better} {plan.goal.words}: "
        f"at most {' or '.join(limits)}{stop}.\nstudy: {study}{has}"
    )


def comparing_line(plan: ComparisonPlan, seconds: float) -> str:
    """Say that the winner is compared with the recipe, and how long that takes."""
    seeds = plural(len(plan.jobs[0]), "fresh seed")
    part = f"the {PART_WORDS[plan.part]} split"
    takes = f": about {about(seconds)}" if seconds else ""
    return f"Training the recipe (A) and the winner (B) on {seeds}, to compare on {part}{takes}."


def values_text(values: Mapping[str, Any]) -> str:
    """Return a trial's values in a few words.

    >>> values_text({"optimizer.lr": 0.01, "model.dropout": 0.25})
    'lr 0.01, dropout 0.25'
    """
    return ", ".join(field_text(name, value) for name, value in values.items())


def outcome_text(trial: Trial, goal: Goal) -> str:
    """Return how a trial ended, with its figures."""
    if trial.state == "complete":
        accuracy = f", {percent(trial.accuracy)}" if trial.accuracy is not None else ""
        figure = f"loss {trial.loss:.4f}" if trial.loss is not None else goal.shown(trial.value)
        return f"{figure}{accuracy}"
    if trial.state == "pruned":
        return f"stopped at epoch {trial.epochs}, {goal.shown(trial.value)}"
    return "values that do not fit" if trial.state == "impossible" else trial.state


def trial_line(trial: Trial, best: Trial | None, goal: Goal) -> str:
    """Return a line on a trial that has ended: figures, values, time, and the best so far."""
    head = f"trial {trial.number}: {outcome_text(trial, goal)}"
    if best is None:
        tail = ""
    elif best.number == trial.number:
        tail = "; best so far"
    else:
        tail = f"; best {goal.shown(best.value)} ({best.number})"
    values = values_text(trial.values)
    line, width = f"{head}, {values}, {trial.seconds:.1f} s{tail}", columns()
    if width is None or length(line) <= width:
        return line
    room = width - length(f"{head}, {tail}")  # the time is left out first
    return f"{head}, {shortened(values, max(LEAST_VALUES, room))}{tail}"


def tuning_lines(found: Tuning) -> str:
    """Describe what a search found; the last line is the verdict."""
    best = found.best
    assert best is not None  # noqa: S101 - a search without one has raised an error
    counts = ", ".join(
        f"{count} {'stopped early' if state == 'pruned' else state}"
        for state, count in found.counts().items()
    )
    lines = [
        f"{plural(len(found.trials), 'trial')} in {about(found.seconds)}: {counts}",
        f"best: trial {best.number}, {outcome_text(best, found.goal)}: {values_text(best.values)}",
        *importance_lines(found),
        *(f"note: {note}." for note in found.notes),
    ]
    if found.comparison is None:
        return "\n".join([*lines, "", f"verdict: {conclusion(found)}"])
    return "\n".join(
        [
            *lines,
            "",
            fresh_table(found, found.comparison),
            difference_line(found.comparison),
            *fresh_lines(found, found.comparison),
            "",
            f"verdict: {found.comparison.verdict.sentence.rstrip('.')}. {conclusion(found)}",
        ]
    )


def importance_lines(found: Tuning) -> list[str]:
    """Say how much each field explains of the differences between the complete trials."""
    if not found.importance:
        return []
    shares = [f"{short_name(name)} {percent(v, 0)}" for name, v in found.importance.items()]
    return [f"importance: {', '.join(shares)} of the variance of the complete trials"]


def fresh_rows(found: Tuning, comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return for recipe and winner: name, values, accuracy in the search and on fresh seeds."""
    rows: list[tuple[str, str, str, str]] = []
    own = found.space.values_of(found.recipe)
    sides = (
        ("recipe", own, found.default),
        ("winner", found.best and found.best.values, found.best),
    )
    for (name, values, trial), side in zip(sides, comparison.sides, strict=True):
        searched = percent(trial.accuracy) if trial else "not tried"
        rows.append((name, values_text(values or {}), searched, percent(side.mean)))
    return rows


def fresh_heading(found: Tuning, comparison: Comparison) -> tuple[str, str]:
    """Return what the two accuracies of `fresh_rows` are of."""
    seeds = plural(len(comparison.a.seeds), "fresh seed")
    return "in the search", f"on {seeds}, {PART_WORDS[found.on]}"


def fresh_table(found: Tuning, comparison: Comparison) -> str:
    """Return the accuracies in the search beside those on fresh seeds."""
    heading = ("accuracy", "", *fresh_heading(found, comparison))
    return table([heading, *fresh_rows(found, comparison)], left=2, optional=(1,))


def difference_line(comparison: Comparison) -> str:
    """Return the difference, its interval, and whether zero is inside."""
    found = comparison.difference
    text = f"winner − recipe: {found.points:+.2f} points"
    if found.interval:
        low, high = found.interval
        inside = "inside" if low <= 0 <= high else "outside"
        text += f", 95% interval {span(found.interval)}: zero is {inside} it"
    if found.p is not None:
        text += f" ({found.method}, {p_words(found.p)})"
    return text


def fresh_lines(found: Tuning, comparison: Comparison) -> list[str]:
    """Say what was compared, and why the figure of the search is too good."""
    count = len([trial for trial in found.trials if trial.state == "complete"])
    images = f"{comparison.a.pictures:,} {PART_WORDS[found.on]} images"
    if found.on == "test":
        what = f"Compared on {images} by runs with new seeds, each of which opened its test split."
    elif comparison.fixed_pictures:
        what = (
            f"Compared on the {images} by which the winner was chosen, with new seeds: its "
            "accuracy may still be a little too high. No test split was opened."
        )
    else:
        what = (
            f"Compared on {images} that each new seed drew for both: other splits than the one by "
            "which the winner was chosen. No test split was opened."
        )
    selected = (
        f"The accuracy in the search is that of the best of {plural(count, 'complete trial')}, "
        "which is too high by chance; the one on fresh seeds was not selected."
    )
    return [what, selected]


def conclusion(found: Tuning) -> str:
    """Say what to do with the winner."""
    comparison = found.comparison
    if comparison is None:
        if any("nothing to compare" in note for note in found.notes):
            return "The recipe's own values are the best that was found: keep them."
        return "The winner was not compared on fresh seeds, so it may be best by chance."
    if comparison.verdict.outcome == NONE:
        return "The winner is not shown to be better than the recipe's own values."
    if comparison.verdict.outcome == "worse":
        return (
            "The winner fits the validation images of the search alone: keep the recipe's values."
        )
    return "The winner is really better."


def best_toml(found: Tuning) -> str:
    """Return the winner as a recipe, with where it comes from in its comments."""
    best, winner = found.best, found.winner
    assert best is not None  # noqa: S101 - see `tuning_lines`
    assert winner is not None  # noqa: S101
    values = ", ".join(f"{name} = {toml_value(value)}" for name, value in best.values.items())
    lines = [
        f"The best of {plural(len(found.trials), 'trial')} by hydrofoil tune, trial {best.number}: "
        f"{found.goal.words} {found.goal.shown(best.value)}.",
        f"Chosen: {values}.",
    ]
    if found.comparison is not None:
        lines.append(f"Against the recipe on fresh seeds: {found.comparison.verdict.sentence}")
    comments = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    return f"{comments}{winner.toml()}"
