"""What happens inside a layer: gate values and cell states, found again from what the layer read and gave.

Kernels return outputs alone. As the outputs are known for all steps, every gate of every step follows from one
product, whichever kernel was used. Axes: T steps, B lanes, I inputs, P outputs, H hidden units, G gates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import OptionError
from charlm.nn.cells import Cell, GRUCell, LSTMCell
from charlm.nn.kernels import backend
from charlm.nn.stack import Stack, StackState

__all__ = ["GATES", "read_layers", "trace"]

GATES: dict[str, tuple[str, ...]] = {"lstm": ("i", "f", "o"), "gru": ("r", "z"), "rnn": ()}
"""The gates that are shares between 0 and 1, by the cell's name and in the order of its weights."""


def trace(
    cell: Cell, x: Tensor, y_TBP: Tensor, state: tuple[Tensor, ...], table: Tensor | None = None
) -> dict[str, Tensor]:
    """The gates of each step, each [T, B, H], by the formulas in `charlm.nn.cells`.

    Args:
        cell: the layer.
        x: what it read: dense [T, B, I], or ids [T, B].
        y_TBP: what it gave.
        state: its state before the first step.
        table: an embedding that ids are looked up in; None for one-hot.

    Returns:
        For an LSTM `i`, `f`, `o`, and the cell state as `c`; for a GRU `r`, `z`; for the simple cell nothing.

    >>> cell = LSTMCell(1, 1, bias=False)
    >>> for weights in cell.parameters(): _ = weights.data.fill_(0.0)
    >>> state = torch.zeros(1, 1), torch.ones(1, 1)  # every gate is 1/2, so c' = c / 2
    >>> {name: gate.item() for name, gate in trace(cell, torch.ones(1, 1, 1), torch.zeros(1, 1, 1), state).items()}
    {'i': 0.5, 'f': 0.5, 'o': 0.5, 'c': 0.5}
    """
    given = cell.input_gates(x) if x.is_floating_point() else cell.gathered_gates(x, table)
    before_TBP = torch.cat([state[0].unsqueeze(0), y_TBP[:-1]])
    carried = F.linear(before_TBP, cell.weight_hh, cell.bias_hh)
    if isinstance(cell, GRUCell):
        r_TBH, z_TBH = torch.sigmoid(given + carried).chunk(3, -1)[:2]
        return {"r": r_TBH, "z": z_TBH}
    if not isinstance(cell, LSTMCell):
        return {}
    i_TBH, f_TBH, g_TBH, o_TBH = (given + carried).chunk(4, -1)
    i_TBH, f_TBH, o_TBH = torch.sigmoid(i_TBH), torch.sigmoid(f_TBH), torch.sigmoid(o_TBH)
    written_TBH = i_TBH * torch.tanh(g_TBH)
    c_BH, kept = state[1], []
    for written_BH, f_BH in zip(written_TBH, f_TBH, strict=True):
        c_BH = torch.addcmul(written_BH, f_BH, c_BH)
        kept.append(c_BH)
    return {"i": i_TBH, "f": f_TBH, "o": o_TBH, "c": torch.stack(kept)}


def read_layers(
    stack: Stack, x: Tensor, state: StackState, table: Tensor | None = None
) -> tuple[list[dict[str, Tensor]], StackState]:
    """Runs a stack as it runs when it is not training, and shows every layer.

    Args:
        stack: layers that read in one direction.
        x: dense input [T, B, I], or ids [T, B].
        state: as from `initial_state`.
        table: an embedding [V, I] for ids.

    Returns:
        For each layer its outputs as `h` [T, B, P] and what `trace` finds; and the state after the last step.

    >>> stack = Stack("gru", inputs=3, hidden=4, layers=2)
    >>> layers, state = read_layers(stack, torch.tensor([[0], [2]]), stack.initial_state(1))
    >>> [sorted(layer) for layer in layers], layers[1]["h"].shape
    ([['h', 'r', 'z'], ['h', 'r', 'z']], torch.Size([2, 1, 4]))
    """
    if len(stack.directions) != 1:
        raise OptionError("only layers that read in one direction can be looked into while they read")
    run = backend(stack.backend)
    layers: list[dict[str, Tensor]] = []
    after: StackState = {}
    for layer in range(stack.layers):
        cell = stack.cell(layer)
        before = tuple(state[f"{name}{layer}"] for name in cell.states)
        y_TBP, final = run(cell, x, before, table, None, None)
        layers.append({"h": y_TBP, **trace(cell, x, y_TBP, before, table)})
        after |= {f"{name}{layer}": tensor for name, tensor in zip(cell.states, final, strict=True)}
        x, table = y_TBP, None
    return layers, after
