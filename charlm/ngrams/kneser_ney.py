"""Estimators that interpolate every order with the next shorter one: Witten-Bell and modified Kneser-Ney; ARPA files.

    p_n(symbol | history) = share_n(history, symbol) + left_n(history) · p_{n-1}(symbol | history without its first)

with p_{-1} uniform over the vocabulary, share 0 for an event never seen, and left 1 for a history never
followed. Where only r < n symbols have been read, as at the beginning of a span, r is the highest order: the
probability is that of the model of order r. With order 32 both are models of unbounded order: the longest history
that was seen has the first word.

An ARPA file holds such a model in the format that KenLM, SRILM and others read, with characters spelled as words
(ARPA-MIT format; SRILM's ngram-format(5)). A model of order n has strings of 1 to n + 1 characters. Each line is the
base-10 logarithm of the interpolated probability of the last character after the others, the string, and the logarithm
of what is left for shorter histories where the string itself is a history.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.files import write_with
from charlm.ngrams.counted import Contexts, Estimator, Floats, children
from charlm.ngrams.levels import UNSEEN, Counts, Level, Nodes
from charlm.text.vocab import Vocab

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts for counts of 1, 2, 3 and more where the counts of counts yield none, as KenLM's fallback."""

_FEW = 8  # rows made one by one


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """One level's part in the interpolation.

    Args:
        share: float64 [E + 1]; the last is 0 and stands for events never seen, so that the number -1 finds it.
        left: float64 [H + 1]; the last is 1 and stands for histories never seen.
    """

    share: Floats
    left: Floats

    @classmethod
    def of(cls, level: Level, kept_E: Floats, total_H: Floats, left_H: Floats) -> Weights:
        """From what is kept of each event's count and what is left over, both out of `total`."""
        divisor = np.where(total_H > 0, total_H, 1.0)
        return cls(
            share=np.append(kept_E / divisor[level.history_E], 0.0),
            left=np.append(np.where(total_H > 0, left_H / divisor, 1.0), 1.0),
        )


class Interpolated(Estimator):
    """An estimator in which every order is mixed with the next shorter one.

    Args:
        index: of the training text.
        order: characters of history.
    """

    adjusts_counts: ClassVar[bool] = False
    """Whether shorter orders count otherwise than the highest one."""

    def __init__(self, index: Counts, order: int) -> None:
        super().__init__(index, order)
        self._weights: dict[tuple[int, bool], Weights] = {}
        self._shorter: list[Floats] = []
        self._highest: tuple[int, Floats] = (-1, np.zeros(0))

    @abc.abstractmethod
    def make_weights(self, order: int, *, top: bool) -> Weights:
        """The weights of one level, as the highest of its model or below it."""

    def weights(self, order: int, *, top: bool) -> Weights:
        """The same, computed once and kept."""
        top = top and self.adjusts_counts  # else the two are the same
        if (order, top) not in self._weights:
            self._weights[order, top] = self.make_weights(order, top=top)
        return self._weights[order, top]

    def _steps(self, contexts: Contexts) -> Iterator[tuple[int, Nodes, Weights]]:
        """Orders in ascending sequence, with the histories that take these weights there, and the weights.

        A context of which just r symbols were read takes order r as its highest. Other contexts are `UNSEEN` in that
        step, which leaves their probabilities as they are.
        """
        for order, node_N in enumerate(contexts.nodes[: self.order + 1]):
            highest_N = (contexts.read_N <= order) | (order == self.order)
            if highest_N.any():
                yield order, np.where(highest_N, node_N, np.int32(UNSEEN)), self.weights(order, top=True)
            if not highest_N.all():
                yield order, np.where(highest_N, np.int32(UNSEEN), node_N), self.weights(order, top=False)

    def rows(self, contexts: Contexts, *, generating: bool = False) -> Floats:
        """See `Estimator.rows`; an interpolated estimator is defined everywhere."""
        p_NV = np.full((len(contexts.read_N), self.symbols), 1 / self.symbols)
        add = self._add_one_by_one if len(p_NV) <= _FEW else self._add_level
        for order, node_N, weights in self._steps(contexts):
            add(p_NV, self.levels[order], node_N, weights)
        return p_NV

    def _add_one_by_one(self, p_NV: Floats, level: Level, node_N: Nodes, weights: Weights) -> None:
        """`_add_level` without the cost of preparing for many rows."""
        for row, node in enumerate(node_N.tolist()):
            if node >= 0:
                events = slice(level.first_H[node], level.first_H[node + 1])
                p_NV[row] *= weights.left[node]
                p_NV[row, level.id_E[events]] += weights.share[events]

    def _add_level(self, p_NV: Floats, level: Level, node_N: Nodes, weights: Weights) -> None:
        """Makes the rows of the next shorter order into rows of this one."""
        p_NV *= weights.left[node_N][:, None]
        row, event = children(level, node_N)
        p_NV[row, level.id_E[event]] += weights.share[event]

    def targets(self, contexts: Contexts, target_N: NDArray[np.int64]) -> Floats:
        """See `Estimator.targets`."""
        p_N = np.full(len(contexts.read_N), 1 / self.symbols)
        for order, node_N, weights in self._steps(contexts):
            p_N *= weights.left[node_N]
            p_N += weights.share[self.levels[order].child(node_N, target_N)]
        return p_N

    def event_probabilities(self, order: int, *, top: bool, events: Any = slice(None)) -> Floats:
        """See `Estimator.event_probabilities`; those of shorter histories are computed once and kept."""
        while len(self._shorter) < order + (not top):
            self._shorter.append(self._event_step(len(self._shorter), top=False))
        if not top:
            return np.asarray(self._shorter[order][events])
        if self._highest[0] == order:
            return np.asarray(self._highest[1][events])
        p_E = self._event_step(order, top=True, events=events)
        if isinstance(events, slice) and events == slice(None):
            self._highest = (order, p_E)
        return p_E

    def best_children(self, order: int, *, top: bool) -> tuple[Floats, NDArray[np.int64]]:
        """For each history of a level the highest probability among its events, and the lowest id that has it.

        One entry more than histories: -1 in place of a probability, for the unseen and those without events.
        """
        level, p_E = self.levels[order], self.event_probabilities(order, top=top)
        histories = len(level.types_H)
        most_H, id_H = np.full(histories + 1, -1.0), np.zeros(histories + 1, dtype=np.int64)
        some = np.flatnonzero(level.types_H)
        if len(some):
            most_H[some] = np.maximum.reduceat(p_E, level.first_H[some])
            event = np.flatnonzero(p_E == most_H[level.history_E])[::-1]
            id_H[level.history_E[event]] = level.id_E[event]  # from the back, so that the lowest id stays
        return most_H, id_H

    def _event_step(self, order: int, *, top: bool, events: Any = slice(None)) -> Floats:
        """The probabilities of events of one level from those of the level below."""
        weights, level = self.weights(order, top=top), self.levels[order]
        shorter = self._shorter[order - 1][self.levels.suffix(order)[events]] if order else 1 / self.symbols
        return np.asarray(weights.share[:-1][events] + weights.left[level.history_E[events]] * shorter)


