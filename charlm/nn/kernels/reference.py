"""A layer as the loop over its cell's formula: readable, differentiable as often as wanted, any cell, any device.

Axes: T steps, B lanes, I inputs, P outputs, V symbols.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlm.nn.cells import Cell
from charlm.nn.kernels.inputs import LayerInputs, check_layer, without_padding

__all__ = ["loop", "run"]


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
        x: dense input [T, B, I], or ids [T, B] that stand for one-hot input, -1 for the input of zeros.
        state: the cell's state before the first step, one tensor [B, width] each.
        table: an embedding [V, I] that the ids are looked up in; None for one-hot.
        resets_TB: bool; where true, the lane has the cell's initial state again before that step.
        lengths_B: the length of each lane, from 0 to T; what is given behind it is not read, outputs there are zero,
            the final state is that at the length.

    Returns:
        The outputs [T, B, P] and the final state.

    Raises:
        OptionError: see `check_layer`.
    """
    return loop(cell, check_layer(cell, x, state, table, resets_TB, lengths_B), table)


def loop(cell: Cell, given: LayerInputs, table: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`run` on arguments that were checked."""
    x, state, resets_TB, lengths_B = given.x, given.state, given.resets_TB, given.lengths_B
    if lengths_B is not None:
        x = without_padding(x, lengths_B)
    gates = cell.input_gates(x) if x.is_floating_point() else cell.gathered_gates(x, table)
    start = cell.initial_state(x.shape[1]) if resets_TB is not None else ()
    outputs = []
    for t, gates_BG in enumerate(gates):
        if resets_TB is not None:
            anew_B1 = resets_TB[t].unsqueeze(-1)
            state = tuple(torch.where(anew_B1, new, old) for new, old in zip(start, state, strict=True))
        after = cell.step(gates_BG, state)
        if lengths_B is None:
            state = after
            outputs.append(state[0])
        else:
            inside_B1 = (t < lengths_B).unsqueeze(-1)
            state = tuple(torch.where(inside_B1, new, old) for new, old in zip(after, state, strict=True))
            outputs.append(torch.where(inside_B1, state[0], torch.zeros_like(state[0])))
    return torch.stack(outputs) if outputs else state[0].new_zeros(0, *state[0].shape), state
