"""What stands above the recurrent layers and turns their outputs into probabilities.

Axes: any leading ones (T steps, B lanes), D features, V classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["DistributionHead"]


class DistributionHead(nn.Module):
    """A linear map and a LogSoftmax: log-probabilities over V classes.

    Args:
        features: D, the width of what comes in.
        classes: V.

    >>> head = DistributionHead(4, 3)
    >>> head(torch.zeros(2, 4)).exp().sum(-1).allclose(torch.ones(2))
    True
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.log_softmax = nn.LogSoftmax(dim=-1)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Weights uniform in ±1/√D, biases zero: the first loss is then near ln V."""
        bound = 1 / math.sqrt(self.linear.in_features)
        with torch.no_grad():
            self.linear.weight.uniform_(-bound, bound, generator=generator)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities [..., V] of features [..., D]."""
        log_probabilities: Tensor = self.log_softmax(self.linear(x))
        return log_probabilities
