"""The recurrent cells as their formulas, with torch.nn's parameter names, shapes and gate order.

Axes: B lanes, I inputs, H hidden units, P outputs of the projection (P = H without one), G gates (1, 3 or 4).
A cell works in two halves, so that the first can be done for all steps of a sequence in one product:

    gates_BGH = W_ih x_BI + b_ih          `input_gates`
    state'    = f(gates_BGH, state)       `step`

A cell of one's own is a subclass of `Cell`; defining the class registers it under its name.
"""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.errors import OptionError

CELLS: dict[str, type[Cell]] = {}
"""Every cell that is defined in this process, by the name that the command line and the checkpoints use."""

_OPTIONAL = ("weight_hh", "bias_ih", "bias_hh", "weight_hr")  # None where `shapes` leaves them out


class Cell(nn.Module, abc.ABC):
    """One recurrent layer's weights and its formula for one step.

    A subclass states `gates`, `states` and `step`; the weights are those of `shapes`. It trains, generates, is
    evaluated, saved and loaded through the `reference` backend, which calls `step` once a time step. Its name is the
    class attribute `name`, or else the name of the class in lower case without `cell` at its end.

    Args:
        inputs: I, the width of the input.
        hidden: H, the number of units.
        bias: whether there are `bias_ih` and `bias_hh`, both of G·H numbers.
        projection: P, the width of the output of an LSTM with projection; 0 for none.

    Raises:
        OptionError: sizes below 1, or a projection of a cell that has none.

    The weights start as torch.nn's do, uniform in ±1/√H, except where `reset_parameters` says otherwise.

    >>> class LeakyCell(Cell):  # h' = h/2 + tanh(W_ih x + b_ih + W_hh h) / 2
    ...     gates = 1
    ...     def step(self, gates_BG, state):
    ...         (h_BH,) = state
    ...         return ((h_BH + torch.tanh(gates_BG + F.linear(h_BH, self.weight_hh))) / 2,)
    >>> make_cell("leaky", 3, 4)(torch.ones(2, 3))[0].shape
    torch.Size([2, 4])
    """

    name: ClassVar[str]
    gates: ClassVar[int]
    """G: how many blocks of H numbers `step` gets from the input."""
    states: ClassVar[tuple[str, ...]] = ("h",)
    """The names of the state's tensors; the first, `h`, is also the output."""
    projects: ClassVar[bool] = False
    """Whether the output may be narrower than the units, by a matrix `weight_hr`."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    weight_hr: Tensor | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if getattr(cls.step, "__isabstractmethod__", False):
            return  # a common base of several cells
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower().removesuffix("cell") or "cell"
        taken = CELLS.get(cls.name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise OptionError(
                f"the cell name {cls.name!r} belongs to {taken.__module__}.{taken.__qualname__}: "
                f"give {cls.__qualname__} another one, as its class attribute `name`"
            )
        CELLS[cls.name] = cls

    def __init__(self, inputs: int, hidden: int, *, bias: bool = True, projection: int = 0) -> None:
        super().__init__()
        for name, value in {"inputs": inputs, "hidden": hidden}.items():
            if value < 1:
                raise OptionError(f"a recurrent cell needs at least 1 of {name}, not {value}")
        if projection and not (self.projects and 0 < projection < hidden):
            raise OptionError(f"a projection is for an LSTM and narrower than its {hidden} units, not {projection}")
        self.inputs, self.hidden, self.projection, self.bias = inputs, hidden, projection, bias
        self.outputs = projection or hidden
        shapes = self.shapes()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        for name in _OPTIONAL:
            if name not in shapes:
                self.register_parameter(name, None)
        self.reset_parameters()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by its name.

        A subclass may add some and leave out or change any but `weight_ih` [G·H, I] and `bias_ih` [G·H].
        """
        rows = self.gates * self.hidden
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, self.inputs), "weight_hh": (rows, self.outputs)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.projection:
            shapes["weight_hr"] = (self.projection, self.hidden)
        return shapes

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Uniform in ±1/√H; then each gate's recurrent square orthogonal (Saxe et al. 2014), which keeps the length of
        the state from step to step."""
        if self.weight_ih.is_meta:
            return  # only the shapes are wanted
        bound = 1 / math.sqrt(self.hidden)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
            square = self._parameters["weight_hh"]
            if square is not None and square.dim() == 2 and len(square) % self.hidden == 0:
                for gate in square.view(-1, self.hidden, square.shape[1]):
                    nn.init.orthogonal_(gate, generator=generator)

    def state_width(self, name: str) -> int:
        """How many numbers a lane keeps under this name of `states`."""
        return self.outputs if name == "h" else self.hidden

    def initial_state(self, lanes: int) -> tuple[Tensor, ...]:
        """The state before anything was read: zeros, one tensor [lanes, width] for each of `states`.

        A reset gives a lane this state again.
        """
        like = self.weight_ih
        return tuple(like.new_zeros(lanes, self.state_width(name)) for name in self.states)

    def input_gates(self, x: Tensor) -> Tensor:
        """W_ih x + b_ih, for one step [B, I] or for many [T, B, I]."""
        return F.linear(x, self.weight_ih, self.bias_ih)

    def gathered_gates(self, ids: Tensor, table: Tensor | None = None) -> Tensor:
        """The same for one-hot input, or for an embedding `table` [V, I]: a row gather, which is exact.

        An id of -1, a symbol never seen, is the input of zeros.
        """
        weights_VG = self.weight_ih.t() if table is None else table @ self.weight_ih.t()
        if self.bias_ih is not None:
            weights_VG = weights_VG + self.bias_ih
        nothing_G = self.weight_ih.new_zeros(len(self.weight_ih)) if self.bias_ih is None else self.bias_ih
        rows = torch.cat([weights_VG, nothing_G.unsqueeze(0)])
        return F.embedding(torch.where(ids < 0, len(weights_VG), ids), rows)

    def forward(self, x_BI: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
        """One step: the next state, of which the first tensor is the output."""
        return self.step(self.input_gates(x_BI), state or self.initial_state(len(x_BI)))

    @abc.abstractmethod
    def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state from W_ih x + b_ih and the state before."""


