"""What `train_speed`, `sample_speed` and `gpu` compare with: a network of torch's own layers; sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

SYMBOLS = 65
WIDTHS = (16, 64)  # of torch's embedding
TORCH = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is trained: the cell, H units, L layers, B lanes, T steps."""

    cell: str
    hidden: int
    layers: int
    lanes: int
    steps: int

    @property
    def flops(self) -> float:
        """Of the products that every implementation needs: those of the recurrence, between layers and the head."""
        products = self.hidden * GATES[self.cell] * (2 * self.layers - 1) + SYMBOLS
        return 3 * 2 * self.lanes * self.steps * self.hidden * products


class TorchModel(nn.Module):
    """Embedding, torch's layers, a linear map."""

    def __init__(self, size: Size, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, width)
        self.layers = TORCH[size.cell](width, size.hidden, size.layers)
        self.linear = nn.Linear(size.hidden, SYMBOLS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax(self.linear(self.layers(self.embedding(ids))[0]), -1)
