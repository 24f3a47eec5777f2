"""One HTML file of a search: the verdict, its trials, what mattered, and the best recipe."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from hydrofoil.compare.labels import value_text
from hydrofoil.recipe.naming import short_name
from hydrofoil.report import tune_charts as charts
from hydrofoil.report.page import render
from hydrofoil.report.tune_text import (
    best_toml,
    conclusion,
    difference_line,
    fresh_heading,
    fresh_lines,
    fresh_rows,
    values_text,
)
from hydrofoil.run.commands import command
from hydrofoil.tune.result import Trial, Tuning
from hydrofoil.wording import plural, sentence, time_taken

STATES = {
    "complete": "complete",
    "pruned": "stopped early",
    "diverged": "diverged",
    "impossible": "values do not fit",
    "running": "not finished",
}
MARKS = {"complete": "", "pruned": "○", "diverged": "×", "impossible": "×", "running": "…"}


def tune_page(found: Tuning) -> bytes:
    """Return the page of a search."""
    fields = [d.field for d in found.space.dimensions]
    comparison = found.comparison
    study = Path(found.study)
    return render(
        "tune.html",
        found=found,
        lead=_lead(found),
        verdict=_verdict(found),
        fresh=fresh_rows(found, comparison) if comparison else [],
        fresh_heading=fresh_heading(found, comparison) if comparison else (),
        fresh_notes=[difference_line(comparison), *fresh_lines(found, comparison)]
        if comparison
        else [],
        comparison_page=_comparison_page(found),
        history=_history(found),
        scatters=_scatters(found),
        importance=_importance(found),
        complete=found.counts().get("complete", 0),
        fields=[
            (name, short_name(name), str(d))
            for name, d in zip(fields, found.space.dimensions, strict=True)
        ],
        own=found.space.values_of(found.recipe),
        rows=[_row(found, trial, fields) for trial in found.trials],
        toml=best_toml(found) if found.winner else "",
        train=command("train", study / "best.toml"),
        again=found.command,
    )


def _lead(found: Tuning) -> str:
    """Return in one sentence what was searched, how often and for how long."""
    counts = ", ".join(f"{count} {STATES[state]}" for state, count in found.counts().items())
    return (
        f"{found.recipe.name}, {plural(len(found.trials), 'trial')} ({counts}) in "
        f"{time_taken(found.seconds)}, judged by the {found.goal.words}"
    )


def _verdict(found: Tuning) -> str:
    """Return whether the winner is really better."""
    if found.winner is None:
        return "No trial is complete yet."
    text = found.comparison.verdict.sentence if found.comparison else ""
    return f"{sentence(text) if text else ''} {conclusion(found)}".strip()


def _comparison_page(found: Tuning) -> str:
    """Return the relative link to the comparison's page; empty if it was not made."""
    pages = sorted(
        Path(found.study, "fresh").glob("compare-*.html"), key=lambda p: p.stat().st_mtime
    )
    return f"fresh/{pages[-1].name}" if pages and found.comparison else ""


def _history(found: Tuning) -> Markup | None:
    if not any(trial.value is not None for trial in found.trials):
        return None
    return charts.history(found.trials, found.goal, found.best)


def _scatters(found: Tuning) -> list[tuple[str, Markup]]:
    """Return a chart for each field that a measured trial has."""
    drawn: list[tuple[str, Markup]] = []
    for dimension in found.space.dimensions:
        if any(t.value is not None and dimension.field in t.values for t in found.trials):
            name = short_name(dimension.field)
            chart = charts.by_value(dimension, name, found.trials, found.goal, found.best)
            drawn.append((dimension.field, chart))
    return drawn


def _importance(found: Tuning) -> Markup | None:
    if not found.importance:
        return None
    shares = [(short_name(name), share) for name, share in found.importance.items()]
    return charts.importances(shares, "Share of the variance that each field explains")


def _row(found: Tuning, trial: Trial, fields: list[str]) -> dict[str, Any]:
    """Return a trial as the template shows it; its link is relative to the page."""
    best = found.best
    return {
        "number": trial.number,
        "link": Path(trial.run).name,
        "state": STATES[trial.state],
        "mark": MARKS[trial.state],
        "best": best is not None and best.number == trial.number,
        "default": trial.default,
        "value": found.goal.shown(trial.value),
        "loss": trial.loss,
        "accuracy": trial.accuracy,
        "epochs": trial.epochs,
        "seconds": f"{trial.seconds:.1f}",
        "values": [value_text(trial.values[f]) if f in trial.values else "–" for f in fields],
        "note": trial.note.partition("\n")[0],
        "words": values_text(trial.values),
    }
