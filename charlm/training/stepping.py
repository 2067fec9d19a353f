"""Who takes the loop's steps where the loop does not take them itself."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charlm.training.loop import Loop

__all__ = ["Stepper"]


class Stepper(abc.ABC):
    """Takes steps in a way of its own; what it cannot do it leaves to the loop."""

    @abc.abstractmethod
    def step(self, loop: Loop) -> bool:
        """Takes the next step and reports it by `Loop.advance`; false, with nothing changed, leaves it to the loop.

        The loss need not be known at once; `Loop.learned` takes it when it is.
        """

    @abc.abstractmethod
    def settle(self, loop: Loop) -> None:
        """Makes known every loss that is not known yet: before a validation, a saved state, a step of the loop's."""

    @abc.abstractmethod
    def begin_again(self, loop: Loop) -> None:
        """The loop has gone back and has a new optimiser."""
