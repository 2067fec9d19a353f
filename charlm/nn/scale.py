"""Numbers brought to one size and back: min-max and z-score, fitted on the rows that are given and on no others.

Axes: N rows, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from charlm.errors import CheckpointError, OptionError

__all__ = ["KINDS", "Scale"]

KINDS = ("min-max", "z-score")
"""The ways of scaling."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """(x − shift) / width for each feature.

    Args:
        kind: `min-max`: shift is the least value and width the range, so that fitted rows lie in 0..1; or `z-score`:
            the mean and the standard deviation (of the population, Σ(x − mean)²/N).
        shift: F numbers.
        width: F numbers above 0; 1 for a feature that never changes.

    Make one with `Scale.fit`.

    >>> import torch
    >>> scale = Scale.fit(torch.tensor([[10.0, 5.0], [30.0, 5.0]]), "min-max")
    >>> scale.apply(torch.tensor([[20.0, 5.0], [50.0, 6.0]])).tolist()
    [[0.5, 0.0], [2.0, 1.0]]
    >>> scale.undo(torch.tensor([[0.5, 0.0]])).tolist()
    [[20.0, 5.0]]
    """

    kind: str
    shift: tuple[float, ...]
    width: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"unknown scaling {self.kind!r}: choose one of {', '.join(KINDS)}")
        if not self.shift or len(self.shift) != len(self.width):
            raise OptionError("a scale has as many widths as shifts, one of each for every feature")
        if not all(map(math.isfinite, (*self.shift, *self.width))) or min(self.width) <= 0:
            raise OptionError("the shifts of a scale are finite, its widths finite and above 0")

    @classmethod
    def fit(cls, rows_NF: Tensor, kind: str) -> Scale:
        """The scale of these rows; those of the training part, if figures on others are to mean anything.

        Args:
            rows_NF: finite numbers, at least one row; computed in float64.
            kind: `min-max` or `z-score`.
        """
        if kind not in KINDS:
            raise OptionError(f"unknown scaling {kind!r}: choose one of {', '.join(KINDS)}")
        if rows_NF.dim() != 2 or not rows_NF.numel():
            raise OptionError(f"a scale is fitted to a table of rows and features, not to {tuple(rows_NF.shape)}")
        rows_NF = rows_NF.detach().cpu().double()
        if not bool(rows_NF.isfinite().all()):
            row, column = (~rows_NF.isfinite()).nonzero()[0].tolist()
            raise OptionError(f"row {row + 1}, feature {column + 1} is {rows_NF[row, column].item()}, not a number")
        if kind == "min-max":
            shift, width = rows_NF.amin(0), rows_NF.amax(0) - rows_NF.amin(0)
        else:
            shift = rows_NF.mean(0)
            width = (rows_NF - shift).square().mean(0).sqrt()
            width[rows_NF.amax(0) == rows_NF.amin(0)] = 0  # rounding of the mean is no deviation
        width[width == 0] = 1
        return cls(kind=kind, shift=tuple(shift.tolist()), width=tuple(width.tolist()))

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_tensor(self.shift), x.new_tensor(self.width)

    def apply(self, x: Tensor) -> Tensor:
        """Scaled numbers, in the type and on the device of `x` [..., F]."""
        shift, width = self._like(x)
        return (x - shift) / width

    def undo(self, x: Tensor) -> Tensor:
        """The numbers before they were scaled."""
        shift, width = self._like(x)
        return x * width + shift

    def to_json(self) -> dict[str, Any]:
        """A value for `config.json`; `from_json` reads it back."""
        return {**asdict(self), "shift": list(self.shift), "width": list(self.width)}

    @classmethod
    def from_json(cls, value: Any) -> Scale:
        """Reads what `to_json` made; anything else is refused."""
        if not isinstance(value, Mapping) or set(value) != {"kind", "shift", "width"}:
            raise CheckpointError("a stored scale has the keys kind, shift and width and no others")
        lists = [value["shift"], value["width"]]
        if not all(isinstance(each, list) and all(type(x) in (float, int) for x in each) for each in lists):
            raise CheckpointError("the shifts and widths of a stored scale are lists of numbers")
        try:
            shift, width = (tuple(float(x) for x in each) for each in lists)
            return cls(kind=value["kind"], shift=shift, width=width)
        except (OptionError, OverflowError, TypeError) as error:
            raise CheckpointError(f"a stored scale is broken: {error}") from None
