"""A table as a task for a sequence model: which column is what, which rows train, and what the model remembers of it.

What is fitted (scales, the vocabulary, the base rate) is fitted on the training part; the classes alone are those of
the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.codec import decode
from charlm.errors import CheckpointError, OptionError
from charlm.sequences import Examples, Sequences, groups_of
from charlm.sequences.cells import Inputs, label_cells, read_inputs
from charlm.sequences.config import RowSplit
from charlm.sequences.labels import Labels, guess_columns, guess_mode, read_labels
from charlm.text.tables import Table, read_table
from charlm.text.vocab import Vocab


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What a model remembers of its table.

    Args:
        table: the file, as the user named it, and the SHA-256 of its bytes.
        rows: how many it has.
        sequence, label, lengths: names of columns; lengths of padded arrays, empty where there are none.
        label_file: a .npy file of the labels, empty where they are in the table.
        encoding, header: how it was read.
        input: `text` or `numbers`.
        features: numbers a step; 0 for text.
        mode: `score` or `distribution`.
        every: whether there is a label for every step.
        bounded: whether a Score's labels are in 0..1 by themselves, not by a scale.
        split: which rows train, validate and test.
        group: a column whose equal values stay in one part of the split; empty for none.
        distinct: whether equal sequences stay in one part; not so in models of charlm before 0.3.
        classes: names of a Distribution's classes.
        base: the base rate: the training part's mean label, or share of each class.
    """

    table: str
    sha256: str
    rows: int
    sequence: str
    label: str
    lengths: str = ""
    label_file: str = ""
    encoding: str = "utf-8"
    header: bool = True
    input: str
    features: int
    mode: str
    every: bool = False
    bounded: bool = True
    split: str
    group: str = ""
    distinct: bool = False
    classes: tuple[str, ...] = ()
    base: tuple[float, ...] = ()

    @classmethod
    def read(cls, value: Any) -> TableFacts:
        """The facts that a model's directory holds; anything else is refused."""
        facts = decode(cls, value, "what the model says of its table (which `charlm fit` writes)")
        RowSplit.parse(facts.split)
        if facts.mode not in ("score", "distribution") or len(facts.base) != max(len(facts.classes), 1):
            raise CheckpointError("the stored facts about the table contradict each other")
        return facts


@dataclass(frozen=True, kw_only=True)
class TableTask:
    """A table read as sequences and labels, its rows divided.

    Args:
        table: as it was read.
        facts: what is remembered of it.
        inputs: its sequences.
        labels: its labels.
        vocab: of text.
        notes: what was guessed, in sentences.
    """

    table: Table
    facts: TableFacts
    inputs: Inputs
    labels: Labels
    vocab: Vocab | None
    notes: list[str]

    @cached_property
    def parts(self) -> dict[str, NDArray[np.int64]]:
        """The rows of each part."""
        return _divide(self.table, self.inputs, RowSplit.parse(self.facts.split), self.facts.group, self.facts.distinct)

    @cached_property
    def examples(self) -> Examples:
        """All rows as a model takes them."""
        return Examples(inputs=sequences_of(self.inputs, self.vocab), targets=targets_of(self.labels))

    def part(self, name: str) -> Examples | None:
        """The examples of a part; None where it has no rows."""
        rows = torch.from_numpy(self.parts[name])
        return self.examples.take(rows) if len(rows) else None

    @property
    def train(self) -> Examples:
        """The examples that are trained on, of which there are some in every split."""
        return self.examples.take(torch.from_numpy(self.parts["train"]))

    @property
    def held(self) -> Examples:
        """The examples of the reported part."""
        return self.examples.take(torch.from_numpy(self.parts[self.reported]))

    @property
    def about(self) -> str:
        """The table in one line."""
        facts, steps = self.facts, sorted(self.inputs.lengths)
        what = "text" if facts.input == "text" else f"numbers, {facts.features} a step"
        span = f"{steps[0]:,} to {steps[-1]:,}" if steps[0] < steps[-1] else f"{steps[0]:,}"
        said = f"{len(facts.classes)} classes" if facts.classes else "a Score"
        divided = ", ".join(f"{part} {len(rows):,}" for part, rows in self.parts.items())
        return f"{facts.table}: {facts.rows:,} rows of {what}, {span} steps, {said}; split {facts.split}: {divided}"

    @property
    def reported(self) -> str:
        """The part that figures are reported on: test, else valid, else train."""
        return next(part for part in ("test", "valid", "train") if len(self.parts[part]))


