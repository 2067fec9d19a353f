"""Strings of symbols packed into words of 64 bits, so that sorting numbers sorts strings; sorted runs of strings.

A symbol's code is its id plus 1; 0 stands behind a span's last symbol and in all places after it. A key is the
first `depth` codes from a place on, most significant first, in as many words as they need. A run is sorted keys with
their counts. Axes: N places or keys, W words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError, TextError
from charlm.files import atomic_writer
from charlm.ngrams.suffixes import room_array
from charlm.text.cache import give_back
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

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
        room = room_array(codes, self.depth)[:size]
        near = np.flatnonzero(room < self.depth)
        room = room[near].astype(np.int64)
        for word, packed in enumerate(words):
            kept = np.clip(room - word * self.per_word, 0, self.held(word))
            packed[near] &= self._masks(word)[kept]

    def _masks(self, word: int) -> NDArray[np.uint64]:
        """Item k keeps the first k codes of a word."""
        held, ones = self.held(word), (1 << self.bits * self.held(word)) - 1
        return np.array([ones & ~((1 << self.bits * (held - k)) - 1) for k in range(held + 1)], dtype=np.uint64)

    def codes(self, words: Words, number: int) -> NDArray[np.uint64]:
        """Code `number` of every key."""
        word, shift = self._place(number)
        return (words[word] >> shift) & np.uint64((1 << self.bits) - 1)

    def put(self, words: Words, number: int, codes: NDArray[np.uint64]) -> None:
        """Sets code `number` of every key, which was 0."""
        word, shift = self._place(number)
        words[word] |= codes << shift

    def _place(self, number: int) -> tuple[int, np.uint64]:
        """The word that holds a code, and how far from its low end."""
        word, place = divmod(number, self.per_word)
        return word, np.uint64(self.bits * (self.held(word) - 1 - place))


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


def _order(words: Words) -> NDArray[np.int64]:
    """The order that sorts keys, the most significant word first, equal ones by their place.

    numpy sorts numbers many times as fast as it finds their order, so each pass sorts numbers whose high bits are a
    digit of the keys and whose low bits say where it stands; the least significant digit comes first.

    >>> _order([np.array([2, 1, 2], dtype=np.uint64), np.array([1, 5, 0], dtype=np.uint64)]).tolist()
    [1, 2, 0]
    """
    place = np.arange(len(words[0]), dtype=np.uint64)
    bits = np.uint64(max(1, len(place).bit_length()))
    order = place.view(np.int64)
    for word in reversed(words):
        for shift in range(0, int(word.max(initial=0)).bit_length(), 64 - int(bits)):
            digits = word[order] >> np.uint64(shift) << bits
            digits |= place
            digits.sort()
            digits &= (np.uint64(1) << bits) - np.uint64(1)
            order = order[digits.view(np.int64)]
    return order


class Blocks(Protocol):
    """What is counted, in pieces that fit in memory."""

    def __len__(self) -> int:
        """How many pieces."""

    def __getitem__(self, number: int) -> Strings:
        """The sorted strings of one."""


@dataclass(frozen=True, eq=False)
class TextBlocks:
    """The strings of a text, block by block; those at a block's end look into the next.

    Args:
        text: what is counted.
        packing: how its strings become keys.
        size: characters in a block.
    """

    text: SpannedText
    packing: Packing
    size: int

    def __len__(self) -> int:
        return (len(self.text) + self.size - 1) // self.size

    def __getitem__(self, number: int) -> Strings:
        start = number * self.size
        end = min(start + self.size, len(self.text))
        found = added_up(self.packing.keys(self.text.codes(start, end + self.packing.depth - 1)))
        nothing = int(not found.words[0][0])  # the key of the separators, before all others
        return Strings(words=[word[nothing:] for word in found.words], counts=found.counts[nothing:])


def added_up(words: Words, counts: NDArray[np.int64] | None = None) -> Strings:
    """Sorts keys and adds equal ones up; the arrays of `words` may be changed on the way.

    >>> found = added_up([np.array([7, 3, 7], dtype=np.uint64)])
    >>> found.words[0].tolist(), found.counts.tolist()
    ([3, 7], [1, 2])
    """
    if len(words) == 1 and counts is None:
        words[0].sort()
    else:
        order = _order(words)
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


def write_run(path: Path, pieces: Iterable[Strings]) -> None:
    """Writes sorted strings as one file, whole or not at all: for each its words, then its count.

    Raises:
        StorageError: the disk is full or refuses; says what is missing.
    """
    with atomic_writer(path) as file:
        for piece in pieces:
            file.write(np.stack([*piece.words, piece.counts.view(np.uint64)], axis=1).data)


def open_run(path: Path, words: int) -> Strings:
    """Maps what `write_run` wrote.

    Raises:
        CharlmError: the file has gone, or has been cut.
    """
    try:
        size = path.stat().st_size
        if size % (8 * (words + 1)):
            raise ValueError
        flat = np.memmap(path, dtype=np.uint64, mode="r") if size else np.zeros(0, np.uint64)
    except (OSError, ValueError):
        raise CharlmError(f"{path} has gone or changed meanwhile: delete it and give the same command again") from None
    columns = flat.view(np.ndarray).reshape(-1, words + 1).T
    return Strings(words=list(columns[:-1]), counts=columns[-1].view(np.int64))


def merged(runs: list[Strings], capacity: int) -> Iterator[Strings]:
    """The strings of sorted runs in sorted order, each once, equal ones added up.

    Each step reads the next strings of every run, `capacity` in all, and yields those that are not above the last
    string read of any run that has more.

    Args:
        runs: one or more.
        capacity: how many strings are in memory at a time; at least one of each run is.

    >>> runs = [added_up([np.array(keys, dtype=np.uint64)]) for keys in ([1, 2, 3], [2, 9])]
    >>> [(part.words[0].tolist(), part.counts.tolist()) for part in merged(runs, 4)]
    [([1, 2], [1, 2]), ([3, 9], [1, 1])]
    """
    step, left = max(1, capacity // len(runs)), [(run, 0) for run in runs if len(run)]
    while left:
        parts = [Strings(words=[w[at : at + step] for w in run.words], counts=run.counts[at : at + step])
                 for run, at in left]  # fmt: skip
        going_on = [part for part, (run, at) in zip(parts, left, strict=True) if at + len(part) < len(run)]
        bound = min((tuple(int(word[-1]) for word in part.words) for part in going_on), default=None)
        taken = [len(part) if bound is None else _up_to(part.words, bound) for part in parts]
        words = [np.concatenate([part.words[w][:n] for part, n in zip(parts, taken, strict=True)])
                 for w in range(len(runs[0].words))]  # fmt: skip
        yield added_up(words, np.concatenate([part.counts[:n] for part, n in zip(parts, taken, strict=True)]))
        left = [(run, at + n) for (run, at), n in zip(left, taken, strict=True) if at + n < len(run)]


def _up_to(words: Words, bound: tuple[int, ...]) -> int:
    """How many of sorted keys are not above a key."""
    low, high = 0, len(words[0])
    for word, value in zip(words, bound, strict=True):
        part, key = np.ascontiguousarray(word[low:high]), np.uint64(value)
        low, high = low + int(np.searchsorted(part, key)), low + int(np.searchsorted(part, key, side="right"))
    return high
