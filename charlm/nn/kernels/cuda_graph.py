"""Recording work on a GPU and playing it again in one launch: all that knows of CUDA's graphs."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import torch

__all__ = ["CudaGraph", "Graph"]

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
