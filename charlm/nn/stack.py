"""Layers of recurrent cells one above the other: dropout between them, both directions, lengths, any backend.

Axes: T steps, B lanes, I inputs, D outputs of the top layer (both directions side by side), V symbols.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from charlm.errors import OptionError
from charlm.nn.cells import BUILT_IN, Cell, GRUCell, LSTMCell, RNNCell, make_cell, trace
from charlm.nn.kernels import backend
from charlm.nn.kernels.reference import check_floats, check_lengths

StackState = dict[str, Tensor]

_TORCH: dict[type[Cell], type[nn.RNNBase]] = {RNNCell: nn.RNN, GRUCell: nn.GRU, LSTMCell: nn.LSTM}
SYMBOL_BOUND = 3.0
"""Of the first input weights where the input is a symbol; measured in benchmarks/RESULTS.md."""
DEEP_FACTOR = 4.0
"""Of the input weights of upper LSTM layers in a stack of three or more; measured there, too."""

_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class Stack(nn.Module):
    """L layers of one kind of cell.

    Args:
        cell: `rnn`, `gru`, `lstm`, or another cell's name or class.
        inputs: I, the width of the input; V for one-hot ids.
        hidden: H, units in each layer and direction.
        layers: L.
        dropout: probability of zeroing an output between two layers while training.
        variational: whether a dropout mask is the same for all steps of a call (Gal and Ghahramani 2016).
        weight_dropout: probability of zeroing a recurrent weight for all steps of a call while training
            (Wan et al. 2013; for recurrent weights Merity et al. 2018).
        bidirectional: whether a second cell a layer reads from the end.
        bias: as of the cells.
        projection: as of the LSTM cell; 0 for none.

    `backend` chooses how layers are run and may be set at any time; it changes no number beyond rounding.

    >>> stack = Stack("lstm", inputs=5, hidden=8, layers=2)
    >>> y, state = stack(torch.tensor([[0, 1], [2, 3], [4, 0]]))  # ids: T = 3, B = 2
    >>> y.shape, sorted(state)
    (torch.Size([3, 2, 8]), ['c0', 'c1', 'h0', 'h1'])
    """

    def __init__(
        self,
        cell: str | type[Cell],
        *,
        inputs: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        variational: bool = False,
        weight_dropout: float = 0.0,
        bidirectional: bool = False,
        bias: bool = True,
        projection: int = 0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise OptionError(f"a network needs at least 1 layer, not {layers}")
        for name, value in {"dropout": dropout, "weight_dropout": weight_dropout}.items():
            if not 0 <= value < 1:
                raise OptionError(f"{name} is a probability from 0 to below 1, not {value}")
        self.directions = ("", "_reverse") if bidirectional else ("",)
        self.layers, self.backend = layers, "reference"
        self.dropout, self.variational, self.weight_dropout = dropout, variational, weight_dropout
        self.cells = nn.ModuleList()
        for layer in range(layers):
            width = inputs if layer == 0 else self.width(projection or hidden)
            for _ in self.directions:
                self.cells.append(make_cell(cell, width, hidden, bias=bias, projection=projection))
        self.outputs = self.width(projection or hidden)
        if weight_dropout and "weight_hh" not in self.cell(0).shapes():
            raise OptionError(f"weight dropout is for recurrent weights `weight_hh`, which a cell {cell} has not")

    def width(self, outputs: int) -> int:
        """The width of a layer's output with all its directions."""
        return outputs * len(self.directions)

    def reset_parameters(self, generator: torch.Generator | None = None, *, symbols: bool = False) -> None:
        """Initial weights again, from this generator.

        Args:
            generator: of all that is drawn.
            symbols: whether the input is one of many symbols, one-hot or an embedding of about length 1. The input
                weights of the first layer are uniform in ±`SYMBOL_BOUND` then: one number of a row meets the input at a
                time, so that ±1/√H would let a symbol hardly be heard beside the H units of the state. From three
                layers on, those of the upper layers of an LSTM are `DEEP_FACTOR` times as large: its output
                o * tanh(c) is at first much smaller than its input, so that the third layer would hear hardly anything.
        """
        for cell in self.cells:
            cast(Cell, cell).reset_parameters(generator)
        for number in range(len(self.directions)) if symbols else ():
            with torch.no_grad():
                self.cell(0, number).weight_ih.uniform_(-SYMBOL_BOUND, SYMBOL_BOUND, generator=generator)
                for layer in range(1, self.layers if self.layers > 2 else 1):
                    if isinstance(cell := self.cell(layer, number), LSTMCell):
                        cell.weight_ih.mul_(DEEP_FACTOR)

    def cell(self, layer: int, direction: int = 0) -> Cell:
        """The cell of a layer and direction."""
        return cast(Cell, self.cells[layer * len(self.directions) + direction])

    @property
    def state_names(self) -> list[str]:
        """The names of the state's tensors: h0, h1, ..., for the LSTM with c0, c1, ...; `_reverse` for the way back."""
        ends = (f"{layer}{suffix}" for layer in range(self.layers) for suffix in self.directions)
        return [f"{name}{end}" for end in ends for name in self.cell(0).states]

    def initial_state(self, lanes: int) -> StackState:
        """The state before anything was read: of the built-in cells, zeros."""
        state = {}
        for layer in range(self.layers):
            for number, suffix in enumerate(self.directions):
                cell = self.cell(layer, number)
                for name, tensor in zip(cell.states, cell.initial_state(lanes), strict=True):
                    state[f"{name}{layer}{suffix}"] = tensor
        return state

    def check_state(self, state: Mapping[str, Tensor], lanes: int) -> StackState:
        """The state, after a check that it has every tensor, each [lanes, width] in the weights' precision.

        >>> stack = Stack("gru", inputs=3, hidden=4)
        >>> stack.check_state(stack.initial_state(2), 3)
        Traceback (most recent call last):
        ...
        charlm.errors.OptionError: the state h0 has the shape [3, 4] here, not [2, 4]
        """
        named = self._named(state)
        for layer in range(self.layers):
            for number, suffix in enumerate(self.directions):
                cell = self.cell(layer, number)
                for name in cell.states:
                    at = f"{name}{layer}{suffix}"
                    check_floats(f"the state {at}", named[at], (lanes, cell.state_width(name)), cell.weight_ih)
        return named

    def _named(self, state: Any) -> StackState:
        """The state, after a check that no tensor is missing."""
        names = self.state_names
        if not isinstance(state, Mapping) or any(name not in state for name in names):
            raise OptionError(f"the state of this stack is a dictionary of the tensors {', '.join(names)}")
        return {name: state[name] for name in names}

    def forward(
        self,
        x: Tensor,
        state: StackState | None = None,
        *,
        table: Tensor | None = None,
        resets_TB: Tensor | None = None,
        lengths_B: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, StackState]:
        """Runs all layers over a sequence.

        Args:
            x: dense input [T, B, I], or ids [T, B] (one-hot, or looked up in `table`).
            state: as from `initial_state` or an earlier call; zeros by default.
            table: an embedding [V, I] for ids.
            resets_TB: bool; a lane has its initial state again before the step where it is true (one direction only).
            lengths_B: lengths of padded lanes, a tensor or a list; outputs behind them are zero.
            generator: source of the dropout masks; torch's own by default.

        Returns:
            The outputs of the top layer [T, B, D], and the state after the last step.

        Raises:
            OptionError: an argument of another type, shape or device, or an id that is not among the V symbols.
        """
        if resets_TB is not None and len(self.directions) == 2:
            raise OptionError("a layer that reads from both ends cannot be reset on the way")
        if not isinstance(x, Tensor) or x.dim() < 2:
            raise OptionError("a stack reads a tensor: dense input [T, B, I], or ids [T, B]")
        steps, lanes = x.shape[:2]
        if lengths_B is not None:
            lengths_B = check_lengths(lengths_B, steps, lanes, self.cell(0).weight_ih.device)
        state = self.initial_state(lanes) if state is None else self._named(state)
        after: StackState = {}
        for layer in range(self.layers):
            outputs = []
            for number, suffix in enumerate(self.directions):
                cell = self._thinned(self.cell(layer, number), generator)
                before = tuple(state[f"{name}{layer}{suffix}"] for name in cell.states)
                source = reverse(x, lengths_B) if number else x
                y, final = backend(self.backend)(cell, source, before, table, resets_TB, lengths_B)
                outputs.append(reverse(y, lengths_B) if number else y)
                after |= {f"{name}{layer}{suffix}": tensor for name, tensor in zip(cell.states, final, strict=True)}
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            table = None
            if layer < self.layers - 1:
                x = dropout(x, self.dropout, self.training, generator, shared=self.variational)
        return x, after

    def _thinned(self, cell: Cell, generator: torch.Generator | None) -> Cell:
        """The cell, while training with some of its recurrent weights left out; gradients reach the whole ones."""
        if not self.training or self.weight_dropout == 0:
            return cell
        twin = copy.copy(cell)
        twin._parameters = {name: p for name, p in cell._parameters.items() if name != "weight_hh"}
        twin.__dict__["weight_hh"] = dropout(cell.weight_hh, self.weight_dropout, True, generator)
        return twin


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
    layers: list[dict[str, Tensor]] = []
    after: StackState = {}
    for layer in range(stack.layers):
        cell = stack.cell(layer)
        before = tuple(state[f"{name}{layer}"] for name in cell.states)
        y_TBP, final = backend(stack.backend)(cell, x, before, table, None, None)
        layers.append({"h": y_TBP, **trace(cell, x, y_TBP, before, table)})
        after |= {f"{name}{layer}": tensor for name, tensor in zip(cell.states, final, strict=True)}
        x, table = y_TBP, None
    return layers, after


