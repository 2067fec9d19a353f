"""Recording work on a GPU and playing it again in one launch: all that knows of CUDA's graphs.

Generation on a GPU by chunks of steps that are recorded once: layers, head and draw, nothing read back between.

A chunk is plain torch and runs anywhere; `cuda_graph` records it. Axes: T steps, B lanes, G gates, V symbols.
"""

from __future__ import annotations

import abc
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charlm.nn.cells import Cell
from charlm.nn.kernels.reference import input_rows

Body = Callable[[], None]


class Graph(abc.ABC):
    """Runs a callable, records it, plays the record. The callable reads and writes the same tensors each time."""

    @abc.abstractmethod
    def warm(self, body: Body) -> None:
        """Runs it as it will be recorded."""

    @abc.abstractmethod
    def capture(self, body: Body) -> None:
        """Records it without running it, in place of an earlier record."""

    @abc.abstractmethod
    def replay(self) -> None:
        """Plays the record."""


class CudaGraph(Graph):
    """A CUDA graph.

    Args:
        generators: sources of random numbers that the callable draws from, which have to move on with each replay.
    """

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self._generators = generators
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def warm(self, body: Body) -> None:
        """Runs it on the stream of the recording."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            body()
        torch.cuda.current_stream().wait_stream(self._stream)

    def capture(self, body: Body) -> None:
        """Records it."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._stream):
            body()
        self._graph = graph

    def replay(self) -> None:
        """Plays the record on the current stream, without waiting for it."""
        assert self._graph is not None
        self._graph.replay()


CHUNK = 32
"""Steps of a record."""
Draw = Callable[[Tensor, Tensor], Tensor]
"""(logp_BV, noise_B) -> ids_B, without waiting for the device."""
Layers = list[tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What generates.

    Args:
        cells: one a layer, from the bottom.
        table: the embedding that ids are looked up in; None for one-hot.
        head: the map to V logits.
    """

    cells: list[Cell]
    table: Tensor | None
    head: nn.Linear

    def addresses(self) -> tuple[int, ...]:
        """Where its weights lie: a record reads them there."""
        modules = (*self.cells, self.head)
        table = 0 if self.table is None else self.table.data_ptr()
        return (table, *(p.data_ptr() for module in modules for p in module.parameters()))


def chunk(
    network: Network, draw: Draw, ids_B: Tensor, layers: Layers, noise_TB: Tensor
) -> tuple[Tensor, Tensor, Layers]:
    """Draws a symbol a lane and step.

    Args:
        network: what generates.
        draw: how a symbol is drawn.
        ids_B: the symbols last seen and not yet read; -1 for an unknown one.
        layers: the state of each layer.
        noise_TB: a number in [0, 1) for each draw, on the network's device.

    Returns:
        The drawn ids [T, B], the log-probability of each, and the state in which the last has not been read.
    """
    first, *above = network.cells
    rows = input_rows(first, network.table, first.bias_ih)  # anew in each chunk: the weights may have changed
    drawn, logps = [], []
    for noise_B in noise_TB:
        gates_BG = rows[torch.where(ids_B < 0, len(rows) - 1, ids_B)]
        after = [first.step(gates_BG, layers[0])]
        for cell, state in zip(above, layers[1:], strict=True):
            after.append(cell.step(cell.input_gates(after[-1][0]), state))
        layers = after
        logp_BV = network.head(layers[-1][0]).log_softmax(-1)
        ids_B = draw(logp_BV, noise_B)
        drawn.append(ids_B)
        logps.append(logp_BV.gather(-1, ids_B.unsqueeze(-1)).squeeze(-1))
    return torch.stack(drawn), torch.stack(logps), layers


class Chunks:
    """Chunks of one network for one number of lanes and one way to draw, through a record.

    Args:
        network: what generates.
        draw: how a symbol is drawn.
        like: the state of each layer, of the shapes that will come.
        graph: records and plays.
        size: steps of a chunk.
    """

    def __init__(self, network: Network, draw: Draw, like: Layers, graph: Graph, size: int = CHUNK) -> None:
        self.network, self.draw, self.graph, self.size = network, draw, graph, size
        lanes, device = len(like[0][0]), like[0][0].device
        self._layers = [tuple(tensor.clone() for tensor in layer) for layer in like]
        self._ids = torch.zeros(lanes, dtype=torch.int64, device=device)
        self._noise = torch.zeros(size, lanes, dtype=torch.float64, device=device)
        self._drawn = torch.zeros(size, lanes, dtype=torch.int64, device=device)
        self._logp = like[0][0].new_zeros(size, lanes)
        self._warm = self._recorded = False

    def generate(self, ids_B: Tensor, layers: Layers, noise_TB: Tensor) -> tuple[Tensor, Tensor, Layers]:
        """Like `chunk`, for any number of steps; those behind the last whole chunk are run as they are."""
        self._put(ids_B, layers)
        noise_TB = noise_TB.to(self._noise.device, torch.float64)
        whole = len(noise_TB) - len(noise_TB) % self.size
        drawn, logps = [], []
        for begun in range(0, whole, self.size):
            self._noise.copy_(noise_TB[begun : begun + self.size])
            self._run()
            drawn.append(self._drawn.clone())
            logps.append(self._logp.clone())
        after = [tuple(tensor.clone() for tensor in layer) for layer in self._layers]
        if whole < len(noise_TB):
            rest, logp, after = chunk(self.network, self.draw, self._ids.clone(), after, noise_TB[whole:])
            drawn.append(rest)
            logps.append(logp)
        return torch.cat(drawn), torch.cat(logps), after

    def _put(self, ids_B: Tensor, layers: Layers) -> None:
        self._ids.copy_(ids_B)
        for ours, given in zip(self._layers, layers, strict=True):
            for buffer, tensor in zip(ours, given, strict=True):
                buffer.copy_(tensor)

    def _run(self) -> None:
        """One chunk: the first is run, the second recorded, and from there on the record is played."""
        if not self._warm:
            self.graph.warm(self._body)
            self._warm = True
            return
        if not self._recorded:
            self.graph.capture(self._body)
            self._recorded = True
        self.graph.replay()

    def _body(self) -> None:
        drawn, logp, after = chunk(self.network, self.draw, self._ids, self._layers, self._noise)
        self._drawn.copy_(drawn)
        self._logp.copy_(logp)
        self._put(drawn[-1], after)


_kept: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, Chunks]] = weakref.WeakKeyDictionary()


def generate_in_graphs(
    model: nn.Module,
    network: Network,
    draw: Draw,
    rule: Hashable,
    ids_B: Tensor,
    layers: Layers,
    noise_TB: Tensor,
    make: Callable[[], Graph] = CudaGraph,
) -> tuple[Tensor, Tensor, Layers]:
    """Like `chunk`, with the last record of a model kept for the next call.

    Args:
        model: whose records are kept; a record ends with it.
        network, draw, ids_B, layers, noise_TB: see `chunk`.
        rule: stands for `draw` when calls are compared.
        make: makes a graph.
    """
    key = (rule, len(ids_B), network.addresses())
    if model not in _kept or _kept[model][0] != key:
        _kept[model] = key, Chunks(network, draw, layers, make())
    return _kept[model][1].generate(ids_B, layers, noise_TB)
