"""Cells of a table as sequences: text, or numbers with one or several features a step.

A sequence is, in delimited text, a text or numbers separated by spaces; where a step has several features, steps are
separated by `;` or `|`, as in `0.1 0.2; 0.3 0.4`. In JSON Lines it is a string, a list of numbers, or a list of lists.
As an array it is a row of [N] strings or of [N, T] or [N, T, F] numbers, cut at `lengths` [N] if there is such an
array.

Decimals are written with a point. A decimal comma is understood where it cannot be anything else: in a table that is
not separated by commas, in a column without points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.errors import TextError
from charlm.text.tables import Table

Floats = NDArray[np.float64]
Steps = Floats | list[list[float]]

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_POINT = re.compile(_NUMBER)
_COMMA = re.compile(_NUMBER.replace(r"\.", ","))
_THOUSAND = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_LISTED = re.compile(r"[0-9]+(?:,[0-9]+)+")
_PLAIN = re.compile(r"[0-9eE+\-. ]+")
_LIKE = re.compile(r"[\s0-9eE+\-.,;|]+")
_STEPS = re.compile(r"[;|]")
WORDS = {"true": 1.0, "false": 0.0, "wahr": 1.0, "falsch": 0.0, "yes": 1.0, "no": 0.0}
"""Words that are numbers as labels of a Score."""

_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "#n/a", "#nv"))


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The sequences of a table.

    Args:
        kind: `text` or `numbers`.
        values: a string a row, or an array [T, F] a row.
        features: F; 0 for text.
        notes: what was guessed or understood, in sentences.
    """

    kind: Literal["text", "numbers"]
    values: list[Any]
    features: int
    notes: list[str]

    @property
    def lengths(self) -> list[int]:
        """The steps of each sequence."""
        return [len(value) for value in self.values]


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How the numbers of a column are written: with decimal commas or points."""

    comma: bool = False

    def number(self, token: str, where: str) -> float:
        """The number that a token spells; `where` begins the sentence that refuses it.

        >>> Spelling(comma=True).number("1,5e2", "here")
        150.0
        """
        pattern = _COMMA if self.comma else _POINT
        if len(token) > 400 or not pattern.fullmatch(token):
            why = ": a value is missing" if token.lower() in _MISSING else ""
            raise TextError(f"{where}: {shown(token)} is not a number{why}")
        value = float(token.replace(",", "."))
        if abs(value) > 1e300:
            raise TextError(f"{where}: {shown(token)} is too large a number")
        return value


def shown(value: Any) -> str:
    """A value for a message, shortened.

    >>> shown("x" * 99)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"
    """
    text = value if isinstance(value, str) else repr(value)
    text = text[:40] + "…" if len(text) > 41 else text
    return repr(text) if isinstance(value, str) else text


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing at all.

    >>> is_empty(" "), is_empty(None), is_empty("NA")
    (True, True, False)
    """
    return not value.strip() if isinstance(value, str) else is_missing(value)


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: empty, null, not a number, or a word for that such as NA."""
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def spelling_of(table: Table, column: str, cells: Iterable[tuple[int, str]]) -> Spelling:
    """Whether a column of numbers is written with decimal commas.

    Args:
        table: a comma is refused where commas separate its cells, and in JSON Lines.
        column: its name.
        cells: the rows' numbers and cells.
    """
    commas = points = None
    thousands = True
    for row, cell in cells:
        if "," in cell:
            commas = row if commas is None else commas
            thousands &= all(_THOUSAND.fullmatch(token) for token in _tokens(cell) if "," in token)
        if "." in cell:
            points = row if points is None else points
    if commas is None:
        return Spelling()
    where, advice = table.place(commas, column), "write decimals with a point and put spaces between numbers"
    if table.kind != "delimited" or table.dialect.delimiter == ",":
        raise TextError(f"{where} has a comma among its numbers: {advice}")
    if points is not None:
        raise TextError(f"{where} has a comma and row {table.numbers[points]} a point among its numbers: {advice}")
    if thousands and table.dialect.delimiter != ";":
        raise TextError(f"{where}: the comma could mark decimals or thousands: {advice}")
    return Spelling(comma=True)


def _tokens(cell: str) -> list[str]:
    return _STEPS.sub(" ", cell).split()


def read_inputs(
    table: Table, column: str, *, kind: str | None = None, features: int | None = None, lengths: str | None = None
) -> Inputs:
    """The sequences of a column.

    Args:
        table: the table.
        column: its column of sequences.
        kind: `text` or `numbers`; None guesses: numbers where most cells are, but text where each is a run of digits.
        features: how many numbers a step must have; None takes what the first row has.
        lengths: the array of lengths of padded arrays, if any.

    Raises:
        TextError: a missing value, another number of features, something else than a number; names row and column.
    """
    cells = table.column(column)
    if isinstance(cells, np.ndarray) and cells.dtype.kind not in "US":
        if kind == "text":
            raise TextError(f"{column} in {table.name} holds numbers, text is expected")
        return _of_array(table, column, cells, features, lengths)
    values = cells.tolist() if isinstance(cells, np.ndarray) else cells
    for row, value in enumerate(values):
        if (isinstance(value, str) and not value) or value is None:
            raise TextError(f"{table.place(row, column)} is empty: every example needs a sequence")
    if any(isinstance(value, str) for value in values[:1]):
        return _of_strings(table, column, values, kind, features)
    if kind == "text":
        raise TextError(f"{table.place(0, column)} holds {shown(values[0])}, text is expected")
    return _packed(
        table, column, [_of_json(table, column, row, value) for row, value in enumerate(values)], features, []
    )


def sum_to_one(numbers: Sequence[float | None]) -> bool:
    """Whether numbers are probabilities of the classes, but for rounding.

    >>> sum_to_one([0.25, 0.75]), sum_to_one([1.5, -0.5])
    (True, False)
    """
    return abs(sum(number or 0.0 for number in numbers) - 1) < 1e-3 and all((number or 0) >= 0 for number in numbers)


def as_numbers(value: Any) -> list[float | None]:
    """The numbers in a label, None for what is none.

    >>> as_numbers("0,5 x"), as_numbers([1, "yes"])
    ([0.5, None], [1.0, 1.0])
    """
    if isinstance(value, list):
        return [number for each in value for number in as_numbers(each)]
    if isinstance(value, str):
        parts = value.split()
        if len(parts) != 1:
            return [number for part in parts for number in as_numbers(part)] or [None]
        if value.strip().lower() in WORDS:
            return [WORDS[value.strip().lower()]]
        try:
            return [Spelling(comma="," in value).number(parts[0], "")]
        except TextError:
            return [None]
    return [float(value)] if isinstance(value, bool | int | float) and abs(value) <= 1e300 else [None]


def label_cells(table: Table, column: str) -> list[Any]:
    """The cells of a column as Python's own values."""
    cells = table.column(column)
    return list(cells.tolist() if isinstance(cells, np.ndarray) else cells)


