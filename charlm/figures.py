"""Writing matplotlib figures: the format by the name's ending, the file whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charlm.errors import OptionError
from charlm.files import write_with

__all__ = ["check_picture", "save_figure"]

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


def save_figure(figure: Any, picture: Path) -> None:
    """Writes a matplotlib figure, whole or not at all."""
    ending = check_picture(picture)
    write_with(picture, lambda file: figure.savefig(file, format=ending, dpi=150))
