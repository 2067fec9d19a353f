"""Strings of symbols packed into words of 64 bits, so that sorting numbers sorts strings.

A symbol's code is its id plus 1; 0 stands behind a span's last symbol and in all places after it. A key is the
first `depth` codes from a place on, most significant first, in as many words as they need. Axes: N places, W words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import TextError
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

__all__ = ["Packing", "SpannedText", "Words"]

Words = list[NDArray[np.uint64]]
"""The words of N keys, one array for each of the W."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How strings of `depth` codes become words.

    Args:
        symbols: size of the vocabulary, V; codes go from 0 to V.
        depth: codes in a key, 1 or more.

    >>> packing = Packing(symbols=3, depth=2)
    >>> [word.tolist() for word in packing.keys(np.array([1, 3, 0, 2], dtype=np.uint8))]  # 13, 3-, -- : binary
    [[7, 12, 0]]
    """

    symbols: int
    depth: int

    @property
    def bits(self) -> int:
        """Of one code."""
        return self.symbols.bit_length()

    @property
    def per_word(self) -> int:
        """Codes in one word."""
        return 64 // self.bits

    @property
    def words(self) -> int:
        """Words in one key, W."""
        return -(-self.depth // self.per_word)

    def held(self, word: int) -> int:
        """How many codes a word holds; the last one may hold fewer than the others."""
        return min(self.per_word, self.depth - word * self.per_word)

    def keys(self, codes: NDArray[Any]) -> Words:
        """The keys of all places that have `depth` codes from there on; a key is 0 at a separator."""
        size = len(codes) - self.depth + 1
        found = []
        for word in range(self.words):
            first = word * self.per_word
            packed = codes[first : first + size].astype(np.uint64)
            for offset in range(first + 1, first + self.held(word)):
                packed <<= np.uint64(self.bits)
                packed |= codes[offset : offset + size]
            found.append(packed)
        self._cut(found, codes, size)
        return found

    def _cut(self, words: Words, codes: NDArray[Any], size: int) -> None:
        """Clears what stands behind the first separator of each key."""
        separators = np.flatnonzero(codes == 0)
        if not len(separators):
            return
        room = np.full(size, self.depth, dtype=np.int32)
        for distance in range(self.depth - 1, -1, -1):
            places = separators - distance
            room[places[(places >= 0) & (places < size)]] = distance
        near = np.flatnonzero(room < self.depth)
        for word, packed in enumerate(words):
            kept = np.clip(room[near] - word * self.per_word, 0, self.held(word))
            packed[near] &= self._masks(word)[kept]

    def _masks(self, word: int) -> NDArray[np.uint64]:
        """Item k keeps the first k codes of a word."""
        held, ones = self.held(word), (1 << self.bits * self.held(word)) - 1
        return np.array([ones & ~((1 << self.bits * (held - k)) - 1) for k in range(held + 1)], dtype=np.uint64)

    def codes(self, words: Words, number: int) -> NDArray[np.uint64]:
        """Code `number` of every key."""
        word, place = divmod(number, self.per_word)
        shift = np.uint64(self.bits * (self.held(word) - 1 - place))
        return (words[word] >> shift) & np.uint64((1 << self.bits) - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class SpannedText:
    """The spans of a text as one sequence of codes, made piece by piece: each span, ended by 0.

    Args:
        ids: of the text; may be a memory map.
        spans: rows of (start, end) in it, none empty.
        symbols: size of the vocabulary.

    >>> text = SpannedText(ids=np.array([0, 1, 2, 0]), spans=np.array([[0, 2], [3, 4]]), symbols=3)
    >>> len(text), text.codes(0, len(text)).tolist(), text.codes(1, 9).tolist()
    (5, [1, 2, 0, 1, 0], [2, 0, 1, 0, 0, 0, 0, 0])
    """

    ids: Ids
    spans: Spans
    symbols: int

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where in the sequence the code after each span's separator stands."""
        return np.cumsum(self.spans[:, 1] - self.spans[:, 0] + 1, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def characters(self) -> int:
        """How many symbols there are, separators excluded."""
        return len(self) - len(self.spans)

    def codes(self, start: int, end: int) -> NDArray[Any]:
        """The codes start..end of the sequence, 0 past its end.

        Raises:
            TextError: an id outside the vocabulary.
        """
        found = np.zeros(end - start, dtype=smallest_dtype(self.symbols + 1))
        for at, piece in self._pieces(start, min(end, len(self))):
            if len(piece) and (int(piece.min()) < 0 or int(piece.max()) >= self.symbols):
                raise TextError(
                    f"a text to count has ids from 0 to {self.symbols - 1}, not {int(piece.min())} to "
                    f"{int(piece.max())}"
                )
            out = found[at - start : at - start + len(piece)]
            np.add(piece, 1, out=out, dtype=found.dtype, casting="unsafe")
        return found

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, Ids]]:
        """The stretches of ids that lie in start..end, and where."""
        span = int(np.searchsorted(self.ends, start, side="right"))
        while start < end:
            low, high = self.spans[span].tolist()
            begin = int(self.ends[span]) - (high - low + 1)
            yield start, self.ids[low + start - begin : min(high, low + end - begin)]
            start, span = int(self.ends[span]), span + 1

    def openings(self, depth: int) -> NDArray[Any]:
        """The first `depth` codes of each span, 0 behind a shorter one; [spans, depth]."""
        found = np.zeros((len(self.spans), depth), dtype=smallest_dtype(self.symbols + 1))
        for offset in range(depth):
            long = np.flatnonzero(self.spans[:, 1] - self.spans[:, 0] > offset)
            found[long, offset] = self.ids[self.spans[long, 0] + offset].astype(np.int64) + 1
        return found
