"""What an estimator is, and those that look at one order alone.

All read the same levels of one suffix index.

A context is what is known before a symbol: for n = 0..order the node of its last n symbols, and how many
symbols have been read. With fewer than `order` read, every estimator uses the shorter history that is there.
Axes: N contexts, V symbols, H histories and E events of a level.
"""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.ngrams.index import MAX_ORDER
from charlm.ngrams.levels import Counts, Level, Nodes, pick
from charlm.ngrams.tables import CountTables
from charlm.text.splits import slices

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contexts:
    """What is known before each of N symbols.

    Args:
        nodes: for n = 0..order the node of the last n symbols, `UNSEEN` where they never occur.
        read_N: how many symbols of the text have been read.
    """

    nodes: Sequence[Nodes]
    read_N: NDArray[np.int64]

    def some(self, which: Any) -> Contexts:
        """The contexts that an index or a slice picks."""
        return Contexts(nodes=[node[which] for node in self.nodes], read_N=self.read_N[which])


def check_order(order: SupportsIndex) -> int:
    """An order from 0 to 32 as an int, or an error that says so; whole numbers of numpy are whole numbers, too."""
    whole = hasattr(order, "__index__") and not isinstance(order, bool)
    if not whole or not 0 <= operator.index(order) <= MAX_ORDER:
        raise OptionError(f"an order is a whole number from 0 to {MAX_ORDER}, not {order!r}")
    return operator.index(order)


class Estimator(abc.ABC):
    """Turns the counts of an index into P(symbol | history) up to one order.

    Args:
        index: of the training text.
        order: characters of history.
    """

    name: ClassVar[str]
    """What `--smoothing` calls it."""
    title: ClassVar[str]
    """What a table calls it."""
    takes: ClassVar[tuple[str, ...]] = ()
    """The parameters besides index and order."""

    def __init__(self, index: Counts, order: int) -> None:
        self.index, self.order = index, check_order(order)
        self.levels = index.levels
        self.symbols = index.symbols

    def parameters(self) -> dict[str, Any]:
        """What the estimator was made with besides index and order; JSON."""
        return {name: getattr(self, name) for name in self.takes}

    def describe(self) -> dict[str, Any]:
        """What `config.json` says of a model with this estimator; `tables` where it was counted past memory."""
        tables = {"tables": True} if isinstance(self.index, CountTables) else {}
        about = {"order": self.order, "smoothing": self.name, "parameters": self.parameters()}
        return {**about, "characters": len(self.index), **tables}

    @abc.abstractmethod
    def rows(self, contexts: Contexts, *, generating: bool = False) -> Floats:
        """P(each symbol | context), float64 [N, V]; NaN throughout where undefined.

        Args:
            contexts: nodes up to this estimator's order.
            generating: where the estimator is undefined, use the longest suffix of the history that was seen.
        """

    @abc.abstractmethod
    def targets(self, contexts: Contexts, target_N: NDArray[np.int64]) -> Floats:
        """P(one symbol | context), float64 [N]: what `rows` has there; -1 gets an arbitrary value."""

    @abc.abstractmethod
    def event_probabilities(self, order: int, *, top: bool, events: Any = slice(None)) -> Floats:
        """P(its id | its history) of the events of a level, float64.

        Args:
            order: of the level, up to this estimator's.
            top: whether the level is the highest of its model, or serves a shorter history.
            events: which ones; all by default.
        """

    def train_nats(self, order: int) -> float:
        """Nats a character on the training part itself: how much of the text a model of this order knows by heart.

        They are read off the index: every target with a full history is one occurrence of an event of the highest
        level; those near a span's beginning are read along it. NaN where the training part has no target.
        """
        levels, total, targets = self.levels, 0.0, 0
        openings = levels.openings(order)
        for shorter in range(1, order):
            p_start = self.event_probabilities(shorter, top=True, events=openings[shorter + 1])
            total += float(np.log(p_start).sum())
            targets += len(p_start)
        count_E = levels[order].count_E.astype(np.int64)
        if order == 0:  # first characters are no targets; those that are context alone are not in the counts either
            count_E = count_E + levels.context_V[levels[0].id_E] - np.bincount(openings[1], minlength=len(count_E))
        some = count_E > 0
        logp_E = np.log(self.event_probabilities(order, top=True)[some])
        total += float((count_E[some] * logp_E).sum())
        targets += int(count_E.sum())
        return -total / targets if targets else float("nan")


