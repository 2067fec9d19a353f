"""The rows and columns of a table: which rows train, validate and test, which columns are sequence and label."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError
from charlm.sequences.cells import is_missing
from charlm.sequences.labels import as_numbers, label_cells, sum_to_one
from charlm.sequences.tables import Table
from charlm.text.splits import PARTS, parse_shares, show_shares

_GRAMMAR = "write it as 80/10/10, shuffled:SEED:80/10/10 or ordered:80/10/10 (train/valid/test in per cent)"


@dataclass(frozen=True, kw_only=True)
class RowSplit:
    """A division of rows into train, valid and test.

    Args:
        shares: per cent of each part; they sum to 100, training has some.
        seed: rows are dealt out after shuffling with it; None takes them in their order, the test part last.

    `80/10/10` and `shuffled:80/10/10` shuffle with seed 0, `shuffled:7:80/10/10` with 7; `ordered:80/10/10` does not:
    for rows that follow each other in time.

    >>> split = RowSplit.parse("60/20/20")
    >>> str(split), {part: len(rows) for part, rows in split.parts(10).items()}
    ('shuffled:0:60/20/20', {'train': 6, 'valid': 2, 'test': 2})
    >>> RowSplit.parse("ordered:50/25/25").parts(4)["test"].tolist()
    [3]
    """

    shares: tuple[Fraction, Fraction, Fraction] = (Fraction(80), Fraction(10), Fraction(10))
    seed: int | None = 0

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or not self.shares[0]:
            raise OptionError(f"a split needs a training part and no negative share: {_GRAMMAR}")
        if sum(self.shares) != 100:
            raise OptionError(f"the shares of a split sum to 100, not to {float(sum(self.shares)):g}: {_GRAMMAR}")

    @classmethod
    def parse(cls, text: str) -> RowSplit:
        """Reads the way a split is written on the command line and in checkpoints."""
        *head, shares = text.strip().split(":")
        kind = head[0] if head else "shuffled"
        if kind not in ("shuffled", "ordered") or len(head) > (2 if kind == "shuffled" else 1):
            raise OptionError(f"cannot read the split {text[:80]!r}: {_GRAMMAR}")
        if len(head) == 2 and not re.fullmatch(r"[0-9]{1,18}", head[1]):
            raise OptionError(f"{head[1][:40]!r} in the split {text[:80]!r} is not a whole number: {_GRAMMAR}")
        seed = None if kind == "ordered" else int(head[1]) if len(head) == 2 else 0
        return cls(shares=parse_shares(shares, text, _GRAMMAR), seed=seed)

    def __str__(self) -> str:
        shares = show_shares(self.shares)
        return f"ordered:{shares}" if self.seed is None else f"shuffled:{self.seed}:{shares}"

    def parts(self, rows: int, groups: NDArray[np.int64] | None = None) -> dict[str, NDArray[np.int64]]:
        """The numbers of the rows of each part, in rising order; every row is in exactly one.

        Shares are rounded down to whole rows, but a part that was asked for gets at least one. With groups the parts
        end at the boundary of groups that is nearest to their share; in an ordered split a group stands where its
        first row does.

        Args:
            rows: how many there are.
            groups: the number of each row's group, [rows]; rows of one group fall into the same part.

        Raises:
            TextError: fewer rows, or groups, than parts.
        """
        wanted = [share > 0 for share in self.shares]
        if rows < sum(wanted):
            raise TextError(
                f"{rows} rows cannot be divided by {self}: give the table more rows, or use --split 100/0/0"
            )
        order = np.arange(rows) if self.seed is None else np.random.default_rng(self.seed).permutation(rows)
        valid, test = (max(int(rows * share / 100), int(share > 0)) for share in self.shares[1:])
        train = rows - valid - test
        while train < 1:  # many small parts of few rows
            valid, test = (valid - 1, test) if valid > test else (valid, test - 1)
            train += 1
        cut = [train, train + valid]
        if groups is not None:
            order, cut = self._grouped(order, cut, groups)
        pieces = np.split(order, cut)
        return {part: np.sort(piece).astype(np.int64) for part, piece in zip(PARTS, pieces, strict=True)}

    def _grouped(
        self, order: NDArray[np.int64], cut: list[int], groups: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[int]]:
        """The rows with those of a group side by side, and the cuts moved to where groups end."""
        _, first, place, sizes = np.unique(groups[order], return_index=True, return_inverse=True, return_counts=True)
        order = order[np.argsort(first[place.reshape(-1)], kind="stable")]
        ends = np.cumsum(sizes[np.argsort(first)])
        valid, test = (int(share > 0) for share in self.shares[1:])
        if len(ends) < 1 + valid + test:
            raise TextError(
                f"{len(order):,} rows in {len(ends)} groups of equal sequences cannot be divided by {self}, as a group "
                "falls into one part: give the table more different rows, or use --split 100/0/0"
            )
        last = len(ends) - test
        one = int(np.clip(np.abs(ends - cut[0]).argmin() + 1, 1, last - valid))
        two = (
            one if not valid else last if not test else int(np.clip(np.abs(ends - cut[1]).argmin() + 1, one + 1, last))
        )
        return order, [int(ends[one - 1]), int(ends[two - 1])]


def groups_of(sequences: Sequence[Any], more: Sequence[Hashable] | None = None) -> NDArray[np.int64]:
    """The number of each row's group: rows with equal sequences belong together.

    Args:
        sequences: strings or arrays of numbers.
        more: a value a row; rows with equal values belong together too.

    >>> groups_of(["a", "b", "a", "c"]).tolist(), groups_of(["a", "b", "a", "c"], [1, 2, 3, 2]).tolist()
    ([0, 1, 0, 2], [0, 1, 0, 1])
    """
    keys = [each if isinstance(each, str) else (np.shape(each), np.asarray(each).tobytes()) for each in sequences]
    same = _numbered(keys)
    if more is None:
        return same
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    other = _numbered(list(more)) + same.max() + 1
    size = int(other.max()) + 1
    _, parts = connected_components(coo_array((np.ones(len(same)), (same, other)), shape=(size, size)), directed=False)
    return _numbered(parts[same].tolist())


def _numbered(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


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


def seed_of(chance: Any) -> int:
    """A seed from a number, a `numpy.random.RandomState`, or None, which draws one."""
    from sklearn.utils import check_random_state

    if isinstance(chance, int | np.integer) and not isinstance(chance, bool):
        return int(chance)
    return int(check_random_state(chance).randint(2**31 - 1))


def near_equal(held_out: Sequence[str], train: Sequence[str]) -> int:
    """How many held-out texts are equal to one of the training part but for case and spaces.

    >>> near_equal(["Hello  World", "new"], ["hello world "])
    1
    """
    known = {" ".join(text.casefold().split()) for text in train}
    return sum(" ".join(text.casefold().split()) in known for text in held_out)


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
