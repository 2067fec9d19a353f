"""A layer over a whole sequence in one launch on a GPU: a program keeps some lanes, all units and all weights.

Each kernel runs every step of its lanes. The recurrent weights are read once and stay with the program, the
state stays in registers in float32; nothing is exchanged between programs. Weights of bfloat16 or float16 are
multiplied as such and summed in float32. The numbers that are written are those of `loops`, in its order.

Axes: T steps, B lanes, G gates, H units. LANES and W are B of a program and H, up to powers of two.


The way back through `triton_kernels`, derived by hand: a program goes from its lanes' last step to the first.

It writes the gradients of the gates before their functions, of the GRU in the order n_h, r, z, n_x as `loops`
does; those of the weights are products over all steps afterwards. Axes are those of `triton_kernels`.
"""

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl

    jit: Any = triton.jit
    HAVE_TRITON = True
except ImportError:  # the file can be read and imported without it, not run
    tl, HAVE_TRITON = None, False

    def jit(function: Any) -> Any:
        """Stands for `triton.jit` where there is none."""
        return function


@jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@jit
def _tanh(x):
    """By its series near zero, where the quotient would lose digits; the series ends below 1e-8 of the value."""
    square = x * x
    near = x * (1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))))
    small = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - small) / (1.0 + small)
    return tl.where(square < 0.0625, near, tl.where(x < 0, -far, far))


@jit
def _tile(lanes, hidden, LANES: tl.constexpr, W: tl.constexpr):
    """The program's lanes and units, where they lie in [B, H], and which of them there are."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    unit = tl.arange(0, W)
    inside = (lane[:, None] < lanes) & (unit[None, :] < hidden)
    return lane, unit, lane[:, None] * hidden + unit[None, :], inside


@jit
def _square(weight, gate, hidden, row, column):
    """A gate's square of W_hh, its rows and columns laid out as asked for; zeros beyond H."""
    place = weight + (gate * hidden + row) * hidden + column
    return tl.load(place, mask=(row < hidden) & (column < hidden), other=0.0)


@jit
def _gate(x, row, gate, hidden, unit, inside, GATES: tl.constexpr):
    """A gate's numbers out of rows of G·H."""
    place = x + row[:, None] * (GATES * hidden) + gate * hidden + unit[None, :]
    return tl.load(place, mask=inside, other=0.0).to(tl.float32)


@jit
def _put(y, row, gate, value, hidden, unit, inside, GATES: tl.constexpr):
    place = y + row[:, None] * (GATES * hidden) + gate * hidden + unit[None, :]
    tl.store(place, value.to(y.dtype.element_ty), mask=inside)


@jit
def _rows(ids, lane, lanes, rows, IDS: tl.constexpr):
    """Which row of the gates' input part a lane reads: its own, or that of its symbol (-1: the last)."""
    if IDS:
        id = tl.load(ids + lane, mask=lane < lanes, other=-1)
        return tl.where(id < 0, rows - 1, id)
    return lane.to(tl.int64)


@jit
def _kept(value, resets, lane, lanes, RESETS: tl.constexpr):
    """The state, or its gradient, with zeros in lanes that are reset."""
    if RESETS:
        gone = tl.load(resets + lane, mask=lane < lanes, other=0)
        return tl.where(gone[:, None] != 0, 0.0, value)
    return value


@jit
def _times(a, weight, PRECISION: tl.constexpr):
    """A product summed in float32; `emulated` is for the interpreter, whose products misread bfloat16."""
    if PRECISION == "emulated":
        return tl.dot(a.to(weight.dtype).to(tl.float32), weight.to(tl.float32))
    return tl.dot(a.to(weight.dtype), weight, input_precision=PRECISION)


