"""Counts by order, read off a suffix index: for every history that occurs what followed it and how often.

A node at depth n is a string of n symbols that occurs, numbered in sorted order. The level n has one history
for each node at depth n and one event for each node at depth n + 1, so the number of an event of level n is
the number of a history of level n + 1, and following a text from node to node needs no search in the text.

Axes: H histories, E events, N places of a text.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.ngrams.strings import Packing, Strings, added_up
from charlm.text.vocab import smallest_dtype

UNSEEN = -1
"""In place of a node: the string never occurs, or is longer than what has been read."""

Nodes = NDArray[np.int32]

_FEW = 8  # pairs looked up one by one


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """The counts of one order n.

    Args:
        order: n, symbols of history.
        first_H: int32 [H + 1]; the events of history h are numbers first[h] to first[h + 1] (excluded), by id.
        id_E: the id that each event adds to its history.
        count_E: how often it does; int32, or int64 for a long text. At order 0 the line ends that a split of lines
            puts before its spans as context are not counted.
        place_E: int32, the first sorted suffix that begins with history and id; empty for a level from tables.
    """

    order: int
    first_H: NDArray[np.int32]
    id_E: NDArray[Any]
    count_E: NDArray[Any]
    place_E: NDArray[np.int32]

    @property
    def events(self) -> int:
        """Distinct strings of n + 1 symbols."""
        return len(self.id_E)

    @cached_property
    def types_H(self) -> NDArray[np.int32]:
        """How many different symbols follow each history; 0 for one that stands at a span's end only."""
        return np.diff(self.first_H)

    @cached_property
    def history_E(self) -> NDArray[np.int32]:
        """The history of each event."""
        return np.repeat(np.arange(len(self.types_H), dtype=np.int32), self.types_H)

    def sums(self, values_E: NDArray[Any]) -> NDArray[np.float64]:
        """Sums over the events of each history."""
        found = np.bincount(self.history_E, weights=values_E, minlength=len(self.types_H))
        return np.asarray(found, dtype=np.float64)

    @cached_property
    def total_H(self) -> NDArray[np.int64]:
        """How often each history is followed by anything."""
        ends = np.concatenate([[0], np.cumsum(self.count_E, dtype=np.int64)])
        total: NDArray[np.int64] = ends[self.first_H[1:]] - ends[self.first_H[:-1]]
        return total

    @cached_property
    def best_H(self) -> NDArray[np.int32]:
        """The most frequent event of each history, the lower id among equals; -1 where it has none."""
        best = np.full(len(self.types_H), -1, dtype=np.int32)
        some = np.flatnonzero(self.types_H)
        if not len(some):
            return best
        most = np.maximum.reduceat(self.count_E, self.first_H[some])
        top = np.flatnonzero(self.count_E == np.repeat(most, self.types_H[some]))[::-1]
        best[self.history_E[top]] = top  # written from the back, so that the first one stays
        return best

    def child(self, history_N: Nodes, id_N: NDArray[Any]) -> Nodes:
        """The event of each (history, id), `UNSEEN` where there is none or the history is unseen."""
        if not self.events:
            return np.full(len(history_N), UNSEEN, dtype=np.int32)
        if len(history_N) <= _FEW:
            pairs = zip(history_N.tolist(), id_N.tolist(), strict=True)
            return np.array([self.child_of(history, id) for history, id in pairs], dtype=np.int32)
        low = self.first_H[:-1][history_N]  # history -1 picks some history; it is masked below
        high = self.first_H[1:][history_N]
        active = np.flatnonzero((high - low > 1) & (history_N >= 0))
        while len(active):
            middle = (low[active] + high[active]) >> 1
            below = self.id_E[middle] <= id_N[active]
            low[active[below]] = middle[below]
            high[active[~below]] = middle[~below]
            active = active[high[active] - low[active] > 1]
        found = np.minimum(low, np.int32(self.events - 1))
        right = (self.id_E[found] == id_N) & (low < high) & (history_N >= 0)
        return np.where(right, found, np.int32(UNSEEN))

    def child_of(self, history: int, id: int) -> int:
        """The same for one pair, without the cost of preparing for many."""
        if history < 0:
            return UNSEEN
        low, high = int(self.first_H[history]), int(self.first_H[history + 1])
        found = low + int(np.searchsorted(self.id_E[low:high], id)) if id >= 0 else high
        return found if found < high and self.id_E[found] == id else UNSEEN


