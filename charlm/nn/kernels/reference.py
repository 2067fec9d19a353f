"""A layer as the loop over its cell's formula: readable, differentiable as often as wanted, on any device.

Axes: T steps, B lanes, I inputs, P outputs, V symbols.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlm.nn.cells import Cell

__all__ = ["run"]


def run(
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...],
    table: Tensor | None = None,
    resets_TB: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs one layer over a sequence.

    Args:
        cell: the weights and the formula.
        x: dense input [T, B, I], or int64 ids [T, B] that stand for one-hot input.
        state: the cell's state before the first step, one tensor [B, width] each.
        table: an embedding [V, I] that the ids are looked up in; None for one-hot.
        resets_TB: bool; where true, the lane's state is set to zero before that step.
        lengths_B: the length of each lane; outputs behind it are zero, the final state is that at the length.

    Returns:
        The outputs [T, B, P] and the final state.
    """
    gates = cell.input_gates(x) if x.is_floating_point() else cell.gathered_gates(x, table)
    outputs = []
    for t, gates_BG in enumerate(gates):
        if resets_TB is not None:
            keep_B1 = (~resets_TB[t]).unsqueeze(-1).to(gates.dtype)
            state = tuple(tensor * keep_B1 for tensor in state)
        after = cell.step(gates_BG, state)
        if lengths_B is None:
            state = after
            outputs.append(state[0])
        else:
            inside_B1 = (t < lengths_B).unsqueeze(-1)
            state = tuple(torch.where(inside_B1, new, old) for new, old in zip(after, state, strict=True))
            outputs.append(torch.where(inside_B1, state[0], torch.zeros_like(state[0])))
    return torch.stack(outputs), state
