"""A layer's loop over time, forwards and backwards: compiled (`sequence.h`) on a CPU, or in torch on any device.

Axes: T steps, B lanes, G gates, H units, V symbols, D numbers of a lane's gate gradients (H, 4H, 4H).
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from charlm.nn.kernels import compiled
from charlm.nn.kernels.compiled import SUFFIX, Layer, Memory, Product, Scatter, address, call, scratch

QUICK = 500_000  # multiplications a step that are not worth a meeting of threads


def _checked(pairs: bool, dtype: torch.dtype) -> int:
    """Whether numbers are rounded to bfloat16, after a check that the kernels can multiply them."""
    if pairs and (dtype != torch.float32 or not compiled.multiplies_bf16()):
        raise OptionError(f"products of bfloat16 need AVX512-BF16 and float32 numbers, not {dtype}")
    return int(pairs)


def _layer(cell: Cell, weight_hh: Tensor, steps: int, lanes: int, pairs: bool) -> Layer:
    threads = torch.get_num_threads()
    by_units = lanes < 4 * threads
    if by_units and len(weight_hh) * cell.hidden * lanes < QUICK:
        threads = 1
    gates, hidden = len(weight_hh), cell.hidden
    packed = scratch("packed", (gates + 1) * (hidden + 64), weight_hh)
    halves = scratch("halves", 2 * lanes * (gates + 1), weight_hh) if pairs else None
    return Layer(
        steps=steps,
        lanes=lanes,
        hidden=hidden,
        threads=threads,
        pairs=_checked(pairs, weight_hh.dtype),
        by_units=int(by_units),
        weight=address(weight_hh, weight_hh.dtype, cell.gates * cell.hidden, cell.hidden),
        packed=packed.data_ptr(),
        halves=None if halves is None else halves.data_ptr(),
    )


def _put_common(
    job: Layer, dtype: torch.dtype, hidden: int, state: tuple[Tensor, ...], resets_TB: Tensor | None
) -> None:
    job.h0, job.c0 = (address(tensor, dtype, job.lanes, hidden) for tensor in (state[0], state[-1]))
    job.resets = address(resets_TB, torch.uint8, job.steps, job.lanes)


def forward(
    cell: Cell,
    gates: Tensor,
    ids_TB: Tensor | None,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    state: tuple[Tensor, ...],
    resets_TB: Tensor | None,
    keep: bool,
    pairs: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """One layer over a sequence. All tensors without gaps.

    Args:
        cell: which formula.
        gates: W_ih x + b_ih (+ b_hh): [T, B, GH], or with ids a table [V + 1, GH]. Without ids
            and with `keep` the gates' values replace it.
        ids_TB: int64; -1 for the table's last row. The caller has checked that none is outside the table
            (`reference.check_ids`), so that they are not checked again for every direction.
        weight_hh: [GH, H].
        bias_n: the GRU's [H] of b_hn.
        state: the state before, each [B, H].
        resets_TB: uint8.
        keep: whether there will be a way back.
        pairs: whether states and weights are rounded to bfloat16 for the products.

    Raises:
        OptionError: a tensor of another type, shape, device or layout.

    Returns:
        y [T, B, H]; the gates' values [T, B, GH] if kept; c of the LSTM [T or 1, B, H], W_hn h + b_hn of the
        GRU if kept.
    """
    if not compiled.fits(gates):
        return _forward(cell, gates, ids_TB, weight_hh, bias_n, state, resets_TB, keep)
    steps, lanes = gates.shape[:2] if ids_TB is None else ids_TB.shape
    hidden = cell.hidden
    y = gates.new_empty(steps, lanes, hidden)
    values = extra = None
    if keep and not isinstance(cell, RNNCell):
        values = gates if ids_TB is None else gates.new_empty(steps, lanes, gates.shape[-1])
        extra = torch.empty_like(y)
    elif isinstance(cell, LSTMCell):
        extra = gates.new_empty(1, lanes, hidden)
    job = _layer(cell, weight_hh, steps, lanes, pairs)
    _put_common(job, weight_hh.dtype, hidden, state, resets_TB)
    job.ids, job.rows = address(ids_TB, torch.int64, steps, lanes), len(gates)
    size = (steps, lanes) if ids_TB is None else (len(gates),)
    job.input = address(gates, weight_hh.dtype, *size, cell.gates * hidden)
    job.bias_n = address(bias_n, weight_hh.dtype, hidden)
    job.y, job.gates, job.extra = (None if t is None else t.data_ptr() for t in (y, values, extra))
    call(f"forward_{SUFFIX[gates.dtype]}_{cell.name}", job)
    return y, values, extra


def backward(
    cell: Cell,
    weight_hh: Tensor,
    kept: tuple[Tensor, Tensor | None, Tensor | None],
    state: tuple[Tensor, ...],
    resets_TB: Tensor | None,
    y_grad: Tensor,
    c_grad: Tensor | None,
    state_wanted: bool,
    pairs: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """The way back through what `forward` returned.

    Returns:
        Gradients of the gates before their functions, [T, B, D]: the GRU's in the order n_h, r, z, n_x, where
        n_h is that of W_hn h + b_hn; and those of the state before, if wanted.
    """
    if not compiled.fits(y_grad):
        return _backward(cell, weight_hh, kept, state, resets_TB, y_grad, c_grad, state_wanted)
    y, values, extra = kept
    steps, lanes, hidden = y.shape
    grad = y.new_empty(steps, lanes, (1 if isinstance(cell, RNNCell) else 4) * hidden)
    carry = y.new_zeros(lanes, hidden) if c_grad is None else c_grad.clone(memory_format=torch.contiguous_format)
    before = tuple(y.new_empty(lanes, hidden) for _ in state) if state_wanted else None
    job = _layer(cell, weight_hh, steps, lanes, pairs)
    _put_common(job, y.dtype, hidden, state, resets_TB)
    job.y = address(y, weight_hh.dtype, steps, lanes, hidden)
    job.gates = address(values, y.dtype, steps, lanes, cell.gates * hidden)
    job.extra = address(extra, y.dtype, steps, lanes, hidden)
    job.y_grad = address(y_grad, y.dtype, steps, lanes, hidden)
    job.carry, job.gates_grad = address(carry, y.dtype, lanes, hidden), grad.data_ptr()
    if before is not None:
        job.h0_grad, job.c0_grad = before[0].data_ptr(), before[-1].data_ptr()
    call(f"backward_{SUFFIX[y.dtype]}_{cell.name}", job)
    return grad, before


def product(
    left_MK: Tensor,
    right_KN: Tensor,
    bias_N: Tensor | None = None,
    *,
    pairs: bool = False,
    add_to: Tensor | None = None,
) -> Tensor:
    """The matrix product of two tensors, or of their transposed views: [M, N].

    Args:
        left_MK: one of its strides is 1.
        right_KN: one of its strides is 1.
        bias_N: added to every row.
        pairs: whether both are rounded to bfloat16; sums are of float32 all the same.
        add_to: [M, N], to which the product is added and which is returned; without a bias.
    """
    (rows, depth), columns = left_MK.shape, right_KN.shape[1]
    if not compiled.fits(left_MK) or not depth:
        found = left_MK @ right_KN
        found = found if bias_N is None else found + bias_N
        return found if add_to is None else add_to.add_(found)
    if len(right_KN) != depth or (bias_N is not None and add_to is not None):
        raise OptionError(f"matrices of {list(left_MK.shape)} and {list(right_KN.shape)} do not fit a product")
    for matrix in (left_MK, right_KN):
        if (1 not in matrix.stride() and matrix.numel() > 1) or matrix.dtype != left_MK.dtype or not matrix.is_cpu:
            raise OptionError(f"a product needs matrices of {left_MK.dtype} without gaps in one direction on the CPU")
    out = left_MK.new_empty(rows, columns) if add_to is None else add_to
    suffix, threads = SUFFIX[out.dtype], torch.get_num_threads()
    job = Product(rows=rows, columns=columns, depth=depth, threads=threads, pairs=_checked(pairs, out.dtype))
    job.adding = int(add_to is not None)
    job.left, job.right, job.out = left_MK.data_ptr(), right_KN.data_ptr(), address(out, left_MK.dtype, rows, columns)
    job.left_row, job.left_step = left_MK.stride()
    job.right_step, job.right_column = right_KN.stride()
    job.bias = address(bias_N, out.dtype, columns)
    job.room = scratch("product", threads * compiled.product_room(suffix), out).data_ptr()
    call(f"product_{suffix}", job)
    return out


def sum_rows(rows_RW: Tensor, ids_R: Tensor | None, groups: int) -> Tensor:
    """Sums rows that have one id: [groups, W]; ids below 0 belong to the last group; None puts all into one.

    The rows may be a slice of wider ones.
    """
    if not compiled.fits(rows_RW):
        return _sum_rows(rows_RW, ids_R, groups)
    sums = rows_RW.new_empty(groups, rows_RW.shape[1])
    if rows_RW.stride(1) != 1:
        raise OptionError("the compiled kernels need rows whose numbers lie side by side")
    job = Scatter(
        count=len(rows_RW),
        width=rows_RW.shape[1],
        stride=rows_RW.stride(0),
        threads=torch.get_num_threads(),
        ids=address(ids_R, torch.int64, len(rows_RW)),
        groups=groups,
        rows=rows_RW.data_ptr(),
        sums=sums.data_ptr(),
    )
    call(f"scatter_{SUFFIX[rows_RW.dtype]}", job)
    return sums


def hash_of(tensor: Tensor) -> bytes:
    """A hash of a float32 tensor's bits, at the speed of reading them; a change of a single number always changes it.

    It depends on the number of threads, too.
    """
    count, threads = tensor.numel(), torch.get_num_threads() if tensor.numel() > 100_000 else 1
    hashes = torch.zeros(threads, 64, dtype=torch.int32)
    words = address(tensor, torch.float32, *tensor.shape)
    call("hash", Memory(count=count, threads=threads, words=words, hashes=hashes.data_ptr()))
    return hashes.numpy().tobytes()


# -- in torch alone --------------------------------------------------------------------------------------------


def _forward(
    cell: Cell, gates: Tensor, ids_TB: Tensor | None, weight_hh: Tensor, bias_n: Tensor | None,
    state: tuple[Tensor, ...], resets_TB: Tensor | None, keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """`forward` in torch."""
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


def _backward(
    cell: Cell, weight_hh: Tensor, kept: tuple[Tensor, Tensor | None, Tensor | None], state: tuple[Tensor, ...],
    resets_TB: Tensor | None, y_grad: Tensor, c_grad: Tensor | None, state_wanted: bool,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:  # fmt: skip
    """`backward` in torch."""
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


def _sum_rows(rows_RW: Tensor, ids_R: Tensor | None, groups: int) -> Tensor:
    """`sum_rows` in torch."""
    if ids_R is None:
        return rows_RW.sum(0, keepdim=True)
    ids_R = torch.where(ids_R < 0, groups - 1, ids_R)
    return rows_RW.new_zeros(groups, rows_RW.shape[1]).index_add_(0, ids_R, rows_RW)