def make_task(
    table: Table,
    *,
    sequence: str | None = None,
    label: str | None = None,
    mode: str | None = None,
    split: RowSplit | None = None,
    group: str | None = None,
    distinct: bool = True,
    vocab: Vocab | None = None,
    **given: Any,
) -> TableTask:
    """Reads a table as a task; what is not given is guessed, and said in the task's notes.

    Args:
        table: as `read_table` gave it.
        sequence, label: names of columns.
        mode: `score` or `distribution`.
        split: which rows train, validate and test; 80/10/10 after shuffling by default.
        group: a column; rows with equal values in it stay in one part.
        distinct: whether rows with equal sequences stay in one part; where there are fewer different ones than
            parts they cannot, which is said in the notes.
        vocab: of text, where a model's own is to be used; else that of the training part is made.
        given: `input`, `every`, `bounded`, `classes`, `encoding`, `header`, `label_file`, `base` as of `TableFacts`.
    """
    split = split or RowSplit()
    sequence, label, notes = guess_columns(table, sequence, label)
    if label is None:
        raise OptionError(f"which column of {table.name} holds the labels? Say --label-column NAME")
    if label == sequence:
        raise OptionError(f"column {label!r} cannot hold both the sequences and the labels")
    if mode is None:
        mode, why = guess_mode(table, label)
        notes.append(f"--mode {mode}, because {why}")
    lengths = next((name for name in table.columns if table.kind == "arrays" and name.lower() == "lengths"), None)
    inputs = read_inputs(table, sequence, kind=given.get("input"), lengths=lengths)
    bounded = given.get("bounded", True)
    labels = read_labels(
        table, label, inputs, mode=mode, every=given.get("every"), classes=given.get("classes"), bounded=bounded
    )
    different, wanted = int(groups_of(inputs.values).max()) + 1, sum(share > 0 for share in split.shares)
    if distinct and different < wanted:
        distinct = False
        notes.append(
            f"there are only {different} different sequences, too few to divide: equal ones stand in several parts, "
            "and the figures say what the model remembers"
        )
    parts = _divide(table, inputs, split, group or "", distinct)
    train = parts["train"]
    notes += _leaks(inputs, parts) if distinct else []
    if inputs.kind == "text" and vocab is None:
        vocab = Vocab.of("".join(inputs.values[row] for row in train.tolist()))
    facts = TableFacts(
        table=table.name, sha256=table.sha256, rows=len(table), sequence=sequence, label=label, lengths=lengths or "",
        label_file=given.get("label_file", ""), encoding=given.get("encoding", "utf-8"),
        header=given.get("header", True), input=inputs.kind, features=inputs.features, mode=mode, every=labels.every,
        bounded=bounded, split=str(split), group=group or "", distinct=distinct, classes=labels.classes,
        base=_base_rate(labels, train),
    )  # fmt: skip
    vocab = vocab if inputs.kind == "text" else None
    notes += [*inputs.notes, *labels.notes]
    return TableTask(table=table, facts=facts, inputs=inputs, labels=labels, vocab=vocab, notes=notes)


def _divide(table: Table, inputs: Inputs, split: RowSplit, group: str, distinct: bool) -> dict[str, NDArray[np.int64]]:
    """The rows of each part; those that belong together are in one."""
    more = None if not group else [repr(value) for value in label_cells(table, group)]
    if distinct:
        return split.parts(len(table), groups_of(inputs.values, more))
    return split.parts(len(table), None if more is None else groups_of(more))


