"""A comparison as lines of text: every figure, what it covers, and last the verdict."""

from collections.abc import Mapping, Sequence

from hydrofoil.compare.jobs import State
from hydrofoil.compare.labels import value_text
from hydrofoil.compare.outlook import Outlook
from hydrofoil.compare.plan import Plan
from hydrofoil.compare.setup import Given, SideSetup
from hydrofoil.compare.several import Comparisons
from hydrofoil.compare.statistics import Side, p_words, span
from hydrofoil.compare.verdict import NONE, Comparison
from hydrofoil.data.split import PART_WORDS
from hydrofoil.report.text import balanced_text
from hydrofoil.terminal import table
from hydrofoil.wording import all_of, isolated, percent, plural

FEW_FIELDS = 2  # fit a sentence
HOLM = (
    "The p-values are adjusted by Holm's method: in at most 5 of 100 such comparisons is any pair "
    "of equal sides called different. The intervals cover all pairs together (Bonferroni), which "
    "is stricter: the verdict follows the adjusted p."
)


def comparison_lines(comparison: Comparison | Comparisons) -> str:
    """Describe a comparison; the last line is the verdict."""
    if isinstance(comparison, Comparisons):
        middle = [_seeds_of_all(comparison.sides), "", pairs_table(comparison), HOLM]
    else:
        middle = [
            _seed_table(comparison),
            "",
            *_difference_lines(comparison),
            *_model_lines(comparison),
        ]
    lines = [
        *(_side_line(side, PART_WORDS[comparison.part]) for side in comparison.sides),
        differs_lines(comparison.differs, [side.letter for side in comparison.sides]),
        "",
        *middle,
        "",
        *note_lines(comparison),
        f"verdict: {comparison.verdict.sentence}",
    ]
    return "\n".join(lines)


def plan_lines(plan: Plan) -> str:
    """Say what is compared, and what differs, before the first training."""
    names = [
        f"{side.letter} ({isolated(label)})"
        for side, label in zip(plan.sides, plan.labels, strict=True)
    ]
    recipe = plan.recipes[0]
    epochs = sorted({one.train.epochs for one in plan.recipes})
    trained = " or ".join(plural(count, "epoch") for count in epochs)
    seeds = sorted({len(side.jobs) for side in plan.sides})
    each = " or ".join(plural(count, "seed") for count in seeds)
    first = (
        f"Comparing {all_of(names)}: {recipe.data.source}, {trained}, {each} each, "
        f"on the {PART_WORDS[plan.part]} split."
    )
    differs = differs_lines(plan.differs, [side.letter for side in plan.sides])
    return "\n".join([first, differs, *optimizer_lines(plan.sides)])


def outlook_line(plan: Plan, outlook: Outlook) -> str:
    """Say what will be trained and tested, and how long that takes by earlier runs."""
    total = sum(outlook.states.values())
    words: list[tuple[State, str]] = [
        ("ready", "ready"),
        ("unfinished", "to be resumed"),
        ("untested", "to be tested, which opens the test split of each"),
        ("missing", "to be trained" + (" and tested" if plan.part == "test" else "")),
    ]
    parts = [f"{outlook.states[s]:,} {text}" for s, text in words if outlook.states.get(s)]
    training = bool(outlook.states.get("missing") or outlook.states.get("unfinished"))
    time = ""
    if training:
        time = (
            f"; about {about(outlook.seconds)}, by earlier runs"
            if outlook.seconds
            else "; the first will show how long they take"
        )
    return f"{plural(total, 'run')}: {', '.join(parts)}{time}.\n"


