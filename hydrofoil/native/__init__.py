"""Training in C that is generated for one network, batch size and optimizer: see `Native`."""

from hydrofoil.native.executor import Native
from hydrofoil.native.program import Program, make_program
from hydrofoil.native.unsupported import Unsupported

__all__ = ["Native", "Program", "Unsupported", "make_program"]
