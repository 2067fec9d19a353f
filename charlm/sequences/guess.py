"""What a table is about where nobody said it: which columns, and a Score or a Distribution."""

from __future__ import annotations

from charlm.errors import TextError
from charlm.sequences.cells import is_missing
from charlm.sequences.labels import as_numbers, label_cells, sum_to_one
from charlm.sequences.tables import Table

__all__ = ["guess_columns", "guess_mode"]

_SEQUENCE = (
    "sequence",
    "sequences",
    "text",
    "texts",
    "sentence",
    "message",
    "name",
    "line",
    "input",
    "inputs",
    "x",
    "data",
)
_OTHER = ("lengths", "id", "nr", "nr.", "no", "no.", "number", "nummer", "index", "row")
_LABEL = ("label", "labels", "class", "classes", "target", "targets", "category", "score", "scores", "y", "output")


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
        usual = [name for usual in _SEQUENCE for name in others if name.lower() == usual]
        if (not usual and len(others) > (2 if label is None else 1)) or not others:
            listed = ", ".join(repr(name[:40]) for name in names[:12])
            raise TextError(
                f"which column of {table.name} holds the sequences? Say --sequence-column; there are {listed}"
            )
        sequence = (usual or others)[0]
    if label is None:
        others = [name for name in names if name != sequence]
        usual = [name for usual in _LABEL for name in others if name.lower() == usual]
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
