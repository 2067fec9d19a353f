"""What the hidden units of a network do over a text: their values, and how often gates are nearly closed or open.

Every unit's output, an LSTM's cell state as tanh(c), and the saturation of gates, as in Karpathy, Johnson and Fei-Fei
(2015), "Visualizing and Understanding Recurrent Networks". Kernels return the outputs of a layer alone. As the outputs
of all steps are known, the gates of all steps follow from one product (`trace`), whichever kernel ran the layer.

Axes: T steps or positions, B lanes, I inputs, P outputs, H hidden units of a layer, U units (rows of the atlas),
S positions shown, K symbols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import OptionError, TextError
from charlm.lm.interface import OnRead
from charlm.nn.cells import Cell, GRUCell, LSTMCell
from charlm.nn.kernels import backend
from charlm.nn.stack import Stack, StackState
from charlm.recurrent.model import CharRNN

GATES: dict[str, tuple[str, ...]] = {"lstm": ("i", "f", "o"), "gru": ("r", "z"), "rnn": ()}
"""The gates with values between 0 and 1, by the name of the cell and in the order of its weights."""


def trace(
    cell: Cell, x: Tensor, y_TBP: Tensor, state: tuple[Tensor, ...], table: Tensor | None = None
) -> dict[str, Tensor]:
    """The gates of a layer at each step, each [T, B, H], by the formulas in `charlm.nn.cells`.

    Args:
        cell: the layer.
        x: what it read: dense [T, B, I], or ids [T, B].
        y_TBP: what it gave.
        state: its state before the first step.
        table: an embedding that ids are looked up in; None for one-hot.

    Returns:
        For an LSTM `i`, `f`, `o`, and the cell state as `c`; for a GRU `r`, `z`; for the simple cell nothing.

    >>> cell = LSTMCell(1, 1, bias=False)
    >>> for weights in cell.parameters(): _ = weights.data.fill_(0.0)
    >>> state = torch.zeros(1, 1), torch.ones(1, 1)  # every gate is 1/2, so c' = c / 2
    >>> {name: gate.item() for name, gate in trace(cell, torch.ones(1, 1, 1), torch.zeros(1, 1, 1), state).items()}
    {'i': 0.5, 'f': 0.5, 'o': 0.5, 'c': 0.5}
    """
    given = cell.input_gates(x) if x.is_floating_point() else cell.gathered_gates(x, table)
    before_TBP = torch.cat([state[0].unsqueeze(0), y_TBP[:-1]])
    carried = F.linear(before_TBP, cell.weight_hh, cell.bias_hh)
    if isinstance(cell, GRUCell):
        r_TBH, z_TBH = torch.sigmoid(given + carried).chunk(3, -1)[:2]
        return {"r": r_TBH, "z": z_TBH}
    if not isinstance(cell, LSTMCell):
        return {}
    i_TBH, f_TBH, g_TBH, o_TBH = (given + carried).chunk(4, -1)
    i_TBH, f_TBH, o_TBH = torch.sigmoid(i_TBH), torch.sigmoid(f_TBH), torch.sigmoid(o_TBH)
    written_TBH = i_TBH * torch.tanh(g_TBH)
    c_BH, kept = state[1], []
    for written_BH, f_BH in zip(written_TBH, f_TBH, strict=True):
        c_BH = torch.addcmul(written_BH, f_BH, c_BH)
        kept.append(c_BH)
    return {"i": i_TBH, "f": f_TBH, "o": o_TBH, "c": torch.stack(kept)}


def read_layers(
    stack: Stack, x: Tensor, state: StackState, table: Tensor | None = None
) -> tuple[list[dict[str, Tensor]], StackState]:
    """Runs a stack as it runs when it is not training, and returns what happened in every layer.

    Args:
        stack: layers that read in one direction.
        x: dense input [T, B, I], or ids [T, B].
        state: as from `initial_state`.
        table: an embedding [V, I] for ids.

    Returns:
        For each layer its outputs as `h` [T, B, P] and what `trace` finds; and the state after the last step.

    >>> stack = Stack("gru", inputs=3, hidden=4, layers=2)
    >>> layers, state = read_layers(stack, torch.tensor([[0], [2]]), stack.initial_state(1))
    >>> [sorted(layer) for layer in layers], layers[1]["h"].shape
    ([['h', 'r', 'z'], ['h', 'r', 'z']], torch.Size([2, 1, 4]))
    """
    if len(stack.directions) != 1:
        raise OptionError("only layers that read in one direction can be looked into while they read")
    run = backend(stack.backend)
    layers: list[dict[str, Tensor]] = []
    after: StackState = {}
    for layer in range(stack.layers):
        cell = stack.cell(layer)
        before = tuple(state[f"{name}{layer}"] for name in cell.states)
        y_TBP, final = run(cell, x, before, table, None, None)
        layers.append({"h": y_TBP, **trace(cell, x, y_TBP, before, table)})
        after |= {f"{name}{layer}": tensor for name, tensor in zip(cell.states, final, strict=True)}
        x, table = y_TBP, None
    return layers, after


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
    tally = _Tally(model)
    tops: list[tuple[torch.Tensor, torch.Tensor]] = []
    state = model.initial_state(1)
    table = None if model.embedding is None else model.embedding.weight
    for start in range(0, len(ids), chunk):
        ids_TB = torch.from_numpy(ids[start : start + chunk]).to(model.device).unsqueeze(-1)
        end = start + len(ids_TB)
        layers, after = read_layers(model.stack, ids_TB, state, table)
        logp_TBV, kept = model.predicted(layers[-1]["h"], ids_TB, state)
        state = {**after, **kept}
        values_UT[:, start:end] = _values(layers).to(torch.float16).cpu().numpy()
        tally.add(layers)
        a, b = max(start, shown[0]), min(end, shown[1])
        if a < b:
            logp_SV = logp_TBV[a - start : b - start, 0]
            tops.append(logp_SV.exp().topk(min(top, logp_SV.shape[-1])))
        if progress is not None:
            progress(end - start)
    chance, best = (torch.cat(parts).cpu().numpy() for parts in zip(*tops, strict=True)) if tops else _NOTHING
    return Atlas(
        ids=ids,
        units=units,
        values_UT=values_UT,
        gates=tally.shares(len(ids)),
        first=shown[0],
        top_SK=best,
        chance_SK=chance,
    )


_NOTHING = (np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int64))


def _units_of(model: CharRNN) -> tuple[Unit, ...]:
    units: list[Unit] = []
    for layer in range(model.stack.layers):
        cell = model.stack.cell(layer)
        for signal in cell.states:
            units += [Unit(layer, number, signal) for number in range(cell.state_width(signal))]
    return tuple(units)


def _values(layers: Sequence[Mapping[str, torch.Tensor]]) -> torch.Tensor:
    """All units' values [U, T], in the order of `_units_of`."""
    rows = []
    for layer in layers:
        rows.append(layer["h"][:, 0])
        if "c" in layer:
            rows.append(layer["c"][:, 0].tanh())
    return torch.cat(rows, dim=-1).t()


class _Tally:
    """Counts how often each gate is nearly closed or open."""

    def __init__(self, model: CharRNN) -> None:
        names = GATES[model.config.model]
        self.counts = {
            (layer, gate): torch.zeros(2, model.config.hidden, dtype=torch.float64)
            for layer in range(model.stack.layers)
            for gate in names
        }

    def add(self, layers: Sequence[Mapping[str, torch.Tensor]]) -> None:
        for layer, gate in self.counts:
            values_TH = layers[layer][gate][:, 0]
            self.counts[layer, gate] += torch.stack([(values_TH < 0.1).sum(0), (values_TH > 0.9).sum(0)]).cpu()

    def shares(self, length: int) -> tuple[Saturation, ...]:
        found = []
        for (layer, gate), counts in self.counts.items():
            left_H, right_H = (counts / length).numpy()
            found.append(Saturation(layer=layer, gate=gate, left_H=left_H, right_H=right_H))
        return tuple(found)