class Levels(abc.ABC):
    """The levels of a text, by order.

    Args:
        context_V: int64 [V], how many spans begin with each symbol where another span counts it: here it is a history,
            but no event of order 0.
    """

    context_V: NDArray[np.int64]

    @abc.abstractmethod
    def __getitem__(self, order: int) -> Level:
        """The level of an order."""

    @abc.abstractmethod
    def suffix(self, order: int) -> Nodes:
        """For each event of a level of order 1 or more, the event one level down without the first symbol."""

    @abc.abstractmethod
    def begins(self, depth: int) -> NDArray[Any]:
        """The first `depth` codes (id plus 1) of each span, 0 behind a shorter one; [spans, depth]."""

    def openings(self, order: int) -> list[Nodes]:
        """The strings that begin spans: item d, 0..order + 1, has a node for every span of d symbols or more."""
        begins = self.begins(order + 1)
        node = np.zeros(len(begins), dtype=np.int32)
        found = [node]
        for depth in range(order + 1):
            long = begins[:, depth] > 0
            begins = begins[long]
            node = self[depth].child(node[long], begins[:, depth].astype(np.int64) - 1)
            found.append(node)
        return found

    def walk(self, ids_N: NDArray[Any], age_N: NDArray[np.int64], depth: int) -> Iterator[tuple[Nodes, Nodes]]:
        """Follows a text: for each order below `depth` the history before each place, and the event there.

        Args:
            ids_N: ids of one or more stretches of text, one after the other.
            age_N: how many symbols of its stretch have been read at each place, itself included; 1 at a beginning.
            depth: how many orders.
        """
        node = np.zeros(len(ids_N), dtype=np.int32)
        for order in range(depth):
            before = np.zeros_like(node)
            if order:
                before[1:] = node[:-1]
                before[age_N <= order] = UNSEEN
            node = self[order].child(before, ids_N)
            yield before, node

    def nodes(self, ids_N: NDArray[Any], age_N: NDArray[np.int64], depth: int) -> list[Nodes]:
        """Item n, 0..depth, is the node of the n symbols that end at each place, itself included; see `walk`."""
        return [np.zeros(len(ids_N), dtype=np.int32), *(event for _, event in self.walk(ids_N, age_N, depth))]


class IndexLevels(Levels):
    """The levels of a `SuffixIndex`, made one after the other as they are asked for, and kept."""

    def __init__(self, index: Any) -> None:
        self._index, self.context_V = index, index.context
        self._levels: list[Level] = []
        self._suffixes: dict[int, Nodes] = {}
        self._ended = np.zeros(0, dtype=np.int32)  # sorted suffixes too short to have an event at this order

    def __getitem__(self, order: int) -> Level:
        while len(self._levels) <= order:
            self._levels.append(self._make(len(self._levels)))
        return self._levels[order]

    def _make(self, order: int) -> Level:
        index = self._index
        place = np.flatnonzero(index.lcp <= order).astype(np.int32)
        count = np.diff(place, append=np.int32(len(index)))
        alive = np.ones(len(place), dtype=np.bool_)
        alive[np.searchsorted(place, self._ended)] = False
        place, count = place[alive], count[alive]
        codes = index.codes.take(index.suffixes[place] + np.int32(order), mode="clip")
        ends = codes == 0
        if ends.any():
            self._ended = np.union1d(self._ended, place[ends]).astype(np.int32)
            place, count, codes = place[~ends], count[~ends], codes[~ends]
        begins = self._levels[order - 1].place_E if order else np.zeros(1, dtype=np.int32)
        first = np.append(np.searchsorted(place, begins), len(place))
        level = Level(
            order=order,
            first_H=first.astype(np.int32),
            id_E=index.ids_of(codes),
            count_E=count.astype(np.int32),
            place_E=place,
        )
        return level if order else without_context(level, self.context_V)

    def suffix(self, order: int) -> Nodes:
        """For each event of a level of order 1 or more, the event one level down without the first symbol."""
        if order not in self._suffixes:
            index, place = self._index, self[order].place_E
            shorter = index.places[index.suffixes[place] + np.int32(1)]
            found = np.searchsorted(self[order - 1].place_E, shorter, side="right") - 1
            self._suffixes[order] = found.astype(np.int32)
        return self._suffixes[order]

    def begins(self, depth: int) -> NDArray[Any]:
        """See `Levels.begins`."""
        index, alive = self._index, np.arange(len(self._index.starts))
        found = np.zeros((len(alive), depth), dtype=smallest_dtype(index.symbols + 1))
        for offset in range(depth):
            codes = index.codes[index.starts[alive] + offset]
            alive, codes = alive[codes > 0], codes[codes > 0]
            found[alive, offset] = index.ids_of(codes).astype(np.int64) + 1
        return found


