"""One recurrent layer over a whole sequence, by one of several backends that give the same numbers.

`reference` runs the formulas step by step, for every cell, and is the file to open first; `torch` hands the same
parameters to torch's own layers; `fused` is ours, compiled where a compiler was at hand. Those two serve the built-in
cells and leave others to `reference`. `inputs` checks the arguments of all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from charlm.errors import OptionError
from charlm.nn.cells import Cell
from charlm.nn.kernels import fused, reference

__all__ = ["BACKENDS", "LayerKernel", "backend"]

LayerKernel = Callable[
    [Cell, Tensor, tuple[Tensor, ...], Tensor | None, Tensor | None, Tensor | None],
    tuple[Tensor, tuple[Tensor, ...]],
]
"""(cell, x, state, table, resets_TB, lengths_B) -> (y_TBP, state); see `reference.run`."""

BACKENDS: dict[str, LayerKernel] = {
    "reference": reference.run,
    "fused": fused.run,
    "torch": reference.run_by_torch,
}


def backend(name: str) -> LayerKernel:
    """A way to run a layer, by its name."""
    if name not in BACKENDS:
        raise OptionError(f"unknown backend {name!r}: choose auto or one of {', '.join(BACKENDS)}")
    return BACKENDS[name]
