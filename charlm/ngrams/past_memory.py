"""Counting a text that is larger than memory: sorted runs on the disk, merged into tables.

Three stages, each of which leaves whole files in a work directory, so that a count that was stopped at any moment
goes on from there: a sorted run for every block of the text (`run-NNNNN`), the runs merged by ranges of keys
(`merged-NNNNN`, ranges in `ranges.npy`), and the tables (`level-*.npy`). Blocks and ranges depend on the text and the
memory alone, and each is worked on by itself: one process or many write the same files. `count.json` says what the
directory belongs to; where that differs, what is there is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError, OptionError, TextError
from charlm.files import read_json, sweep, unwritten, write_json, write_with
from charlm.ngrams.job import CountJob, Workers
from charlm.ngrams.strings import Packing, Run, SpannedText, Strings, cut
from charlm.ngrams.suffixes import count_context, save_context
from charlm.ngrams.tables import KINDS, OPENINGS, CountTables, file_of
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

__all__ = ["Progress", "count_past_memory", "smallest_memory", "write_tables"]

Progress = Callable[[float], None]
"""Called with the share of the work that is done."""

_OWN = 44 << 20  # bytes: the interpreter, numpy, what read the text
_WORKER = 28 << 20  # bytes of a further process before it works
_LEAST = 20 << 20  # bytes to sort in
_LARGEST = 1 << 25  # characters in a block
_RUNS, _MERGING, _TABLES = 0.5, 0.25, 0.25  # shares of the work
_FORMAT = 1


def count_past_memory(
    ids: Ids,
    spans: Spans,
    *,
    symbols: int,
    order: int,
    directory: Path,
    memory: int,
    processes: int = 1,
    identity: str = "",
    shared_N: NDArray[np.bool_] | None = None,
    progress: Progress | None = None,
) -> CountTables:
    """The counts of a text's spans for one order, made within a limit on anonymous memory.

    Args:
        ids: of the text, best a memory map.
        spans: rows of (start, end) in it; no string crosses a span's end.
        symbols: size of the vocabulary; ids are below it.
        order: characters of history, 0 to 32.
        directory: where the work is done and the tables end; one of its own, locked by the caller. What a stopped
            count of the same text left there is gone on with, what any other left is deleted.
        memory: bytes, of all processes together, with what they have before they count.
        processes: how many share the work.
        identity: what tells these ids from all others, such as a hash; without one nothing is gone on with.
        shared_N: for each span whether its first symbol is context that the span before it counts; see
            `SuffixIndex.build`.
        progress: told how far the work is.

    Raises:
        TextError: no character in the spans, or an id outside the vocabulary.
        OptionError: too little memory.
        StorageError: the disk is full or refuses.
        CharlmError: a process was killed.
    """
    context_V = count_context(ids, spans, shared_N, symbols)
    spans = spans[spans[:, 1] > spans[:, 0]]
    if not len(spans):
        raise TextError("there is no character to count: use a longer text or another --split")
    packing = Packing(symbols=symbols, depth=order + 1)
    job = CountJob(
        text=SpannedText(ids=ids, spans=spans, symbols=symbols),
        packing=packing,
        capacity=_capacity(memory, processes, packing.words),
        directory=directory,
    )
    _claim(job, identity)
    told = _Told(progress)
    _sort_and_merge(job, processes, told)
    strings = sum(map(len, job.merged()))
    for done in write_tables(directory, job.merged(), packing, job.text.characters):
        told.add(_TABLES * done / strings)
    write_with(directory / OPENINGS, partial(np.save, arr=job.text.openings(order + 1), allow_pickle=False))
    save_context(directory, context_V)
    return CountTables.load(directory, symbols=symbols, order=order)


def smallest_memory(processes: int = 1) -> int:
    """The fewest bytes that so many processes together count within.

    >>> smallest_memory(1) >> 20, smallest_memory(2) >> 20
    (64, 140)
    """
    return _OWN + processes * (_LEAST + (_WORKER if processes > 1 else 0))


def _capacity(memory: int, processes: int, words: int) -> int:
    """How many characters one process sorts at a time."""
    if memory < (least := smallest_memory(processes)):
        whom = "one process" if processes == 1 else f"{processes} processes"
        raise OptionError(f"{memory:,} bytes are too little memory for {whom}: give {-(-least >> 20)}M or more")
    each = (memory - least) // processes + _LEAST
    return min(each // (32 * words + 32), _LARGEST)


class _Told:
    """Adds up shares of the work and passes them on."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done = progress, 0.0

    def add(self, share: float) -> None:
        self._done += share
        if self._progress is not None:
            self._progress(min(1.0, self._done))


