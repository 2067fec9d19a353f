"""A layer as the loop over its cell's formula: readable, differentiable as often as wanted, any cell, any device; and
below it the same layer through torch's own kernels.

Axes: T steps, B lanes, I inputs, P outputs, V symbols.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from charlm.nn.kernels.inputs import LayerInputs, check_layer, without_padding

__all__ = ["loop", "run", "run_by_torch"]


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


# -- through torch's layers --------------------------------------------------------------------------------------------

_LAYERS: dict[type[Cell], Any] = {RNNCell: torch.rnn_tanh, GRUCell: torch.gru, LSTMCell: torch.lstm}


def run_by_torch(
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...],
    table: Tensor | None = None,
    resets_TB: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Like `run`, through torch's own recurrent kernels (oneDNN on a CPU, cuDNN on a GPU) on the same parameters.

    Cells that torch has not, and windows in which a lane is reset, go through the formulas.
    """
    given = check_layer(cell, x, state, table, resets_TB, lengths_B)
    x, state, lengths_B = given.x, given.state, given.lengths_B
    if type(cell) not in _LAYERS or given.resets_TB is not None or not (len(x) and x.shape[1]):
        return loop(cell, given, table)
    if not x.is_floating_point():
        x = _dense(cell, x, table)
    if lengths_B is None:
        return _call(cell, (x,), state)
    return _ragged(cell, x, state, lengths_B)


def _ragged(cell: Cell, x: Tensor, state: tuple[Tensor, ...], lengths_B: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Lanes of different lengths, packed; torch takes none of length 0, so those read one step that does not count."""
    some_B = lengths_B > 0
    packed = pack_padded_sequence(without_padding(x, lengths_B), lengths_B.clamp(min=1).cpu(), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None
    assert back is not None
    data, after = _call(cell, (packed.data, packed.batch_sizes), tuple(s[order] for s in state))
    y_TBP, _ = pad_packed_sequence(packed._replace(data=data), total_length=len(x))
    after = tuple(s[back] for s in after)
    if bool(some_B.all()):
        return y_TBP, after
    some_B1 = some_B.unsqueeze(-1)
    y_TBP = torch.where(some_B1, y_TBP, torch.zeros_like(y_TBP))
    return y_TBP, tuple(torch.where(some_B1, new, old) for new, old in zip(after, state, strict=True))


def _dense(cell: Cell, ids: Tensor, table: Tensor | None) -> Tensor:
    """The rows that ids stand for: of the embedding, or one-hot; zeros for -1."""
    rows = torch.eye(cell.inputs, dtype=cell.weight_ih.dtype, device=ids.device) if table is None else table
    nothing = rows.new_zeros(1, cell.inputs)
    return F.embedding(torch.where(ids < 0, len(rows), ids), torch.cat([rows, nothing]))


def _call(cell: Cell, data: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer, one direction; `data` is a dense input, or a packed one with its batch sizes."""
    parameters = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh, cell.weight_hr]
    flat = [parameter for parameter in parameters if parameter is not None]
    initial = tuple(tensor.unsqueeze(0).contiguous() for tensor in state)
    options: tuple[Any, ...] = (flat, cell.bias_ih is not None, 1, 0.0, torch.is_grad_enabled(), False)
    layer = _LAYERS[type(cell)]
    hidden = initial if isinstance(cell, LSTMCell) else initial[0]
    if len(data) == 1:
        y, *after = layer(data[0], hidden, *options, False)
    else:
        y, *after = layer(*data, hidden, *options)
    return y, tuple(tensor.squeeze(0) for tensor in after)
