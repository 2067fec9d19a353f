"""The runs of a count past memory, and who makes them: this process, or the workers of a Dask cluster.

A block of what is counted becomes a sorted run, a file; `FAN` neighbouring runs are merged into one of the next level,
until at most `FAN` are left, which are merged while the tables are written. A run is a file `run-LEVEL-NUMBER` that is
there whole or not at all, and has the same bytes whoever makes it. So a count that was stopped goes on with the runs
that are there, and Dask may give a run to any worker, and to another one when a worker is lost. `count.json` says what
the directory belongs to.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError, OptionError
from charlm.files import read_json, storage_errors, sweep, write_json
from charlm.ngrams.strings import Packing, SpannedText, Strings, added_up, merged, open_run, write_run
from charlm.ngrams.suffixes import save_array

__all__ = ["FAN", "Blocks", "Job", "TextBlocks", "made_by_workers"]

FAN = 16
"""How many runs are merged into one."""

_FORMAT = 2


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
        """Makes the directory this count's own: what another count left there is deleted, all where `what` is empty.

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
    """Has the runs of a text made by Dask workers; yields the share that is done.

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
    """Makes one run, in a worker; returns an error that is foreseen, as Dask would print the traceback of one raised.

    `after` are the runs below it, which Dask makes first.
    """
    try:
        text = SpannedText(ids=ids.open(), spans=spans.open().reshape(-1, 2), symbols=job.packing.symbols)
        replace(job, source=TextBlocks(text, job.packing, job.capacity)).make(level, number)
    except CharlmError as error:
        return error
    except FileNotFoundError:
        return _unseen(job.directory)
    return None
