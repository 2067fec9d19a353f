"""Numbered pieces of one job, done here or by several processes; what each does is on the disk, not in its answer.

The pieces of a count past memory: blocks of text that become sorted runs, ranges of keys that are merged.

Every piece is a file that is there whole or not at all, and is the same whoever makes it.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError, StorageError
from charlm.files import unwritten, write_with
from charlm.ngrams.strings import Packing, Run, SpannedText, Strings, added_up, merge, open_run, write_run

__all__ = ["CountJob", "Workers"]

_JOB: Any = None
"""In a worker process: the job that its pieces belong to."""


class Workers:
    """Does the pieces of a job.

    Args:
        job: for this process, where the pieces are done one after the other.
        processes: how many share the work; with 1 none is started.
        again: makes the same job in another process; called there with `arguments`. Both can be pickled.
        arguments: for `again`.
    """

    def __init__(self, job: Any, processes: int, again: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._job, self._pool = job, None
        if processes > 1:
            self._pool = ProcessPoolExecutor(
                processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(again, arguments)
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def each(self, method: str, numbers: Iterable[int]) -> Iterator[None]:
        """Calls a method of the job with each number, in any order; yields after each.

        Raises:
            CharlmError: what a piece raised; or a process was killed.
        """
        if self._pool is None:
            for number in numbers:
                getattr(self._job, method)(number)
                yield
            return
        try:
            for future in as_completed([self._pool.submit(_do, method, number) for number in numbers]):
                if (failed := future.result()) is not None:
                    raise _error(*failed)
                yield
        except BrokenProcessPool:
            raise CharlmError(
                "a process that counted was killed, perhaps for want of memory: give the same command again, it goes "
                "on with what is done"
            ) from None


def _begin(again: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Makes the job in a new process, which is interrupted by its parent alone and does not outlive it."""
    global _JOB  # noqa: PLW0603 - a process has one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()
    _JOB = again(**arguments)


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(method: str, number: int) -> tuple[str, str, int] | None:
    """One piece; a foreseen error as its kind, its sentence and its number, for not every error can be pickled."""
    try:
        getattr(_JOB, method)(number)
    except StorageError as error:
        return "storage", str(error), error.errno or errno.EIO
    except CharlmError as error:
        return type(error).__name__, str(error), 0
    return None


def _error(kind: str, sentence: str, number: int) -> CharlmError:
    if kind == "storage":
        return StorageError(sentence, OSError(number, os.strerror(number)))
    return CharlmError(sentence)


_OURS = ("run-*", "merged-*", "level-*.npy", "ranges.npy", "spans.npy", "ids.npy", "count.json", ".*.tmp")


@dataclass(frozen=True, kw_only=True, eq=False)
class CountJob:
    """What every process of a count knows.

    Args:
        text: what is counted.
        packing: how its strings become keys.
        capacity: how many of them are sorted at a time.
        directory: where the files go.
    """

    text: SpannedText
    packing: Packing
    capacity: int
    directory: Path

    def arguments(self) -> dict[str, Any]:
        """What `again` needs; can be pickled."""
        base = self.text.ids.base
        return {
            "directory": str(self.directory),
            "mapped": _where(base, self.text.ids) if isinstance(base, np.memmap) else None,
            "symbols": self.packing.symbols,
            "depth": self.packing.depth,
            "capacity": self.capacity,
        }

    def share(self) -> None:
        """Writes what other processes need and cannot find elsewhere."""
        write_with(self.directory / "spans.npy", partial(np.save, arr=self.text.spans, allow_pickle=False))
        if self.arguments()["mapped"] is None:
            write_with(self.directory / "ids.npy", partial(np.save, arr=self.text.ids, allow_pickle=False))

    @classmethod
    def again(
        cls, *, directory: str, mapped: tuple[str, str, int, int] | None, symbols: int, depth: int, capacity: int
    ) -> CountJob:
        """The same job in another process."""
        where = Path(directory)
        if mapped is None:
            ids = np.load(where / "ids.npy", mmap_mode="r")
        else:
            path, dtype, offset, size = mapped
            ids = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(size,))
        text = SpannedText(ids=np.asarray(ids), spans=np.load(where / "spans.npy"), symbols=symbols)
        return cls(text=text, packing=Packing(symbols=symbols, depth=depth), capacity=capacity, directory=where)

    @property
    def blocks(self) -> int:
        """Into how many blocks the text is cut."""
        return -(-len(self.text) // self.capacity)

    def _run_path(self, number: int) -> Path:
        return self.directory / f"run-{number:05d}"

    def _merged_path(self, number: int) -> Path:
        return self.directory / f"merged-{number:05d}"

    @property
    def ranges_path(self) -> Path:
        """The file of `ranges`."""
        return self.directory / "ranges.npy"

    def missing_runs(self) -> list[int]:
        """The blocks that are still to be sorted."""
        return [number for number in range(self.blocks) if self._open(self._run_path(number)) is None]

    def missing_ranges(self) -> list[int]:
        """The ranges that are still to be merged."""
        return [number for number in range(len(self.ranges) - 1) if self._open(self._merged_path(number)) is None]

    def _open(self, path: Path) -> Run | None:
        return open_run(path, self.packing.words)

    @cached_property
    def runs(self) -> list[Run]:
        """All runs; asked for when every one is there."""
        return [_there(self._open(self._run_path(number))) for number in range(self.blocks)]

    @cached_property
    def ranges(self) -> NDArray[np.int64]:
        """How many strings of every run come before each range, and all of them; [ranges + 1, runs]."""
        return np.asarray(np.load(self.ranges_path))

    def merged(self) -> Iterator[Run]:
        """All strings in sorted order, range by range."""
        return (_there(self._open(self._merged_path(number))) for number in range(len(self.ranges) - 1))

    def make_run(self, number: int) -> None:
        """Sorts one block of the text; strings at its end look into the next."""
        start = number * self.capacity
        end = min(start + self.capacity, len(self.text))
        found = added_up(self.packing.keys(self.text.codes(start, end + self.packing.depth - 1)))
        nothing = int(not found.words[0][0])  # the key of the separators, before all others
        write_run(
            self._run_path(number),
            Strings(words=[word[nothing:] for word in found.words], counts=found.counts[nothing:]),
        )

    def make_merged(self, number: int) -> None:
        """Merges one range of all runs."""
        write_run(self._merged_path(number), merge(self.runs, self.ranges[number], self.ranges[number + 1]))

    def drop_runs(self) -> None:
        """Deletes the runs."""
        for path in self.directory.glob("run-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def clear(self) -> None:
        """Deletes all that a count leaves in its directory.

        Raises:
            StorageError: the directory cannot be made or emptied.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for pattern in _OURS:
                for path in self.directory.glob(pattern):
                    path.unlink()
        except OSError as error:
            raise unwritten(self.directory, error) from None


def _there(run: Run | None) -> Run:
    if run is None:
        raise CharlmError("a file of the count has gone or changed meanwhile: give the same command again")
    return run


def _where(mapped: np.memmap[Any, Any], ids: NDArray[Any]) -> tuple[str, str, int, int]:
    """File, type, first byte and length of mapped ids."""
    offset = mapped.offset + ids.__array_interface__["data"][0] - mapped.__array_interface__["data"][0]
    return str(mapped.filename), ids.dtype.str, int(offset), len(ids)
