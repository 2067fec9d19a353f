"""Numbered pieces of one job, done here or by several processes; what each does is on the disk, not in its answer."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

from charlm.errors import CharlmError, StorageError

__all__ = ["Workers"]

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
