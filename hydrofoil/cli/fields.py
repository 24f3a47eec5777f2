"""A recipe's fields as options: `--epochs 3`, `--lr=0.1`, `--no-nesterov` on verbs with overrides.

The verb's own options win over fields of the same name. The words are rewritten as FIELD=VALUE
before the command line is parsed, so that one rule reads both.
"""

import re
from collections import deque
from collections.abc import Sequence

from hydrofoil.errors import HydrofoilError

SWITCH = {"true", "false", "yes", "no", "on", "off"}  # words that may follow a switch


def rewritten(words: Sequence[str], arities: dict[str, int]) -> list[str]:
    """Return a command line whose fields, as options or as FIELD=VALUE, are overrides at its end.

    Args:
        words: As they were typed.
        arities: How many words follow each of the verb's own options.

    Raises:
        HydrofoilError: A field's value is missing.

    >>> rewritten(["digits", "--epochs", "3", "--seed", "1", "--no-nesterov"], {"--seed": 1})
    ['digits', '--seed', '1', 'epochs=3', 'nesterov=false']
    """
    rest, overrides = list[str](), list[str]()
    before, after = _around_dashes(words)
    waiting = deque(_joined(before))
    while waiting:
        word = waiting.popleft()
        option, equals, _ = word.partition("=")
        if option in arities:
            following = 0 if equals else min(arities[option], len(waiting))
            rest += [word, *(waiting.popleft() for _ in range(following))]
        elif found := _as_override(word, waiting):
            overrides.append(found)
        else:
            rest.append(word)
    return [*rest, *overrides, *after]


def _around_dashes(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the words before a -- and from it on."""
    at = list(words).index("--") if "--" in words else len(words)
    return words[:at], words[at:]


def _joined(words: Sequence[str]) -> list[str]:
    """Return words in which FIELD = VALUE and FIELD= VALUE, with spaces, are one word.

    >>> _joined(["digits", "epochs", "=", "3", "lr=", "0.1", "root=", "--test"])
    ['digits', 'epochs=3', 'lr=0.1', 'root=', '--test']
    """
    from hydrofoil.recipe.naming import is_field

    joined = list[str]()
    for word in words:
        last = joined[-1] if joined else ""
        opens = last.endswith("=") and is_field(last[:-1]) and "=" not in word
        if (word == "=" and is_field(last)) or (opens and not word.startswith("--")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _as_override(word: str, waiting: deque[str]) -> str:
    """Return a field, as an option or as FIELD=VALUE, as an override; empty if it is not one.

    Args:
        word: As it was typed.
        waiting: The words after it, of which an option takes its value.
    """
    from hydrofoil.recipe.naming import example, full_name, is_field, kinds

    dashes, typed, equals, value = _parts(word)
    side, name = (typed[:2], typed[2:]) if re.match(r"[a-z]\.", typed) else ("", typed)
    no = bool(dashes) and name.startswith(("no-", "no_")) and not is_field(name)
    name = name[3:] if no else name
    if not (dashes or equals) or not is_field(name):
        return ""
    if equals:
        return f"{side}{name}={value}"
    if kinds(full_name(name)) == {bool}:
        given = waiting.popleft() if waiting and waiting[0].lower() in SWITCH else "true"
        return f"{side}{name}={'false' if no else given}"
    if no:
        raise HydrofoilError(f"{word}: not a switch: expected --{side}{name} VALUE.")
    if not waiting:
        shown = example(full_name(name))
        raise HydrofoilError(f"{word}: expected a value, such as {word} {shown}.")
    return f"{side}{name}={waiting.popleft()}"


def _parts(word: str) -> tuple[str, str, str, str]:
    """Return a word's two dashes, name, sign and value, each empty where it is missing."""
    dashes = "--" if word.startswith("--") else ""
    return dashes, *word.removeprefix("--").partition("=")