@jit
def _rnn_forward(
    x, ids, weight, bias_n, h0, c0, resets, y, values, extra, steps, lanes, hidden, rows,
    LANES: tl.constexpr, W: tl.constexpr, IDS: tl.constexpr, RESETS: tl.constexpr, KEEP: tl.constexpr,
    BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    lane, unit, at, inside = _tile(lanes, hidden, LANES, W)
    w = _square(weight, 0, hidden, unit[None, :], unit[:, None])
    h = tl.load(h0 + at, mask=inside, other=0.0).to(tl.float32)
    for _ in range(steps):
        h = _kept(h, resets, lane, lanes, RESETS)
        row = _rows(ids, lane, lanes, rows, IDS)
        h = _tanh(_gate(x, row, 0, hidden, unit, inside, 1) + _times(h, w, PRECISION))
        tl.store(y + at, h.to(y.dtype.element_ty), mask=inside)
        y += lanes * hidden
        if IDS:
            ids += lanes
        else:
            x += lanes * hidden
        if RESETS:
            resets += lanes


@jit
def _gru_forward(
    x, ids, weight, bias_n, h0, c0, resets, y, values, extra, steps, lanes, hidden, rows,
    LANES: tl.constexpr, W: tl.constexpr, IDS: tl.constexpr, RESETS: tl.constexpr, KEEP: tl.constexpr,
    BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    lane, unit, at, inside = _tile(lanes, hidden, LANES, W)
    own = lane.to(tl.int64)
    w_r = _square(weight, 0, hidden, unit[None, :], unit[:, None])
    w_z = _square(weight, 1, hidden, unit[None, :], unit[:, None])
    w_n = _square(weight, 2, hidden, unit[None, :], unit[:, None])
    b_n = tl.zeros((W,), tl.float32)
    if BIAS:
        b_n = tl.load(bias_n + unit, mask=unit < hidden, other=0.0).to(tl.float32)
    h = tl.load(h0 + at, mask=inside, other=0.0).to(tl.float32)
    for _ in range(steps):
        h = _kept(h, resets, lane, lanes, RESETS)
        row = _rows(ids, lane, lanes, rows, IDS)
        r = _sigmoid(_gate(x, row, 0, hidden, unit, inside, 3) + _times(h, w_r, PRECISION))
        z = _sigmoid(_gate(x, row, 1, hidden, unit, inside, 3) + _times(h, w_z, PRECISION))
        n_h = _times(h, w_n, PRECISION) + b_n[None, :]
        n = _tanh(_gate(x, row, 2, hidden, unit, inside, 3) + r * n_h)
        h = n + z * (h - n)
        tl.store(y + at, h.to(y.dtype.element_ty), mask=inside)
        y += lanes * hidden
        if KEEP:
            _put(values, own, 0, r, hidden, unit, inside, 3)
            _put(values, own, 1, z, hidden, unit, inside, 3)
            _put(values, own, 2, n, hidden, unit, inside, 3)
            tl.store(extra + at, n_h.to(extra.dtype.element_ty), mask=inside)
            values += lanes * hidden * 3
            extra += lanes * hidden
        if IDS:
            ids += lanes
        else:
            x += lanes * hidden * 3
        if RESETS:
            resets += lanes


@jit
def _lstm_forward(
    x, ids, weight, bias_n, h0, c0, resets, y, values, extra, steps, lanes, hidden, rows,
    LANES: tl.constexpr, W: tl.constexpr, IDS: tl.constexpr, RESETS: tl.constexpr, KEEP: tl.constexpr,
    BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    lane, unit, at, inside = _tile(lanes, hidden, LANES, W)
    own = lane.to(tl.int64)
    w_i = _square(weight, 0, hidden, unit[None, :], unit[:, None])
    w_f = _square(weight, 1, hidden, unit[None, :], unit[:, None])
    w_g = _square(weight, 2, hidden, unit[None, :], unit[:, None])
    w_o = _square(weight, 3, hidden, unit[None, :], unit[:, None])
    h = tl.load(h0 + at, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(c0 + at, mask=inside, other=0.0).to(tl.float32)
    for _ in range(steps):
        h = _kept(h, resets, lane, lanes, RESETS)
        c = _kept(c, resets, lane, lanes, RESETS)
        row = _rows(ids, lane, lanes, rows, IDS)
        i = _sigmoid(_gate(x, row, 0, hidden, unit, inside, 4) + _times(h, w_i, PRECISION))
        f = _sigmoid(_gate(x, row, 1, hidden, unit, inside, 4) + _times(h, w_f, PRECISION))
        g = _tanh(_gate(x, row, 2, hidden, unit, inside, 4) + _times(h, w_g, PRECISION))
        o = _sigmoid(_gate(x, row, 3, hidden, unit, inside, 4) + _times(h, w_o, PRECISION))
        c = f * c + i * g
        h = o * _tanh(c)
        tl.store(y + at, h.to(y.dtype.element_ty), mask=inside)
        tl.store(extra + at, c.to(extra.dtype.element_ty), mask=inside)
        y += lanes * hidden
        if KEEP:
            _put(values, own, 0, i, hidden, unit, inside, 4)
            _put(values, own, 1, f, hidden, unit, inside, 4)
            _put(values, own, 2, g, hidden, unit, inside, 4)
            _put(values, own, 3, o, hidden, unit, inside, 4)
            values += lanes * hidden * 4
            extra += lanes * hidden
        if IDS:
            ids += lanes
        else:
            x += lanes * hidden * 4
        if RESETS:
            resets += lanes


FORWARD: dict[str, Any] = {"rnn": _rnn_forward, "gru": _gru_forward, "lstm": _lstm_forward}
"""Kernels by the cell's name; their arguments are those of `triton_layers`."""


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
