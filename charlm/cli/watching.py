"""What the commands that train share: who watches, what Ctrl-C does, where a run is kept and on which device."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.cli.common import note
from charlm.errors import OptionError
from charlm.files import free_name
from charlm.progress import progress_bar, several
from charlm.training.interfaces import Observer, StepReport, ValidationReport

if TYPE_CHECKING:
    import torch

__all__ = ["Watch", "device_of", "draw", "interruptible", "run_directory", "wanted_directory"]


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C does not wait.

    Under torchrun a second one does: torchrun repeats what a process may have got already, and ends those that take
    too long.
    """
    flag = threading.Event()

    def ask(number: int, frame: object) -> None:
        if flag.is_set() and not several():
            raise KeyboardInterrupt
        flag.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watch(Observer):
    """An observer that shows a progress bar, the validations, and whatever the command has to say at them.

    Args:
        shown: what stands behind the bar after a step.
        first: a sentence about the loss of the first step, if there is something to say.
        after: further lines after a validation.
        measuring: what is done to the best weights at the end, and its unit.
        what: the unit of a loss.
    """

    def __init__(
        self,
        shown: Callable[[StepReport], str],
        *,
        first: Callable[[float], str | None] = lambda loss: None,
        after: Callable[[], Iterable[str]] = tuple,
        measuring: tuple[str, str] = ("measuring", "it"),
        what: str = "nats",
    ) -> None:
        self._shown, self._first, self._after, self._measuring = shown, first, after, measuring
        self._what = what
        self.bar: Any = None
        self.reading: Any = None

    def on_step(self, report: StepReport) -> None:
        """Moves the bar on."""
        done = report.progress
        if self.bar is None:
            self.bar = progress_bar(done.total, "training", "step", initial=done.step - 1)
            said = self._first(report.loss)
            if said is not None:
                self.on_note(said)
        if done.total != self.bar.total:
            self.bar.total = done.total
        self.bar.set_postfix_str(self._shown(report), refresh=False)
        self.bar.update()

    def on_validation(self, report: ValidationReport) -> None:
        """Says both losses in one line, and what follows them."""
        done = report.progress
        train = "" if report.train is None else f"train {report.train:.4f}, "
        mark = " (best so far)" if report.improved else ""
        self.on_note(f"step {done.step:,}/{done.total:,}: {train}valid {report.valid:.4f} {self._what}{mark}")
        for said in self._after():
            self.on_note(said)

    def on_note(self, message: str) -> None:
        """Says it above the bar."""
        if self.bar is not None:
            self.bar.write(message, file=sys.stderr)
        else:
            note(message)

    def measuring(self, count: int) -> None:
        """Shows how far the last measurement has come."""
        if self.reading is None:
            self.close()
            self.reading = progress_bar(None, *self._measuring)
        self.reading.update(count)

    def close(self) -> None:
        """Takes the bars away."""
        for bar in (self.bar, self.reading):
            if bar is not None:
                bar.close()


def wanted_directory(out: str | None, source: str, kind: str) -> Path:
    """Where a run is to be kept, if nothing is there yet; see `run_directory`."""
    stem = "stdin" if source == "-" else Path(source).stem or "text"
    return Path(out) if out is not None else Path("checkpoints") / f"{stem}-{kind}"


def run_directory(out: str | None, source: str, kind: str) -> Path:
    """A directory that no run has yet.

    Args:
        out: what the user named; a taken name becomes NAME-2, and that is said.
        source: the file that the run learns from, which it is called by otherwise; - for standard input.
        kind: of cell.
    """
    directory = free_name(wanted_directory(out, source, kind))
    if out is not None and directory != Path(out):
        note(f"{out} is taken: this run goes to {directory}")
    return directory


def device_of(before: str, wanted: str) -> torch.device:
    """The device asked for; for `auto` the one that the run had, where there is one."""
    from charlm.training.recipe import pick_device

    if wanted != "auto":
        return pick_device(wanted)
    try:
        return pick_device(before)
    except OptionError:
        device = pick_device("auto")
        note(f"the run was on {before}, which is not here: it goes on on {device}")
        return device


def draw(what: str, act: Callable[[], object]) -> None:
    """Draws a picture; where that fails it is said, and the run's work is not lost for it."""
    try:
        act()
    except OSError as error:
        note(f"no picture of {what}: {error}")
