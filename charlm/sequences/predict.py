"""What a fitted model says of the rows of a table, and the table with that in new columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import progress_bar
from charlm.errors import CharlmError, CheckpointError, OptionError, TextError
from charlm.nn.kernels import for_reading, pick_device
from charlm.sequences import Sequences
from charlm.sequences.cells import Inputs, is_empty, is_missing, read_inputs
from charlm.sequences.config import SequenceConfig
from charlm.sequences.figures import Figures, distribution_figures, score_figures
from charlm.sequences.fitted_models import load_sequence
from charlm.sequences.labels import read_labels
from charlm.sequences.tabular import TableFacts, open_table, sequences_of, targets_of
from charlm.text.tables import Table, render_table

_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model says of a table.

    Args:
        model: the name of its directory.
        table: as it was read.
        said: for each row [K, 1] Scores or [K, V] probabilities, K being 1 or the steps; None for a row without a
            sequence.
        facts: what the model remembers of the table that it was fitted to.
        figures: of the predictions, where the table has labels.
        notes: what a person should know, in sentences.
    """

    model: str
    table: Table
    said: list[NDArray[np.float64] | None]
    facts: TableFacts
    figures: Figures | None
    notes: list[str]

    def columns(self) -> dict[str, list[Any]]:
        """The new columns: `score`, or `class` and `p_CLASS`; a value a row, or a list with one a step, or None."""
        facts = self.facts
        if facts.mode == "score":
            columns = {"score": [None if one is None else one[:, 0].tolist() for one in self.said]}
        else:
            best = [None if one is None else one.argmax(axis=1) for one in self.said]
            columns = {"class": [None if one is None else [facts.classes[place] for place in one] for one in best]}
            for number, name in enumerate(facts.classes):
                columns[f"p_{name}"] = [None if one is None else one[:, number].tolist() for one in self.said]
        if facts.every:
            return columns
        return {name: [None if v is None else v[0] for v in values] for name, values in columns.items()}

    def render(self, out: str | None = None) -> tuple[bytes, list[str]]:
        """The table with the new columns as the content of a file, and notes on columns that were renamed.

        Args:
            out: the file's name; arrays become .npz or else CSV, other tables keep their format.
        """
        table, notes = self.table, []
        kind: str = table.kind
        if kind == "arrays" and not (out or "").lower().endswith(".npz"):
            kind = "delimited"
        comma = kind == "delimited" and _has_decimal_commas(table)
        for name, values in self.columns().items():
            free, number = name, 1
            while free in table.columns:
                number += 1
                free = f"{name}-{number}"
            if free != name:
                notes.append(f"the table has a column {name!r}: what the model says is in {free!r}")
            shown = _padded(values) if kind == "arrays" else [_shown(value, kind, comma) for value in values]
            table = table.with_column(free, shown)
        return render_table(table, kind), notes

    def to_json(self) -> dict[str, Any]:
        """A value for programs: a prediction a row (None where there is no sequence), and the figures."""
        columns = self.columns()
        if self.facts.mode == "score":
            rows: list[dict[str, Any]] = [{"score": score} for score in columns["score"]]
        else:
            names = self.facts.classes
            shares = zip(*(columns[f"p_{name}"] for name in names), strict=True)
            rows = [
                {"class": best, "probabilities": None if best is None else dict(zip(names, p, strict=True))}
                for best, p in zip(columns["class"], shares, strict=True)
            ]
        return {
            "model": self.model,
            "table": self.table.name,
            "mode": self.facts.mode,
            "predictions": [{"row": n, **row} for n, row in zip(self.table.numbers, rows, strict=True)],
            "figures": None if self.figures is None else self.figures.to_json(),
        }


def predict_table(
    model: str | Path,
    path: str,
    *,
    sequence: str | None = None,
    label: str | None = None,
    labels: bool = True,
    using: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    out: str | None = None,
    device: str = "auto",
    progress: bool | None = None,
) -> Predictions:
    """What a model that `charlm fit` or `SequenceClassifier.save` made says of a table.

    Args:
        model: its directory.
        path: the table; - for standard input.
        sequence, label: columns; those of the model's own table by default.
        labels: whether labels are looked at, if there are some.
        using: which of its models predicts: `rnn`, `counted`, `linear`, `trees` or `mix`; None takes the one that was
            best on the validation part.
        encoding, header: of the table; as the model's own was read by default.
        out: where the table is to be written; refused at once where it cannot hold it.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: show a bar or not; None shows it where a person sees it.
    """
    checkpoint = load_sequence(model, device=pick_device(device))
    checkpoint.model.stack.backend = for_reading(checkpoint.model.device)
    facts = TableFacts.read(checkpoint.data)
    check_config(facts, checkpoint.model.config)
    whole, named, _ = open_table(path, encoding or facts.encoding, header and facts.header, label if labels else None)
    _check_out(whole, out)
    column = sequence or facts.sequence
    if sequence is None and whole.kind == "arrays" and len(whole.columns) == 1:
        (column,) = whole.columns
    rows, notes = _filled(whole, column)
    table = whole.take(rows) if len(rows) < len(whole) else whole
    lengths = next((name for name in table.columns if table.kind == "arrays" and name.lower() == "lengths"), None)
    inputs = read_inputs(table, column, kind=facts.input, features=facts.features or None, lengths=lengths)
    notes += inputs.notes
    found = _label_column(table, named or facts.label, column, named is not None, notes) if labels else None
    sequences = sequences_of(inputs, checkpoint.model.vocab)
    notes += _unknown(sequences)
    with progress_bar(len(table), "predicting", "row", show=progress) as bar:
        said = checkpoint.models.say(sequences, using, bar.update)
    for row, one in enumerate(said):
        if not np.isfinite(one).all():
            raise CharlmError(f"{table.place(row, column)} is so far outside the model's range that it says nothing")
    figures = None if found is None else _figures(table, found, inputs, said, facts)
    if figures is not None and whole.sha256 == facts.sha256:
        notes.append(
            "the model was made from this table: the figures say more of what it remembers than of what it foresees"
        )
    placed: list[NDArray[np.float64] | None] = [None] * len(whole)
    for row, one in zip(rows, said, strict=True):
        placed[row] = one
    return Predictions(model=checkpoint.name, table=whole, said=placed, facts=facts, figures=figures, notes=notes)


