"""Helpers for writing C: templates with names in them, and lines repeated with running numbers."""

from collections.abc import Iterable
from string import Template
from textwrap import dedent, indent


def c(text: str, **names: object) -> str:
    r"""Return a template's text with its $names filled in; a block keeps its $name's indentation.

    >>> c("for (;;) {\n    $body\n}", body="a;\nb;").splitlines()
    ['for (;;) {', '    a;', '    b;', '}']
    """
    lines: list[str] = []
    for line in dedent(text).strip("\n").splitlines():
        filled = Template(line).substitute(names)
        head, *rest = filled.split("\n")
        margin = line[: len(line) - len(line.lstrip())]
        lines += [head, *(indent(r, margin) if r.strip() else r for r in rest)]
    return "\n".join(line for line in lines if line.strip() or line == "")


def each(template: str, numbers: Iterable[int], joint: str = "\n", **names: object) -> str:
    """Return a template once for each number, as $i, joined.

    >>> each("a$i = $i;", range(2), joint=" ")
    'a0 = 0; a1 = 1;'
    """
    return joint.join(Template(template).safe_substitute(names, i=number) for number in numbers)
