"""What a run in several processes needs in its directory: who does not write, how to go on, and what was begun."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from charlm.checkpoint import read_config
from charlm.errors import CharlmError
from charlm.training.keeping import states
from charlm.training.loop import Keeper, Loop

__all__ = ["Follower", "left_by", "way_on"]


class Follower(Keeper):
    """The keeper of a process that does not write; it gives its part of a state to the one that does."""

    def metrics(self, row: dict[str, Any]) -> None:
        """Keeps nothing."""

    def best(self, loop: Loop) -> None:
        """Keeps nothing."""

    def state(self, loop: Loop) -> None:
        """Takes part in the gathering of what all processes carry."""
        loop.snapshot()


def way_on(directory: Path) -> str:
    """How to go on with a run of several processes that has broken off."""
    saved = states(directory)
    if not saved:
        return "nothing was saved yet, so start the run again"
    step = saved[0].stem.removeprefix("state-")
    return f"everything up to step {step} is saved, go on with torchrun ... -m charlm train --resume {directory}"


def left_by(directory: Path, launch: Collection[str]) -> Path | None:
    """The run that an earlier attempt of this launch began under this name (or NAME-2, ...); None where there is none.

    Args:
        directory: as it was wanted.
        launch: what started the processes, see `launch.launch_of`.
    """
    found, number, candidate = None, 1, directory
    while candidate.name and candidate.exists():
        if not set(launch).isdisjoint(_launch(candidate)):
            found = candidate
        number += 1
        candidate = directory.with_name(f"{directory.stem}-{number}{directory.suffix}")
    return found


def _launch(directory: Path) -> list[Any]:
    """What started the processes of the run in a directory; nothing where that is not known."""
    try:
        found = read_config(directory)["training"]["launch"]
    except (CharlmError, KeyError, TypeError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