def _claim(job: CountJob, identity: str) -> None:
    """Makes the directory this count's own: what another count left there is deleted."""
    about = {
        "format": _FORMAT,
        "identity": identity,
        "spans": hashlib.sha256(np.ascontiguousarray(job.text.spans, dtype=np.int64).data).hexdigest(),
        "symbols": job.packing.symbols,
        "depth": job.packing.depth,
        "capacity": job.capacity,
    }
    path, known = job.directory / "count.json", None
    with contextlib.suppress(CharlmError):
        known = read_json(path, limit=1 << 20)
    if known == about and identity:
        sweep(job.directory)
        return
    job.clear()
    write_json(path, about)


def _sort_and_merge(job: CountJob, processes: int, told: _Told) -> None:
    """Makes what is missing of the runs and of their merged ranges; the runs are deleted at the end."""
    planned = job.ranges_path.exists()
    if planned and not job.missing_ranges():
        told.add(_RUNS + _MERGING)
        job.drop_runs()
        return
    if processes > 1:
        job.share()
    with Workers(job, processes, CountJob.again, job.arguments()) as workers:
        missing = job.missing_runs()
        told.add(_RUNS * (1 - len(missing) / job.blocks))
        for _ in workers.each("make_run", missing):
            told.add(_RUNS / job.blocks)
        if not planned:
            edges = np.stack(cut(job.runs, job.capacity))
            write_with(job.ranges_path, partial(np.save, arr=edges, allow_pickle=False))
        missing = job.missing_ranges()
        told.add(_MERGING * (1 - len(missing) / (len(job.ranges) - 1)))
        for _ in workers.each("make_merged", missing):
            told.add(_MERGING / (len(job.ranges) - 1))
    job.drop_runs()


_PIECE = 1 << 17  # strings worked on at once
_MOST = np.iinfo(np.int32).max  # numbers of events fit in int32


def write_tables(directory: Path, runs: Iterable[Run], packing: Packing, characters: int) -> Iterator[int]:
    """Writes the tables of all levels; yields how many strings are done, from time to time.

    Args:
        directory: where the files go.
        runs: the strings of the whole text in sorted order, each once, in one or more pieces.
        packing: how they are packed, order + 1 codes deep.
        characters: of the text.

    Raises:
        StorageError: the disk is full or refuses.
        TextError: more than 2 ** 31 - 1 different strings of one length.
    """
    directory.mkdir(parents=True, exist_ok=True)
    count = np.dtype(np.int32 if characters <= _MOST else np.int64)
    levels = [_LevelWriter(directory, order, packing.symbols, count) for order in range(packing.depth)]
    try:
        edge = [-1] * packing.depth  # the codes of the string before
        for run in runs:
            for at in range(0, len(run), _PIECE):
                words = [word[at : at + _PIECE] for word in run.words]
                edge = _add(levels, Strings(words=words, counts=run.counts[at : at + _PIECE]), packing, edge)
                yield len(words[0])
        for level in levels:
            level.finish()
    finally:
        for level in levels:
            level.close()