class WittenBell(Interpolated):
    """(count + types · p_{n-1}) / (total + types), types being how many different symbols followed the history.

    Witten and Bell (1991), method C, interpolated as in Chen and Goodman (1999), section 2.6.
    """

    name = "witten-bell"
    title = "Witten-Bell"

    def make_weights(self, order: int, *, top: bool) -> Weights:
        """See `Interpolated.make_weights`; the highest level is like the others."""
        level = self.levels[order]
        total_H = (level.total_H + level.types_H).astype(np.float64)
        return Weights.of(level, level.count_E.astype(np.float64), total_H, level.types_H.astype(np.float64))


class KneserNey(Interpolated):
    """Interpolated modified Kneser-Ney: three discounts an order, shorter orders counted by what precedes them.

    Chen and Goodman (1999), section 4.1, after Kneser and Ney (1995), as Heafield et al. (2013) compute it: the highest
    order counts occurrences, every shorter one the different symbols that stand before the string (the beginning of a
    span is one such symbol). After only r < n symbols of a span, order r counts occurrences, as is done for n-grams
    that begin with the mark of a sentence's beginning (Heafield et al. 2013). Where fewer than four counts of counts
    exist, as at the short orders of characters, or a discount comes out negative or above its count, that order takes
    the discounts of `FALLBACK`. A span has no symbols of its own for beginning and end.
    """

    name = "kneser-ney"
    title = "Kneser-Ney"
    adjusts_counts = True

    def make_weights(self, order: int, *, top: bool) -> Weights:
        """See `Interpolated.make_weights`."""
        level = self.levels[order]
        count_E = level.count_E if top else self.preceding(order)
        discount_E = np.array([0.0, *discounts(count_E)])[np.minimum(count_E, 3)]
        return Weights.of(level, count_E - discount_E, level.sums(count_E), level.sums(discount_E))

    def preceding(self, order: int) -> NDArray[np.int64]:
        """How many different symbols stand before each event's string, a span's beginning being one."""
        count_E = np.bincount(self.levels.suffix(order + 1), minlength=self.levels[order].events)
        count_E[np.unique(self.levels.openings(order)[order + 1])] += 1
        return count_E


def discounts(count_E: NDArray[Any]) -> tuple[float, float, float]:
    """What to take off counts of 1, 2, and 3 or more: Chen and Goodman (1999), equation 26, or `FALLBACK`.

    With n_i the number of events counted i times and Y = n_1 / (n_1 + 2 n_2): D_i = i − (i + 1) Y n_{i+1} / n_i.

    >>> discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4]))  # Y = 1/2
    (0.5, 1.25, 1.0)
    >>> discounts(np.array([1, 9]))
    (0.5, 1.0, 1.5)
    """
    n = np.bincount(np.minimum(count_E, 5), minlength=6)[1:5].tolist()
    if not all(n):
        return FALLBACK
    y = n[0] / (n[0] + 2 * n[1])
    first, second, third = (i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3))
    sound = 0 <= first <= 1 and 0 <= second <= 2 and 0 <= third <= 3
    return (first, second, third) if sound else FALLBACK


