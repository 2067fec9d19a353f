"""What the hidden units of a network do over a text: their values, how often gates are nearly closed or open, and
pictures of both.

Every unit's output, an LSTM's cell state as tanh(c), and the saturation of gates, as in Karpathy, Johnson and Fei-Fei
(2015), "Visualizing and Understanding Recurrent Networks". Kernels return the outputs of a layer alone. As the outputs
of all steps are known, the gates of all steps follow from one product (`charlm.nn.cells.trace`), whichever kernel ran
the layer.

Axes: T positions, H hidden units of a layer, U units (rows of the atlas), S positions shown, K symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.display import new_figure, visible
from charlm.errors import TextError
from charlm.lm.interface import OnRead
from charlm.nn.cells import Cell, LSTMCell
from charlm.nn.stack import read_layers
from charlm.recurrent.model import CharRNN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, order=True)
class Unit:
    """One row of an atlas.

    Args:
        layer: counted from 0.
        number: of the unit in its layer.
        signal: `h`, its output, or `c`, its cell state as tanh(c).

    >>> str(Unit(1, 37, "c"))
    '1:37:c'
    """

    layer: int
    number: int
    signal: str = "h"

    def __str__(self) -> str:
        return f"{self.layer}:{self.number}:{self.signal}"


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """How often the gates of one name in one layer are nearly closed or open, a share for each unit.

    Args:
        layer: counted from 0.
        gate: `i`, `f`, `o` of an LSTM; `r`, `z` of a GRU.
        left_H: share of the positions at which the gate is below 0.1.
        right_H: share at which it is above 0.9.
    """

    layer: int
    gate: str
    left_H: NDArray[np.float64]
    right_H: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """A value for programs, under the names that the documentation uses."""
        below, above = self.left_H.tolist(), self.right_H.tolist()
        return {"layer": self.layer, "gate": self.gate, "below_0.1": below, "above_0.9": above}


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """The values of all units of a network over a text.

    Args:
        ids: the symbols that were read, int64[T].
        units: what each row is.
        values_UT: float16, the unit's value after it has read each character.
        gates: a `Saturation` for each layer and gate.
        first: the first position for which the next symbols were kept.
        top_SK: ids of the most probable next symbols after position `first` + s, the most probable first.
        chance_SK: their probabilities.
    """

    ids: NDArray[np.int64]
    units: tuple[Unit, ...]
    values_UT: NDArray[np.float16]
    gates: tuple[Saturation, ...]
    first: int
    top_SK: NDArray[np.int64]
    chance_SK: NDArray[np.float32]

    def row(self, unit: Unit) -> int:
        """The row of a unit."""
        return self.units.index(unit)

    def only(self, layer: int) -> Atlas:
        """The atlas of one layer."""
        rows = [u for u, unit in enumerate(self.units) if unit.layer == layer]
        return replace(
            self,
            units=tuple(self.units[u] for u in rows),
            values_UT=self.values_UT[rows],
            gates=tuple(item for item in self.gates if item.layer == layer),
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A unit and the property that it was compared with.

    Args:
        unit: which.
        follows: the property's name.
        area: within strata on the second half, in the direction that the first half showed; 1/2 is chance.
        rises: whether the unit is higher where there is (more of) the property.
        control: the highest area of any unit, in either direction, with the property shifted.
        searched: the area on the first half, by which the unit was chosen.
    """

    unit: Unit
    follows: str
    area: float
    rises: bool
    control: float
    searched: float

    @property
    def found(self) -> bool:
        """Whether the unit agrees with the property better than any unit did with any shift of it."""
        return self.area > self.control

    def to_json(self) -> dict[str, Any]:
        """A value for programs, under the names that the documentation uses."""
        return {
            "unit": str(self.unit),
            "property": self.follows,
            "area": self.area,
            "control": self.control,
            "found": self.found,
            "rises": self.rises,
            "searched_area": self.searched,
        }


