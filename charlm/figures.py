"""Making and writing matplotlib figures: the format by the name's ending, the file whole or not at all.

A figure here is a file, or a value that a notebook shows, never a window. It is made without `pyplot`, and the backend
that the environment asks for (`MPLBACKEND`) is left alone: that backend need not be installed.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.errors import OptionError
from charlm.files import write_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_picture", "drawn", "label_point", "new_figure", "save_figure"]

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
    """An empty matplotlib figure whose parts arrange themselves, which a notebook shows; the sizes are in inches.

    Drawing functions begin with this call, as it is also the safe way to import matplotlib: with an unknown name in
    `MPLBACKEND`, a plain `import matplotlib` raises a ValueError.

    >>> new_figure(4, 3).get_size_inches().tolist()
    [4.0, 3.0]
    """
    return _figure_type()(figsize=(width, height), layout="constrained")


@cache
def _figure_type() -> type[Figure]:
    """A `Figure` that a notebook shows as a picture, also where nobody has imported `pyplot`."""
    with _no_backend_asked_for():
        from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=90)
            return picture.getvalue()

    return ShownFigure


@contextmanager
def _no_backend_asked_for() -> Iterator[None]:
    """Hides `MPLBACKEND` from matplotlib, which reads it once, when it is imported for the first time."""
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked


def label_point(axes: Any, text: str, x: float, y: float) -> None:
    """Writes a label beside a point of matplotlib axes, on the side where it stays inside their frame.

    Call it after everything else is drawn, as the limits of the axes must not change afterwards.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    across, up = (x - left) / (right - left), (y - bottom) / (top - bottom)
    axes.annotate(
        text,
        (x, y),
        xytext=(0, -9 if up > 0.8 else 9),
        textcoords="offset points",
        ha="left" if across < 0.2 else "right" if across > 0.8 else "center",
        va="top" if up > 0.8 else "bottom",
    )


def save_figure(figure: Any, picture: Path) -> None:
    """Writes a matplotlib figure, whole or not at all; a character that the font lacks becomes a box."""
    ending = check_picture(picture)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*[Gg]lyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        write_with(picture, lambda file: figure.savefig(file, format=ending, dpi=150))


def drawn(what: str, act: Callable[[], object], say: Callable[[str], object]) -> None:
    """Draws a picture by calling `act`; where it cannot be written, says so, so that figures are shown all the same."""
    try:
        act()
    except OSError as error:
        say(f"no picture of {what}: {error}")
