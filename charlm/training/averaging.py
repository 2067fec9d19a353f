"""Averaged weights: what is validated and kept is the mean of where the optimiser has lately been."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """A running mean of a module's weights that looks back over a fixed share of the steps so far.

    After step t each averaged weight moves towards the weight by 1 / max(1, share · t): an average of polynomial
    decay (Shamir and Zhang 2013), which early on forgets the first steps as fast as it should, and needs no end of
    the run to be known. It does what a lower learning rate does, without slowing the optimiser (Polyak 1992).

    Args:
        module: whose weights are averaged.
        share: of the steps so far, from above 0 to 1.

    >>> line = nn.Linear(1, 1, bias=False)
    >>> average = Average(line, share=1.0)  # of all steps: the plain mean
    >>> for step, value in enumerate([1.0, 2.0, 6.0], start=1):
    ...     _ = line.weight.data.fill_(value)
    ...     average.update(step)
    >>> round(average.weights["weight"].item(), 6)
    3.0
    """

    def __init__(self, module: nn.Module, share: float) -> None:
        self.module, self.share = module, share
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self, step: int) -> None:
        """Takes the module's weights in after so many steps."""
        with torch.no_grad():
            now = [p.detach() for p in self.module.parameters()]
            torch._foreach_lerp_(list(self.weights.values()), now, self.pace(step))

    def pace(self, step: int) -> float:
        """By which share of the way to the module's weights the averaged ones move after so many steps."""
        return 1 / max(1.0, self.share * step)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Goes on from these averaged weights."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the module has the averaged weights; afterwards its own again, to the bit."""
        own = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(self.weights[name])
            try:
                yield
            finally:
                for name, parameter in self.module.named_parameters():
                    parameter.copy_(own[name])
