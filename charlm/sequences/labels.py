"""Cells of a table as labels: numbers for a Score; classes, or shares of the classes, for a Distribution; and which
column holds them (`guess_columns`).

A label is for the whole sequence, or there is one for every step: numbers or names separated by spaces (for a text, as
many characters as it has serve too), a list in JSON Lines, a second axis of an array. Shares of V classes are V numbers
that sum to 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.errors import TextError
from charlm.sequences.cells import (
    WORDS,
    Inputs,
    Spelling,
    as_numbers,
    is_empty,
    is_missing,
    label_cells,
    shown,
    spelling_of,
    sum_to_one,
)
from charlm.text.tables import Table

_MOST = 10_000  # classes
_WHOLE = re.compile(r"^([+-]?[0-9]+)\.0+$")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of a table.

    Args:
        kind: `numbers`, `classes`, or `shares` (a probability for each class).
        every: whether there is one for every step.
        values: an array a row: numbers [K] or classes [K] from 0, or shares [K, V]; K is 1, or the steps.
        classes: the V names; none for numbers.
        notes: what was guessed, in sentences.
    """

    kind: Literal["numbers", "classes", "shares"]
    every: bool
    values: list[NDArray[Any]]
    classes: tuple[str, ...]
    notes: list[str]


def read_labels(
    table: Table, column: str, inputs: Inputs, *, mode: str, every: bool | None = None,
    classes: Sequence[str] | None = None, bounded: bool = True,
) -> Labels:  # fmt: skip
    """The labels of a column.

    Args:
        table: the table.
        column: its column of labels.
        inputs: its sequences; labels for every step are as many as those have.
        mode: `score` or `distribution`.
        every: whether there is a label for every step; None sees it in the cells.
        classes: those that a model knows; None takes those that there are.
        bounded: whether a Score's label must lie in 0..1.

    Raises:
        TextError: a label that is missing, outside 0..1, of an unknown class, too many or too few; names its place.
    """
    cells = label_cells(table, column)
    if table.kind == "arrays":
        cells = _without_padding(cells, inputs, every)
    for row, value in enumerate(cells):
        if is_missing(value) if mode == "score" else is_empty(value):
            names = ": names of classes are for --mode distribution" if isinstance(value, str) and value.strip() else ""
            raise TextError(f"{table.place(row, column)} is empty: every example needs a label{names}")
    if mode == "score":
        return _scores(table, column, inputs, cells, every, bounded)
    return _classes(table, column, inputs, cells, every, classes)


def _without_padding(cells: list[Any], inputs: Inputs, every: bool | None) -> list[Any]:
    """Labels of an array, cut to the lengths of the sequences where there is one for every step."""
    first = cells[0]
    if not isinstance(first, list) or every is False or len(first) < max(inputs.lengths):
        return cells
    if every is None and not isinstance(first[0], list) and all(sum_to_one(as_numbers(row)) for row in cells):
        return cells
    return [row[:length] for row, length in zip(cells, inputs.lengths, strict=True)]


# -- Scores ------------------------------------------------------------------------------------------------------------


def _scores(table: Table, column: str, inputs: Inputs, cells: list[Any], every: bool | None, bounded: bool) -> Labels:
    strings = [(row, value) for row, value in enumerate(cells) if isinstance(value, str)]
    spelling = spelling_of(table, column, strings) if all(map(_plain, cells)) else Spelling()
    rows = [
        value.split() if isinstance(value, str) else value if isinstance(value, list) else [value] for value in cells
    ]
    every = any(len(row) > 1 for row in rows) if every is None else every
    values = []
    for row, (labels, steps) in enumerate(zip(rows, inputs.lengths, strict=True)):
        where = table.place(row, column)
        counted = _counted(labels, steps, every, where)
        values.append(np.array([_score(label, spelling, bounded, where) for label in counted]))
    return Labels(kind="numbers", every=every, values=values, classes=(), notes=[])


def _plain(value: Any) -> bool:
    return not isinstance(value, str) or None not in as_numbers(value)


def _counted(labels: list[Any], steps: int, every: bool, where: str) -> list[Any]:
    """As many labels as there are steps, or one; an array's padding behind the steps is cut off."""
    if not every and len(labels) != 1:
        raise TextError(
            f"{where} has {len(labels)} labels: one is expected (or one for every step, with --output every)"
        )
    if every and len(labels) != steps:
        raise TextError(f"{where} has {len(labels)} labels for {steps} steps: one for every step is expected")
    return labels