def reverse(x: Tensor, lengths_B: Tensor | None) -> Tensor:
    """A sequence from its end to its start; padding stays behind.

    >>> reverse(torch.tensor([[1, 1], [2, 2], [3, 0]]), torch.tensor([3, 2])).tolist()
    [[3, 2], [2, 1], [1, 0]]
    """
    if lengths_B is None:
        return x.flip(0)
    t = torch.arange(len(x), device=x.device).unsqueeze(-1)
    order = torch.where(t < lengths_B, lengths_B - 1 - t, t)
    return x.gather(0, order.view(*order.shape, *[1] * (x.dim() - 2)).expand_as(x))


def _pairs(stack: Stack, module: nn.RNNBase) -> list[tuple[Tensor, Tensor]]:
    """Our parameters and the ones of a torch layer that belong together; what does not match is refused."""
    first = stack.cell(0)
    if type(first) not in _TORCH:
        raise OptionError(f"torch has no layer of the cell {first.name}: only of {', '.join(BUILT_IN)}")
    ours = (type(module), module.input_size, module.hidden_size, module.num_layers, module.bidirectional)
    theirs = (_TORCH[type(first)], first.inputs, first.hidden, stack.layers, len(stack.directions) == 2)
    if ours != theirs or module.proj_size != first.projection or module.bias != (first.bias_ih is not None):
        raise OptionError(f"{module} and this stack of {type(first).__name__}s have different shapes")
    if getattr(module, "nonlinearity", "tanh") != "tanh":
        raise OptionError("the simple recurrent cell uses tanh; this torch layer uses another function")
    pairs = []
    for layer in range(stack.layers):
        for number, suffix in enumerate(stack.directions):
            for name in _PARAMETERS:
                parameter = getattr(stack.cell(layer, number), name)
                if parameter is not None:
                    pairs.append((parameter, getattr(module, f"{name}_l{layer}{suffix}")))
    return pairs


