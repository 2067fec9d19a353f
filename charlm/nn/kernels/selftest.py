"""Whether the Triton kernels can be trusted on this device: asked of them before a layer first goes through them.

A process of its own runs the layer, forwards and backwards, beside the formulas. If it does not compile, is wrong,
crashes or takes too long, this process is unharmed, the reason is known, and torch's kernels are used.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell, make_cell

__all__ = ["Verdict", "error_of", "judge", "main", "verdict", "verdict_on"]

_NAMES: dict[type[Cell], str] = {RNNCell: "rnn", GRUCell: "gru", LSTMCell: "lstm"}
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
    command = [sys.executable, "-W", "ignore", "-m", "charlm.nn.kernels.selftest", *what]
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
    return verdict(str(like.device), _NAMES[type(cell)], cell.hidden, str(like.dtype).removeprefix("torch."))


def error_of(device: str, cell: str, hidden: int, precision: str) -> float:
    """The largest difference from the formulas, as a share of 1 + the largest number, over all that a layer gives."""
    from charlm.nn.kernels import reference
    from charlm.nn.kernels.fused import split_biases
    from charlm.nn.kernels.gpu import layers as triton_layers

    dtype = getattr(torch, precision)
    layer = make_cell(cell, 7, hidden).to(device)
    random = torch.Generator().manual_seed(0)
    x, to_y = (torch.randn(4, 19, n, generator=random).to(device) for n in (7, hidden))
    resets_TB = (torch.rand(4, 19, generator=random) < 0.2).to(device)
    x.requires_grad_()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.to(dtype))  # what both read is the same
    y, _ = reference.run(layer, x, layer.zero_state(19), None, resets_TB)
    (right,) = torch.autograd.grad(y, [x], to_y)
    bias_G, bias_n = split_biases(layer)
    with torch.no_grad():
        gates = torch.nn.functional.linear(x, layer.weight_ih, bias_G).to(dtype).contiguous()
        weight, state, marks = layer.weight_hh.to(dtype), layer.zero_state(19), resets_TB.to(torch.uint8)
        kept = triton_layers.forward(layer, gates, None, weight, bias_n, state, marks, True)
        grad, _ = triton_layers.backward(layer, weight, kept, state, marks, to_y.to(dtype), None, False)
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