# -- strings -----------------------------------------------------------------------------------------------------------


def _of_strings(table: Table, column: str, values: Sequence[Any], kind: str | None, features: int | None) -> Inputs:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TextError(f"{table.place(row, column)} holds {shown(value)}, the rows before it hold text")
    notes = []
    if kind is None:
        kind, note = _guess(values)
        notes.append(f"column {column!r} is read as {note} (--input text|numbers decides otherwise)")
    if kind == "text":
        return Inputs(kind="text", values=list(values), features=0, notes=notes)
    spelling = spelling_of(table, column, enumerate(values))
    if spelling.comma:
        notes.append(f"decimal commas are understood in column {column!r}")
    vectors = (features or 0) > 1 or any(_STEPS.search(value) for value in values)
    read = [_numbers(value, spelling, vectors, table.place(row, column)) for row, value in enumerate(values)]
    return _packed(table, column, read, features, notes)


def _guess(values: Sequence[str]) -> tuple[str, str]:
    """Text or numbers, and how to say it."""
    if all(value.strip().isdecimal() for value in values):
        return "text", "text made of digits"
    numeric = sum(map(_looks_numeric, values))
    return ("numbers", "numbers") if 2 * numeric > len(values) else ("text", "text")


def _looks_numeric(cell: str) -> bool:
    return bool(_LIKE.fullmatch(cell)) and all(
        _POINT.fullmatch(token) or _COMMA.fullmatch(token) or _LISTED.fullmatch(token)
        for token in _tokens(cell[:200])[:3] or ["-"]
    )