def about(seconds: float) -> str:
    """Return an estimated time, as precise as an estimate is.

    >>> about(0.3), about(48), about(340), about(9000)
    ('1 s', '48 s', '6 min', '2.5 h')
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def differs_lines(differs: Mapping[str, Sequence[object]], letters: Sequence[str]) -> str:
    """Name the fields in which the sides differ; more than two values are shown as a table."""
    if not differs:
        return "The sides differ only in their seeds."
    if len(letters) == 2 and len(differs) <= FEW_FIELDS:
        changes = [
            f"{name} {' → '.join(map(value_shown, values))}" for name, values in differs.items()
        ]
        return f"{letters[1]} differs from {letters[0]} in {', '.join(changes)}"
    rows = [[name, *map(value_shown, values)] for name, values in differs.items()]
    return table([["differs", *letters], *rows])


def value_shown(value: object) -> str:
    """Return a field's value beside those of other sides.

    >>> value_shown(None), value_shown([0.9, 0.999]), value_shown(0.1)
    ('(none)', '[0.9, 0.999]', '0.1')
    """
    if value is None:
        return "(none)"
    return f"[{value_text(value)}]" if isinstance(value, list | tuple) else value_text(value)


def optimizer_lines(sides: Sequence[Given] | Sequence[SideSetup]) -> list[str]:
    """Say of each side that switches the optimizer where its learning rate comes from."""
    letters: dict[str, list[str]] = {}
    for side in sides:
        for text in side.notes:
            letters.setdefault(text, []).append(side.letter)
    return [
        f"{'all sides' if len(given) == len(sides) else all_of(given)}: {text}"
        for text, given in letters.items()
    ]


def _side_line(side: Side, part: str) -> str:
    """Return a side's mean, interval and counts."""
    interval = (
        f" ± {50 * (side.interval[1] - side.interval[0]):.2f}" if side.interval is not None else ""
    )
    return (
        f"{side.letter}  {isolated(side.label or side.name)}: {100 * side.mean:.2f}{interval}% of "
        f"{side.pictures:,} {part} images, mean of {plural(len(side.seeds), 'seed')}"
        f"{balanced_text(side.mean, side.balanced_mean)}"
    )


def _seed_table(comparison: Comparison) -> str:
    """Return the accuracy of every run, and the difference and discordant images of each pair."""
    a, b = comparison.sides
    if not comparison.pairs:
        return _seeds_of_all(comparison.sides)
    rows: list[Sequence[object]] = [
        [
            "seed", a.letter, b.letter, f"{b.letter} − {a.letter}", f"correct in {a.letter} only",
            f"in {b.letter} only", "McNemar's p",
        ]
    ]  # fmt: skip
    for pair, accuracy_a, accuracy_b in zip(
        comparison.pairs, a.accuracies, b.accuracies, strict=True
    ):
        discordant = pair.discordant
        rows.append(
            [
                pair.seed,
                percent(accuracy_a),
                percent(accuracy_b),
                f"{pair.points:+.2f}",
                discordant.only_a,
                discordant.only_b,
                bare_p(discordant.p),
            ]
        )
    return table(rows)


def bare_p(p: float | None) -> str:
    """Return a p-value for a table.

    >>> bare_p(0.0412), bare_p(1e-20), bare_p(None)
    ('0.041', '< 0.0001', '–')
    """
    return "–" if p is None else p_words(p).removeprefix("p = ").removeprefix("p ")


def _seeds_of_all(sides: Sequence[Side]) -> str:
    """Return the accuracy of every run, in a row per seed, or per run where seeds differ."""
    if len({side.seeds for side in sides}) == 1:
        rows: list[Sequence[object]] = [["seed", *(side.letter for side in sides)]]
        for place, seed in enumerate(sides[0].seeds):
            rows.append([seed, *(percent(side.accuracies[place]) for side in sides)])
        return table(rows)
    rows = [["", "seed", "accuracy"]]
    for side in sides:
        for seed, accuracy in zip(side.seeds, side.accuracies, strict=True):
            rows.append([side.letter, seed, percent(accuracy)])
    return table(rows)


