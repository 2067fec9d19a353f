"""The calls of `loops` on a GPU: one launch of a Triton kernel each way, where a layer's weights fit one block;
and the test that decides whether the kernels can be trusted on a device, before a layer first goes through them.

The test runs the layer, forwards and backwards, beside the formulas, in a process of its own. If it does not compile,
is wrong, crashes or takes too long, this process is unharmed, the reason is known, and torch's kernels are used.

Axes: T steps, B lanes, G gates, H units, V symbols, D numbers of a lane's gate gradients (H, 4H, 4H).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from charlm.nn.cells import Cell, LSTMCell, RNNCell, make_cell
from charlm.nn.kernels import reference
from charlm.nn.kernels.reference import on_gpu, split_biases

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
    placed = on_gpu(gates) or (INTERPRETED and gates.device.type == "cpu")
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
    """See `loops.forward`; `extra` is float32 whatever the gates are, and the gates are left as they were."""
    from charlm.nn.kernels.triton_kernels import FORWARD

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
    _launch(FORWARD[cell.name], pointers, numbers, resets_TB, hidden, lanes, options)
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
    """See `loops.backward`."""
    from charlm.nn.kernels.triton_kernels import BACKWARD

    y, values, extra = kept
    steps, lanes, hidden = y.shape
    grad = y.new_empty(steps, lanes, (1 if isinstance(cell, RNNCell) else 4) * hidden)
    before = tuple(torch.empty_like(tensor) for tensor in state) if state_wanted else None
    ends = (None, None) if before is None else (before[0], before[-1])
    c_grad = None if c_grad is None else c_grad.contiguous()
    pointers = (weight_hh, y, values, extra, state[0], state[-1], resets_TB, y_grad, c_grad, grad, *ends)
    options = {"C_GRAD": c_grad is not None, "STATE": state_wanted}
    _launch(BACKWARD[cell.name], pointers, (steps, lanes, hidden), resets_TB, hidden, lanes, options)
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
    """See `loops.sum_rows`; as a product with zeros and ones, whose order of summing is fixed on a GPU too.

    >>> sum_rows(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, -1, 0]), 2).tolist()
    [[5.0], [2.0]]
    """
    if ids_R is None:
        return rows_RW.sum(0, keepdim=True)
    ids_R = torch.where(ids_R < 0, groups - 1, ids_R)
    chosen = torch.arange(groups, device=ids_R.device).unsqueeze(1) == ids_R
    return chosen.to(rows_RW.dtype) @ rows_RW


SECONDS = 180.0
"""How long the test may take: starting Python and a GPU, and compiling two kernels."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
Start = Callable[[Sequence[str], float], tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of the test.

    Args:
        usable: whether the kernels may be used.
        reason: why not, in one sentence; empty where they may.
    """

    usable: bool
    reason: str = ""


def judge(what: Sequence[str], start: Start, seconds: float = SECONDS) -> Verdict:
    """Runs the test in a process of its own.

    Args:
        what: device, cell, hidden, precision.
        start: runs the test with these arguments for at most so many seconds; returns the exit status and the
            last line that was written. Raises `TimeoutError`.

    >>> judge(["cuda", "gru", "64", "bfloat16"], lambda what, seconds: (1, "wrong by 0.5")).reason
    "charlm's GPU kernels are not used for gru 64 in bfloat16 (wrong by 0.5): torch's run instead"
    """
    _, cell, hidden, precision = what
    try:
        status, said = start(what, seconds)
    except TimeoutError:
        status, said = 1, f"their test took longer than {seconds:g} seconds"
    except OSError as error:
        status, said = 1, f"their test could not be started: {error}"
    if status == 0:
        return Verdict(usable=True)
    why = said or f"their test ended with status {status}"
    return Verdict(
        usable=False,
        reason=f"charlm's GPU kernels are not used for {cell} {hidden} in {precision} ({why}): torch's run instead",
    )


def _start(what: Sequence[str], seconds: float) -> tuple[int, str]:
    """This file as a program."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "ignore", "-m", "charlm.nn.kernels.triton_layers", *what]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    lines = done.stderr.strip().splitlines()
    return done.returncode, lines[-1][:200] if lines else ""


@functools.cache
def verdict(device: str, cell: str, hidden: int, precision: str) -> Verdict:
    """The verdict on a layer, asked once a process."""
    return judge([device, cell, str(hidden), precision], _start)


def verdict_on(cell: Cell, like: Tensor) -> Verdict:
    """The verdict on this layer, on the device and in the precision of a tensor."""
    return verdict(str(like.device), cell.name, cell.hidden, str(like.dtype).removeprefix("torch."))


def error_of(device: str, cell: str, hidden: int, precision: str) -> float:
    """The largest difference from the formulas, as a share of 1 + the largest number, over all that a layer gives."""
    dtype = getattr(torch, precision)
    layer = make_cell(cell, 7, hidden).to(device)
    random = torch.Generator().manual_seed(0)
    x, to_y = (torch.randn(4, 19, n, generator=random).to(device) for n in (7, hidden))
    resets_TB = (torch.rand(4, 19, generator=random) < 0.2).to(device)
    x.requires_grad_()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.to(dtype))  # what both read is the same
    y, _ = reference.run(layer, x, layer.initial_state(19), None, resets_TB)
    (right,) = torch.autograd.grad(y, [x], to_y)
    bias_G, bias_n = split_biases(layer)
    with torch.no_grad():
        gates = torch.nn.functional.linear(x, layer.weight_ih, bias_G).to(dtype).contiguous()
        weight, state, marks = layer.weight_hh.to(dtype), layer.initial_state(19), resets_TB.to(torch.uint8)
        kept = forward(layer, gates, None, weight, bias_n, state, marks, True)
        grad, _ = backward(layer, weight, kept, state, marks, to_y.to(dtype), None, False)
        ours = grad[..., -layer.gates * hidden :].float() @ layer.weight_ih
    pairs = ((kept[0].float(), y.detach()), (ours, right))
    return max(float((a - b).abs().max() / (1 + b.abs().max())) for a, b in pairs)


def main(what: Sequence[str]) -> int:
    """Exit status 0 where the kernels are right; else one line on stderr says what is wrong."""
    device, cell, hidden, precision = what
    error = error_of(device, cell, int(hidden), precision)
    if error <= TOLERANCE[precision]:  # false for NaN
        return 0
    sys.stderr.write(f"wrong by {error:.3g}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