class Counted(Estimator):
    """An estimator that looks at one level alone: the counts of the event and of its history.

    Args:
        index: of the training text.
        order: characters of history.
        longest: use the longest history that was ever followed by anything, up to `order`, instead of exactly
            `order` symbols; with order 32 this is a model of unbounded order.
    """

    takes: ClassVar[tuple[str, ...]] = ("longest",)

    def __init__(self, index: Counts, order: int, *, longest: bool = False) -> None:
        super().__init__(index, order)
        self.longest = bool(longest)

    @abc.abstractmethod
    def of_counts(self, count: NDArray[Any], total: NDArray[Any]) -> Floats:
        """The formula: a symbol that came `count` times after a history that was followed `total` times."""

    def rows(self, contexts: Contexts, *, generating: bool = False) -> Floats:
        """See `Estimator.rows`."""
        p_NV = np.empty((len(contexts.read_N), self.symbols))
        used_N = self.used(contexts, longest=self.longest or (generating and self.name == "none"))
        for order in np.unique(used_N).tolist():
            which, level = np.flatnonzero(used_N == order), self.levels[order]
            node = contexts.nodes[order][which]
            total = pick(level.total_H, node)
            p_NV[which] = self.of_counts(np.zeros_like(total), total)[:, None]
            row, event = children(level, node)
            p_NV[which[row], level.id_E[event]] = self.of_counts(level.count_E[event], total[row])
        return p_NV

    def targets(self, contexts: Contexts, target_N: NDArray[np.int64]) -> Floats:
        """See `Estimator.targets`."""
        return self.of_counts(*self.target_counts(contexts, target_N))

    def target_counts(
        self, contexts: Contexts, target_N: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How often each symbol came after the history used in its context, and how often that was followed."""
        count_N, total_N = np.zeros((2, len(contexts.read_N)), dtype=np.int64)
        used_N = self.used(contexts, longest=self.longest)
        for order in np.unique(used_N).tolist():
            which, level = np.flatnonzero(used_N == order), self.levels[order]
            node = contexts.nodes[order][which]
            count_N[which] = pick(level.count_E, level.child(node, target_N[which]))
            total_N[which] = pick(level.total_H, node)
        return count_N, total_N

    def used(self, contexts: Contexts, *, longest: bool) -> NDArray[np.int64]:
        """The order used at each context: what was read, at most `order`; or the longest ever followed."""
        if not longest:
            return np.minimum(contexts.read_N, self.order)
        used_N = np.zeros(len(contexts.read_N), dtype=np.int64)
        for order in range(1, self.order + 1):
            used_N[pick(self.levels[order].total_H, contexts.nodes[order]) > 0] = order
        return used_N

    def event_probabilities(self, order: int, *, top: bool, events: Any = slice(None)) -> Floats:
        """See `Estimator.event_probabilities`."""
        level = self.levels[order]
        return self.of_counts(level.count_E[events], level.total_H[level.history_E[events]])


class MaximumLikelihood(Counted):
    """count(history, symbol) / count(history): unsmoothed, undefined where the history was never followed.

    The relative frequency, as in Shannon (1948) and in Goldberg's "unreasonable effectiveness of
    character-level language models" (2015).

    >>> from charlm.ngrams.index import SuffixIndex
    >>> index = SuffixIndex.build(np.array([0, 1, 0, 2, 0, 1]), np.array([[0, 6]]), symbols=3)  # abacab
    >>> estimator = MaximumLikelihood(index, 1)
    >>> after_a = Contexts(nodes=index.levels.nodes(np.array([0]), np.array([1]), 1), read_N=np.array([1]))
    >>> estimator.rows(after_a).round(3).tolist()
    [[0.0, 0.667, 0.333]]
    """

    name = "none"
    title = "maximum likelihood"

    def of_counts(self, count: NDArray[Any], total: NDArray[Any]) -> Floats:
        """count / total; NaN where total is 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(count / total, dtype=np.float64)


class AddK(Counted):
    """(count + k) / (total + k V): Lidstone's law; k = 1 is Laplace's (Chen and Goodman 1999, section 2.1).

    Args:
        index: of the training text.
        order: characters of history.
        k: what is added to every count, above 0.
        longest: see `Counted`.
    """

    name = "add-k"
    title = "add-k"
    takes = ("k", "longest")

    def __init__(self, index: Counts, order: int, *, k: float = 1.0, longest: bool = False) -> None:
        super().__init__(index, order, longest=longest)
        if not 0 < k < math.inf:
            raise OptionError(f"add-k adds a number above 0, not {k}")
        self.k = float(k)

    def of_counts(self, count: NDArray[Any], total: NDArray[Any]) -> Floats:
        """(count + k) / (total + k V)."""
        return np.asarray((count + self.k) / (total + self.k * self.symbols), dtype=np.float64)


class UniformMix(Counted):
    """(1 − weight) · maximum likelihood + weight / V, and 1 / V where maximum likelihood is undefined.

    Jelinek and Mercer's interpolation (1980) with the uniform distribution as the only other part.

    Args:
        index: of the training text.
        order: characters of history.
        weight: of the uniform distribution, between 0 and 1.
        longest: see `Counted`.
    """

    name = "uniform-mix"
    title = "maximum likelihood mixed with uniform"
    takes = ("weight", "longest")

    def __init__(self, index: Counts, order: int, *, weight: float = 0.1, longest: bool = False) -> None:
        super().__init__(index, order, longest=longest)
        if not 0 < weight < 1:
            raise OptionError(f"the weight of the uniform distribution is between 0 and 1, not {weight}")
        self.weight = float(weight)

    def of_counts(self, count: NDArray[Any], total: NDArray[Any]) -> Floats:
        """(1 − weight) count / total + weight / V; 1 / V where total is 0."""
        seen = np.asarray(total) > 0
        mixed = (1 - self.weight) * (count / np.where(seen, total, 1)) + self.weight / self.symbols
        return np.where(seen, mixed, 1 / self.symbols)


def children(level: Level, node_N: Nodes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All events of each history, as pairs (row, event)."""
    seen = np.flatnonzero(node_N >= 0)
    node = node_N[seen]
    sizes = level.types_H[node].astype(np.int64)
    return np.repeat(seen, sizes), slices(level.first_H[node].astype(np.int64), sizes)
