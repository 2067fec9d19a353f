"""A layer as one call a sequence: our own loops forwards and, derived by hand, backwards.

What can be done for all steps at once is: the input's part of the gates before the loop, the gradients of the
weights after it. Layer 0 adds no product at all, as a one-hot or embedded character picks a row of a table.
The loop is compiled (`native`) or torch (`loops`). First derivatives only.

Axes: T steps, B lanes, I inputs, G gates, H units, V symbols, D numbers of a lane's gate gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from charlm.nn.cells import Cell, GRUCell, LSTMCell
from charlm.nn.kernels import loops, native, reference, torch_layers

__all__ = ["input_rows", "run", "split_biases"]


def run(
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...],
    table: Tensor | None = None,
    resets_TB: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Like `reference.run`; torch's layers take over where lanes have lengths or the cell a projection."""
    alone = len(x) == 1 and x.shape[1] < 16 and not torch.is_grad_enabled()  # not worth packing weights for
    if lengths_B is not None or cell.projection:
        return torch_layers.run(cell, x, state, table, resets_TB, lengths_B)
    if alone:
        return reference.run(cell, x, state, table, resets_TB)
    dense = x.is_floating_point()
    bias_G, bias_n = split_biases(cell)
    gates = F.linear(x, cell.weight_ih, bias_G) if dense else input_rows(cell, table, bias_G)
    ids_TB = None if dense else x.contiguous()
    resets_TB = None if resets_TB is None or not bool(resets_TB.any()) else resets_TB.to(torch.uint8).contiguous()
    apply: Any = _Layer.apply
    y, *c = apply(cell, gates, ids_TB, cell.weight_hh, bias_n, resets_TB, torch.is_grad_enabled(), *state)
    return y, (y[-1].clone(), *c)


def split_biases(cell: Cell) -> tuple[Tensor | None, Tensor | None]:
    """What is added before the loop, and the part of b_hh that the GRU resets."""
    if cell.bias_ih is None or cell.bias_hh is None:
        return None, None
    if not isinstance(cell, GRUCell):
        return cell.bias_ih + cell.bias_hh, None
    r_z, n = cell.bias_hh[: 2 * cell.hidden], cell.bias_hh[2 * cell.hidden :]
    return cell.bias_ih + F.pad(r_z, (0, cell.hidden)), n


def input_rows(cell: Cell, table: Tensor | None, bias_G: Tensor | None) -> Tensor:
    """The input's part of the gates for each symbol, and last for one never seen: [V + 1, GH]."""
    rows = F.pad(cell.weight_ih.t() if table is None else table @ cell.weight_ih.t(), (0, 0, 0, 1))
    return rows if bias_G is None else rows + bias_G


class _Layer(torch.autograd.Function):
    """y and the LSTM's last c from the gates' input part (or a table of it), W_hh, b_hn and the state."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        gates: Tensor,
        ids_TB: Tensor | None,
        weight_hh: Tensor,
        bias_n: Tensor | None,
        resets_TB: Tensor | None,
        keep: bool,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        loop = native if native.fits(gates) else loops
        state = tuple(tensor.contiguous() for tensor in state)
        gates, weight_hh = gates.contiguous(), weight_hh.contiguous()
        bias_n = None if bias_n is None else bias_n.contiguous()
        y, values, extra = loop.forward(cell, gates, ids_TB, weight_hh, bias_n, state, resets_TB, keep)
        ctx.cell, ctx.groups = cell, len(gates)
        if keep:
            ctx.save_for_backward(ids_TB, weight_hh, resets_TB, y, values, extra, *state)
        return (y, extra[-1].clone()) if isinstance(cell, LSTMCell) and extra is not None else (y,)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor, c_grad: Tensor | None = None) -> tuple[Any, ...]:
        ids_TB, weight_hh, resets_TB, y, values, extra, *state = ctx.saved_tensors
        cell, needs = ctx.cell, ctx.needs_input_grad
        loop = native if native.fits(y) else loops
        wanted = any(needs[7:])
        grad, before = loop.backward(
            cell, weight_hh, (y, values, extra), tuple(state), resets_TB, y_grad.contiguous(), c_grad, wanted
        )
        hidden = cell.hidden
        flat = grad.flatten(0, 1)
        x_part = flat[:, hidden:] if isinstance(cell, GRUCell) else flat
        h_part = flat[:, : cell.gates * hidden]
        if ids_TB is None:
            gates_grad = x_part.unflatten(0, y.shape[:2])
        else:
            gates_grad = loop.sum_rows(x_part, ids_TB.flatten(), ctx.groups)
        weight_grad = _weight_grad(cell, h_part, y, state[0], resets_TB) if needs[3] else None
        n_grad = loop.sum_rows(h_part[:, :hidden], None, 1)[0] if needs[4] else None
        return None, gates_grad, None, weight_grad, n_grad, None, None, *(before or [None] * len(state))


def _weight_grad(cell: Cell, grad: Tensor, y: Tensor, h0: Tensor, resets_TB: Tensor | None) -> Tensor:
    """The gradient of W_hh: every step's gate gradients times the state that the step started from."""
    lanes = len(h0)
    if resets_TB is None:
        weight_grad = grad[lanes:].t() @ y[:-1].flatten(0, 1)
        weight_grad.addmm_(grad[:lanes].t(), h0)
    else:
        before = torch.cat([h0.unsqueeze(0), y[:-1]]).masked_fill_(resets_TB.bool().unsqueeze(-1), 0)
        weight_grad = grad.t() @ before.flatten(0, 1)
    return weight_grad.roll(-cell.hidden, 0) if isinstance(cell, GRUCell) else weight_grad
