"""What the commands on tables share: the options that say how to read it, the figures as lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from charlm.sequences.metrics import Figures

__all__ = ["figure_lines", "table_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_NAMES = {
    "accuracy": "accuracy",
    "log_loss": "log loss, nats",
    "brier": "Brier score",
    "expected_calibration_error": "calibration error",
    "area_under_curve": "area under the curve",
    "precision": "precision",
    "recall": "recall",
    "mean_squared_error": "mean squared error",
    "r_squared": "R²",
}
_OF_RARE = ("area_under_curve", "precision", "recall")
_MOST = 16  # classes whose confusion is printed


def table_options(command: _Command) -> _Command:
    """Adds --sequence-column, --label-column, --encoding and --no-header."""
    options = [
        click.option("--sequence-column", metavar="NAME", help="Column of the sequences.  [default: guessed]"),
        click.option(
            "--label-column",
            metavar="NAME",
            help="Column of the labels; for a .npy table a .npy file of them.  [default: guessed]",
        ),
        click.option("--encoding", metavar="E", help="How the table's bytes spell characters.  [default: utf-8]"),
        click.option("--no-header", is_flag=True, help="The first row is data: columns are column1, column2, ..."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def figure_lines(figures: Figures) -> Iterator[str]:
    """The figures beside the base rate's, and the confusion matrix of a few classes."""
    guess = figures.guess
    said = f"always {guess[:24]!r}" if isinstance(guess, str) else f"always {guess:.4g}"
    yield f"{'':22}{'model':>10}  base rate ({said})"
    for name, value in figures.values.items():
        base = _number(figures.base[name]) if name in figures.base else "-"
        of = f" of {figures.rare[:24]!r}" if figures.rare and name in _OF_RARE else ""
        yield f"{_NAMES[name]:22}{_number(value):>10}  {base}{of}"
    if figures.confusion is not None and len(figures.classes) <= _MOST:
        yield from _confusion(figures)


def _number(value: float | None) -> str:
    return "undefined" if value is None else "infinite" if value == float("inf") else f"{value:.4f}"


def _confusion(figures: Figures) -> Iterator[str]:
    assert figures.confusion is not None
    names = ["".join(c if c.isprintable() else "?" for c in name)[:12] for name in figures.classes]
    widths = [max(len(name), 5) for name in names]
    corner = "came, said:"
    left = max(len(corner), *map(len, names))
    yield corner.ljust(left) + "".join(f"  {name:>{width}}" for name, width in zip(names, widths, strict=True))
    for name, row in zip(names, figures.confusion.tolist(), strict=True):
        yield name.ljust(left) + "".join(f"  {count:>{width}}" for count, width in zip(row, widths, strict=True))
