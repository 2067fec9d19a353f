"""What the commands that train do in turn or in the first process alone, where there are several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from charlm.cli.watching import run_directory, wanted_directory
from charlm.files import lock
from charlm.training.distributed import Processes
from charlm.training.keeping import states
from charlm.training.together import left_by

__all__ = ["directory_for", "held", "in_turn"]

_Read = TypeVar("_Read")


def in_turn(processes: Processes, read: Callable[[], _Read]) -> _Read:
    """Reads the text in the first process before the others, which then find it in the cache if it is big."""
    found: list[_Read] = []
    for first in (True, False):
        with processes.alike():
            if processes.first == first:
                found.append(read())
    return found[0]


def directory_for(
    out: str | None, source: str, kind: str, launch: list[str], processes: Processes
) -> tuple[Path, bool]:
    """Where the run is kept, as the first process chose it, and whether this launch has saved a state there."""
    chosen: list[Any] = []
    with processes.alike():
        if processes.first:
            left = left_by(wanted_directory(out, source, kind), launch) if launch else None
            directory = left or run_directory(out, source, kind)
            chosen = [str(directory), bool(left and states(left))]
    name, begun = processes.agree(chosen)
    return Path(name), begun


@contextmanager
def held(directory: Path, processes: Processes) -> Iterator[None]:
    """The lock of a run's directory, held by the first process for all."""
    with ExitStack() as stack:
        with processes.alike():
            if processes.first:
                stack.enter_context(lock(directory))
        yield
