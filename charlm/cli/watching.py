"""What the commands that train share: what Ctrl-C does, where a run is kept, on which device, and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.cli.common import note
from charlm.errors import OptionError
from charlm.files import free_name
from charlm.training.run import interruptible
from charlm.training.watching import Watch

if TYPE_CHECKING:
    import torch

__all__ = ["Watch", "device_of", "draw", "interruptible", "run_directory"]


def run_directory(out: str | None, source: str, kind: str) -> Path:
    """A directory that no run has yet.

    Args:
        out: what the user named; a taken name becomes NAME-2, and that is said.
        source: the file that the run learns from, which it is called by otherwise; - for standard input.
        kind: of cell.
    """
    stem = "stdin" if source == "-" else Path(source).stem or "text"
    directory = free_name(Path(out) if out is not None else Path("checkpoints") / f"{stem}-{kind}")
    if out is not None and directory != Path(out):
        note(f"{out} is taken: this run goes to {directory}")
    return directory


def device_of(before: str, wanted: str) -> torch.device:
    """The device asked for; for `auto` the one that the run had, where there is one."""
    from charlm.nn.kernels.choose import pick_device

    if wanted != "auto":
        return pick_device(wanted)
    try:
        return pick_device(before)
    except OptionError:
        device = pick_device("auto")
        note(f"the run was on {before}, which is not here: it goes on on {device}")
        return device


def draw(what: str, act: Callable[[], object]) -> None:
    """Draws a picture; where it cannot be written, says so, so that the figures are printed all the same."""
    try:
        act()
    except OSError as error:
        note(f"no picture of {what}: {error}")