def copy_from_torch(stack: Stack, module: nn.RNNBase) -> None:
    """Copies the weights of an `nn.RNN`, `nn.GRU` or `nn.LSTM` of the same shape into a stack."""
    with torch.no_grad():
        for ours, theirs in _pairs(stack, module):
            ours.copy_(theirs)


def to_torch(stack: Stack) -> nn.RNNBase:
    """A torch layer of the same kind and shape with a copy of the stack's weights.

    >>> type(to_torch(Stack("gru", inputs=3, hidden=4, layers=2))).__name__
    'GRU'
    """
    cell = stack.cell(0)
    if type(cell) not in _TORCH:
        raise OptionError(f"torch has no layer of the cell {cell.name}: only of {', '.join(BUILT_IN)}")
    narrower: dict[str, Any] = {"proj_size": cell.projection} if cell.projection else {}
    module = _TORCH[type(cell)](
        input_size=cell.inputs,
        hidden_size=cell.hidden,
        num_layers=stack.layers,
        bias=cell.bias_ih is not None,
        dropout=stack.dropout,
        bidirectional=len(stack.directions) == 2,
        **narrower,
    ).to(cell.weight_hh)
    with torch.no_grad():
        for ours, theirs in _pairs(stack, module):
            theirs.copy_(ours)
    return module


# -- dropout, whose randomness is an argument, so that a run can be resumed to the bit ---------------------------------


def dropout(
    x: Tensor, probability: float, training: bool, generator: torch.Generator | None = None, *, shared: bool = False
) -> Tensor:
    """Zeroes each number with this probability and scales the others by 1 / (1 − p) (Srivastava et al. 2014).

    Args:
        x: any shape.
        probability: from 0 to below 1.
        training: where false, `x` is returned as it is.
        generator: where the mask comes from; torch's own generator by default.
        shared: one mask for all of axis 0, the time: variational dropout (Gal and Ghahramani 2016).

    >>> dropout(torch.ones(3), 0.5, training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    if not training or probability == 0:
        return x
    like = x[:1] if shared else x
    mask = torch.empty_like(like, memory_format=torch.contiguous_format)
    return x * mask.bernoulli_(1 - probability, generator=generator).div_(1 - probability)


def drop_symbols(ids: Tensor, probability: float, training: bool, generator: torch.Generator | None = None) -> Tensor:
    """Makes each id -1, the input of zeros, with this probability (word dropout, Iyyer et al. 2015).

    >>> drop_symbols(torch.tensor([3, 4]), 0.5, training=False).tolist()
    [3, 4]
    """
    if not training or probability == 0:
        return ids
    dropped = torch.empty(ids.shape, device=ids.device).bernoulli_(probability, generator=generator)
    return ids.masked_fill(dropped.bool(), -1)
