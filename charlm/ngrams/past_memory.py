"""Counting a text that is larger than memory: sorted runs on the disk, merged in a tree, and written as tables.

A block of what is counted becomes a sorted run, a file; `FAN` neighbouring runs are merged into one of the next level,
until at most `FAN` are left, which are merged while the tables are written. A run is a file `run-LEVEL-NUMBER` that is
there whole or not at all, and has the same bytes whoever makes it: this process, or the workers of a Dask cluster. So a
count that was stopped goes on with the runs that are there, and Dask may give a run to any worker, and to another one
when a worker is lost. `count.json` says what the directory belongs to. Packing and merging are in `strings.py`, the
tables in `tables.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError, OptionError, TextError
from charlm.files import read_json, storage_errors, sweep, write_json
from charlm.ngrams.strings import Blocks, Packing, SpannedText, Strings, TextBlocks, merged, open_run, write_run
from charlm.ngrams.suffixes import count_context, save_array, save_context
from charlm.ngrams.tables import OPENINGS, CountTables, write_tables
from charlm.text.splits import Spans
from charlm.text.vocab import Ids

Progress = Callable[[float], None]
"""Called with the share of the work that is done."""

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
            count of the same text left there is used, what any other left is deleted.
        memory: bytes, of this process and all of `processes` together, with what they have before they count; with a
            `scheduler`, of this process and of each worker.
        processes: how many share the work; more than one are Dask workers on this machine.
        scheduler: address of a Dask scheduler whose workers see the text and `directory` under the same paths.
        identity: what tells these ids from all others, such as a hash; without one no earlier work is used.
        shared_N: for each span whether its first symbol is context that the span before it counts; see
            `SuffixIndex.build`.
        progress: called with the share of the work that is done.

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


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def parse_size(size: int | str) -> int:
    """Bytes, given as a whole number or written with K, M, G or T behind it, powers of 1024.

    >>> parse_size("2G"), parse_size("1.5m"), parse_size("640"), parse_size(640)
    (2147483648, 1572864, 640, 640)
    """
    found = _SIZE.fullmatch(str(size).strip()) if type(size) in (int, str) else None
    if found is None:
        raise OptionError(f"cannot read the size {str(size)[:40]!r}: write it as 500M or 2G")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def check_memory(memory: int | str, processes: int = 1, scheduler: str | None = None) -> int:
    """Bytes to count within; a size that cannot be read, or is too small for so many processes, is refused."""
    limit, least = parse_size(memory), smallest_memory(processes, scheduler)
    if limit < least:
        whom = "one process counts" if processes == 1 else f"{processes} processes count"
        raise OptionError(f"--memory {memory} is too little, {whom} within {-(-least >> 20)}M or more")
    return limit


def capacity_of(memory: int | str, processes: int, words: int, scheduler: str | None = None) -> int:
    """How many strings one process sorts at a time."""
    limit, least = check_memory(memory, processes, scheduler), smallest_memory(processes, scheduler)
    return min(((limit - least) // processes + _LEAST) // (32 * words + 32), _LARGEST)


def make_tables(
    job: Job,
    characters: int,
    openings: NDArray[Any],
    context_V: NDArray[np.int64],
    made: Generator[float, None, None],
    progress: Progress | None = None,
) -> CountTables:
    """Makes the runs of a job by iterating over `made`, and writes its tables.

    Args:
        job: whose directory is claimed.
        characters: that are counted.
        openings: the first codes of each span; see `TableLevels`.
        context_V: see `Levels`.
        made: a generator that makes the runs as it is iterated, and yields the share of them that is done.
        progress: called with the share of the work that is done; the runs count as three quarters.
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


FAN = 16
"""How many runs are merged into one."""

_FORMAT = 2


