"""Progress bars: shown on a terminal or in a notebook, by one process alone, and only for work that takes long."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any


def several() -> bool:
    """Whether torchrun started several processes, of which this is one."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def follower() -> bool:
    """Whether this is one of several processes, but not the first: only the first one prints."""
    return several() and os.environ.get("RANK", "0") != "0"


def in_notebook() -> bool:
    """Whether this Python serves a Jupyter notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def watched() -> bool:
    """Whether a person sees a progress bar of this process: stderr is a terminal, or a notebook shows it."""
    return not follower() and (in_notebook() or sys.stderr.isatty())


def wrapped(message: str, width: int | None = None) -> str:
    """A message for stderr: on a terminal its lines are broken between words, elsewhere it stays as it is.

    Args:
        message: lines of text; the blanks that begin a line also begin its further lines.
        width: columns; None takes those of the terminal.

    >>> print(wrapped("    a sample of text", 14))
        a sample
        of text
    """
    if width is None:
        if not sys.stderr.isatty():
            return message
        width = shutil.get_terminal_size().columns
    lines = []
    for line in message.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))] if len(line) > width else ""
        lines += textwrap.wrap(
            line, max(width, 20), subsequent_indent=indent, break_on_hyphens=False, replace_whitespace=False
        ) or [""]
    return "\n".join(lines)


def decimals(value: float, digits: int) -> str:
    """A loss for a person, without a minus before zero; that of a training that diverged is short, too.

    >>> decimals(2.5, 4), decimals(-0.0, 2), decimals(33142844948480.0, 4)
    ('2.5000', '0.00', '3.31e+13')
    """
    return f"{round(value, digits) + 0.0:.{digits}f}" if value < 1e6 else f"{value:.3g}"


def progress_bar(total: int | None, label: str, unit: str = "it", *, show: bool | None = None, **options: Any) -> Any:
    """A tqdm bar on stderr, for a terminal or a notebook; it appears after two seconds of work.

    Args:
        total: how much there is to do; None where that is not known.
        label: what is being done, before the bar.
        unit: of `total`.
        show: True or False to show it or not; None shows it where a person sees it (`watched`).
        options: further arguments of `tqdm`.

    >>> with progress_bar(3, "counting", show=False) as bar:
    ...     bar.update(3)
    """
    from importlib import import_module

    tqdm: Any = import_module("tqdm.auto" if in_notebook() else "tqdm").tqdm
    shown = watched() if show is None else show
    settings: dict[str, Any] = {"delay": 2, "leave": False, "file": sys.stderr, **options}
    if in_notebook():
        settings.pop("file")
    return tqdm(total=total, desc=label, unit=unit, disable=not shown, **settings)


@contextlib.contextmanager
def bytes_bar(
    label: str, total: int | None = None, *, show: bool | None = None
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for reading or downloading: gives a function that is told the bytes so far and the bytes in all.

    >>> with bytes_bar("reading", show=False) as tell:
    ...     tell(512, 1024)
    """
    with progress_bar(total, label, "B", show=show, unit_scale=True) as bar:

        def tell(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell
