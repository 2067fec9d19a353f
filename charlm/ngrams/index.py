"""One sorted index of a text, from which the counts of every n-gram order are read.

The text's codes, its suffixes in sorted order, and how much each shares with the one before: six bytes a
character for up to 255 different symbols in under 2 GiB of text. All places where a string stands are
neighbours in the sorted order, so every count is the length of an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError
from charlm.ngrams import suffixes as sorting
from charlm.ngrams.levels import Level, Levels, Nodes, without_context
from charlm.ngrams.suffixes import DEPTH
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

MAX_ORDER = DEPTH - 1
"""The longest history that the index tells apart."""

_BLOCK = 1 << 13  # rows matched at once
_METHODS = ("auto", "numpy", "fast")


@dataclass(frozen=True, kw_only=True, eq=False)
class SuffixIndex:
    """The sorted suffixes of a text's spans.

    Args:
        codes: the spans one after the other, each ended by 0; a symbol's code is its place in `alphabet` plus
            1. uint8 for up to 255 different symbols, else uint16 or uint32.
        suffixes: int32, the positions in `codes` of all symbols, sorted by the `DEPTH` symbols from there on.
        lcp: uint8, how many symbols a suffix shares with the one before it, at most `DEPTH`.
        alphabet: the ids that occur, ascending.
        symbols: size of the vocabulary, V.
        context: int64 [V], how many spans begin with each symbol as context that another span counts; see `Levels`.

    >>> index = SuffixIndex.build(np.array([0, 1, 2, 0, 1]), np.array([[0, 5]]), symbols=3)  # abcab
    >>> index.find([0, 1])  # ab: two of the five sorted suffixes
    (0, 2)
    """

    codes: NDArray[Any]
    suffixes: NDArray[np.int32]
    lcp: NDArray[np.uint8]
    alphabet: NDArray[np.int32]
    symbols: int
    context: NDArray[np.int64]

    @classmethod
    def build(
        cls,
        ids: Ids,
        spans: Spans,
        *,
        symbols: int,
        method: str = "auto",
        shared_N: NDArray[np.bool_] | None = None,
    ) -> SuffixIndex:
        """Sorts the suffixes of the spans of a text; no string crosses a span's end.

        Args:
            ids: of a text.
            spans: rows of (start, end) in it.
            symbols: size of the vocabulary; ids are below it.
            method: `numpy`, `fast` (needs pydivsufsort), or `auto`: the fast one where it is installed. Both
                give the same counts at every order up to 32.
            shared_N: for each span whether its first symbol is counted by the span before it and is context
                alone here, as `charlm.text.splits.shared_context` says; by default none is.

        Raises:
            TextError: no character in the spans, an id outside the vocabulary, or 2 GiB or more of text.
            OptionError: an unknown method, or `fast` without pydivsufsort.
        """
        fast = _use_fast(method)
        codes, alphabet = _encode(ids, spans, symbols)
        suffixes = sorting.sort_fast(codes) if fast else sorting.sort_numpy(codes)
        lcp = sorting.lcp_array(codes, suffixes)
        context = sorting.count_context(ids, spans, shared_N, symbols)
        return cls(codes=codes, suffixes=suffixes, lcp=lcp, alphabet=alphabet, symbols=symbols, context=context)

    def __len__(self) -> int:
        """How many characters are indexed."""
        return len(self.suffixes)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays of the size of the text."""
        return sum(getattr(self, name).nbytes for name in sorting.ARRAYS)

    @cached_property
    def levels(self) -> Levels:
        """The tables of counts by order, made when asked for."""
        return IndexLevels(self)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where in `codes` each span that is not empty begins."""
        ends = np.flatnonzero(self.codes == 0)
        return np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)

    @cached_property
    def places(self) -> NDArray[np.int32]:
        """The inverse of `suffixes`: each position's place in the sorted order, -1 at separators."""
        places = np.full(len(self.codes), -1, dtype=np.int32)
        places[self.suffixes] = np.arange(len(self.suffixes), dtype=np.int32)
        return places

    def ids_of(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The ids of codes above 0."""
        found: NDArray[Any] = self.alphabet.astype(smallest_dtype(self.symbols))[codes.astype(np.int64) - 1]
        return found

    def codes_of(self, ids: Any) -> NDArray[np.int64]:
        """The codes of ids; 0 for an id that does not occur in the text."""
        ids = np.asarray(ids, dtype=np.int64)
        slot = np.minimum(np.searchsorted(self.alphabet, ids), len(self.alphabet) - 1)
        return np.where(self.alphabet[slot] == ids, slot + 1, 0)

    def find(self, string: Any) -> tuple[int, int]:
        """The interval of sorted suffixes that begin with a string of at most `DEPTH` ids; empty where it is unseen."""
        low, high = 0, len(self)
        for depth, code in enumerate(self.codes_of(string).tolist()):
            low = self._bisect(low, high, depth, code)
            high = self._bisect(low, high, depth, code + 1) if code else low
        return low, high

    def _bisect(self, low: int, high: int, depth: int, code: int) -> int:
        """The first suffix in low..high whose symbol at `depth` is `code` or higher."""
        while low < high:
            middle = (low + high) // 2
            if int(self.codes[int(self.suffixes[middle]) + depth]) < code:
                low = middle + 1
            else:
                high = middle
        return low

    def match(self, ids_N: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How far the text from each place of another text on can be read in this one.

        Args:
            ids_N: the other text, a single stretch; -1 for an unknown character.

        Returns:
            The length of the longest match, at most `DEPTH`, and the place in `suffixes` of a suffix that has it.

        >>> index = SuffixIndex.build(np.array([0, 1, 2, 0, 1]), np.array([[0, 5]]), symbols=3)  # abcab
        >>> index.match(np.array([1, 0, 1, 2, 1]))[0].tolist()  # b, abc, bc, c, b
        [1, 3, 2, 1, 1]
        """
        codes = np.concatenate([self.codes_of(ids_N), np.zeros(DEPTH, dtype=np.int64)])
        windows = np.lib.stride_tricks.sliding_window_view(codes.astype(self.codes.dtype), DEPTH)
        starts = range(0, len(ids_N), _BLOCK)
        found = [self._match(windows[at : min(at + _BLOCK, len(ids_N))]) for at in starts]
        lengths, places = np.concatenate([np.zeros((2, 0), dtype=np.int64), *found], axis=1)
        return lengths, places

    def _match(self, query_ND: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same for a block of rows, each the codes from one place on."""
        low = np.zeros(len(query_ND), dtype=np.int64)
        high = np.full(len(query_ND), len(self), dtype=np.int64)
        while (low < high).any():
            middle = np.minimum((low + high) >> 1, len(self) - 1)
            below = self._compare(query_ND, middle)[1]
            low, high = np.where((low < high) & below, middle + 1, low), np.where(below, high, middle)
            high = np.maximum(low, high)
        before, after = np.maximum(low - 1, 0), np.minimum(low, len(self) - 1)
        equal_before, equal_after = self._compare(query_ND, before)[0], self._compare(query_ND, after)[0]
        known = np.where((query_ND == 0).any(1), (query_ND == 0).argmax(1), query_ND.shape[1])
        best = np.maximum(equal_before, equal_after)
        return np.minimum(best, known), np.where(equal_before > equal_after, before, after)

    def _compare(
        self, query_ND: NDArray[Any], place_N: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """How many codes agree with the suffix at each place, and whether it sorts before the row."""
        depth = query_ND.shape[1]
        text = self.suffixes[place_N].astype(np.int64)[:, None] + np.arange(depth)
        text_ND = self.codes.take(text, mode="clip")
        different = text_ND != query_ND
        equal = np.where(different.any(1), different.argmax(1), depth)
        at = np.minimum(equal, depth - 1)[:, None]
        below = np.take_along_axis(text_ND, at, 1) < np.take_along_axis(query_ND, at, 1)
        return equal.astype(np.int64), below[:, 0]

    def followers(self, history: Any) -> list[tuple[int, int]]:
        """What followed a history, as (id, count) by id; empty where nothing ever did.

        >>> index = SuffixIndex.build(np.array([0, 1, 0, 2, 0, 1]), np.array([[0, 6]]), symbols=3)  # abacab
        >>> index.followers([0])
        [(1, 2), (2, 1)]
        """
        depth = len(history)
        if not depth:
            level = self.levels[0]
            return [(id, n) for id, n in zip(level.id_E.tolist(), level.count_E.tolist(), strict=True) if n]
        low, high = self.find(history)
        low = self._bisect(low, high, depth, 1)  # past the places where a span ended
        found = []
        while low < high:
            code = int(self.codes[int(self.suffixes[low]) + depth])
            after = self._bisect(low, high, depth, code + 1)
            found.append((int(self.alphabet[code - 1]), after - low))
            low = after
        return found

    def save(self, directory: Path) -> None:
        """Writes the arrays as `index-NAME.npy`, each file whole or not at all."""
        for name in sorting.ARRAYS:
            sorting.save_array(directory / sorting.file_of(name), getattr(self, name))
        sorting.save_context(directory, self.context)

    @classmethod
    def load(cls, directory: Path, *, symbols: int) -> SuffixIndex:
        """Opens what `save` wrote as memory maps.

        Raises:
            CheckpointError: a file that is missing or broken, or arrays that do not fit each other.
        """
        return cls(
            **sorting.load_arrays(directory, symbols), symbols=symbols, context=sorting.load_context(directory, symbols)
        )


class IndexLevels(Levels):
    """The levels of an index, made one after the other as they are asked for, and kept."""

    def __init__(self, index: SuffixIndex) -> None:
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


def _use_fast(method: str) -> bool:
    if method not in _METHODS:
        raise OptionError(f"unknown method {method!r}: choose one of {', '.join(_METHODS)}")
    if method == "fast" and not sorting.fast_available():
        raise OptionError("the method 'fast' needs pydivsufsort: install charlm[fast], or use 'numpy'")
    return method == "fast" or (method == "auto" and sorting.fast_available())


def _encode(ids: Ids, spans: Spans, symbols: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The codes of the spans with their separators, and the ids that occur."""
    spans = spans[spans[:, 1] > spans[:, 0]]
    size = int((spans[:, 1] - spans[:, 0] + 1).sum())
    if not size:
        raise TextError("there is no character to count: use a longer text or another --split")
    if size >= 1 << 31:
        raise TextError(f"an index takes under {1 << 31:,} characters, this text has {size:,}: use a part of it")
    seen = _occurring(ids, spans)
    if seen[0] < 0 or seen[-1] >= symbols:
        raise TextError(f"a text to count has ids from 0 to {symbols - 1}, not {int(seen[0])} to {int(seen[-1])}")
    codes = np.zeros(size, dtype=smallest_dtype(len(seen) + 1))
    table = np.zeros(int(seen[-1]) + 1, dtype=codes.dtype)
    table[seen] = np.arange(1, len(seen) + 1)
    at = 0
    for start, end in spans.tolist():
        codes[at : at + end - start] = table[ids[start:end]]
        at += end - start + 1
    return codes, seen.astype(np.int32)


def _occurring(ids: Ids, spans: Spans) -> NDArray[np.int64]:
    found = (
        [np.unique(ids[start:end]) for start, end in spans.tolist()]
        if len(spans) < 64
        else [np.unique(np.concatenate([ids[start:end] for start, end in spans.tolist()]))]
    )
    return np.unique(np.concatenate(found)).astype(np.int64)