def _score(label: Any, spelling: Spelling, bounded: bool, where: str) -> float:
    if isinstance(label, str):
        word = label.lower()
        value = WORDS[word] if word in WORDS else _number(label, spelling, where)
    elif isinstance(label, bool | int | float) and abs(label) <= 1e300:
        value = float(label)
    else:
        raise TextError(f"{where}: {shown(label)} is not a number: a Score's label is one from 0 to 1")
    if bounded and not 0 <= value <= 1:
        raise TextError(
            f"{where}: {value:g} is outside 0..1: a Score's label is a number from 0 to 1; other numbers are mapped to "
            "that range with --label-scale minmax, and classes are told apart with --mode distribution"
        )
    return value


def _number(label: str, spelling: Spelling, where: str) -> float:
    try:
        return spelling.number(label, where)
    except TextError as error:
        raise TextError(f"{error}; names of classes are for --mode distribution") from None


# -- Distributions -----------------------------------------------------------------------------------------------------


def _classes(
    table: Table, column: str, inputs: Inputs, cells: list[Any], every: bool | None, known: Sequence[str] | None
) -> Labels:
    lengths = inputs.lengths
    rows = [_split(value, steps, every, inputs.kind) for value, steps in zip(cells, lengths, strict=True)]
    if _are_shares(rows, every):
        return _shares(table, column, inputs, rows, known)
    every = any(isinstance(row, list) for row in rows) if every is None else every
    named: list[list[str]] = []
    for row, labels in enumerate(rows):
        where = table.place(row, column)
        counted = _counted(labels if isinstance(labels, list) else [labels], lengths[row], every, where)
        named.append([_class_name(label, where) for label in counted])
    spelling = _spellings({name for row_names in named for name in row_names}, known or ())
    named = [[spelling[name] for name in row_names] for row_names in named]
    classes = tuple(known) if known is not None else _sorted({name for row_names in named for name in row_names})
    _check_classes(classes, len(named), table.name, column)
    number = {name: place for place, name in enumerate(classes)}
    for row, names in enumerate(named):
        for name in names:
            if name not in number:
                told = ", ".join(map(repr, classes[:8])) + ("…" if len(classes) > 8 else "")
                raise TextError(
                    f"{table.place(row, column)}: {shown(name)} is none of the classes of the model ({told})"
                )
    values = [np.array([number[name] for name in names], dtype=np.int64) for names in named]
    notes = _notes(column, named, spelling)
    return Labels(kind="classes", every=every, values=values, classes=classes, notes=notes)


def _spellings(names: set[str], known: Sequence[str]) -> dict[str, str]:
    """One spelling for each class: `1.0` is the class `1`, in the spelling of the known classes or the shorter one."""
    chosen: dict[str, str] = {}
    for name in (*known, *sorted(names, key=lambda name: (len(name), name))):
        chosen.setdefault(_WHOLE.sub(r"\1", name), name)
    return {name: name if name in known else chosen[_WHOLE.sub(r"\1", name)] for name in names}


def _notes(column: str, named: list[list[str]], spelling: dict[str, str]) -> list[str]:
    notes = []
    merged = sorted(f"{name!r} as {one!r}" for name, one in spelling.items() if name != one)
    if merged:
        notes.append(f"labels in column {column!r} that are one number are one class: {', '.join(merged[:5])} is read")
    count = sum(is_missing(name) for names in named for name in names)
    if count:
        words = sorted({name for names in named for name in names if is_missing(name)})
        notes.append(f"{', '.join(map(repr, words))} in column {column!r} is a class of its own ({count:,} labels)")
    return notes


def _split(value: Any, steps: int, every: bool | None, kind: str) -> Any:
    """A cell of text cut into labels where there are several: for every step, or shares."""
    if not isinstance(value, str):
        return value
    parts = value.split()
    if every:
        return list(value) if kind == "text" and len(parts) != steps == len(value) else parts
    if every is None and len(parts) > 1 and None not in (numbers := as_numbers(value)) and sum_to_one(numbers):
        return numbers
    return value.strip()


def _are_shares(rows: list[Any], every: bool | None) -> bool:
    """Whether these are probabilities of the classes: lists of numbers that sum to 1, or lists of such lists."""
    first = next((row for row in rows if isinstance(row, list)), None)
    if not first:
        return False
    if isinstance(first[0], list):
        return True
    numbers = all(type(value) in (int, float) for value in first)
    return not every and numbers and len(first) > 1 and sum_to_one(as_numbers(first))


