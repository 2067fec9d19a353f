"""What a loop optimises, and who keeps what it makes."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from charlm.training.loop import Loop

__all__ = ["Keeper", "Objective"]


class Objective(abc.ABC):
    """Something that can be optimised step by step."""

    module: nn.Module
    steps_per_epoch: int

    @abc.abstractmethod
    def loss(self, position: int) -> tuple[Tensor, int]:
        """The mean loss of the data at this position, differentiable, and how many targets it is the mean of.

        Args:
            position: how many steps' data lie before it; `steps_per_epoch` of them are an epoch.
        """

    @abc.abstractmethod
    def validate(self) -> float:
        """The mean loss on the held-out data that early stopping watches."""

    @abc.abstractmethod
    def carried(self) -> dict[str, Tensor]:
        """What is carried from step to step beside the weights: hidden states, generators."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Begins anew with the hidden states, which may not be finite after a step that was not."""

    @abc.abstractmethod
    def restore(self, carried: Mapping[str, Tensor]) -> None:
        """Takes back what `carried` gave."""


class Keeper(abc.ABC):
    """Keeps weights, states and metrics somewhere that outlasts the process."""

    @abc.abstractmethod
    def metrics(self, row: dict[str, Any]) -> None:
        """A row of the learning curve."""

    @abc.abstractmethod
    def best(self, loop: Loop) -> None:
        """The weights are the best so far."""

    @abc.abstractmethod
    def state(self, loop: Loop) -> None:
        """Everything of this moment is to be kept."""
