"""`charlm predict`: adds what a fitted model says to a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from charlm.cli.common import echo_json, json_option, note
from charlm.cli.tables import figure_lines, open_table, table_options
from charlm.errors import CharlmError, OptionError
from charlm.files import free_name, write_bytes
from charlm.progress import progress_bar
from charlm.sequences.tables.cells import is_missing
from charlm.sequences.tables.table import Table, render_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from charlm.sequences.checkpoint import SequenceCheckpoint
    from charlm.sequences.predictions import Figures
    from charlm.sequences.tables.cells import Inputs
    from charlm.sequences.tabular import TableFacts

_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


@click.command("predict")
@click.argument("model")
@click.argument("table")
@table_options
@click.option("--no-labels", is_flag=True, help="Do not look at the labels, even if the table has some.")
@click.option("--out", metavar="FILE", help="Write the table here: its own format, or .npz or .csv of arrays.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@json_option
def predict_command(model: str, table: str, out: str | None, as_json: bool, device: str, **options: Any) -> None:
    """Add to TABLE what MODEL (a directory that charlm fit made) says of each row: a score, or a class and p_CLASS.

    The table is printed in the format it came in, with its own columns as they were. If it has labels, the figures of
    the predictions are shown too.
    """
    from charlm.nn.kernels.choose import for_reading, pick_device
    from charlm.sequences.checkpoint import load_sequence
    from charlm.sequences.tabular import TableFacts, check_config, predict_rows, sequences_of

    checkpoint = load_sequence(model, device=pick_device(device))
    checkpoint.model.stack.backend = for_reading(checkpoint.model.device)
    facts = TableFacts.from_json(checkpoint.data)
    check_config(facts, checkpoint.model.config)
    opened, label, inputs = _read(table, facts, options)
    _check_out(opened, out)
    sequences = sequences_of(inputs, checkpoint.model.vocab)
    with progress_bar(len(opened), "predicting", "row") as bar:
        said = predict_rows(checkpoint.model, sequences, bar.update)
    if not all(np.isfinite(one).all() for one in said):
        row = next(row for row, one in enumerate(said) if not np.isfinite(one).all())
        raise CharlmError(
            f"{opened.place(row, facts.sequence)} is so far outside the model's range that it says nothing"
        )
    figures = None if label is None else _figures(opened, label, inputs, said, facts)
    if as_json:
        _print_json(checkpoint, opened, said, facts, figures)
        return
    _print_table(opened, said, facts, out)
    if figures is not None and opened.sha256 == facts.sha256:
        note("the model was made from this table: the figures say more of what it remembers than of what it foresees")
    for line in () if figures is None else figure_lines(figures):
        note(line)


def _read(path: str, facts: TableFacts, options: dict[str, Any]) -> tuple[Table, str | None, Inputs]:
    """The table, the column of its labels if it has whole ones, and its sequences, as the model's own were read."""
    from charlm.sequences.tables.cells import read_inputs

    header = facts.header and not options["no_header"]
    wanted = None if options["no_labels"] else options["label_column"]
    table, named, _ = open_table(path, options["encoding"] or facts.encoding, header, wanted)
    sequence = options["sequence_column"] or facts.sequence
    if options["sequence_column"] is None and table.kind == "arrays" and len(table.columns) == 1:
        (sequence,) = table.columns
    lengths = next((name for name in table.columns if table.kind == "arrays" and name.lower() == "lengths"), None)
    inputs = read_inputs(table, sequence, kind=facts.input, features=facts.features or None, lengths=lengths)
    for said in inputs.notes:
        note(said)
    return table, _label_column(table, named or facts.label, sequence, named is not None, options), inputs


def _label_column(table: Table, label: str, sequence: str, asked: bool, options: dict[str, Any]) -> str | None:
    if options["no_labels"] or label == sequence or (label not in table.columns and not asked):
        return None
    if any(is_missing(value) for value in table.column(label)):
        if asked:
            return label  # to be refused by row and column
        note(f"column {label!r} has empty cells: no figures")
        return None
    return label


