"""Score (one number in 0..1) and Distribution (a probability for each class) of sequences; here are the sequences.

`Sequences` are many of different lengths, kept end to end and handed out as padded batches; `Examples` are sequences
and what is to be said of each. Then open `fit`: it fits a table, as `charlm fit` does; `estimators` do the same for
arrays, with scikit-learn's protocol. `model` is the network, of the shape in `config`, `tasks` what is optimised,
`fit_run` the network's training, `baselines` and `fitted_models` all models of a fit and their mix, `table_fit` what a
fit gives back, with its `metrics` and `figures`. `cells` tells texts from numbers in a table, `labels` finds the
label column and which kind of task that makes; `tabular` puts these together, and `predict` writes into a table.

Axes: N sequences, T steps, B lanes, F numbers a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.text.vocab import Vocab


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """N sequences; made by `of_numbers`, `of_texts` or `of_labels`.

    Args:
        values: all steps of all sequences, one after the other: [S] or [S, F].
        lengths: how many of them belong to each sequence, int64 [N], every one at least 1.

    >>> x = Sequences.of_numbers([[1.0, 2.0, 3.0], [4.0]])
    >>> padded, lengths = x.padded(torch.tensor([1, 0]))
    >>> padded.squeeze(-1).tolist(), lengths.tolist()
    ([[4.0, 1.0], [0.0, 2.0], [0.0, 3.0]], [1, 3])
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if not len(self.lengths):
            raise OptionError("there are no sequences: give at least one")
        if int(self.lengths.min()) < 1:
            row = int((self.lengths < 1).nonzero()[0, 0]) + 1
            raise OptionError(f"sequence {row} is empty: every sequence has at least one step")
        if int(self.lengths.sum()) != len(self.values):
            raise OptionError(f"the lengths add up to {int(self.lengths.sum())}, there are {len(self.values)} steps")

    @cached_property
    def starts(self) -> Tensor:
        """Where each sequence begins among the values, [N]."""
        return torch.cumsum(self.lengths, 0) - self.lengths

    @classmethod
    def of_numbers(cls, rows: Iterable[Any]) -> Sequences:
        """Sequences of numbers: each a list or array of T numbers, or of T rows of F numbers, or one number alone.

        Kept as float64, so that large numbers are whole until they have been scaled.
        """
        arrays = [np.atleast_1d(np.asarray(row, dtype=np.float64)) for row in rows]
        arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
        widths = {array.shape[1] if array.ndim == 2 else -1 for array in arrays}
        if len(widths) > 1 or -1 in widths:
            raise OptionError("a sequence is a list of numbers, or of rows of equally many; these differ")
        if not arrays:
            raise OptionError("there are no sequences: give at least one")
        for number, array in enumerate(arrays):
            if not np.isfinite(array).all():
                raise OptionError(f"sequence {number + 1} holds a value that is not a finite number")
        return cls(values=torch.from_numpy(np.concatenate(arrays)), lengths=_lengths(arrays))

    @classmethod
    def of_rows(cls, rows_NF: Any) -> Sequences:
        """N sequences of one step of F numbers each."""
        array = np.asarray(rows_NF, dtype=np.float64)
        if array.ndim != 2:
            raise OptionError(f"rows of numbers are a table [N, F], not {list(array.shape)}")
        return cls.of_numbers(array[:, None])

    @classmethod
    def of_texts(cls, texts: Iterable[str], vocab: Vocab) -> Sequences:
        """Texts as ids, -1 for a character that the vocabulary does not hold."""
        return cls._of_ids([vocab.encode(text, unknown=True).astype(np.int64) for text in texts])

    @classmethod
    def of_rows_or_texts(cls, rows: Sequence[Any], vocab: Vocab | None) -> Sequences:
        """Texts where there is a vocabulary, else numbers."""
        return cls.of_numbers(rows) if vocab is None else cls.of_texts(rows, vocab)

    @classmethod
    def of_labels(cls, rows: Iterable[Any]) -> Sequences:
        """Class labels as whole numbers from 0: one for each sequence, or a list of one a step."""
        return cls._of_ids([np.atleast_1d(np.asarray(row)).astype(np.int64) for row in rows])

    @classmethod
    def _of_ids(cls, arrays: list[Any]) -> Sequences:
        if not arrays:
            raise OptionError("there are no sequences: give at least one")
        return cls(values=torch.from_numpy(np.concatenate(arrays)), lengths=_lengths(arrays))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Tensor:
        start = int(self.starts[number])
        return self.values[start : start + int(self.lengths[number])]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(len(self)))

    @property
    def ids(self) -> bool:
        """Whether the steps are ids or labels, not numbers."""
        return not self.values.is_floating_point()

    def take(self, rows: Tensor) -> Sequences:
        """Some of the sequences, in the order asked for."""
        rows = rows.long()
        lengths = self.lengths[rows]
        within = torch.arange(int(lengths.sum())) - (torch.cumsum(lengths, 0) - lengths).repeat_interleave(lengths)
        return Sequences(values=self.values[self.starts[rows].repeat_interleave(lengths) + within], lengths=lengths)

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """A batch: [T, B] or [T, B, F] with zeros behind each sequence's end (-1 for ids), T that of the longest; and
        the lengths [B], or None where all are equal."""
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        t = torch.arange(longest).unsqueeze(-1)
        place = self.starts[rows] + torch.minimum(t, lengths - 1)
        batch = self.values[place]
        if int(lengths.min()) == longest:
            return batch, None
        behind = (t >= lengths).view(longest, -1, *[1] * (batch.dim() - 2))
        return batch.masked_fill(behind, -1 if self.ids else 0), lengths

    def digest(self) -> str:
        """A SHA-256 of all values and lengths, to tell whether data have changed."""
        digest = hashlib.sha256(f"{self.values.dtype}{tuple(self.values.shape)}".encode())
        for tensor in (self.lengths, self.values):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _lengths(arrays: Sequence[Any]) -> Tensor:
    return torch.tensor([len(array) for array in arrays], dtype=torch.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Sequences and what is to be said of each.

    Args:
        inputs: N sequences of numbers or ids.
        targets: N sequences: of one step where one thing is said of each input, else of as many as the input has; or,
            for inputs of one step, of as many as are to be said. Numbers for a Score; labels, or rows of
            probabilities, for a Distribution.

    >>> examples = Examples(inputs=Sequences.of_numbers([[1, 2], [3]]), targets=Sequences.of_labels([0, 1]))
    >>> len(examples)
    2
    """

    inputs: Sequences
    targets: Sequences

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise OptionError(f"there are {len(self.inputs)} sequences and targets for {len(self.targets)} of them")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Tensor) -> Examples:
        """Some of the examples, in the order asked for."""
        return Examples(inputs=self.inputs.take(rows), targets=self.targets.take(rows))

    def digest(self) -> str:
        """A SHA-256 of everything in them."""
        return hashlib.sha256((self.inputs.digest() + self.targets.digest()).encode()).hexdigest()


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


# -- as they are given in Python ---------------------------------------------------------------------------------------


def as_list(X: Any) -> list[Any] | None:
    """Texts or arrays as a list; None for an array or table of numbers."""
    if hasattr(X, "iloc") and len(X.shape) == 2 and X.shape[1] == 1 and X.dtypes.iloc[0].kind == "O":
        X = X.iloc[:, 0]
    if hasattr(X, "iloc") and len(X.shape) == 1:
        X = X.tolist()
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUS" and X.size and isinstance(X.flat[0], str | bytes):
        if X.ndim != 1 and X.shape[1:] != (1,):
            raise OptionError(f"texts are a list or one column, not an array of the shape {X.shape}")
        X = X.ravel().tolist()
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1 and X.size and np.ndim(X[0]):
        X = list(X)
    if isinstance(X, str | bytes):
        raise OptionError(f"sequences are a list of texts or of arrays: put this text into a list, as [{X[:40]!r}]")
    if isinstance(X, list | tuple) and not X:
        raise OptionError("there are no sequences: give at least one")
    text = isinstance(X, list | tuple) and any(isinstance(value, str) for value in X)
    if not isinstance(X, list | tuple) or not (text or isinstance(X[0], bytes) or np.ndim(X[0])):
        return None
    for number, value in enumerate(X):
        if isinstance(value, bytes):
            raise OptionError(
                f"sequence {number + 1} is bytes: decode them to a text first, as {value[:20]!r}.decode()"
            )
    for number, value in enumerate(X):
        if isinstance(value, str) != text:
            raise OptionError(f"sequence {number + 1} is {str(value)[:40]!r}: all are texts, or all are numbers")
    return list(X)


def rows_of(X: Any, lengths: ArrayLike | None, validated: Callable[[Any], Any]) -> list[Any]:
    """X as a list of strings, or of arrays [T] or [T, F].

    Args:
        X: texts, arrays, a padded array or a table.
        lengths: of padded arrays, [N].
        validated: makes an array [N, T] of a table of numbers, or refuses it.
    """
    found = as_list(X)
    if found is None or (lengths is not None and not isinstance(found[0], str)):
        padded = X if found is None else stacked(found)
        if lengths is not None or len(getattr(padded, "shape", ())) == 3:
            return cut(np.asarray(padded, dtype=np.float64), lengths)
        return list(validated(X))
    if lengths is not None:
        raise OptionError("strings have their own lengths: leave lengths out")
    return found


def stacked(rows: list[Any]) -> Any:
    """Lists of equal lengths as one array."""
    try:
        return np.asarray(rows, dtype=np.float64)
    except ValueError:
        raise OptionError("lengths go with a padded array: a list of arrays has its own lengths") from None


def cut(padded: NDArray[np.float64], lengths: ArrayLike | None) -> list[Any]:
    """The rows of a padded array [N, T] or [N, T, F] without their padding."""
    if padded.ndim not in (2, 3) or not padded.size:
        raise OptionError(f"padded sequences are an array [N, T] or [N, T, F], not of the shape {padded.shape}")
    if lengths is None:
        return list(padded)
    steps = np.asarray(lengths)
    if steps.shape != (len(padded),) or steps.dtype.kind not in "iu":
        raise OptionError(f"lengths are {len(padded)} whole numbers, one a sequence, not {steps.dtype} {steps.shape}")
    if steps.min() < 1 or steps.max() > padded.shape[1]:
        raise OptionError(f"the lengths of these sequences are from 1 to {padded.shape[1]}")
    return [row[:length] for row, length in zip(padded, steps.tolist(), strict=True)]


def stepwise(y: Any, rows: Sequence[Any]) -> list[Any]:
    """The labels of every step: a list for each sequence, as long as it; an array's padding is cut off."""
    padded = isinstance(y, np.ndarray) and y.ndim == 2
    found = [list(each[: len(row)] if padded else each) for each, row in zip(y, rows, strict=True)]
    for number, (labels, row) in enumerate(zip(found, rows, strict=True)):
        if len(labels) != len(row):
            raise OptionError(f"sequence {number + 1} has {len(row)} steps and {len(labels)} labels: give one a step")
    return found


def refuse_missing(y: Any, steps: Sequence[Sequence[Any]] | None = None) -> None:
    """Refuses None, NaN and pandas' NA and NaT among labels, with the place of the first (from 1).

    Args:
        y: labels as they are given: a list, an array or a column of a table.
        steps: for labels of every step those of each sequence.

    >>> refuse_missing(["a", None])
    Traceback (most recent call last):
    charlm.errors.OptionError: label 2 of y is missing: give it, or leave its sequence out
    """
    array = y.to_numpy() if hasattr(y, "to_numpy") else y
    flat = array if isinstance(array, list | tuple) else np.asarray(array).ravel()
    for place, labels in enumerate([flat] if steps is None else steps, 1):
        for number, label in enumerate(labels, 1):
            try:
                missing = label is None or bool(label != label)  # noqa: PLR0124
            except (TypeError, ValueError):  # neither equal nor not, which is what NA is
                missing = not np.ndim(label)
            if missing:
                of = "y" if steps is None else f"sequence {place} in y"
                raise OptionError(f"label {number} of {of} is missing: give it, or leave its sequence out")


def ragged(rows: Sequence[NDArray[Any]]) -> Any:
    """Arrays of any lengths as one object array, [N].

    >>> ragged([np.zeros(2), np.zeros(3)]).shape, ragged([np.zeros(2), np.zeros(2)]).shape
    ((2,), (2,))
    """
    found = np.empty(len(rows), dtype=object)
    for number, row in enumerate(rows):
        found[number] = row
    return found
