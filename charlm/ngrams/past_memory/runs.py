"""Sorted runs: strings with their counts on the disk, each once in a run, merged by ranges of keys.

A run is made of one block of text: its keys (see `packing`) sorted, equal ones added up. To merge many
runs, the keys are cut into ranges that fit in memory; a range's pieces of all runs are put together and sorted again.
Ranges are independent, so any number of processes may merge them, and what they write is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.files import atomic_writer
from charlm.ngrams.past_memory.packing import Words

__all__ = ["Run", "Strings", "added_up", "cut", "merge", "open_run", "write_run"]

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
