"""The calls of `native` in torch alone, for machines without the compiled kernels and for other devices.

Axes: T steps, B lanes, G gates, H units, D numbers of a lane's gate gradients (H, 4H, 4H).
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell

__all__ = ["backward", "forward", "sum_rows"]


def forward(
    cell: Cell,
    gates: Tensor,
    ids_TB: Tensor | None,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    state: tuple[Tensor, ...],
    resets_TB: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `native.forward`."""
    values_TBG = gates if ids_TB is None else gates[ids_TB]
    y, extra = (values_TBG.new_empty(*values_TBG.shape[:2], cell.hidden) for _ in range(2))
    weights_HG = weight_hh.t()
    for t, gates_BG in enumerate(values_TBG.unbind()):
        if resets_TB is not None:
            state = tuple(tensor.masked_fill(resets_TB[t].bool().unsqueeze(-1), 0) for tensor in state)
        if isinstance(cell, RNNCell):
            torch.tanh(torch.addmm(gates_BG, state[0], weights_HG), out=y[t])
            state = (y[t],)
        elif isinstance(cell, GRUCell):
            _gru(gates_BG, state[0], weights_HG, bias_n, y[t], extra[t])
            state = (y[t],)
        else:
            _lstm(gates_BG, state, weights_HG, y[t], extra[t])
            state = (y[t], extra[t])
    return y, values_TBG if keep else None, extra


def _gru(gates_BG: Tensor, h_BH: Tensor, weights_HG: Tensor, bias_n: Tensor | None, y_BH: Tensor, n_h: Tensor) -> None:
    """One step; the gates' values replace what is in `gates_BG`."""
    width = 2 * h_BH.shape[1]
    product_BG = h_BH @ weights_HG
    r_z = gates_BG[:, :width].add_(product_BG[:, :width]).sigmoid_()
    n_h.copy_(product_BG[:, width:] if bias_n is None else product_BG[:, width:] + bias_n)
    r_BH, z_BH = r_z.chunk(2, -1)
    n_BH = gates_BG[:, width:].addcmul_(r_BH, n_h).tanh_()
    torch.lerp(n_BH, h_BH, z_BH, out=y_BH)


def _lstm(gates_BG: Tensor, state: tuple[Tensor, ...], weights_HG: Tensor, y_BH: Tensor, c_BH: Tensor) -> None:
    """One step; the gates' values replace what is in `gates_BG`."""
    gates_BG.addmm_(state[0], weights_HG)
    i_BH, f_BH, g_BH, o_BH = gates_BG.chunk(4, -1)
    gates_BG[:, : 2 * i_BH.shape[1]].sigmoid_()
    g_BH.tanh_()
    o_BH.sigmoid_()
    torch.mul(f_BH, state[1], out=c_BH).addcmul_(i_BH, g_BH)
    torch.tanh(c_BH, out=y_BH).mul_(o_BH)


def backward(
    cell: Cell,
    weight_hh: Tensor,
    kept: tuple[Tensor, Tensor | None, Tensor | None],
    state: tuple[Tensor, ...],
    resets_TB: Tensor | None,
    y_grad: Tensor,
    c_grad: Tensor | None,
    state_wanted: bool,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """See `native.backward`."""
    y = kept[0]
    before = tuple(_before(tensor, whole, resets_TB) for tensor, whole in zip(state, (y, kept[2]), strict=False))
    slopes_TBD, to_carry, own = _slopes(cell, kept, before)
    weight = weight_hh.roll(cell.hidden, 0) if isinstance(cell, GRUCell) else weight_hh
    dh_BH = torch.zeros_like(state[0])
    carry_BH = torch.zeros_like(dh_BH) if c_grad is None else c_grad
    for t in range(len(y) - 1, -1, -1):
        dh_BH = dh_BH + y_grad[t]
        slopes_BGH = slopes_TBD[t].view(len(dh_BH), -1, cell.hidden)
        if isinstance(cell, LSTMCell):
            carry_BH = carry_BH + dh_BH * own[t]
            slopes_BGH[:, :3] *= carry_BH.unsqueeze(1)
            slopes_BGH[:, 3] *= dh_BH
            carry_BH = carry_BH * to_carry[t]
        else:
            slopes_BGH *= dh_BH.unsqueeze(1)
            carry_BH = dh_BH * to_carry[t]
        dh_BH = slopes_TBD[t, :, : len(weight)] @ weight
        if isinstance(cell, GRUCell):
            dh_BH += carry_BH
        if resets_TB is not None:
            forgotten = resets_TB[t].bool().unsqueeze(-1)
            dh_BH, carry_BH = dh_BH.masked_fill(forgotten, 0), carry_BH.masked_fill(forgotten, 0)
    return slopes_TBD, (dh_BH, carry_BH)[: len(state)] if state_wanted else None


def _before(first_BH: Tensor, all_TBH: Tensor | None, resets_TB: Tensor | None) -> Tensor:
    """What a step started from, for all steps."""
    assert all_TBH is not None
    before = torch.cat([first_BH.unsqueeze(0), all_TBH[:-1]])
    return before if resets_TB is None else before.masked_fill_(resets_TB.bool().unsqueeze(-1), 0)


def _slopes(
    cell: Cell, kept: tuple[Tensor, Tensor | None, Tensor | None], before: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """For all steps at once: what the loop multiplies the gradients with.

    Returns:
        d gate / d h (of the LSTM's i, f, g: / d c) as [T, B, D]; what passes on to the carried gradient; and
        the LSTM's d c / d h.
    """
    y, values, extra = kept
    if isinstance(cell, RNNCell) or values is None or extra is None:
        slopes = 1 - y * y
        return slopes, slopes, slopes
    if isinstance(cell, GRUCell):
        r, z, n = values.chunk(3, -1)
        dn = (1 - z) * (1 - n * n)
        return torch.cat([dn * r, dn * extra * r * (1 - r), (before[0] - n) * z * (1 - z), dn], -1), z, z
    i, f, g, o = values.chunk(4, -1)
    c = extra.tanh()
    slopes = torch.cat([g * i * (1 - i), before[1] * f * (1 - f), i * (1 - g * g), c * o * (1 - o)], -1)
    return slopes, f, o * (1 - c * c)


def sum_rows(rows_RW: Tensor, ids_R: Tensor | None, groups: int) -> Tensor:
    """See `native.sum_rows`."""
    if ids_R is None:
        return rows_RW.sum(0, keepdim=True)
    ids_R = torch.where(ids_R < 0, groups - 1, ids_R)
    return rows_RW.new_zeros(groups, rows_RW.shape[1]).index_add_(0, ids_R, rows_RW)