@torch.no_grad()
def read_units(
    model: CharRNN,
    ids: NDArray[Any],
    *,
    shown: tuple[int, int] = (0, 0),
    top: int = 8,
    chunk: int = 512,
    progress: OnRead | None = None,
) -> Atlas:
    """Reads a text as one stream, in chunks, and keeps every unit's value: U·T numbers of two bytes.

    Args:
        model: the network.
        ids: the text, -1 for what the vocabulary does not hold.
        shown: (start, end) of the positions for which the most probable next symbols are kept.
        top: how many of the most probable next symbols are kept for each of those.
        chunk: characters read in one call.
        progress: called with the number of characters after each chunk.

    >>> from charlm.recurrent.model import RNNConfig
    >>> from charlm.text.vocab import Vocab
    >>> model = CharRNN(Vocab.of("abc"), RNNConfig(model="gru", hidden=4, layers=2))
    >>> atlas = read_units(model, np.array([0, 1, 2, 0, 1]), shown=(1, 3), top=2)
    >>> atlas.values_UT.shape, [item.gate for item in atlas.gates], atlas.top_SK.shape
    ((8, 5), ['r', 'z', 'r', 'z'], (2, 2))
    """
    ids = np.asarray(ids, dtype=np.int64)
    if len(ids) < 1:
        raise TextError("a text without a character shows nothing of a network's units")
    units = _units_of(model)
    values_UT = np.empty((len(units), len(ids)), dtype=np.float16)
    nearly: dict[tuple[int, str], Tensor] = {}  # at how many positions each gate is nearly closed, and nearly open
    tops: list[tuple[Tensor, Tensor]] = []
    state = model.initial_state(1)
    table = None if model.embedding is None else model.embedding.weight
    for start in range(0, len(ids), chunk):
        ids_TB = torch.from_numpy(ids[start : start + chunk]).to(model.device).unsqueeze(-1)
        end = start + len(ids_TB)
        layers, after = read_layers(model.stack, ids_TB, state, table)
        logp_TBV, kept = model.predicted(layers[-1]["h"], ids_TB, state)
        state = {**after, **kept}
        signals: list[Tensor] = []
        for number, layer in enumerate(layers):
            for name, found_TBH in layer.items():
                if name in ("h", "c"):
                    signals.append(found_TBH.tanh() if name == "c" else found_TBH)
                else:
                    counts_2H = torch.stack([(found_TBH < 0.1).sum((0, 1)), (found_TBH > 0.9).sum((0, 1))])
                    nearly[number, name] = nearly.get((number, name), 0) + counts_2H.cpu().double()
        values_UT[:, start:end] = torch.cat(signals, -1)[:, 0].t().to(torch.float16).cpu().numpy()
        a, b = max(start, shown[0]), min(end, shown[1])
        if a < b:
            logp_SV = logp_TBV[a - start : b - start, 0]
            tops.append(logp_SV.exp().topk(min(top, logp_SV.shape[-1])))
        if progress is not None:
            progress(end - start)
    tops = tops or [(torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.int64))]
    chance, best = (torch.cat(parts).cpu().numpy() for parts in zip(*tops, strict=True))
    shares = {kind: (counts / len(ids)).numpy() for kind, counts in nearly.items()}
    return Atlas(
        ids=ids,
        units=units,
        values_UT=values_UT,
        gates=tuple(Saturation(layer=n, gate=gate, left_H=x[0], right_H=x[1]) for (n, gate), x in shares.items()),
        first=shown[0],
        top_SK=best,
        chance_SK=chance,
    )


def signals_of(cell: Cell) -> tuple[str, ...]:
    """What is read of each unit of a layer: its output, and of an LSTM its cell state."""
    return ("h", "c") if isinstance(cell, LSTMCell) else ("h",)


def _units_of(model: CharRNN) -> tuple[Unit, ...]:
    units: list[Unit] = []
    for layer in range(model.stack.layers):
        cell = model.stack.cell(layer)
        for signal in signals_of(cell):
            units += [Unit(layer, number, signal) for number in range(cell.state_width(signal))]
    return tuple(units)


GATE_WORDS = {"i": "input gate", "f": "forget gate", "o": "output gate", "r": "reset gate", "z": "update gate"}
"""What the gates are called: those of an LSTM, then those of a GRU."""

_COLUMNS, _ROWS = 76, 5
_LETTER: Any = {"ha": "center", "va": "center", "family": "monospace", "fontsize": 8, "parse_math": False}


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
    first = next((n + 1 for n, symbol in enumerate(symbols[: len(symbols) // 2]) if symbol == "\n"), 0)
    symbols = symbols[first:]  # from the first line that is whole, where one begins soon and leaves enough
    rows = rows_of(symbols)
    names = sorted({item.gate for item in gates}, key=list(GATE_WORDS).index)
    heights = [0.25 * len(rows) + 0.45] * len(painted) + [3.2] * bool(names)
    figure = new_figure(9, sum(heights) + 0.5)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (label, values_T) in zip(parts, painted, strict=False):
        _draw_text(part, symbols, rows, label, values_T[first:])
    if names:
        _draw_gates(parts[-1], names, gates)
    figure.suptitle(title, parse_math=False)
    return figure


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
            axes.text(column, row, visible(symbol), color="white" if dark else "black", **_LETTER)
    image = axes.imshow(grid, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    key = part.colorbar(image, ax=axes, ticks=[-largest, 0, largest], aspect=8, pad=0.01, fraction=0.04)
    key.ax.set_yticklabels([f"{-largest:.2f}", "0", f"{largest:.2f}"], fontsize=7)
    axes.set_title(label, fontsize=9, loc="left", parse_math=False)
    axes.set_axis_off()


def gate_charts(gates: Sequence[Saturation]) -> list[dict[str, Any]]:
    """For each kind of gate the points (layer, unit, share nearly closed, share nearly open) of a scatter plot."""
    charts = []
    for gate in dict.fromkeys(item.gate for item in gates):
        rows = [item for item in gates if item.gate == gate]
        points = [
            (item.layer, unit, float(left), float(right))
            for item in rows
            for unit, (left, right) in enumerate(zip(item.left_H, item.right_H, strict=True))
        ]
        means = [(item.layer, float(item.left_H.mean()), float(item.right_H.mean())) for item in rows]
        charts.append({"gate": gate, "words": GATE_WORDS[gate], "points": points, "means": means})
    return charts


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
