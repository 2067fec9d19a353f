"""The files of a suffix index: plain arrays, opened as memory maps, believed when they fit each other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError
from charlm.files import write_with
from charlm.ngrams.sorting import DEPTH
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

__all__ = [
    "ARRAYS",
    "CONTEXT",
    "count_context",
    "load_arrays",
    "load_context",
    "open_array",
    "pieces",
    "save_arrays",
    "save_context",
]

ARRAYS = ("codes", "suffixes", "lcp", "alphabet")
"""The arrays of an index; each is a file `index-NAME.npy`."""

CONTEXT = "level-context.npy"
"""The file of the symbols that begin spans as context alone; there is none where no span has such a beginning."""

_BROKEN = (OSError, ValueError, EOFError, SyntaxError, MemoryError, TokenError, TypeError, KeyError, ArithmeticError)
"""What numpy raises for a file that is none of its own, or whose header lies."""

_CHECKED = 1 << 22  # characters of an index that are looked at when it is opened


def save_arrays(directory: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes each array, whole or not at all."""
    for name in ARRAYS:
        write_with(_path(directory, name), partial(np.save, arr=arrays[name], allow_pickle=False))


def load_arrays(directory: Path, symbols: int) -> dict[str, NDArray[Any]]:
    """Opens the arrays as memory maps and looks at them; see `SuffixIndex.load`."""
    arrays = {name: _filled(_path(directory, name)) for name in ARRAYS}
    _check(arrays, directory, symbols)
    return arrays


def count_context(ids: Ids, spans: Spans, shared_N: NDArray[np.bool_] | None, symbols: int) -> NDArray[np.int64]:
    """How many spans begin with each symbol as context that the span before them counts, int64 [V].

    >>> count_context(np.array([0, 1, 0, 1]), np.array([[0, 2], [1, 4]]), np.array([False, True]), 2).tolist()
    [0, 1]
    """
    starts = np.zeros(0, np.int64) if shared_N is None else spans[shared_N, 0]
    return np.bincount(ids[starts].astype(np.int64), minlength=symbols).astype(np.int64)


def save_context(directory: Path, context_V: NDArray[np.int64]) -> None:
    """Writes what `count_context` found, where it found anything."""
    if context_V.any():
        write_with(directory / CONTEXT, partial(np.save, arr=context_V, allow_pickle=False))


def load_context(directory: Path, symbols: int) -> NDArray[np.int64]:
    """What `save_context` wrote.

    Raises:
        CheckpointError: the file is broken.
    """
    path = directory / CONTEXT
    if not path.exists():
        return np.zeros(symbols, dtype=np.int64)
    found = open_array(path)
    if found.dtype != np.int64 or len(found) != symbols or int(found.min(initial=0)) < 0:
        raise CheckpointError(f"{path} does not fit the model beside it: count the text again")
    return found


def _path(directory: Path, name: str) -> Path:
    return directory / f"index-{name}.npy"


def _filled(path: Path) -> NDArray[Any]:
    array = open_array(path)
    if not len(array):
        raise CheckpointError(f"{path} does not hold a list of numbers")
    return array


def open_array(path: Path, axes: int = 1) -> NDArray[Any]:
    """A file that numpy saved, as a memory map.

    Raises:
        CheckpointError: missing, broken, or not an array of so many axes.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    try:
        array = _mapped(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the directory is not a whole model") from None
    except _BROKEN as error:
        raise CheckpointError(f"{path} is not a whole index file ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim != axes:
        raise CheckpointError(f"{path} does not hold a list of numbers")
    return np.asarray(array)


def _mapped(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.load(path, allow_pickle=False)  # an array of nothing cannot be mapped
        if array.size:
            raise
        return array


def _check(arrays: dict[str, NDArray[Any]], directory: Path, symbols: int) -> None:
    codes, suffixes, lcp, alphabet = (arrays[name] for name in ARRAYS)
    kinds = [array.dtype for array in (suffixes, lcp, alphabet)]
    sound = (
        kinds == [np.int32, np.uint8, np.int32]
        and codes.dtype == smallest_dtype(len(alphabet) + 1)
        and len(suffixes) == len(lcp) < len(codes)
        and codes[-1] == 0 != codes[0]
        and int(alphabet[0]) >= 0
        and int(alphabet[-1]) < symbols
        and bool((np.diff(alphabet) > 0).all())
        and all(_sorted(codes, suffixes, lcp, len(alphabet), part) for part in pieces(len(suffixes)))
    )
    if not sound:
        raise CheckpointError(
            f"the index in {directory} is damaged: its parts do not fit each other; count the text again"
        )


def pieces(size: int) -> list[slice]:
    """What is looked at of an array of this size: the whole, or of a big one 64 pieces, so that opening it does
    not read it."""
    if size <= _CHECKED:
        return [slice(0, size)]
    edges = np.linspace(0, size - _CHECKED // 64, 64).astype(np.int64)
    return [slice(at, at + _CHECKED // 64) for at in edges.tolist()]


def _sorted(codes: Any, suffixes: Any, lcp: Any, most: int, part: slice) -> bool:
    """Whether suffixes are places of symbols in sorted order that share something where symbols agree."""
    places, shared = suffixes[part], lcp[part]
    if int(places.min()) < 0 or int(places.max()) >= len(codes) - 1 or int(shared.max()) > DEPTH:
        return False
    first = codes[places]
    agree = first[1:] == first[:-1]
    in_range = int(first[0]) > 0 and int(first[-1]) <= most and (part.start or int(shared[0]) == 0)
    return bool(in_range and (first[1:] >= first[:-1]).all() and ((shared[1:] > 0) == agree).all())
