"""Training in C that is generated for one network, batch size and optimiser: see `Native`."""

from hydrofoil.native.executor import Native, source
from hydrofoil.native.plan import Unsupported

__all__ = ["Native", "Unsupported", "source"]
