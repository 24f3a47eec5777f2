"""How often the diagnosis of learning curves is right, on trainings planted to go wrong or well.

HYDROFOIL_DATA=… python bench/diagnosis.py [--out FILE.md]
"""

import argparse
from collections import Counter
from pathlib import Path

import torch

from hydrofoil.device import describe_device
from hydrofoil.wording import plural
from tests.planted import TABLE, train


def main() -> None:
    """Train and diagnose each of them, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="also write the tables there, as Markdown")
    arguments = parser.parse_args()
    rows: list[str] = []
    given: Counter[tuple[str, str, bool]] = Counter()
    for planted in TABLE:
        _, findings = train(planted)
        found = findings[0].kind if findings else "none"
        right = found in (planted.kinds or ("none",))
        made = " or ".join(planted.kinds) or "sound"
        given[made, found, right] += 1
        rows.append(f"| {planted} | {made} | {found if right else f'**{found}**'} |")
        print(rows[-1], flush=True)
    wrong = sum(count for (made, _, _), count in given.items() if made != "sound")
    right = sum(count for (made, _, ok), count in given.items() if made != "sound" and ok)
    sound = len(TABLE) - wrong
    alarms = sum(count for (made, _, ok), count in given.items() if made == "sound" and not ok)
    counted = [f"| {made} | {found} | {count} |" for (made, found, _), count in given.items()]
    lines = [
        f"{right} of {plural(wrong, 'training')} made to go wrong get the diagnosis that their "
        f"making implies ({100 * right / wrong:.1f}%); {alarms} of {sound} sound ones get one.",
        f"torch {torch.__version__}, {describe_device(torch.device('cpu'))}.",
        "",
        "| made to be | diagnosed first | trainings |",
        "|---|---|---|",
        *counted,
        "",
        "| training | made to be | diagnosed first |",
        "|---|---|---|",
        *rows,
    ]
    print("\n".join(lines[:2]))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
