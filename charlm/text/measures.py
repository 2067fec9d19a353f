"""Measures of a text: its conditional entropies, its compressed size, and the passages that it repeats or shares.

All work on arrays of ids and on spans that no passage crosses.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.splits import Spans
from charlm.text.vocab import Ids

_MASK = (1 << 64) - 1
_Places = tuple[NDArray[np.int64], ...]


def entropies(ids: Ids, documents: Spans, orders: int = 5) -> list[float]:
    """The empirical conditional entropies of orders 0..`orders`, in nats per character.

    Order n is H(next character | the n before it), with the text's own relative frequencies. It says how much
    is left to know after n characters *of this text*; with growing n it falls to 0 because every history of a
    finite text is unique at last, so it is no bound on what a model can reach on other text.

    Args:
        ids: the text.
        documents: spans that no history crosses.
        orders: the highest order.

    >>> [round(float(h), 4) for h in entropies(np.array([0, 1, 0, 1]), np.array([[0, 4]]), 1)]
    [0.6931, 0.0]
    """
    symbols = int(ids.max()) + 2 if len(ids) else 1
    starts, left = _starts(documents, 1), _left(documents, 1)
    history = np.zeros(len(starts), dtype=np.int64)
    found = []
    for order in range(orders + 1):
        keep = left > order
        starts, left, history = starts[keep], left[keep], history[keep]
        key = history * symbols + (ids[starts + order].astype(np.int64) + 1)
        grams, history, counts = np.unique(key, return_inverse=True, return_counts=True)
        found.append(_conditional_entropy(grams // symbols, counts))
    return found


def _conditional_entropy(histories: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """The entropy of the next character in nats, from the counts of n-grams and each one's history."""
    if not len(counts):
        return 0.0
    of_history = np.bincount(histories, weights=counts)[histories]
    return float((counts * np.log(of_history / counts)).sum() / counts.sum())


def compressed_size(content: bytes) -> int:
    """How many bytes `xz -9` makes of `content`."""
    return len(lzma.compress(content, preset=9))


def distinct_share(ids: Ids, spans: Spans, length: int = 40) -> float:
    """How many different passages of `length` characters there are, as a share of all passages of that length.

    >>> distinct_share(np.array([1, 2, 1, 2, 1, 2]), np.array([[0, 6]]), 2)  # 12, 21, 12, 21, 12
    0.4
    """
    prints = _Prints(ids).of(spans, length)
    return len(np.unique(prints)) / len(prints) if len(prints) else 1.0


def longest_repeat(ids: Ids, spans: Spans) -> tuple[int, int]:
    """The length of the longest passage that occurs twice (it may overlap itself), and where it begins first.

    >>> longest_repeat(np.array([1, 2, 3, 9, 1, 2, 3, 8]), np.array([[0, 8]]))
    (3, 0)
    """
    prints = _Prints(ids)
    ends = _ends(spans)

    def repeated(length: int, starts: _Places) -> _Places | None:
        at = starts[0][starts[0] + length <= ends[starts[0]]]
        found = prints.at(at, length)
        order = np.argsort(found, kind="stable")
        same = found[order[1:]] == found[order[:-1]]
        twice = np.zeros(len(at), dtype=np.bool_)
        twice[order[1:][same]] = twice[order[:-1][same]] = True
        return (at[twice],) if twice.any() else None

    length, (places,) = _longest(repeated, (_starts(spans, 1),))
    return length, int(places[0]) if length else 0


