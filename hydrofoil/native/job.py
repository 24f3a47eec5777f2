"""The one argument of a call of the generated code, defined once for C and for ctypes."""

import ctypes
from dataclasses import dataclass

TYPES: dict[str, type] = {"int64_t": ctypes.c_int64, "double": ctypes.c_double}
COMMENTS_FROM = 26  # the column of a struct's comments


@dataclass(frozen=True)
class Field:
    """One line of the struct.

    Args:
        kind: The C type; with a star: a pointer.
        names: One name, or several of the same type.
        comment: What it holds, for whoever reads the C.
    """

    kind: str
    names: tuple[str, ...]
    comment: str = ""

    @property
    def c(self) -> str:
        """The line in C."""
        star = "*" if self.kind.endswith("*") else ""
        kind = self.kind.removesuffix("*").strip()
        line = f"{kind} {', '.join(star + name for name in self.names)};"
        return f"{line.ljust(COMMENTS_FROM)}/* {self.comment} */" if self.comment else line

    @property
    def ctype(self) -> type:
        """The type in ctypes."""
        return ctypes.c_void_p if self.kind.endswith("*") else TYPES[self.kind]


FIELDS = (
    Field("void *", ("memory",), "Net, then a Worker for each thread; zero at first"),
    Field("int64_t", ("threads",)),
    Field("const uint8_t *", ("pictures",)),
    Field("const int64_t *", ("labels",)),
    Field("const int64_t *", ("index",), "the pictures to train on, in order"),
    Field("int64_t", ("count",), "how many; the last batch may be smaller"),
    Field("const uint32_t *", ("keys",), "for each step and dropout layer: low and high half"),
    Field("const float *", ("table",), "for each channel: the normalized value of each byte"),
    Field("const double *", ("numbers",), "five of the optimizer's for each step: see rates()"),
    Field("double", ("smoothing",), "of the labels"),
    Field("const float *", ("weights",), "of the classes, in a program with a weighted loss"),
    Field("int64_t", ("step",), "steps that the optimizer has done before these"),
    Field("float *", ("w",), "all weights"),
    Field("float *", ("s0", "s1"), "the optimizer's state, laid out as the weights"),
    Field("float *", ("logits",), "where to write a row for each picture; NULL: train"),
    Field("double", ("loss",), "out: summed over pictures"),
    Field("int64_t", ("right",), "out: correct predictions"),
)
SLOTS = ("s0", "s1")  # the optimizer's state tensors, in the order of its rule


class Job(ctypes.Structure):
    """The struct in ctypes."""

    _fields_ = tuple((name, field.ctype) for field in FIELDS for name in field.names)


def struct() -> str:
    """Return the struct in C."""
    lines = "\n".join(f"    {field.c}" for field in FIELDS)
    return f"typedef struct {{\n{lines}\n}} Job;"