class RNNCell(Cell):
    """The simple recurrent unit (Elman 1990): h' = tanh(W_ih x + b_ih + W_hh h + b_hh).

    >>> cell = RNNCell(1, 1, bias=False).double()
    >>> _ = cell.weight_ih.data.fill_(1.0), cell.weight_hh.data.fill_(2.0)
    >>> (h,) = cell(torch.tensor([[0.5]]).double(), (torch.tensor([[0.25]]).double(),))
    >>> round(h.item(), 6)  # tanh(0.5 + 2 * 0.25)
    0.761594
    """

    gates = 1
    states = ("h",)

    def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See the class."""
        (h_BH,) = state
        return (torch.tanh(gates_BG + F.linear(h_BH, self.weight_hh, self.bias_hh)),)


class GRUCell(Cell):
    """The gated recurrent unit (Cho et al. 2014), gates in the order r, z, n, the reset after the product.

        r = σ(W_ir x + b_ir + W_hr h + b_hr)
        z = σ(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 − z) * n + z * h

    That is torch.nn's and cuDNN's form, which needs one product a step; the paper resets h before it.

    >>> cell = GRUCell(1, 1, bias=False).double()
    >>> for weights in cell.parameters(): _ = weights.data.fill_(0.0)
    >>> (h,) = cell(torch.ones(1, 1).double(), (torch.tensor([[0.5]]).double(),))
    >>> h.item()  # z = 1/2, n = 0
    0.25
    """

    gates = 3
    states = ("h",)

    def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See the class."""
        (h_BH,) = state
        r_x, z_x, n_x = gates_BG.chunk(3, -1)
        r_h, z_h, n_h = F.linear(h_BH, self.weight_hh, self.bias_hh).chunk(3, -1)
        r_BH = torch.sigmoid(r_x + r_h)
        z_BH = torch.sigmoid(z_x + z_h)
        n_BH = torch.tanh(n_x + r_BH * n_h)
        return (n_BH + z_BH * (h_BH - n_BH),)


