"""Delimited text cut into cells: its separator, its quotes, and the row that names its columns."""

from __future__ import annotations

import csv
import io

from charlm.errors import TextError

__all__ = ["ALONE", "header_of", "records", "show_delimiter", "sniff"]

_DELIMITERS = ("\t", ";", ",", "|")

ALONE = "\x1f"
"""Stands for the separator of a table with one column."""


def sniff(text: str) -> str:
    """The separator that stands in the header and cuts most of the first rows into as many cells; else `ALONE`.

    >>> sniff("text;label")
    ';'
    """
    sample = "\n".join(text[: 1 << 16].splitlines()[:100])
    fits = []
    for delimiter in _DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            fits.append((sum(width == widths[0] for width in widths) / len(widths), delimiter))
    if not fits:
        return ALONE
    return max(fits, key=lambda fit: (fit[0], -_DELIMITERS.index(fit[1])))[1]


def records(text: str, delimiter: str, name: str) -> list[list[str]]:
    """The rows of cells, an empty one for an empty line; quotes that do not match are refused.

    >>> records('a;"b;c"', ";", "t")
    [['a', 'b;c']]
    """
    before = csv.field_size_limit(1 << 31)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        raise TextError(
            f"line {reader.line_num} of {name} cannot be cut into cells ({error}): a cell that holds quotes is put in "
            'quotes, and the quotes in it are doubled, as in "say ""yes"""'
        ) from None
    finally:
        csv.field_size_limit(before)


def header_of(cells: list[str], name: str) -> list[str]:
    """The columns' names; a row that looks like data, an empty name or one that stands twice is refused."""
    names = [cell.strip() for cell in cells]
    for number, cell in enumerate(names, 1):
        if not cell:
            raise TextError(f"column {number} of {name} has no name: the first row names the columns (or --no-header)")
        if names.index(cell) != number - 1:
            raise TextError(
                f"two columns of {name} are called {cell[:80]!r}: the first row names the columns, each once"
            )
        if _is_number(cell):
            raise TextError(
                f"the first row of {name} holds the number {cell[:40]}: it should name the columns; add such a row, "
                "or say --no-header"
            )
    return names


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return cell.lower().lstrip("+-") not in ("nan", "inf", "infinity")


def show_delimiter(delimiter: str) -> str:
    """A separator for a message."""
    return {"\t": "(a tab)", ALONE: "','"}.get(delimiter, repr(delimiter))