def _plain_numbers(cell: str) -> Floats | None:
    """Most cells, quickly: numbers with points and spaces, one feature a step; None where anything is else."""
    if not _PLAIN.fullmatch(cell):
        return None
    try:
        found = np.array(cell.split(), dtype=np.float64)[:, None]
    except ValueError:
        return None
    return found if len(found) and bool((np.abs(found) <= 1e300).all()) else None


def _numbers(cell: str, spelling: Spelling, vectors: bool, where: str) -> Steps:
    """Steps of numbers."""
    if not vectors and not spelling.comma and (quick := _plain_numbers(cell)) is not None:
        return quick
    steps = [step.split() for step in _STEPS.split(cell)] if vectors else [[token] for token in cell.split()]
    if not steps:
        raise TextError(f"{where} is empty: every example needs a sequence")
    for number, step in enumerate(steps, 1):
        if not step:
            raise TextError(f"{where}: step {number} holds no number")
    return [[spelling.number(token, where) for token in step] for step in steps]


# -- lists and arrays --------------------------------------------------------------------------------------------------


def _of_json(table: Table, column: str, row: int, value: Any) -> list[list[float]]:
    where = table.place(row, column)
    steps = value if isinstance(value, list) else [value]
    if not steps:
        raise TextError(f"{where} is empty: every example needs a sequence")
    found = []
    for step in steps:
        numbers = step if isinstance(step, list) else [step]
        for number in numbers:
            if type(number) not in (int, float) or not abs(number) <= 1e300:
                raise TextError(f"{where}: {shown(number)} is not a number")
        found.append([float(number) for number in numbers])
    return found


def _packed(table: Table, column: str, rows: Sequence[Steps], features: int | None, notes: list[str]) -> Inputs:
    """Rows of steps as arrays, all steps with as many features."""
    wanted = features or len(rows[0][0])
    for row, steps in enumerate(rows):
        for number, step in enumerate(steps if not isinstance(steps, np.ndarray) or wanted != 1 else (), 1):
            if len(step) != wanted or not len(step):
                raise TextError(
                    f"{table.place(row, column)}: step {number} has {len(step)} features, not {wanted} as "
                    + ("the model expects" if features else "the first row has")
                )
    values = [np.array(steps, dtype=np.float64) for steps in rows]
    return Inputs(kind="numbers", values=values, features=wanted, notes=notes)


def _of_array(table: Table, column: str, array: NDArray[Any], features: int | None, lengths: str | None) -> Inputs:
    x = array.reshape(len(array), -1, array.shape[2] if array.ndim == 3 else 1) if array.size else array
    if not x.size:
        raise TextError(f"{column} in {table.name} has the shape {array.shape}: sequences without a step")
    if features not in (None, x.shape[2]):
        raise TextError(
            f"{column} in {table.name} has {x.shape[2]} features a step, not {features} as the model expects"
        )
    steps = _lengths(table, lengths, x.shape[1])
    values = [row[:length].astype(np.float64) for row, length in zip(x, steps, strict=True)]
    for row, value in enumerate(values):
        wrong = ~(np.abs(value) <= 1e300)
        if wrong.any():
            step, feature = np.argwhere(wrong)[0].tolist()
            raise TextError(
                f"{table.place(row, column)}: step {step}, feature {feature} is {value[step, feature]}, not a number; "
                "padding is told by an array of lengths"
            )
    return Inputs(kind="numbers", values=values, features=int(x.shape[2]), notes=[])


def _lengths(table: Table, column: str | None, longest: int) -> list[int]:
    if column is None:
        return [longest] * len(table)
    found = np.asarray(table.column(column))
    if found.shape != (len(table),) or found.dtype.kind not in "iu":
        raise TextError(f"{column} in {table.name} should hold a whole number for each row: the steps of its sequence")
    wrong = np.flatnonzero((found < 1) | (found > longest))
    if len(wrong):
        row = int(wrong[0])
        raise TextError(f"{table.place(row, column)}: {int(found[row])} is not a length from 1 to {longest}")
    return [int(length) for length in found]
