"""Making and writing matplotlib figures: the format by the name's ending, the file whole or not at all.

A figure here is a file, or a value that a notebook shows, never a window. It is made without `pyplot`, and the backend
that the environment asks for (`MPLBACKEND`) is left alone: that backend need not be installed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.errors import OptionError
from charlm.files import write_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_picture", "new_figure", "save_figure"]

_FORMATS = ("png", "svg", "pdf")


def check_picture(picture: Path) -> str:
    """The format that a picture's name asks for; another ending is refused before any work is done.

    >>> check_picture(Path("curve.SVG"))
    'svg'
    """
    ending = picture.suffix.lower().removeprefix(".")
    if ending not in _FORMATS:
        raise OptionError(f"a picture's name ends in .{', .'.join(_FORMATS)}, which {picture.name!r} does not")
    return ending


def new_figure(width: float, height: float) -> Figure:
    """An empty matplotlib figure whose parts arrange themselves; the sizes are in inches.

    Drawing functions begin with this call, as it is also the safe way to import matplotlib: with an unknown name in
    `MPLBACKEND`, a plain `import matplotlib` raises a ValueError.

    >>> new_figure(4, 3).get_size_inches().tolist()
    [4.0, 3.0]
    """
    with _no_backend_asked_for():
        from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def _no_backend_asked_for() -> Iterator[None]:
    """Hides `MPLBACKEND` from matplotlib, which reads it once, when it is imported for the first time."""
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked


def save_figure(figure: Any, picture: Path) -> None:
    """Writes a matplotlib figure, whole or not at all; a character that the font lacks becomes a box."""
    ending = check_picture(picture)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*[Gg]lyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        write_with(picture, lambda file: figure.savefig(file, format=ending, dpi=150))