def pairs_table(comparison: Comparisons) -> str:
    """Return each pair's difference, its interval for all pairs together, and its p-values."""
    rows: list[Sequence[object]] = [
        ["pair", "points", "95%, all pairs", "p", "adjusted", "verdict", "more seeds"]
    ]
    for contrast in comparison.contrasts:
        pair = contrast.comparison
        rows.append(
            [
                f"{pair.b.letter} − {pair.a.letter}",
                f"{pair.difference.points:+.2f}",
                span(contrast.interval) if contrast.interval else "–",
                bare_p(contrast.p),
                bare_p(contrast.adjusted_p),
                pair_verdict(contrast.outcome, pair),
                "–" if contrast.more_seeds is None else f"{contrast.more_seeds:,}",
            ]
        )
    return table(rows)


def pair_verdict(outcome: str, pair: Comparison) -> str:
    """Return a pair's verdict for a table."""
    return NONE if outcome == NONE else f"{pair.b.letter} {outcome}"


def _difference_lines(comparison: Comparison) -> list[str]:
    """Return the difference with each of its intervals."""
    found = comparison.difference
    how = "paired by seed" if comparison.paired else f"not paired: {comparison.unpaired_because}"
    lines = [f"B − A: {found.points:+.2f} points, {how}"]
    if found.p is None:
        return lines
    rows: list[Sequence[object]] = []
    if found.interval:
        rows.append([f"{found.method} over seeds", span(found.interval), p_words(found.p)])
    else:
        rows.append([f"exact, by {found.method}", "no spread", p_words(found.p)])
    if comparison.bootstrap:
        few = min(len(side.seeds) for side in comparison.sides) < 10
        rows.append(
            [
                "bootstrap over seeds",
                span(comparison.bootstrap),
                "too narrow with so few seeds" if few else "",
            ]
        )
    if comparison.other_pictures:
        rows.append(["over seeds and images", span(comparison.other_pictures), ""])
    lines += [f"  {line}" for line in table(rows, left=3).splitlines()]
    lines.append(covers_line(comparison))
    if comparison.shown_points and found.outcome == NONE:
        lines.append(
            f"With these seeds, a true difference of {comparison.shown_points:.2g} points is "
            "detected with 80% power."
        )
    return lines


def covers_line(comparison: Comparison) -> str:
    """Say what the intervals cover."""
    part = PART_WORDS[comparison.part]
    if not comparison.fixed_pictures:
        return (
            "The seed intervals cover retraining and resplitting this dataset, "
            f"not new {part} images."
        )
    more = f" The interval over seeds and images also covers new {part} images like these."
    more = more if comparison.other_pictures else ""
    return (
        "The seed intervals cover retraining (initial weights, order, dropout, validation split) "
        f"on these {comparison.a.pictures:,} {part} images.{more}"
    )


def _model_lines(comparison: Comparison) -> list[str]:
    """Return the median of McNemar's p-values, and what it is about."""
    if comparison.mcnemar_median is None:
        if comparison.unpaired_because and comparison.difference.method != "none":
            return [f"Not compared image by image: {comparison.unpaired_because}."]
        return ["Not compared image by image."]
    return [
        f"McNemar, median {p_words(comparison.mcnemar_median)}: about the two models of a seed, "
        "not about the recipes."
    ]


def note_lines(comparison: Comparison | Comparisons) -> list[str]:
    """Return what limits the verdict."""
    sides = comparison.sides
    lines = list(dict.fromkeys(f"warning: {text}" for side in sides for text in side.warnings))
    if comparison.part == "valid":
        lines.append(
            "note: compared on the validation split, and the test split stayed closed. That is the "
            "way to choose settings: the chosen one can then be tested once, without bias. These "
            "accuracies are not that test: epochs and settings are chosen on the same images."
        )
    most = max((times for side in sides for times in side.opened), default=1)
    if most > 1:
        lines.append(f"note: at least one run opened its test split {most} times.")
    if len(comparison.seed_counts) > 1:
        before = ", ".join(map(str, comparison.seed_counts[:-1]))
        lines.append(
            f"note: also compared after {before} seeds. Adding seeds until the result looks good "
            "inflates the 5% error rate: choose the number of seeds first."
        )
    return lines
