"""Calls of the compiled kernels, where they were built; `library()` is None where not.

Axes: T steps, B lanes, G gates, H units, V symbols, D numbers of a lane's gate gradients (H, 4H, 4H).
"""

from __future__ import annotations

import ctypes
import functools
import threading
from pathlib import Path

import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.nn.cells import Cell, LSTMCell, RNNCell

__all__ = ["Generation", "address", "backward", "call", "fits", "forward", "hash_of", "library", "sum_rows"]

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
_scratch = threading.local()
QUICK = 500_000  # multiplications a step that are not worth a meeting of threads


class Layer(ctypes.Structure):
    """`struct layer` of native.c."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("steps", "lanes", "hidden", "threads", "by_units")),
        ("ids", ctypes.c_void_p),
        ("rows", ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ("input", "weight", "bias_n", "h0", "c0", "resets", "packed")),
        *((name, ctypes.c_void_p) for name in ("y", "gates", "extra", "y_grad", "carry", "gates_grad")),
        *((name, ctypes.c_void_p) for name in ("h0_grad", "c0_grad")),
    ]


class Scatter(ctypes.Structure):
    """`struct scatter` of native.c."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("count", "width", "stride", "threads")),
        ("ids", ctypes.c_void_p),
        ("groups", ctypes.c_long),
        ("rows", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
    ]


class Memory(ctypes.Structure):
    """`struct memory` of native.c."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("count", "threads")),
        *((name, ctypes.c_void_p) for name in ("words", "hashes")),
    ]


class Generation(ctypes.Structure):
    """`struct generation` of generate.h."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("cell", "layers", "hidden", "symbols", "lanes", "steps")),
        *((name, ctypes.c_long) for name in ("threads", "by_units", "top_k")),
        *((name, ctypes.c_double) for name in ("temperature", "top_p")),
        *((name, ctypes.c_void_p) for name in ("rows", "recurrent", "input", "bias", "bias_n")),
        *((name, ctypes.c_void_p) for name in ("head", "head_bias", "h", "h_next", "c", "noise")),
        *((name, ctypes.c_void_p) for name in ("ids", "drawn", "logp", "gates", "logits", "weights", "heap")),
    ]