def _add(levels: list[_LevelWriter], piece: Strings, packing: Packing, edge: list[int]) -> list[int]:
    """Adds the next strings to every level; returns the codes of the last one."""
    size, counts = len(piece), piece.counts
    new = np.zeros(size, dtype=np.bool_)  # whether the first codes differ from those of the string before
    history = np.zeros(0, dtype=np.int64)  # where the histories of the level begin
    last = []
    for number, level in enumerate(levels):
        codes = packing.codes(piece.words, number)
        new[1:] |= codes[1:] != codes[:-1]
        new[0] |= int(codes[0]) != edge[number]
        alive = codes > 0
        event = np.flatnonzero(new & alive)
        counts = np.where(alive, counts, 0)
        level.add(history, event, codes[event], counts)
        history = event
        last.append(int(codes[-1]))
    return last


class _LevelWriter:
    """The files of one level while they grow; the last event and history stay open until the next begins."""

    def __init__(self, directory: Path, order: int, symbols: int, count: np.dtype[Any]) -> None:
        self._order, self._events, self._event, self._history = order, 0, 0, 0
        types: tuple[np.dtype[Any], ...] = (np.dtype(np.int32), smallest_dtype(symbols), count, np.dtype(np.int64))
        self._columns = {
            kind: _Column(directory / file_of(order, kind), dtype) for kind, dtype in zip(KINDS, types, strict=True)
        }
        if order == 0:  # one history, the empty one
            self._columns["first"].add(np.zeros(1, dtype=np.int64))

    def add(
        self,
        history: NDArray[np.int64],
        event: NDArray[np.int64],
        codes_E: NDArray[np.uint64],
        counts: NDArray[np.int64],
    ) -> None:
        """Adds strings: where new histories and events begin, the events' last codes, and how often each occurs."""
        before = self._events + np.searchsorted(event, history)
        self._columns["first"].add(before)
        self._columns["id"].add(codes_E - np.uint64(1))
        self._event = self._columns["count"].add_sums(counts, event, self._event, started=self._events > 0)
        begun = self._order == 0 or self._columns["first"].length > len(history)
        self._history = self._columns["total"].add_sums(counts, history, self._history, started=begun)
        self._events += len(event)
        if self._events > _MOST:
            raise TextError(
                f"the text has more than {_MOST:,} different strings of {self._order + 1} characters: take a smaller "
                "--order"
            )

    def finish(self) -> None:
        """Writes what is still open, and the heads of the files."""
        if self._events:
            self._columns["count"].add(np.array([self._event]))
        if self._columns["first"].length:
            self._columns["total"].add(np.array([self._history]))
        self._columns["first"].add(np.array([self._events]))
        for column in self._columns.values():
            column.finish()

    def close(self) -> None:
        for column in self._columns.values():
            column.close()


class _Column:
    """A file in numpy's format whose length is known at the end only."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype, self.length = path, dtype, 0
        try:
            self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 - it stays open while the table grows
        except OSError as error:
            raise unwritten(path, error) from None
        self._head = 0
        self._write_head()
        self._head = self._file.tell()

    def _write_head(self) -> None:
        about = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length,)}
        try:
            self._file.seek(0)
            np.lib.format.write_array_header_1_0(self._file, about)
        except OSError as error:
            raise unwritten(self._path, error) from None
        assert self._head in (0, self._file.tell()), "numpy leaves room for the length to grow"

    def add(self, values: NDArray[Any]) -> None:
        try:
            self._file.write(values.astype(self._dtype).data)
        except OSError as error:
            raise unwritten(self._path, error) from None
        self.length += len(values)

    def add_sums(self, counts: NDArray[np.int64], begins: NDArray[np.int64], pending: int, *, started: bool) -> int:
        """Writes the sums of the groups that begin at these places, but for the last; returns that."""
        if not len(begins):
            return pending + int(counts.sum())
        pending += int(counts[: begins[0]].sum())
        sums = np.add.reduceat(counts, begins)
        if started:
            self.add(np.array([pending]))
        self.add(sums[:-1])
        return int(sums[-1])

    def finish(self) -> None:
        self._write_head()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise unwritten(self._path, error) from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:
            return  # an error has been said already
