"""Where the test accuracy of one run lies among those of the recipe's seeds.

The seed moves the accuracy of a short training by points: without the others, a low one looks like
a failure, and a high one like progress.
"""

from math import sqrt

from hydrofoil.evaluate.metrics import Z_95
from hydrofoil.evaluate.result import Expected
from hydrofoil.recipe.changes import changes_text
from hydrofoil.recipe.schema import Expect, Recipe

# Student's t of a two-sided 95% interval, by degrees of freedom from 1 on: any table of it. SciPy
# has it too, and takes a second to import.
STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def expected(recipe: Recipe, accuracy: float, unlike: str = "") -> Expected | None:
    """Return what a recipe expects of a run, and where the run's accuracy lies in it.

    Args:
        recipe: Of the run.
        accuracy: On the test split.
        unlike: Why the run cannot be compared with the recipe's seeds, beside a changed recipe.

    Returns:
        None if the recipe expects nothing.
    """
    expect = recipe.expect
    if expect == Expect():
        return None
    changed = changes_text(recipe)
    unlike = "; ".join(filter(None, [unlike, changed and f"changed: {changed}"]))
    mean, spread = expect.test_accuracy, expect.spread
    known = not unlike and mean is not None
    return Expected(
        recipe=recipe.name,
        mean=mean,
        spread=spread,
        seeds=expect.seeds or None,
        printed=expect.printed,
        deviations=(accuracy - mean) / spread if known and mean is not None and spread else None,
        lower=_lower(expect, accuracy) if known and expect.seeds else None,
        interval=interval(expect) if known else None,
        unlike=unlike,
    )


def _lower(expect: Expect, accuracy: float) -> int:
    """Return how many seeds were less accurate; recipes have four decimals of each."""
    return sum(other < accuracy - 0.00005 for other in expect.accuracies)


def interval(expect: Expect) -> tuple[float, float] | None:
    """Return where one more seed lies in 95 of 100 cases, by Student's t; None for one seed.

    The interval of a prediction: as wide as the spread, and wider the fewer seeds gave it.

    >>> interval(Expect(test_accuracy=0.5, spread=0.02, accuracies=(0.48, 0.5, 0.52)))
    (0.4006..., 0.5993...)
    """
    if expect.test_accuracy is None or expect.spread is None or expect.seeds < 2:
        return None
    freedom = expect.seeds - 1
    # Beyond the table, two terms of the expansion in 1 / freedom (Abramowitz & Stegun, 26.7.5).
    large = Z_95 + (Z_95**3 + Z_95) / (4 * freedom)
    large += (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / (96 * freedom**2)
    student = STUDENT_95[freedom - 1] if freedom <= len(STUDENT_95) else large
    half = student * expect.spread * sqrt(1 + 1 / expect.seeds)
    return max(0.0, expect.test_accuracy - half), min(1.0, expect.test_accuracy + half)
