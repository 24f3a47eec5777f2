"""What executors that run around another one have in common."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hydrofoil.train.executors import Executor


class ExecutorWrapper:
    """Answers as the executor that takes the steps does; subclasses add what they do around them.

    Args:
        inner: Takes the steps.
    """

    def __init__(self, inner: "Executor") -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """As in train.execute."""
        return self.inner.name

    @property
    def steps_per_call(self) -> int:
        """Steps per call, so that Python regains control a few times a second."""
        return self.inner.steps_per_call

    @property
    def threads(self) -> int:
        """CPU threads of a step, besides one that reads images."""
        return self.inner.threads