def _figures(
    table: Table, label: str, inputs: Inputs, said: Sequence[NDArray[np.float64]], facts: TableFacts
) -> Figures:
    from charlm.sequences.tables.labels import read_labels
    from charlm.sequences.tabular import figures_of, targets_of

    classes = facts.classes or None
    labels = read_labels(
        table, label, inputs, mode=facts.mode, every=facts.every, classes=classes, bounded=facts.bounded
    )
    return figures_of(said, targets_of(labels), facts)


# -- what is added -----------------------------------------------------------------------------------------------------


def _named(said: Sequence[NDArray[np.float64]], facts: TableFacts) -> dict[str, list[Any]]:
    """The new columns: a value a row, or a list with one a step."""
    if facts.mode == "score":
        columns: dict[str, list[Any]] = {"score": [one[:, 0].tolist() for one in said]}
    else:
        columns = {"class": [[facts.classes[place] for place in one.argmax(axis=1)] for one in said]}
        for number, name in enumerate(facts.classes):
            columns[f"p_{name}"] = [one[:, number].tolist() for one in said]
    return columns if facts.every else {name: [value for (value,) in values] for name, values in columns.items()}


def _check_out(table: Table, out: str | None) -> None:
    if out is not None and out.lower().endswith((".npz", ".npy")) and table.kind != "arrays":
        raise OptionError(
            f"{table.name} is no table of arrays, so it cannot become {out}: name a file like the table's"
        )
    if out is not None and out.lower().endswith(".npy"):
        raise OptionError("several arrays do not fit into a .npy file: name a .npz or .csv file")


def _print_table(table: Table, said: Sequence[NDArray[np.float64]], facts: TableFacts, out: str | None) -> None:
    kind = "delimited" if table.kind == "arrays" and not (out or "").lower().endswith(".npz") else table.kind
    comma = kind == "delimited" and _has_decimal_commas(table)
    for name, values in _named(said, facts).items():
        free, number = name, 1
        while free in table.columns:
            number += 1
            free = f"{name}-{number}"
        if free != name:
            note(f"the table has a column {name!r}: what the model says is in {free!r}")
        shown = _padded(values) if kind == "arrays" else [_shown(value, kind, comma) for value in values]
        table = table.with_column(free, shown)
    content = render_table(table, kind)
    if out is None:
        click.echo(content, nl=False)
        return
    path = free_name(Path(out))
    write_bytes(path, content)
    if path != Path(out):
        note(f"{out} is taken: the table goes to {path}")
    click.echo(f"{path}")


def _has_decimal_commas(table: Table) -> bool:
    if table.kind != "delimited" or table.dialect.delimiter == ",":
        return False
    return any(
        _COMMA.fullmatch(token) for cells in table.columns.values() for cell in cells for token in cell.split()[:1]
    )


def _shown(value: Any, kind: str, comma: bool) -> Any:
    """Six digits, which is what single precision has; JSON keeps numbers as numbers."""
    if isinstance(value, list):
        return [_shown(each, kind, comma) for each in value]
    if isinstance(value, str):
        return value
    text = f"{value:.6g}"
    return float(text) if kind == "jsonl" else text.replace(".", ",") if comma else text


def _padded(values: list[Any]) -> Any:
    """Lists of different lengths as one array, NaN or nothing behind each end."""
    if not isinstance(values[0], list):
        return np.array(values)
    longest = max(map(len, values))
    filler: Any = "" if isinstance(values[0][0], str) else np.nan
    return np.array([value + [filler] * (longest - len(value)) for value in values])


def _print_json(
    checkpoint: SequenceCheckpoint,
    table: Table,
    said: Sequence[NDArray[np.float64]],
    facts: TableFacts,
    figures: Figures | None,
) -> None:
    columns = _named(said, facts)
    if facts.mode == "score":
        rows = [{"score": score} for score in columns["score"]]
    else:
        names = facts.classes
        lists = [columns[f"p_{name}"] for name in names]
        rows = [
            {"class": best, "probabilities": dict(zip(names, shares, strict=True))}
            for best, *shares in zip(columns["class"], *lists, strict=True)
        ]
    predictions = [{"row": number, **row} for number, row in zip(table.numbers, rows, strict=True)]
    about = {"model": checkpoint.name, "table": table.name, "mode": facts.mode}
    echo_json({**about, "predictions": predictions, "figures": None if figures is None else figures.to_json()})
