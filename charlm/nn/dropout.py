"""Dropout whose randomness is an argument, so that a run can be resumed to the bit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["drop_symbols", "dropout"]


def dropout(
    x: Tensor, probability: float, training: bool, generator: torch.Generator | None = None, *, shared: bool = False
) -> Tensor:
    """Zeroes each number with this probability and scales the others by 1 / (1 − p) (Srivastava et al. 2014).

    Args:
        x: any shape.
        probability: from 0 to below 1.
        training: where false, `x` is returned as it is.
        generator: where the mask comes from; torch's own generator by default.
        shared: one mask for all of axis 0, the time: variational dropout (Gal and Ghahramani 2016).

    >>> dropout(torch.ones(3), 0.5, training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    if not training or probability == 0:
        return x
    like = x[:1] if shared else x
    mask = torch.empty_like(like, memory_format=torch.contiguous_format).bernoulli_(
        1 - probability, generator=generator
    )
    return x * mask.div_(1 - probability)


def drop_symbols(ids: Tensor, probability: float, training: bool, generator: torch.Generator | None = None) -> Tensor:
    """Makes each id -1, the input of zeros, with this probability (word dropout, Iyyer et al. 2015).

    >>> drop_symbols(torch.tensor([3, 4]), 0.5, training=False).tolist()
    [3, 4]
    """
    if not training or probability == 0:
        return ids
    dropped = torch.empty(ids.shape, device=ids.device).bernoulli_(probability, generator=generator)
    return ids.masked_fill(dropped.bool(), -1)