def _sizes() -> int:
    """What `charlm_sizes` of a library returns that was built from the sources beside this file."""
    return sum(
        1000**place * ctypes.sizeof(structure) for place, structure in enumerate((Layer, Scatter, Generation, Memory))
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels beside this file, or None where there are none that run on this machine."""
    for path in sorted(Path(__file__).parent.glob("_native*")):
        try:
            loaded = ctypes.CDLL(str(path))
            loaded.charlm_sizes.restype = ctypes.c_long
            if loaded.charlm_runs_here() and loaded.charlm_sizes() == _sizes():
                return loaded
        except (OSError, AttributeError):
            continue
    return None


def fits(tensor: Tensor) -> bool:
    """Whether the kernels are there and know this tensor's device and precision."""
    return tensor.device.type == "cpu" and tensor.dtype in _SUFFIX and library() is not None


def call(name: str, job: ctypes.Structure) -> None:
    """Calls a function of the library with the address of a structure."""
    loaded = library()
    assert loaded is not None
    getattr(loaded, name)(ctypes.byref(job))


def address(tensor: Tensor | None, dtype: torch.dtype, *shape: int) -> int | None:
    """Where a tensor's numbers lie, one behind the other; refused where C would read something else there.

    >>> address(torch.zeros(2, 3), torch.float32, 3, 2)
    Traceback (most recent call last):
    ...
    charlm.errors.OptionError: the compiled kernels need a torch.float32 of [3, 2] without gaps on the CPU here, not ...
    """
    if tensor is None:
        return None
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous() or not tensor.is_cpu:
        raise OptionError(
            f"the compiled kernels need a {dtype} of {list(shape)} without gaps on the CPU here, "
            f"not a {tensor.dtype} of {list(tensor.shape)} with strides {tensor.stride()} on {tensor.device}"
        )
    return tensor.data_ptr()


def _packed(weight_hh: Tensor) -> Tensor:
    """Room for the packed weights, kept from call to call."""
    hidden = weight_hh.shape[1]
    size = (len(weight_hh) + 1) * (hidden + 32)
    kept = getattr(_scratch, "kept", None)
    if kept is None or kept.numel() < size or kept.dtype != weight_hh.dtype:
        kept = _scratch.kept = weight_hh.new_empty(size)
    return kept


def _layer(cell: Cell, weight_hh: Tensor, steps: int, lanes: int) -> Layer:
    threads = torch.get_num_threads()
    by_units = lanes < 4 * threads
    if by_units and len(weight_hh) * cell.hidden * lanes < QUICK:
        threads = 1
    return Layer(
        steps=steps,
        lanes=lanes,
        hidden=cell.hidden,
        threads=threads,
        by_units=int(by_units),
        weight=address(weight_hh, weight_hh.dtype, cell.gates * cell.hidden, cell.hidden),
        packed=_packed(weight_hh).data_ptr(),
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
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """One layer over a sequence. All tensors without gaps.

    Args:
        cell: which formula.
        gates: W_ih x + b_ih (+ b_hh): [T, B, GH], or with ids a table [V + 1, GH]. Without ids
            and with `keep` the gates' values replace it.
        ids_TB: int64; -1 for the table's last row. That none is outside the table is for the caller to see to
            (`inputs.check_ids`), as it would here be looked at again for every direction.
        weight_hh: [GH, H].
        bias_n: the GRU's [H] of b_hn.
        state: the state before, each [B, H].
        resets_TB: uint8.
        keep: whether there will be a way back.

    Raises:
        OptionError: a tensor of another type, shape, device or layout.

    Returns:
        y [T, B, H]; the gates' values [T, B, GH] if kept; c of the LSTM [T or 1, B, H], W_hn h + b_hn of the
        GRU if kept.
    """
    steps, lanes = gates.shape[:2] if ids_TB is None else ids_TB.shape
    hidden = cell.hidden
    y = gates.new_empty(steps, lanes, hidden)
    values = extra = None
    if keep and not isinstance(cell, RNNCell):
        values = gates if ids_TB is None else gates.new_empty(steps, lanes, gates.shape[-1])
        extra = torch.empty_like(y)
    elif isinstance(cell, LSTMCell):
        extra = gates.new_empty(1, lanes, hidden)
    job = _layer(cell, weight_hh, steps, lanes)
    _put_common(job, weight_hh.dtype, hidden, state, resets_TB)
    job.ids, job.rows = address(ids_TB, torch.int64, steps, lanes), len(gates)
    size = (steps, lanes) if ids_TB is None else (len(gates),)
    job.input = address(gates, weight_hh.dtype, *size, cell.gates * hidden)
    job.bias_n = address(bias_n, weight_hh.dtype, hidden)
    job.y, job.gates, job.extra = (None if t is None else t.data_ptr() for t in (y, values, extra))
    call(f"forward_{_SUFFIX[gates.dtype]}_{cell.name}", job)
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
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """The way back through what `forward` returned.

    Returns:
        Gradients of the gates before their functions, [T, B, D]: the GRU's in the order n_h, r, z, n_x, where
        n_h is that of W_hn h + b_hn; and those of the state before, if wanted.
    """
    y, values, extra = kept
    steps, lanes, hidden = y.shape
    grad = y.new_empty(steps, lanes, (1 if isinstance(cell, RNNCell) else 4) * hidden)
    carry = y.new_zeros(lanes, hidden) if c_grad is None else c_grad.clone(memory_format=torch.contiguous_format)
    before = tuple(y.new_empty(lanes, hidden) for _ in state) if state_wanted else None
    job = _layer(cell, weight_hh, steps, lanes)
    _put_common(job, y.dtype, hidden, state, resets_TB)
    job.y = address(y, weight_hh.dtype, steps, lanes, hidden)
    job.gates = address(values, y.dtype, steps, lanes, cell.gates * hidden)
    job.extra = address(extra, y.dtype, steps, lanes, hidden)
    job.y_grad = address(y_grad, y.dtype, steps, lanes, hidden)
    job.carry, job.gates_grad = address(carry, y.dtype, lanes, hidden), grad.data_ptr()
    if before is not None:
        job.h0_grad, job.c0_grad = before[0].data_ptr(), before[-1].data_ptr()
    call(f"backward_{_SUFFIX[y.dtype]}_{cell.name}", job)
    return grad, before


def sum_rows(rows_RW: Tensor, ids_R: Tensor | None, groups: int) -> Tensor:
    """Sums rows that have one id: [groups, W]; ids below 0 belong to the last group; None puts all into one.

    The rows may be a slice of wider ones.
    """
    sums = rows_RW.new_empty(groups, rows_RW.shape[1])
    if rows_RW.stride(1) != 1 or not fits(rows_RW):
        raise OptionError("the compiled kernels need rows on the CPU whose numbers lie side by side")
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
    call(f"scatter_{_SUFFIX[rows_RW.dtype]}", job)
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