def longest_shared(ids: Ids, first: Spans, second: Spans) -> tuple[int, int]:
    """The length of the longest passage that both lists of spans have, and where it begins in the second.

    >>> ids = np.array([1, 2, 3, 4, 9, 2, 3, 4, 5])
    >>> longest_shared(ids, np.array([[0, 4]]), np.array([[4, 9]]))
    (3, 5)
    """
    prints = _Prints(ids)
    ends = [_ends(spans) for spans in (first, second)]

    def shared(length: int, starts: _Places) -> _Places | None:
        places = [at[at + length <= end[at]] for at, end in zip(starts, ends, strict=True)]
        mine, theirs = (prints.at(at, length) for at in places)
        hit = np.isin(theirs, mine)
        return (places[0][np.isin(mine, theirs[hit])], places[1][hit]) if hit.any() else None

    length, (_, places) = _longest(shared, (_starts(first, 1), _starts(second, 1)))
    return length, int(places[0]) if length else 0


def shared_share(ids: Ids, first: Spans, second: Spans, length: int = 40) -> float:
    """The share of the second spans' passages of `length` characters that occur in the first ones too."""
    prints = _Prints(ids)
    held_out = prints.of(second, length)
    return float(np.isin(held_out, prints.of(first, length)).mean()) if len(held_out) else 0.0


def _longest(attempt: Callable[[int, _Places], _Places | None], places: _Places) -> tuple[int, _Places]:
    """The greatest length that `attempt` finds, and its places: by doubling, then by bisection.

    A longer passage can only begin where a shorter one was found: every success leaves fewer places.
    """
    low, high = 0, 16
    while (found := attempt(high, places)) is not None:
        low, high, places = high, high * 2, found
    while high - low > 1:
        middle = (low + high) // 2
        found = attempt(middle, places)
        if found is None:
            high = middle
        else:
            low, places = middle, found
    return low, places


def _ends(spans: Spans) -> NDArray[np.int64]:
    """For each position of the text the end of the span it lies in, 0 outside all of them."""
    ends = np.zeros(int(spans[:, 1].max(initial=0)), dtype=np.int64)
    ends[_starts(spans, 1)] = np.repeat(spans[:, 1], spans[:, 1] - spans[:, 0])
    return ends


def _starts(spans: Spans, length: int) -> NDArray[np.int64]:
    """Where a passage of `length` characters can begin without leaving its span."""
    counts = np.maximum(spans[:, 1] - spans[:, 0] - length + 1, 0)
    first = np.repeat(spans[:, 0] - np.cumsum(counts) + counts, counts)
    return first + np.arange(counts.sum(), dtype=np.int64)


def _left(spans: Spans, length: int) -> NDArray[np.int64]:
    """For each of `_starts`, how many characters its span has from there on."""
    counts = np.maximum(spans[:, 1] - spans[:, 0] - length + 1, 0)
    return np.repeat(spans[:, 1], counts) - _starts(spans, length)


class _Prints:
    """64-bit fingerprints of all passages of any length of one text, each in a few vectorised steps.

    A passage's fingerprint is the sum of its characters' random numbers times rising powers of an odd base,
    modulo 2^64, read off one array of prefix sums and made independent of the place by the inverse power. Two
    different passages agree with a chance of about 2^-64 a pair.
    """

    def __init__(self, ids: Ids) -> None:
        numbers = np.random.default_rng(0x63686172).integers(0, 1 << 64, int(ids.max(initial=0)) + 2, dtype=np.uint64)
        self._base = 0x9E3779B97F4A7C15
        terms = numbers[ids.astype(np.int64) + 1] * self._powers(self._base, len(ids))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        self._inverse = self._powers(pow(self._base, -1, 1 << 64), len(ids))

    @staticmethod
    def _powers(base: int, count: int) -> NDArray[np.uint64]:
        steps: NDArray[Any] = np.full(count, base & _MASK, dtype=np.uint64)
        steps[:1] = 1
        return np.cumprod(steps, dtype=np.uint64)

    def of(self, spans: Spans, length: int) -> NDArray[np.uint64]:
        """The fingerprints of the passages that begin at `_starts(spans, length)`."""
        return self.at(_starts(spans, length), length)

    def at(self, starts: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
        """The fingerprints of the passages that begin there."""
        found: NDArray[np.uint64] = (self._sums[starts + length] - self._sums[starts]) * self._inverse[starts]
        return found