@dataclass(frozen=True)
class Job:
    """The runs of a count. Run n of level 0 is made from block n, run n of a higher level from up to `FAN` below it.

    Args:
        source: what is counted.
        packing: how strings are packed.
        capacity: how many strings are in memory at a time.
        directory: where the runs and tables go.
    """

    source: Blocks
    packing: Packing
    capacity: int
    directory: Path

    @property
    def sizes(self) -> list[int]:
        """How many runs each level has; at most `FAN` at the last one."""
        found = [len(self.source)]
        while found[-1] > FAN:
            found.append(-(-found[-1] // FAN))
        return found

    def children(self, level: int, number: int) -> list[int]:
        """The runs of the level below that a run is made from; none at level 0."""
        return list(range(number * FAN, min(number * FAN + FAN, self.sizes[level - 1]))) if level else []

    def path(self, level: int, number: int) -> Path:
        """The file of a run."""
        return self.directory / f"run-{level}-{number:05d}"

    def make(self, level: int, number: int) -> None:
        """Makes a run, unless its file or that of a run made from it is there; deletes what it was made from."""
        above = [self.path(higher, number // FAN ** (higher - level)) for higher in range(level, len(self.sizes))]
        used = [self.path(level - 1, child) for child in self.children(level, number)]
        if not any(path.exists() for path in above):
            if not (self.directory / "count.json").exists():
                raise _unseen(self.directory)
            runs = [open_run(path, self.packing.words) for path in used]
            write_run(above[0], merged(runs, self.capacity) if level else [self.source[number]])
        for path in used:
            with contextlib.suppress(OSError):
                path.unlink()

    def make_all(self) -> Generator[float, None, None]:
        """Makes the runs one after the other; yields the share that is done."""
        for level, size in enumerate(self.sizes):
            for number in range(size):
                self.make(level, number)
                yield (number + 1) / size if not level else 1.0

    def last_runs(self) -> list[Strings]:
        """The runs of the last level, which hold all strings."""
        last = len(self.sizes) - 1
        return [open_run(self.path(last, number), self.packing.words) for number in range(self.sizes[last])]

    def claim(self, what: dict[str, str]) -> None:
        """Prepares the directory: the runs of the same count stay there, and those of another one are deleted.

        Args:
            what: tells this count from all others; where it is empty, the runs of any count are deleted.

        Raises:
            StorageError: the directory cannot be made or emptied.
        """
        packing = {"symbols": self.packing.symbols, "depth": self.packing.depth, "capacity": self.capacity}
        about, path, known = {"format": _FORMAT, **what, **packing}, self.directory / "count.json", None
        with contextlib.suppress(CharlmError):
            known = read_json(path, limit=1 << 20)
        if known == about and what:
            for file in self.directory.glob("run-*"):
                if file.stat().st_size % (8 * (self.packing.words + 1)):
                    file.unlink()  # it has been cut
            sweep(self.directory)
            return
        with storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            for pattern in ("run-*", "level-*.npy", "spans.npy", "ids.npy", "count.json", ".*.tmp"):
                for file in self.directory.glob(pattern):
                    file.unlink()
        write_json(path, about)


def _unseen(directory: Path) -> CharlmError:
    return CharlmError(
        f"a worker does not see {directory}: keep the model in a directory that all machines share, and the texts and "
        "CHARLM_CACHE too"
    )


@dataclass(frozen=True)
class _File:
    """An array that a worker finds in a file: path, type, first byte and length."""

    path: str
    dtype: str
    offset: int
    size: int

    @classmethod
    def of(cls, array: NDArray[Any], path: Path) -> _File:
        """Where a mapped array is; another one is written to `path` first."""
        base = array.base
        if not isinstance(base, np.memmap):
            save_array(path, array)
            base = array = np.load(path, mmap_mode="r")
        offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        return cls(str(Path(str(base.filename)).absolute()), array.dtype.str, base.offset + offset, array.size)

    def open(self) -> NDArray[Any]:
        """The array, mapped and flat."""
        return np.memmap(self.path, self.dtype, "r", self.offset, (self.size,)).view(np.ndarray)


def made_by_workers(job: Job, processes: int, scheduler: str | None) -> Generator[float, None, None]:
    """Makes the runs of a text with Dask workers; yields the share that is done.

    Args:
        job: whose source is a `TextBlocks`.
        processes: how many workers of one thread are started on this machine.
        scheduler: address of a scheduler whose workers are used instead.

    Raises:
        OptionError: Dask is not installed, or no scheduler answers.
        CharlmError: what a worker raised; or worker after worker was killed by the same run.
    """
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError:
        raise OptionError(
            "counting by several workers needs Dask: pip install 'charlm-toolkit[cluster]', or leave --processes and "
            "--scheduler out"
        ) from None
    blocks = job.source
    assert isinstance(blocks, TextBlocks)
    ids = _File.of(blocks.text.ids, job.directory / "ids.npy")
    spans = _File.of(np.array(blocks.text.spans), job.directory / "spans.npy")
    sent = replace(job, source=(), directory=job.directory.absolute())  # the workers open the text themselves
    local = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with contextlib.ExitStack() as stack:
        try:
            cluster = scheduler or stack.enter_context(LocalCluster(n_workers=processes, host="127.0.0.1", **local))
            client = stack.enter_context(Client(cluster, timeout=30))
        except (OSError, ValueError) as error:
            raise OptionError(f"no Dask scheduler answers at {scheduler}: {error}") from None
        futures: dict[tuple[int, int], Any] = {}
        for level, size in enumerate(job.sizes):
            for number in range(size):
                after = [futures[level - 1, child] for child in job.children(level, number)]
                futures[level, number] = client.submit(_make, sent, ids, spans, level, number, after, pure=False)
        try:
            for done, future in enumerate(as_completed(futures.values(), raise_errors=False), start=1):
                if (failed := future.result()) is not None:
                    raise failed
                yield done / len(futures)
        except KilledWorker:
            raise CharlmError(
                "workers that counted were killed again and again, perhaps for want of memory: give the same command "
                "again, it goes on with what is done"
            ) from None


def _make(job: Job, ids: _File, spans: _File, level: int, number: int, after: list[None]) -> CharlmError | None:
    """Makes a run in a worker; returns a CharlmError, as Dask would print a traceback. `after` are those below."""
    try:
        text = SpannedText(ids=ids.open(), spans=spans.open().reshape(-1, 2), symbols=job.packing.symbols)
        replace(job, source=TextBlocks(text, job.packing, job.capacity)).make(level, number)
    except CharlmError as error:
        return error
    except FileNotFoundError:
        return _unseen(job.directory)
    return None
