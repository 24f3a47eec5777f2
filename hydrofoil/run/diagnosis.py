"""The diagnosis of a run's log, and the sentences that say it."""

from collections.abc import Sequence

from hydrofoil.evaluate.diagnosis import Finding, diagnose
from hydrofoil.evaluate.result import Epoch
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.events import DataLoaded, Event, Interrupted, NotFinite, Trained
from hydrofoil.wording import percent


def diverged(events: Sequence[Event]) -> NotFinite | None:
    """Return the loss or gradient that was not finite and ended training, if one did."""
    ends = [e for e in events if isinstance(e, NotFinite | Epoch | Trained | Interrupted)]
    return ends[-1] if ends and isinstance(ends[-1], NotFinite) else None


def of_log(events: Sequence[Event], epochs: Sequence[Epoch], recipe: Recipe) -> list[Finding]:
    """Return what a log shows, the most serious finding first; nothing for a healthy training.

    Args:
        events: The log.
        epochs: Its epochs whose weights are saved.
        recipe: Of the run.
    """
    data = [event for event in events if isinstance(event, DataLoaded)]
    end = diverged(events)
    return diagnose(
        epochs,
        recipe,
        data[-1].counts if data else None,
        data[-1].classes if data else (),
        (end.epoch, end.step) if end else None,
    )


def sentences(
    findings: Sequence[Finding], epochs: Sequence[Epoch], recipe: Recipe, *, ended: bool = True
) -> list[str]:
    """Return the findings in sentences, or that nothing was found; and what could not be judged.

    Args:
        findings: Of these epochs.
        epochs: As logged.
        recipe: Of the run.
        ended: Whether to say it if the training is not finished.
    """
    said = [str(finding) for finding in findings]
    if not epochs:
        return said
    last = epochs[-1]
    if len(epochs) == 1:
        said.append("One epoch is too few to show a trend.")
    elif not said:
        said.append(_healthy(last))
    if last.valid is None:
        said.append(
            "There is no validation split, so overfitting cannot be detected: hold out some "
            "training images with data.valid=0.1."
        )
    best = next((epoch.number for epoch in reversed(epochs) if epoch.best), 0)
    if ended and not recipe.train.is_over(last.number, best):
        said.append(f"Training is not finished: {last.number} of {recipe.train.epochs} epochs.")
    return said


def _healthy(last: Epoch) -> str:
    train = percent(last.train.accuracy)
    if last.selected is None:
        return (
            f"Nothing unusual in the training curve: accuracy {train}, loss {last.train.loss:.3f}."
        )
    return (
        f"Nothing unusual in the curves: training accuracy {train} against "
        f"{percent(last.selected.accuracy)} on {last.selected.count:,} validation images."
    )