def _shares(table: Table, column: str, inputs: Inputs, rows: list[Any], known: Sequence[str] | None) -> Labels:
    every = any(isinstance(row, list) and row and isinstance(row[0], list) for row in rows)
    width = len(known) if known is not None else 0
    values = []
    for row, (labels, length) in enumerate(zip(rows, inputs.lengths, strict=True)):
        where = table.place(row, column)
        steps = _counted(labels if every and isinstance(labels, list) else [labels], length, every, where)
        read = []
        for step in steps:
            flat = isinstance(step, list) and not any(isinstance(each, list) for each in step)
            numbers: list[float | None] = as_numbers(step) if flat else [None]
            width = width or len(numbers)
            if None in numbers or len(numbers) != width or not sum_to_one(numbers):
                raise TextError(f"{where}: {shown(step)} is no list of {max(width, 2)} probabilities that sum to 1")
            read.append([number for number in numbers if number is not None])
        array = np.array(read)
        values.append(array / array.sum(axis=1, keepdims=True))
    classes = tuple(known) if known is not None else tuple(map(str, range(width)))
    _check_classes(classes, len(values), table.name, column)
    return Labels(kind="shares", every=every, values=values, classes=classes, notes=[])


def _class_name(label: Any, where: str) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int | float) and abs(label) <= 1e300:
        return str(int(label)) if label == int(label) else repr(label)
    if not isinstance(label, str) or is_empty(label):
        raise TextError(f"{where}: {shown(label)} is no name of a class")
    return label.strip()


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Numbers by their size, names by the alphabet."""
    try:
        return tuple(sorted(names, key=lambda name: (Spelling().number(name, ""), name)))
    except TextError:
        return tuple(sorted(names))


def _check_classes(classes: Sequence[str], rows: int, name: str, column: str) -> None:
    if len(classes) < 2:
        raise TextError(f"column {column[:80]!r} of {name} holds one class alone: there is nothing to tell apart")
    if len(classes) > _MOST:
        raise TextError(
            f"column {column[:80]!r} of {name} holds {len(classes):,} classes in {rows:,} rows: is it the label?"
        )


# -- what is not named -------------------------------------------------------------------------------------------------

_SEQUENCE = (
    "sequence sequences text texts sentence message domain domains url urls host smiles password passwords word name "
    "line input inputs x data"
)
"""Usual names of the column of sequences, in the order in which they are looked for; and of labels below."""
_OTHER = ("lengths", "id", "nr", "nr.", "no", "no.", "number", "nummer", "index", "row")
_LABEL = "label labels class classes family category target targets language lang type score scores y output"


def guess_columns(table: Table, sequence: str | None, label: str | None) -> tuple[str, str | None, list[str]]:
    """The columns of sequences and labels: those named, else by their usual names, else of two the first and last.

    Returns:
        Both names (None for a label that is not there), and a sentence about what was guessed.

    >>> table = Table(name="t", kind="delimited", columns={"id": [], "Text": [], "label": []}, numbers=[], sha256="")
    >>> guess_columns(table, None, None)
    ('Text', 'label', ["the sequences are in column 'Text', the labels in column 'label'"])
    """
    names = [name for name in table.columns if name.lower() not in _OTHER] or [*table.columns]
    for name in (sequence, label):
        if name is not None:
            table.column(name)
    guessed = [] if sequence else ["the sequences are in column {sequence!r}"]
    if sequence is None:
        others = [name for name in names if name != label]
        usual = [name for usual in _SEQUENCE.split() for name in others if name.lower() == usual]
        if (not usual and len(others) > (2 if label is None else 1)) or not others:
            listed = ", ".join(repr(name[:40]) for name in names[:12])
            raise TextError(
                f"which column of {table.name} holds the sequences? Say --sequence-column; there are {listed}"
            )
        sequence = (usual or others)[0]
    if label is None:
        others = [name for name in names if name != sequence]
        usual = [name for usual in _LABEL.split() for name in others if name.lower() == usual]
        label = usual[0] if usual else others[0] if len(others) == 1 else None
        guessed += [] if label is None else ["the labels in column {label!r}"]
    note = ", ".join(guessed).format(sequence=sequence[:80], label=(label or "")[:80])
    return sequence, label, [note] if note else []


def guess_mode(table: Table, column: str) -> tuple[str, str]:
    """`score` or `distribution`, by what the labels are, and why.

    Numbers within 0..1 are Scores; so are others unless they are whole and few (at most 20 different ones, each in five
    rows or more on average), which are classes. Names are classes; rows of numbers that sum to 1 are shares.
    """
    values = [value for value in label_cells(table, column) if not is_missing(value)]
    numbers = [number for value in values for number in as_numbers(value)]
    if not values or None in numbers:
        return "distribution", "the labels are names"
    found = [number for number in numbers if number is not None]
    if any(len(row) > 1 and sum_to_one(row) for row in map(as_numbers, values)):
        return "distribution", "the labels sum to 1"
    different = set(found)
    if all(0 <= number <= 1 for number in different):
        return "score", "the labels are numbers in 0..1"
    few = len(different) <= 20 and 5 * len(different) <= len(found)
    if few and all(number == int(number) for number in different):
        return "distribution", "the labels are a few whole numbers"
    return "score", "the labels are numbers"
