"""Strings of symbols packed into words of 64 bits, so that sorting numbers sorts strings; sorted runs of strings.

A symbol's code is its id plus 1; 0 stands behind a span's last symbol and in all places after it. A key is the
first `depth` codes from a place on, most significant first, in as many words as they need. A run is sorted keys with
their counts. Axes: N places or keys, W words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import TextError
from charlm.files import atomic_writer
from charlm.text.splits import Spans
from charlm.text.spool import give_back
from charlm.text.vocab import Ids, smallest_dtype

__all__ = ["Packing", "Run", "SpannedText", "Strings", "Words", "added_up", "cut", "merge", "open_run", "write_run"]

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
            give_back(self.ids, len(piece))
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


_CANDIDATES = 1 << 16  # keys looked at for the edge of a range
_HEAD = 16  # bytes: number of strings, words in a key

Edges = NDArray[np.int64]
"""For each run how many of its strings come before some key."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Strings:
    """Different strings in sorted order, and how often each occurs.

    Args:
        words: of the keys.
        counts: int64.
    """

    words: Words
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)


Run = Strings
"""Strings that are memory-mapped."""


def added_up(words: Words, counts: NDArray[np.int64] | None = None) -> Strings:
    """Sorts keys and adds equal ones up; the arrays of `words` may be changed on the way.

    >>> found = added_up([np.array([7, 3, 7], dtype=np.uint64)])
    >>> found.words[0].tolist(), found.counts.tolist()
    ([3, 7], [1, 2])
    """
    if len(words) == 1 and counts is None:
        words[0].sort()
    else:
        order = np.argsort(words[0]) if len(words) == 1 else np.lexsort(words[::-1])
        words = [word[order] for word in words]
        counts = None if counts is None else counts[order]
        del order
    new = np.ones(len(words[0]), dtype=np.bool_)
    new[1:] = words[0][1:] != words[0][:-1]
    for word in words[1:]:
        new[1:] |= word[1:] != word[:-1]
    first = np.flatnonzero(new)
    found = [word[first] for word in words]
    if counts is None:
        return Strings(words=found, counts=np.diff(first, append=len(new)))
    return Strings(words=found, counts=np.add.reduceat(counts, first) if len(first) else counts)


def write_run(path: Path, strings: Strings) -> None:
    """Writes strings as one file, whole or not at all.

    Raises:
        StorageError: the disk is full or refuses; says what is missing.
    """
    columns = [*strings.words, strings.counts]
    with atomic_writer(path, _HEAD + 8 * len(strings) * len(columns)) as file:
        file.write(np.array([len(strings), len(strings.words)], dtype=np.int64).data)
        for column in columns:
            file.write(np.ascontiguousarray(column).data)


def open_run(path: Path, words: int) -> Run | None:
    """Maps what `write_run` wrote; None where there is no such whole file."""
    if not path.is_file() or path.stat().st_size < _HEAD:
        return None
    head = np.fromfile(path, dtype=np.int64, count=2)
    size = int(head[0])
    if head[1] != words or path.stat().st_size != _HEAD + 8 * size * (words + 1):
        return None
    if not size:
        return Strings(words=[np.zeros(0, np.uint64)] * words, counts=np.zeros(0, np.int64))
    columns = np.memmap(path, dtype=np.uint64, mode="r", offset=_HEAD, shape=(words + 1, size)).view(np.ndarray)
    return Strings(words=list(columns[:-1]), counts=columns[-1].view(np.int64))


def cut(runs: list[Run], capacity: int) -> list[Edges]:
    """Edges of ranges of keys: between two neighbours lie at most `capacity` strings of all runs together.

    No range parts equal keys, so a range may be larger where so many runs hold one and the same key.

    >>> runs = [added_up([np.array([1, 2, 3], dtype=np.uint64)]), added_up([np.array([2, 9], dtype=np.uint64)])]
    >>> [edges.tolist() for edges in cut(runs, 3)]
    [[0, 0], [2, 1], [3, 2]]
    """
    low = np.zeros(len(runs), dtype=np.int64)
    high = np.array([len(run) for run in runs], dtype=np.int64)
    return [low, *_cut(runs, low, high, 0, capacity)]


def _cut(runs: list[Run], low: Edges, high: Edges, word: int, capacity: int) -> list[Edges]:
    """The edges after `low` up to `high`, of strings that agree in all words before `word`."""
    total = int((high - low).sum())
    if total <= capacity or word == len(runs[0].words):
        return [high]
    parts = [run.words[word][a:b] for run, a, b in zip(runs, low.tolist(), high.tolist(), strict=True)]
    candidates = _candidates(parts, total, capacity)
    before = np.zeros(len(candidates), dtype=np.int64)
    for part in parts:
        before += np.searchsorted(part, candidates)
    edges = [low]
    for at, after in pairwise(_chosen(before, total, capacity)):
        key = None if after == len(candidates) else candidates[after]
        end = high if key is None else low + np.array([np.searchsorted(part, key) for part in parts])
        edges += _cut(runs, edges[-1], end, word + _is_one_key(candidates, at, after), capacity)
    return edges[1:]


def _is_one_key(candidates: NDArray[np.uint64], at: int, after: int) -> bool:
    """Whether the range between two candidates is a single value of the word."""
    key, highest = candidates[at], np.iinfo(np.uint64).max
    if after == len(candidates):
        return bool(key == highest)
    return after == at + 1 and bool(candidates[after] == key + np.uint64(1))


def _candidates(parts: Words, total: int, capacity: int) -> NDArray[np.uint64]:
    """Keys so close that what lies between two is few, and the key after each, so that one key may stand alone."""
    step = max(1, capacity // (2 * len(parts)), -(-total // _CANDIDATES))
    seen = np.unique(np.concatenate([part[::step] for part in parts]))
    after = seen[seen < np.iinfo(np.uint64).max] + np.uint64(1)
    return np.union1d(seen, after)


def _chosen(before: NDArray[np.int64], total: int, capacity: int) -> list[int]:
    """Numbers of candidates that begin a range, and one past the last; as much in each range as fits."""
    chosen = [0]
    while chosen[-1] < len(before):
        most = int(before[chosen[-1]]) + capacity
        after = len(before) if total <= most else int(np.searchsorted(before, most, side="right")) - 1
        chosen.append(max(after, chosen[-1] + 1))
    return chosen


def merge(runs: list[Run], low: Edges, high: Edges) -> Strings:
    """The strings of one range of all runs, equal ones added up."""
    some = [(run, a, b) for run, a, b in zip(runs, low.tolist(), high.tolist(), strict=True) if b > a]
    if not some:
        return Strings(words=[np.zeros(0, np.uint64) for _ in runs[0].words], counts=np.zeros(0, np.int64))
    words = [np.concatenate([run.words[w][a:b] for run, a, b in some]) for w in range(len(runs[0].words))]
    return added_up(words, np.concatenate([run.counts[a:b] for run, a, b in some]))