class Counts(Protocol):
    """What estimators and models read: a `SuffixIndex`, or the tables of one model's orders."""

    def __len__(self) -> int:
        """How many characters were counted."""

    @property
    def symbols(self) -> int:
        """Size of the vocabulary, V."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""

    @property
    def levels(self) -> Levels:
        """The counts by order."""

    def followers(self, history: Any) -> list[tuple[int, int]]:
        """What followed a history, as (id, count) by id; empty where nothing ever did."""

    def save(self, directory: Path) -> None:
        """Writes what is stored, each file whole or not at all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelBlocks:
    """The strings of several models' counts, in pieces, as `Blocks` of a count past memory.

    A string ended as many spans as its count exceeds the counts of what followed it.

    Args:
        counts: of each model.
        tables_V: the new id of each of its ids.
        packing: of the new strings.
        size: strings in a piece.
    """

    counts: Sequence[Counts]
    tables_V: Sequence[NDArray[np.int64]]
    packing: Packing
    size: int

    @cached_property
    def _pieces(self) -> list[tuple[int, int, int]]:
        """Model, order of the level, and first event of each piece."""
        return [
            (model, order, at)
            for model, counts in enumerate(self.counts)
            for order in range(self.packing.depth)
            for at in range(0, counts.levels[order].events, self.size)
        ]

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, number: int) -> Strings:
        model, order, at = self._pieces[number]
        levels, table_V = self.counts[model].levels, self.tables_V[model]
        level = levels[order]
        event = np.arange(at, min(at + self.size, level.events))
        count = level.count_E[event].astype(np.int64)
        if order == 0:
            count += levels.context_V[level.id_E[event]]
        if order < self.packing.depth - 1:  # those that were followed by anything are part of longer strings
            count -= pick(levels[order + 1].total_H, event)
        event, count = event[count > 0], count[count > 0]
        words = [np.zeros(len(event), dtype=np.uint64) for _ in range(self.packing.words)]
        for depth in range(order, -1, -1):
            level = levels[depth]
            self.packing.put(words, depth, (table_V[level.id_E[event]] + 1).astype(np.uint64))
            event = np.searchsorted(level.first_H, event, side="right") - 1
        return added_up(words, count)

    def openings(self) -> NDArray[Any]:
        """See `Levels.begins`; of all models, in the new codes."""
        found = []
        for counts, table_V in zip(self.counts, self.tables_V, strict=True):
            codes = np.append(0, table_V + 1).astype(smallest_dtype(self.packing.symbols + 1))
            found.append(codes[counts.levels.begins(self.packing.depth)])
        return np.concatenate(found)

    def context(self) -> NDArray[np.int64]:
        """See `Levels`; of all models together, int64 [V]."""
        context_V = np.zeros(self.packing.symbols, np.int64)
        for counts, table_V in zip(self.counts, self.tables_V, strict=True):
            context_V[table_V] += counts.levels.context_V
        return context_V


def without_context(level: Level, context_V: NDArray[np.int64]) -> Level:
    """The level of order 0, in which every symbol is counted, without those that another span counts.

    A symbol that stands nowhere else keeps its event, with a count of 0, as it is a history of the level above.
    For `context_V` see `Levels`.
    """
    return replace(level, count_E=(level.count_E - context_V[level.id_E]).astype(level.count_E.dtype))


def pick(values: NDArray[Any], number_N: NDArray[Any]) -> NDArray[Any]:
    """The values of numbered histories or events, 0 where the number is `UNSEEN`.

    >>> pick(np.array([5, 6]), np.array([1, -1])).tolist()
    [6, 0]
    """
    if not len(values):
        return np.zeros(len(number_N), dtype=values.dtype)
    found: NDArray[Any] = np.where(number_N >= 0, values[number_N], values.dtype.type(0))
    return found