def _filled(table: Table, column: str) -> tuple[list[int], list[str]]:
    """The rows that have a sequence, and a note on those that have none."""
    cells = table.column(column)
    if isinstance(cells, np.ndarray) and cells.dtype.kind not in "US":
        return list(range(len(table))), []
    values = cells.tolist() if isinstance(cells, np.ndarray) else cells
    empty = [row for row, value in enumerate(values) if is_empty(value)]
    if len(empty) == len(table):
        raise TextError(f"{table.place(0, column)} is empty, and so are all others: there is no sequence to read")
    if not empty:
        return list(range(len(table))), []
    first = ", ".join(str(table.numbers[row]) for row in empty[:5]) + (", …" if len(empty) > 5 else "")
    notes = [f"{len(empty):,} of {len(table):,} rows have no sequence in column {column!r} ({first}): left blank"]
    return [row for row, value in enumerate(values) if not is_empty(value)], notes


def _unknown(sequences: Sequences) -> list[str]:
    """A note on characters that the model has never seen, which it reads as unknown."""
    if not sequences.ids:
        return []
    count, whole = int((sequences.values < 0).sum()), len(sequences.values)
    if not count:
        return []
    return [f"{count:,} of {whole:,} characters ({100 * count / whole:.2g} %) are unknown to the model"]


def _label_column(table: Table, label: str, sequence: str, asked: bool, notes: list[str]) -> str | None:
    if label == sequence or (label not in table.columns and not asked):
        return None
    if not asked and any(is_missing(value) for value in table.column(label)):  # one asked for is refused by its row
        notes.append(f"column {label!r} has empty cells: no figures")
        return None
    return label


def _figures(
    table: Table, label: str, inputs: Inputs, said: Sequence[NDArray[np.float64]], facts: TableFacts
) -> Figures:
    classes = facts.classes or None
    labels = read_labels(
        table, label, inputs, mode=facts.mode, every=facts.every, classes=classes, bounded=facts.bounded
    )
    return figures_of(said, targets_of(labels), facts)


def _check_out(table: Table, out: str | None) -> None:
    ending = "" if out is None else Path(out).suffix.lower()
    if ending in (".npz", ".npy") and table.kind != "arrays":
        raise OptionError(
            f"{table.name} is no table of arrays, so it cannot become {out}: name a file like the table's"
        )
    if ending == ".npy":
        raise OptionError("several arrays do not fit into a .npy file: name a .npz or .csv file")


def _has_decimal_commas(table: Table) -> bool:
    if table.kind != "delimited" or table.dialect.delimiter == ",":
        return False
    return any(
        _COMMA.fullmatch(token) for cells in table.columns.values() for cell in cells for token in cell.split()[:1]
    )


def _shown(value: Any, kind: str, comma: bool) -> Any:
    """Six digits, which is what single precision has; JSON and Parquet keep numbers as numbers."""
    if value is None:
        return "" if kind == "delimited" else None
    if isinstance(value, list):
        return [_shown(each, kind, comma) for each in value]
    if isinstance(value, str):
        return value
    text = f"{value:.6g}"
    return float(text) if kind != "delimited" else text.replace(".", ",") if comma else text


def _padded(values: list[Any]) -> Any:
    """Values as an array; lists of different lengths with NaN or nothing behind each end, and for None alone."""
    given = next(value for value in values if value is not None)
    if not isinstance(given, list):
        filler: Any = "" if isinstance(given, str) else np.nan
        return np.array([filler if value is None else value for value in values])
    longest = max(len(value or ()) for value in values)
    filler = "" if isinstance(given[0], str) else np.nan
    return np.array([(value or []) + [filler] * (longest - len(value or ())) for value in values])


# -- what a model says -------------------------------------------------------------------------------------------------


def figures_of(said: Sequence[NDArray[np.float64]], targets: Sequences, facts: TableFacts) -> Figures:
    """The figures of what was said of some rows.

    Args:
        said: as of `predict_rows`.
        targets: the labels of the same rows.
        facts: mode, classes and base rate.
    """
    values, came = np.concatenate(said), targets.values.numpy()
    if facts.mode == "score":
        return score_figures(values[:, 0], came.reshape(-1), base=facts.base[0], bounded=facts.bounded)
    return distribution_figures(values, came, base_V=facts.base, classes=facts.classes)


def check_config(facts: TableFacts, config: SequenceConfig) -> None:
    """Refuses facts that belong to another model.

    Raises:
        CheckpointError: they contradict the model's shape.
    """
    classes = config.classes if config.mode == "distribution" else 0
    shape = (config.mode, config.features, config.output == "every", classes)
    if shape != (facts.mode, facts.features, facts.every, len(facts.classes)):
        raise CheckpointError("the stored facts about the table do not fit the model")
