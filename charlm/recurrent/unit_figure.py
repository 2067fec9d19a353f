"""Hidden units as a figure: a text coloured by the values of units, and how often gates are nearly closed or open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.figures import new_figure
from charlm.lm.painting import visible
from charlm.recurrent.atlas import Saturation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GATE_WORDS", "rows_of", "unit_figure"]

GATE_WORDS = {"i": "input gate", "f": "forget gate", "o": "output gate", "r": "reset gate", "z": "update gate"}
"""What the gates are called: those of an LSTM, then those of a GRU."""

_COLUMNS, _ROWS = 76, 5


def rows_of(symbols: Sequence[str], columns: int = _COLUMNS, rows: int = _ROWS) -> list[tuple[int, int]]:
    """Where each row of the picture stands in the text: a line, or a part of one that is too long.

    >>> rows_of(list("ab\\ncdefg"), columns=3)
    [(0, 3), (3, 6), (6, 8)]
    """
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(symbols) and len(found) < rows:
        end = start
        while end < min(start + columns, len(symbols)) and symbols[end] != "\n":
            end += 1
        if end < len(symbols) and symbols[end] == "\n" and end - start < columns:
            end += 1
        found.append((start, end))
        start = end
    return found


def unit_figure(
    symbols: Sequence[str],
    painted: Sequence[tuple[str, NDArray[Any]]],
    gates: Sequence[Saturation],
    *,
    title: str = "",
) -> Figure:
    """The beginning of a text once for each unit, with a key to its colours, and a point for the gates of each unit.

    Args:
        symbols: the text, a string a position.
        painted: for each unit what is written above it, and its values [T]; purple is positive, orange negative.
        gates: how often they are nearly closed or open; none for the simple cell.
        title: above the figure.
    """
    symbols, painted = _from_a_line(symbols, painted)
    rows = rows_of(symbols)
    names = sorted({item.gate for item in gates}, key=list(GATE_WORDS).index)
    heights = [0.25 * len(rows) + 0.45] * len(painted) + [3.2] * bool(names)
    figure = new_figure(9, sum(heights) + 0.5)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (label, values_T) in zip(parts, painted, strict=False):
        _draw_text(part, symbols, rows, label, values_T)
    if names:
        _draw_gates(parts[-1], names, gates)
    figure.suptitle(title, parse_math=False)
    return figure


def _from_a_line(
    symbols: Sequence[str], painted: Sequence[tuple[str, NDArray[Any]]]
) -> tuple[Sequence[str], list[tuple[str, NDArray[Any]]]]:
    """The same from the first line that is whole, where one begins soon and leaves enough."""
    first = next((n + 1 for n, symbol in enumerate(symbols[: len(symbols) // 2]) if symbol == "\n"), 0)
    return symbols[first:], [(label, values_T[first:]) for label, values_T in painted]


def _draw_text(
    part: Any, symbols: Sequence[str], rows: Sequence[tuple[int, int]], label: str, values_T: NDArray[Any]
) -> None:
    """Rows of characters on fields of colour, and beside them which colour is which value."""
    axes = part.add_subplot()
    grid = np.full((len(rows), _COLUMNS), np.nan)
    largest = float(np.abs(values_T).max(initial=0)) or 1.0
    for row, (start, end) in enumerate(rows):
        grid[row, : end - start] = values_T[start:end]
        for column, symbol in enumerate(symbols[start:end]):
            dark = abs(grid[row, column]) > 0.7 * largest
            axes.text(
                column,
                row,
                visible(symbol),
                ha="center",
                va="center",
                family="monospace",
                fontsize=8,
                color="white" if dark else "black",
                parse_math=False,
            )
    image = axes.imshow(grid, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    key = part.colorbar(image, ax=axes, ticks=[-largest, 0, largest], aspect=8, pad=0.01, fraction=0.04)
    key.ax.set_yticklabels([f"{-largest:.2f}", "0", f"{largest:.2f}"], fontsize=7)
    axes.set_title(label, fontsize=9, loc="left", parse_math=False)
    axes.set_axis_off()


def _draw_gates(part: Any, names: Sequence[str], gates: Sequence[Saturation]) -> None:
    """For each kind of gate the share of the time nearly closed against the share nearly open."""
    for axes, name in zip(part.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for item in gates:
            if item.gate == name:
                axes.plot(item.left_H, item.right_H, "o", markersize=3.5, alpha=0.6, label=f"layer {item.layer}")
        axes.plot([0, 1], [1, 0], color="black", linewidth=0.6)
        axes.set(xlabel="share of the time below 0.1", title=GATE_WORDS[name], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        axes.legend(fontsize="small")
    part.axes[0].set_ylabel("share of the time above 0.9")
