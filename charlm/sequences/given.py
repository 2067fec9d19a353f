"""Sequences and labels as they are given in Python: lists of texts or arrays, padded arrays, columns of pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlm.errors import OptionError

__all__ = ["as_list", "cut", "stacked", "stepwise"]


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
    if not isinstance(X, list | tuple) or not X or not (isinstance(X[0], str) or np.ndim(X[0])):
        return None
    text = isinstance(X[0], str)
    for number, value in enumerate(X):
        if isinstance(value, str) != text:
            raise OptionError(f"sequence {number + 1} is {str(value)[:40]!r}: all are texts, or all are numbers")
    return list(X)


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
