"""The calls of `native` on a GPU: one launch of a Triton kernel each way, where a layer's weights fit one block.

Axes: T steps, B lanes, G gates, H units, V symbols, D numbers of a lane's gate gradients (H, 4H, 4H).
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell

__all__ = ["backward", "fits", "forward", "room", "sum_rows", "there"]

_NAMES: dict[type[Cell], str] = {RNNCell: "rnn", GRUCell: "gru", LSTMCell: "lstm"}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LANES = 16  # of a program: the least that a product of Triton's takes
BYTES = 128 * 1024  # of weights that stay with a program; the way back needs almost as much beside them
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # the kernels run on a CPU, slowly, to be tested


@functools.cache
def there() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def _width(hidden: int) -> int:
    """H up to a power of two, at least what a product takes."""
    return max(16, 1 << (hidden - 1).bit_length())


def room(cell: Cell, dtype: torch.dtype) -> int:
    """Bytes that the recurrent weights take in a program.

    >>> from charlm.nn.cells import make_cell
    >>> room(make_cell("lstm", 3, 100), torch.bfloat16) // 1024  # 4 squares of 128
    128
    """
    return cell.gates * _width(cell.hidden) ** 2 * dtype.itemsize


def fits(cell: Cell, gates: Tensor) -> bool:
    """Whether the kernels take this layer: a GPU (or the interpreter), Triton, a precision, and the weights' size.

    >>> from charlm.nn.cells import make_cell
    >>> fits(make_cell("lstm", 3, 512), torch.zeros(1))
    False
    """
    placed = gates.device.type == "cuda" or (INTERPRETED and gates.device.type == "cpu")
    return placed and gates.dtype in _DTYPES and not cell.projection and _small(cell, gates.dtype) and there()


def _small(cell: Cell, dtype: torch.dtype) -> bool:
    """Whether the weights stay with a program; in float32 each is multiplied in three parts, which takes more."""
    return room(cell, dtype) * (2 if dtype == torch.float32 else 1) <= BYTES


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
    """See `native.forward`; `extra` is float32 whatever the gates are, and the gates are left as they were."""
    from charlm.nn.kernels.gpu.kernels import FORWARD

    steps, lanes = gates.shape[:2] if ids_TB is None else ids_TB.shape
    hidden = cell.hidden
    y = gates.new_empty(steps, lanes, hidden)
    values = extra = None
    if keep and not isinstance(cell, RNNCell):
        values = gates.new_empty(steps, lanes, cell.gates * hidden)
        extra = gates.new_empty(steps, lanes, hidden, dtype=torch.float32)
    elif isinstance(cell, LSTMCell):
        extra = gates.new_empty(1, lanes, hidden, dtype=torch.float32)
    pointers = (gates, ids_TB, weight_hh, bias_n, state[0], state[-1], resets_TB, y, values, extra)
    options = {"IDS": ids_TB is not None, "KEEP": keep, "BIAS": bias_n is not None}
    numbers = (steps, lanes, hidden, len(gates))
    _launch(FORWARD[_NAMES[type(cell)]], pointers, numbers, resets_TB, hidden, lanes, options)
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
    """See `native.backward`."""
    from charlm.nn.kernels.gpu.kernels import BACKWARD

    y, values, extra = kept
    steps, lanes, hidden = y.shape
    grad = y.new_empty(steps, lanes, (1 if isinstance(cell, RNNCell) else 4) * hidden)
    before = tuple(torch.empty_like(tensor) for tensor in state) if state_wanted else None
    ends = (None, None) if before is None else (before[0], before[-1])
    c_grad = None if c_grad is None else c_grad.contiguous()
    pointers = (weight_hh, y, values, extra, state[0], state[-1], resets_TB, y_grad, c_grad, grad, *ends)
    options = {"C_GRAD": c_grad is not None, "STATE": state_wanted}
    _launch(BACKWARD[_NAMES[type(cell)]], pointers, (steps, lanes, hidden), resets_TB, hidden, lanes, options)
    return grad, before


def _launch(
    kernel: Any,
    pointers: tuple[Tensor | None, ...],
    numbers: tuple[int, ...],
    resets_TB: Tensor | None,
    hidden: int,
    lanes: int,
    options: dict[str, bool],
) -> None:
    """Starts as many programs as the lanes need; a pointer that is not used gets any address."""
    some = next(pointer for pointer in pointers if pointer is not None)
    addresses = [some if pointer is None else pointer for pointer in pointers]
    width = _width(hidden)
    kernel[(-(-lanes // LANES),)](
        *addresses,
        *numbers,
        LANES=LANES,
        W=width,
        RESETS=resets_TB is not None,
        PRECISION=_products(),
        num_warps=4 if width <= 64 else 8,
        **options,
    )


def _products() -> str:
    """How float32 is multiplied: in TF32 where torch does so too, else in three parts, which is as good as whole."""
    if INTERPRETED:
        return "emulated"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def sum_rows(rows_RW: Tensor, ids_R: Tensor | None, groups: int) -> Tensor:
    """See `native.sum_rows`; as a product with zeros and ones, whose order of summing is fixed on a GPU too.

    >>> sum_rows(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, -1, 0]), 2).tolist()
    [[5.0], [2.0]]
    """
    if ids_R is None:
        return rows_RW.sum(0, keepdim=True)
    ids_R = torch.where(ids_R < 0, groups - 1, ids_R)
    chosen = torch.arange(groups, device=ids_R.device).unsqueeze(1) == ids_R
    return chosen.to(rows_RW.dtype) @ rows_RW