_NEVER = -99.0  # the format's way to write the logarithm of 0
_MARKERS = ("<unk>", "<s>", "</s>")
_LINES = 1 << 16  # written at once


def word_of(symbol: str) -> str:
    r"""How a symbol is spelled as a word without white space.

    A visible character stands for itself; every other one, and the backslash, is written `\u` with its code
    point in braces, hexadecimal; a byte of a vocabulary of bytes keeps the form that `Vocab.symbol` gives it.

    >>> word_of("a"), word_of(" "), word_of("\\"), word_of("<C3>")
    ('a', '\\u{20}', '\\u{5c}', '<C3>')
    """
    if len(symbol) != 1:
        return symbol
    plain = symbol.isprintable() and not symbol.isspace() and symbol != "\\"
    return symbol if plain else f"\\u{{{ord(symbol):x}}}"


def write_arpa(estimator: Estimator, vocab: Vocab, path: Path) -> None:
    """Writes a smoothed model as an ARPA file, whole or not at all.

    The format's words for unknown, beginning and end are listed with probability 0, as readers want them;
    score without sentence marks. Scores agree with the model's to the seven digits written, from the first symbol on
    that has a whole history: at the beginning of a text Kneser-Ney counts occurrences at the short orders, for which
    the format has no place.

    Args:
        estimator: Witten-Bell or Kneser-Ney; other estimators have no place for shorter histories.
        vocab: the symbols of the model.
        path: of the file, replaced if there is one.

    Raises:
        OptionError: the model's estimator is not an interpolated one.
    """
    if not isinstance(estimator, Interpolated):
        raise OptionError(
            f"an ARPA file holds a model that mixes all orders, not one with smoothing {estimator.name!r}: "
            "choose --smoothing kneser-ney or witten-bell"
        )
    write_with(path, lambda file: _write(file, vocab, estimator))


def _write(file: IO[bytes], vocab: Vocab, estimator: Interpolated) -> None:
    words = [word_of(vocab.symbol(id)) for id in range(len(vocab))]
    counts = [len(words) + len(_MARKERS), *(estimator.levels[n].events for n in range(1, estimator.order + 1))]
    head = ["\\data\\", *(f"ngram {n + 1}={count}" for n, count in enumerate(counts))]
    file.write(("\n".join(head) + "\n").encode())
    strings: list[str] = [""]
    for order in range(estimator.order + 1):
        file.write(f"\n\\{order + 1}-grams:\n".encode())
        strings = _strings(estimator, order, strings, words)
        if order == 0:
            _write_lines(file, _unseen_lines(estimator, words))
        _write_lines(file, _lines(estimator, order, strings))
    file.write(b"\n\\end\\\n")


def _strings(estimator: Interpolated, order: int, histories: list[str], words: list[str]) -> list[str]:
    """The events of a level as words with spaces between, from those of the level below."""
    level = estimator.levels[order]
    pairs = zip(level.history_E.tolist(), level.id_E.tolist(), strict=True)
    if order == 0:
        return [words[id] for _, id in pairs]
    return [f"{histories[history]} {words[id]}" for history, id in pairs]


def _unseen_lines(estimator: Interpolated, words: list[str]) -> Iterator[str]:
    """The marker words, and the symbols of the vocabulary that the training part does not have."""
    yield from (f"{_NEVER:g}\t{marker}\t0" for marker in _MARKERS)
    seen = set(estimator.levels[0].id_E.tolist())
    left = estimator.weights(0, top=estimator.order == 0).left[0] / estimator.symbols
    tail = "\t0" if estimator.order else ""
    for id, word in enumerate(words):
        if id not in seen:
            yield f"{np.log10(left) if left > 0 else _NEVER:.7g}\t{word}{tail}"


def _lines(estimator: Interpolated, order: int, strings: list[str]) -> Iterator[str]:
    """A level's lines; the highest order has no backoff weights."""
    top = order == estimator.order
    logp_E = _log10(estimator.event_probabilities(order, top=top)).tolist()
    if top:
        yield from (f"{logp:.7g}\t{string}" for logp, string in zip(logp_E, strings, strict=True))
        return
    left_E = _log10(estimator.weights(order + 1, top=order + 1 == estimator.order).left[:-1]).tolist()
    for logp, string, left in zip(logp_E, strings, left_E, strict=True):
        yield f"{logp:.7g}\t{string}\t{left:.7g}"


def _log10(p_E: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log10(p_E), _NEVER)


def _write_lines(file: IO[bytes], lines: Iterator[str]) -> None:
    while block := list(islice(lines, _LINES)):
        file.write(("\n".join(block) + "\n").encode())
