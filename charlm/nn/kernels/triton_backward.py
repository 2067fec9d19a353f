"""The way back through `triton_kernels`, derived by hand: a program goes from its lanes' last step to the first.

It writes the gradients of the gates before their functions, of the GRU in the order n_h, r, z, n_x as `loops`
does; those of the weights are products over all steps afterwards. Axes are those of `triton_kernels`.
"""

from __future__ import annotations

from typing import Any

from charlm.nn.kernels.triton_kernels import _gate, _kept, _put, _square, _tanh, _tile, _times, jit, tl

__all__ = ["BACKWARD"]


@jit
def _load(y, at, inside):
    return tl.load(y + at, mask=inside, other=0.0).to(tl.float32)


@jit
def _before(first, y, row, here, at, inside, lanes, hidden):
    """What a step started from, before any reset: `row` counts lanes of all steps, so the first step's are few."""
    at_first = row[:, None] < lanes
    start = tl.load(first + at, mask=inside & at_first, other=0.0).to(tl.float32)
    return start + tl.load(y + here - lanes * hidden, mask=inside & (row[:, None] >= lanes), other=0.0).to(tl.float32)


@jit
def _rnn_backward(
    weight, y, values, extra, h0, c0, resets, y_grad, c_grad, grad, h0_grad, c0_grad, steps, lanes, hidden,
    LANES: tl.constexpr, W: tl.constexpr, RESETS: tl.constexpr, C_GRAD: tl.constexpr, STATE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    lane, unit, at, inside = _tile(lanes, hidden, LANES, W)
    w = _square(weight, 0, hidden, unit[:, None], unit[None, :])
    dh = tl.zeros((LANES, W), tl.float32)
    for step in range(steps):
        t = (steps - 1 - step).to(tl.int64)
        here = t * lanes * hidden + at
        h = _load(y, here, inside)
        slope = (dh + _load(y_grad, here, inside)) * (1.0 - h * h)
        tl.store(grad + here, slope.to(grad.dtype.element_ty), mask=inside)
        dh = _kept(_times(slope, w, PRECISION), resets + t * lanes, lane, lanes, RESETS)
    if STATE:
        tl.store(h0_grad + at, dh.to(h0_grad.dtype.element_ty), mask=inside)


@jit
def _gru_backward(
    weight, y, values, extra, h0, c0, resets, y_grad, c_grad, grad, h0_grad, c0_grad, steps, lanes, hidden,
    LANES: tl.constexpr, W: tl.constexpr, RESETS: tl.constexpr, C_GRAD: tl.constexpr, STATE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    lane, unit, at, inside = _tile(lanes, hidden, LANES, W)
    w_r = _square(weight, 0, hidden, unit[:, None], unit[None, :])
    w_z = _square(weight, 1, hidden, unit[:, None], unit[None, :])
    w_n = _square(weight, 2, hidden, unit[:, None], unit[None, :])
    dh = tl.zeros((LANES, W), tl.float32)
    for step in range(steps):
        t = (steps - 1 - step).to(tl.int64)
        row, here = t * lanes + lane, t * lanes * hidden + at
        forget = resets + t * lanes
        h = _kept(_before(h0, y, row, here, at, inside, lanes, hidden), forget, lane, lanes, RESETS)
        r = _gate(values, row, 0, hidden, unit, inside, 3)
        z = _gate(values, row, 1, hidden, unit, inside, 3)
        n = _gate(values, row, 2, hidden, unit, inside, 3)
        dh += _load(y_grad, here, inside)
        dn = dh * (1.0 - z) * (1.0 - n * n)
        dz = dh * (h - n) * z * (1.0 - z)
        dr = dn * _load(extra, here, inside) * r * (1.0 - r)
        _put(grad, row, 0, dn * r, hidden, unit, inside, 4)
        _put(grad, row, 1, dr, hidden, unit, inside, 4)
        _put(grad, row, 2, dz, hidden, unit, inside, 4)
        _put(grad, row, 3, dn, hidden, unit, inside, 4)
        dh = dh * z + _times(dn * r, w_n, PRECISION) + _times(dr, w_r, PRECISION) + _times(dz, w_z, PRECISION)
        dh = _kept(dh, forget, lane, lanes, RESETS)
    if STATE:
        tl.store(h0_grad + at, dh.to(h0_grad.dtype.element_ty), mask=inside)


@jit
def _lstm_backward(
    weight, y, values, extra, h0, c0, resets, y_grad, c_grad, grad, h0_grad, c0_grad, steps, lanes, hidden,
    LANES: tl.constexpr, W: tl.constexpr, RESETS: tl.constexpr, C_GRAD: tl.constexpr, STATE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    lane, unit, at, inside = _tile(lanes, hidden, LANES, W)
    w_i = _square(weight, 0, hidden, unit[:, None], unit[None, :])
    w_f = _square(weight, 1, hidden, unit[:, None], unit[None, :])
    w_g = _square(weight, 2, hidden, unit[:, None], unit[None, :])
    w_o = _square(weight, 3, hidden, unit[:, None], unit[None, :])
    dh = tl.zeros((LANES, W), tl.float32)
    dc = tl.zeros((LANES, W), tl.float32)
    if C_GRAD:
        dc = _load(c_grad, at, inside)
    for step in range(steps):
        t = (steps - 1 - step).to(tl.int64)
        row, here = t * lanes + lane, t * lanes * hidden + at
        forget = resets + t * lanes
        before = _kept(_before(c0, extra, row, here, at, inside, lanes, hidden), forget, lane, lanes, RESETS)
        c = _tanh(_load(extra, here, inside))
        i = _gate(values, row, 0, hidden, unit, inside, 4)
        f = _gate(values, row, 1, hidden, unit, inside, 4)
        g = _gate(values, row, 2, hidden, unit, inside, 4)
        o = _gate(values, row, 3, hidden, unit, inside, 4)
        dh += _load(y_grad, here, inside)
        dc += dh * o * (1.0 - c * c)
        di = dc * g * i * (1.0 - i)
        df = dc * before * f * (1.0 - f)
        dg = dc * i * (1.0 - g * g)
        do = dh * c * o * (1.0 - o)
        _put(grad, row, 0, di, hidden, unit, inside, 4)
        _put(grad, row, 1, df, hidden, unit, inside, 4)
        _put(grad, row, 2, dg, hidden, unit, inside, 4)
        _put(grad, row, 3, do, hidden, unit, inside, 4)
        dh = _times(di, w_i, PRECISION) + _times(df, w_f, PRECISION)
        dh = _kept(dh + _times(dg, w_g, PRECISION) + _times(do, w_o, PRECISION), forget, lane, lanes, RESETS)
        dc = _kept(dc * f, forget, lane, lanes, RESETS)
    if STATE:
        tl.store(h0_grad + at, dh.to(h0_grad.dtype.element_ty), mask=inside)
        tl.store(c0_grad + at, dc.to(c0_grad.dtype.element_ty), mask=inside)


BACKWARD: dict[str, Any] = {"rnn": _rnn_backward, "gru": _gru_backward, "lstm": _lstm_backward}
"""Kernels by the cell's name; their arguments are those of `triton_layers`."""
