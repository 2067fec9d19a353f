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
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError, OptionError, TextError
from charlm.files import read_json, sweep, write_json, write_with
from charlm.ngrams.index_files import count_context, save_context
from charlm.ngrams.past_memory.job import CountJob, Workers
from charlm.ngrams.past_memory.packing import Packing, SpannedText
from charlm.ngrams.past_memory.runs import cut
from charlm.ngrams.past_memory.tables import OPENINGS, CountTables
from charlm.ngrams.past_memory.writer import write_tables
from charlm.text.splits import Spans
from charlm.text.vocab import Ids

__all__ = ["Progress", "count_past_memory", "smallest_memory"]

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
