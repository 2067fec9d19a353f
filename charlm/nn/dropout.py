"""Dropout whose randomness is an argument, so that a run can be resumed to the bit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dropout"]


def dropout(x: Tensor, probability: float, training: bool, generator: torch.Generator | None = None) -> Tensor:
    """Zeroes each number with this probability and scales the others by 1 / (1 − p) (Srivastava et al. 2014).

    Args:
        x: any shape.
        probability: from 0 to below 1.
        training: where false, `x` is returned as it is.
        generator: where the mask comes from; torch's own generator by default.

    >>> dropout(torch.ones(3), 0.5, training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    if not training or probability == 0:
        return x
    mask = torch.empty_like(x, memory_format=torch.contiguous_format).bernoulli_(1 - probability, generator=generator)
    return x * mask.div_(1 - probability)