class LSTMCell(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000), order i, f, g, o.

        i = σ(W_ii x + b_ii + W_hi h + b_hi)       f = σ(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)    o = σ(W_io x + b_io + W_ho h + b_ho)
        c' = f * c + i * g
        h' = o * tanh(c')                          with a projection: h' = W_hr (o * tanh(c'))

    >>> cell = LSTMCell(1, 1, bias=False).double()
    >>> for weights in cell.parameters(): _ = weights.data.fill_(0.0)
    >>> h, c = cell(torch.ones(1, 1).double(), (torch.zeros(1, 1).double(), torch.ones(1, 1).double()))
    >>> c.item(), round(h.item(), 6)  # f = o = 1/2: c' = 1/2, h' = tanh(1/2) / 2
    (0.5, 0.231059)
    """

    gates = 4
    states = ("h", "c")
    projects = True

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As every cell; then the forget gate's biases sum to 1, so that at first it remembers (Gers et al. 2000,
        Jozefowicz et al. 2015)."""
        super().reset_parameters(generator)
        if self.bias_ih is not None and self.bias_hh is not None:
            with torch.no_grad():
                self.bias_ih[self.hidden : 2 * self.hidden] = 1.0
                self.bias_hh[self.hidden : 2 * self.hidden] = 0.0

    def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See the class."""
        h_BP, c_BH = state
        i_BH, f_BH, g_BH, o_BH = (gates_BG + F.linear(h_BP, self.weight_hh, self.bias_hh)).chunk(4, -1)
        c_BH = torch.sigmoid(f_BH) * c_BH + torch.sigmoid(i_BH) * torch.tanh(g_BH)
        h_BH = torch.sigmoid(o_BH) * torch.tanh(c_BH)
        return (h_BH if self.weight_hr is None else F.linear(h_BH, self.weight_hr)), c_BH


def trace(
    cell: Cell, x: Tensor, y_TBP: Tensor, state: tuple[Tensor, ...], table: Tensor | None = None
) -> dict[str, Tensor]:
    """The gates of a layer at each step, each [T, B, H], from the outputs that some kernel gave.

    Args:
        cell: the layer.
        x: what it read: dense [T, B, I], or ids [T, B].
        y_TBP: what it gave.
        state: its state before the first step.
        table: an embedding that ids are looked up in; None for one-hot.

    Returns:
        For an LSTM `i`, `f`, `o`, and the cell state as `c`; for a GRU `r`, `z`; for other cells nothing.

    >>> cell = LSTMCell(1, 1, bias=False)
    >>> for weights in cell.parameters(): _ = weights.data.fill_(0.0)
    >>> state = torch.zeros(1, 1), torch.ones(1, 1)  # every gate is 1/2, so c' = c / 2
    >>> {name: gate.item() for name, gate in trace(cell, torch.ones(1, 1, 1), torch.zeros(1, 1, 1), state).items()}
    {'i': 0.5, 'f': 0.5, 'o': 0.5, 'c': 0.5}
    """
    if not isinstance(cell, GRUCell | LSTMCell):
        return {}
    given = cell.input_gates(x) if x.is_floating_point() else cell.gathered_gates(x, table)
    before_TBP = torch.cat([state[0].unsqueeze(0), y_TBP[:-1]])
    carried = F.linear(before_TBP, cell.weight_hh, cell.bias_hh)
    if isinstance(cell, GRUCell):
        r_TBH, z_TBH = torch.sigmoid(given + carried).chunk(3, -1)[:2]
        return {"r": r_TBH, "z": z_TBH}
    i_TBH, f_TBH, g_TBH, o_TBH = (given + carried).chunk(4, -1)
    i_TBH, f_TBH, o_TBH = torch.sigmoid(i_TBH), torch.sigmoid(f_TBH), torch.sigmoid(o_TBH)
    written_TBH = i_TBH * torch.tanh(g_TBH)
    c_BH, kept = state[1], []
    for written_BH, f_BH in zip(written_TBH, f_TBH, strict=True):
        c_BH = torch.addcmul(written_BH, f_BH, c_BH)
        kept.append(c_BH)
    return {"i": i_TBH, "f": f_TBH, "o": o_TBH, "c": torch.stack(kept)}


BUILT_IN = ("rnn", "gru", "lstm")
"""The names of the cells of this file, which torch has too."""


def cell_name(cell: str | type[Cell]) -> str:
    """The name under which a cell is registered, from the name itself or from the class.

    Raises:
        OptionError: no such cell is defined in this process.

    >>> cell_name(GRUCell), cell_name("lstm")
    ('gru', 'lstm')
    """
    if isinstance(cell, type) and issubclass(cell, Cell) and CELLS.get(getattr(cell, "name", "")) is cell:
        return cell.name
    return find_cell(cell).name  # type: ignore[arg-type]


def find_cell(name: str) -> type[Cell]:
    """The class of a cell, by its name.

    >>> find_cell("rnn").__name__
    'RNNCell'
    """
    if not isinstance(name, str) or name not in CELLS:
        raise OptionError(
            f"unknown cell {name!r}: choose one of {', '.join(CELLS)}, "
            "or first import the module that defines the class of this name"
        )
    return CELLS[name]


def make_cell(cell: str | type[Cell], inputs: int, hidden: int, *, bias: bool = True, projection: int = 0) -> Cell:
    """A cell by its name or class.

    >>> make_cell("gru", 3, 4).weight_hh.shape
    torch.Size([12, 4])
    """
    return find_cell(cell_name(cell))(inputs, hidden, bias=bias, projection=projection)
