"""Counting a text that is larger than memory: sorted runs on the disk, merged in a tree, and written as tables.

The runs and who makes them are in `job.py`, packing and merging in `strings.py`, the tables in `tables.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError
from charlm.files import storage_errors, write_config, write_json
from charlm.ngrams.counted import Estimator
from charlm.ngrams.estimators import describe_ngram, fingerprints
from charlm.ngrams.job import Job, TextBlocks, made_by_workers
from charlm.ngrams.strings import Packing, SpannedText, merged
from charlm.ngrams.suffixes import count_context, save_array, save_context
from charlm.ngrams.tables import OPENINGS, CountTables, write_tables
from charlm.text.splits import Spans
from charlm.text.text import TextFacts
from charlm.text.vocab import Ids, Vocab

__all__ = [
    "WORK",
    "Progress",
    "capacity_of",
    "count_past_memory",
    "make_tables",
    "parse_size",
    "publish",
    "smallest_memory",
]

Progress = Callable[[float], None]
"""Called with the share of the work that is done."""

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)i?b?", re.IGNORECASE)

WORK = "counting"
"""The directory, in that of the model, where a count keeps what it has done so far."""

_OWN = 44 << 20  # bytes: the interpreter, numpy, what read the text
_CLIENT, _WORKER = 64 << 20, 72 << 20  # bytes that Dask takes: here with a scheduler, and in a worker before it counts
_LEAST = 20 << 20  # bytes to sort in
_LARGEST = 1 << 25  # characters in a block


def count_past_memory(
    ids: Ids,
    spans: Spans,
    *,
    symbols: int,
    order: int,
    directory: Path,
    memory: int,
    processes: int = 1,
    scheduler: str | None = None,
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
        memory: bytes, of this process and all of `processes` together, with what they have before they count; with a
            `scheduler`, of this process and of each worker.
        processes: how many share the work; more than one are Dask workers on this machine.
        scheduler: address of a Dask scheduler whose workers see the text and `directory` under the same paths.
        identity: what tells these ids from all others, such as a hash; without one nothing is gone on with.
        shared_N: for each span whether its first symbol is context that the span before it counts; see
            `SuffixIndex.build`.
        progress: told how far the work is.

    Raises:
        TextError: no character in the spans, or an id outside the vocabulary.
        OptionError: too little memory; Dask is not installed, or no scheduler answers.
        StorageError: the disk is full or refuses.
        CharlmError: workers were killed again and again, or do not see the directory.
    """
    context_V = count_context(ids, spans, shared_N, symbols)
    spans = spans[spans[:, 1] > spans[:, 0]]
    if not len(spans):
        raise TextError("there is no character to count: use a longer text or another --split")
    packing = Packing(symbols=symbols, depth=order + 1)
    capacity = capacity_of(memory, processes, packing.words, scheduler)
    text = SpannedText(ids=ids, spans=spans, symbols=symbols)
    job = Job(TextBlocks(text, packing, capacity), packing=packing, capacity=capacity, directory=directory)
    digest = hashlib.sha256(np.ascontiguousarray(spans, dtype=np.int64).data).hexdigest()
    job.claim({"identity": identity, "spans": digest} if identity else {})
    openings = text.openings(order + 1)
    here = processes == 1 and scheduler is None
    made = job.make_all() if here else made_by_workers(job, processes, scheduler)
    return make_tables(job, text.characters, openings, context_V, made, progress)


def smallest_memory(processes: int = 1, scheduler: str | None = None) -> int:
    """The fewest bytes within which so many processes together count, or each worker of a scheduler.

    >>> smallest_memory(1) >> 20, smallest_memory(2) >> 20
    (64, 292)
    """
    if scheduler is not None:
        return _WORKER + _OWN + _LEAST
    return _OWN + (_LEAST if processes == 1 else _CLIENT + processes * (_WORKER + _LEAST))


def capacity_of(memory: int, processes: int, words: int, scheduler: str | None = None) -> int:
    """How many strings one process sorts at a time."""
    if memory < (least := smallest_memory(processes, scheduler)):
        whom = "one process" if processes == 1 else f"{processes} processes"
        raise OptionError(f"{memory:,} bytes are too little memory for {whom}: give {-(-least >> 20)}M or more")
    each = (memory - least) // processes + _LEAST
    return min(each // (32 * words + 32), _LARGEST)


def make_tables(
    job: Job,
    characters: int,
    openings: NDArray[Any],
    context_V: NDArray[np.int64],
    made: Generator[float, None, None],
    progress: Progress | None = None,
) -> CountTables:
    """Has the runs of a job made and writes its tables.

    Args:
        job: whose directory is claimed.
        characters: that are counted.
        openings: the first codes of each span; see `TableLevels`.
        context_V: see `Levels`.
        made: makes the runs while it is read, and yields which share of them is done.
        progress: told how far the work is: the runs are three quarters.
    """
    tell = progress or (lambda share: None)
    with contextlib.closing(made):
        for share in made:
            tell(0.75 * share)
    runs, done = job.last_runs(), 0
    for strings in write_tables(job.directory, merged(runs, job.capacity), job.packing, characters):
        done += strings
        tell(0.75 + 0.25 * done / sum(map(len, runs)))
    tell(1.0)
    save_array(job.directory / OPENINGS, openings)
    save_context(job.directory, context_V)
    return CountTables.load(job.directory, symbols=job.packing.symbols, order=job.packing.depth - 1)


def parse_size(size: int | str) -> int:
    """Bytes, given as a whole number or written with K, M, G or T behind it, powers of 1024.

    >>> parse_size("2G"), parse_size("1.5m"), parse_size("640"), parse_size(640)
    (2147483648, 1572864, 640, 640)
    """
    found = _SIZE.fullmatch(str(size).strip()) if type(size) in (int, str) else None
    if found is None:
        raise OptionError(f"cannot read the size {str(size)[:40]!r}: write it as 500M or 2G")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def publish(directory: Path, estimator: Estimator, vocab: Vocab, facts: TextFacts) -> None:
    """Puts the tables in their places; `config.json` comes last, and makes them a model."""
    work = directory / WORK
    with storage_errors(directory):
        for path in sorted((work / "text").glob("level-*.npy")):
            os.replace(path, directory / path.name)
        write_json(directory / "vocab.json", vocab.to_json())
        marks = {"files": fingerprints(directory), "vocab_sha256": vocab.sha256}
        write_config(directory, "ngram", describe_ngram(estimator), facts, **marks)
        shutil.rmtree(work)