def _leaks(inputs: Inputs, parts: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """What a reader of the figures should know of sequences that are equal or nearly so."""
    notes = []
    repeated = len(inputs.values) - int(groups_of(inputs.values).max() + 1)
    if repeated:
        notes.append(f"{repeated:,} rows repeat the sequence of another one: equal sequences stay in one part")
    held = [row for part in ("valid", "test") for row in parts[part].tolist()]
    if inputs.kind == "text" and held:
        plain = [" ".join(text.casefold().split()) for text in inputs.values]
        train = {plain[row] for row in parts["train"].tolist()}
        near = sum(plain[row] in train for row in held)
        if near:
            notes.append(
                f"{near:,} of {len(held):,} held-out texts are equal to one of the training part but for case and "
                "spaces, so the figures may be too good: --group COLUMN keeps rows together that belong together"
            )
    return notes


def _base_rate(labels: Labels, rows: NDArray[np.int64]) -> tuple[float, ...]:
    values = np.concatenate([labels.values[row] for row in rows.tolist()])
    if labels.kind == "numbers":
        return (float(values.mean()),)
    shares = values.mean(axis=0) if labels.kind == "shares" else np.bincount(values, minlength=len(labels.classes))
    return tuple((shares / shares.sum()).tolist())


_LEAST = 20  # sequences from which on some are held out to stop training early


def held_out(rows: Sequence[Any], fraction: float, seed: int) -> dict[str, NDArray[np.int64]]:
    """The rows that are trained on and the share that early stopping watches; equal sequences stand on one side.

    >>> {part: len(rows) for part, rows in held_out([*"abcdefghij"] * 2, 0.2, 0).items()}
    {'train': 16, 'valid': 4, 'test': 0}
    """
    if not 0 <= fraction < 1:
        raise OptionError(f"validation_fraction is a share from 0 to below 1, not {fraction}")
    groups = groups_of(rows)
    held = Fraction(str(fraction)) * 100 if len(rows) >= _LEAST and groups.max() > 0 else Fraction(0)
    return RowSplit(shares=(100 - held, held, Fraction(0)), seed=seed).parts(len(rows), groups)


def is_bounded(label_scale: str | None) -> bool:
    """Whether a Score's labels are in 0..1 by themselves, by the option of their scale."""
    if label_scale not in (None, "none", "minmax"):
        raise OptionError(f"unknown label scale {label_scale!r}: choose minmax or none")
    return label_scale != "minmax"


def seed_of(chance: Any) -> int:
    """A seed from a number, a `numpy.random.RandomState`, or None, which draws one."""
    from sklearn.utils import check_random_state

    if isinstance(chance, int | np.integer) and not isinstance(chance, bool):
        return int(chance)
    return int(check_random_state(chance).randint(2**31 - 1))


def sequences_of(inputs: Inputs, vocab: Vocab | None) -> Sequences:
    """A table's sequences as a model takes them."""
    return Sequences.of_rows_or_texts(inputs.values, vocab)


def targets_of(labels: Labels) -> Sequences:
    """A table's labels as a model takes them."""
    return Sequences.of_labels(labels.values) if labels.kind == "classes" else Sequences.of_numbers(labels.values)


# -- from a file -------------------------------------------------------------------------------------------------------


def open_table(path: str, encoding: str, header: bool, label: str | None) -> tuple[Table, str | None, str]:
    """A table with its labels, which may be in a .npy file of their own.

    Args:
        path: the table; - for standard input.
        encoding, header: as of `read_table`.
        label: a column, or a .npy file.

    Returns:
        The table, the column of the labels where it is known, and the file that they came from or nothing.
    """
    table = read_table(path, encoding=encoding, header=header)
    if label is None or not label.endswith(".npy") or label in table.columns:
        return table, label, ""
    if table.kind != "arrays":
        raise OptionError(f"--label-column names a column of {table.name}; a .npy file goes with a .npy table")
    (values,) = read_table(label).columns.values()
    name = Path(label).stem
    name = f"{name} (labels)" if name in table.columns else name
    return table.with_column(name, values), name, label


def open_task(table: str, given: Mapping[str, Any], vocab: Vocab | None = None) -> TableTask:
    """A table in a file as a task.

    Args:
        table: the file; - for standard input.
        given: `sequence`, `label`, `encoding`, `header`, `mode`, `input`, `output`, `label_scale`, `split` and `group`
            as of `charlm.sequences.fit.fit_table`.
        vocab: of text, where a model's own is to be used.
    """
    encoding, header = given["encoding"] or "utf-8", given["header"]
    opened, label, label_file = open_table(table, encoding, header, given["label"])
    return make_task(
        opened,
        **{name: given[name] for name in ("sequence", "mode", "split", "group")},
        label=label,
        label_file=label_file,
        vocab=vocab,
        input=given["input"] or (None if vocab is None else "text"),
        every=None if given["output"] is None else given["output"] == "every",
        bounded=is_bounded(given["label_scale"]),
        encoding=encoding,
        header=header,
    )


def open_task_again(table: str, facts: TableFacts, vocab: Vocab | None) -> TableTask:
    """The table of a model, read and divided as it was the first time."""
    if table == "standard input":
        raise OptionError("the table came from standard input: name it again, - for standard input")
    opened, label, _ = open_table(table, facts.encoding, facts.header, facts.label_file or facts.label)
    same = ("sequence", "label_file", "mode", "distinct", "input", "every", "bounded", "encoding", "header")
    return make_task(
        opened,
        **{name: getattr(facts, name) for name in same},
        label=label,
        split=RowSplit.parse(facts.split),
        group=facts.group or None,
        vocab=vocab,
        classes=facts.classes or None,
    )
