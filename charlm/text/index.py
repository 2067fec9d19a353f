"""One sorted index of a text, from which the counts of every n-gram order are read.

The text's codes, its suffixes in sorted order, and how much each shares with the one before: six bytes a
character for up to 255 different symbols in under 2 GiB of text. All places where a string stands are
neighbours in the sorted order, so every count is the length of an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError, OptionError, TextError
from charlm.files import write_with
from charlm.text.levels import Levels
from charlm.text.sorting import DEPTH, fast_available, lcp_array, sort_fast, sort_numpy
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

__all__ = ["DEPTH", "MAX_ORDER", "SuffixIndex"]

MAX_ORDER = DEPTH - 1
"""The longest history that the index tells apart."""

_FILES = ("codes", "suffixes", "lcp", "alphabet")
_METHODS = ("auto", "numpy", "fast")


@dataclass(frozen=True, kw_only=True, eq=False)
class SuffixIndex:
    """The sorted suffixes of a text's spans.

    Args:
        codes: the spans one after the other, each ended by 0; a symbol's code is its place in `alphabet` plus
            1. uint8 for up to 255 different symbols, else uint16 or uint32.
        suffixes: int32, the positions in `codes` of all symbols, sorted by the `DEPTH` symbols from there on.
        lcp: uint8, how many symbols a suffix shares with the one before it, at most `DEPTH`.
        alphabet: the ids that occur, ascending.
        symbols: size of the vocabulary, V.

    >>> index = SuffixIndex.build(np.array([0, 1, 2, 0, 1]), np.array([[0, 5]]), symbols=3)  # abcab
    >>> index.find([0, 1])  # ab: two of the five sorted suffixes
    (0, 2)
    """

    codes: NDArray[Any]
    suffixes: NDArray[np.int32]
    lcp: NDArray[np.uint8]
    alphabet: NDArray[np.int32]
    symbols: int

    @classmethod
    def build(cls, ids: Ids, spans: Spans, *, symbols: int, method: str = "auto") -> SuffixIndex:
        """Sorts the suffixes of the spans of a text; no string crosses a span's end.

        Args:
            ids: of a text.
            spans: rows of (start, end) in it.
            symbols: size of the vocabulary; ids are below it.
            method: `numpy`, `fast` (needs pydivsufsort), or `auto`: the fast one where it is installed. Both
                give the same counts at every order up to 32.

        Raises:
            TextError: no character in the spans, an id outside the vocabulary, or 2 GiB or more of text.
            OptionError: an unknown method, or `fast` without pydivsufsort.
        """
        fast = _use_fast(method)
        codes, alphabet = _encode(ids, spans, symbols)
        suffixes = sort_fast(codes) if fast else sort_numpy(codes)
        lcp = lcp_array(codes, suffixes)
        return cls(codes=codes, suffixes=suffixes, lcp=lcp, alphabet=alphabet, symbols=symbols)

    def __len__(self) -> int:
        """How many characters are indexed."""
        return len(self.suffixes)

    @property
    def nbytes(self) -> int:
        """Bytes of the four arrays."""
        return sum(getattr(self, name).nbytes for name in _FILES)

    @cached_property
    def id_dtype(self) -> np.dtype[Any]:
        """The unsigned type that holds every id of the vocabulary."""
        return smallest_dtype(self.symbols)

    @cached_property
    def levels(self) -> Levels:
        """The tables of counts by order, made when asked for."""
        return Levels(self)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where in `codes` each span that is not empty begins."""
        ends = np.flatnonzero(self.codes == 0)
        return np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)

    @cached_property
    def places(self) -> NDArray[np.int32]:
        """The inverse of `suffixes`: each position's place in the sorted order, -1 at separators."""
        places = np.full(len(self.codes), -1, dtype=np.int32)
        places[self.suffixes] = np.arange(len(self.suffixes), dtype=np.int32)
        return places

    def ids_of(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The ids of codes above 0."""
        found: NDArray[Any] = self.alphabet.astype(self.id_dtype)[codes.astype(np.int64) - 1]
        return found

    def codes_of(self, ids: Any) -> NDArray[np.int64]:
        """The codes of ids; 0 for an id that does not occur in the text."""
        ids = np.asarray(ids, dtype=np.int64)
        slot = np.minimum(np.searchsorted(self.alphabet, ids), len(self.alphabet) - 1)
        return np.where(self.alphabet[slot] == ids, slot + 1, 0)

    def find(self, string: Any, within: tuple[int, int] | None = None, depth: int = 0) -> tuple[int, int]:
        """The interval of sorted suffixes that begin with a string of ids; empty where it never occurs.

        Args:
            string: ids, at most `DEPTH` of them with what came before.
            within: look inside this interval only, whose suffixes share their first `depth` symbols.
            depth: how many symbols are already matched.
        """
        low, high = within or (0, len(self))
        for code in self.codes_of(string).tolist():
            low, high = (low, low) if code == 0 else self._narrow(low, high, depth, code)
            depth += 1
        return low, high

    def _narrow(self, low: int, high: int, depth: int, code: int) -> tuple[int, int]:
        return self._bisect(low, high, depth, code), self._bisect(low, high, depth, code + 1)

    def _bisect(self, low: int, high: int, depth: int, code: int) -> int:
        """The first suffix in low..high whose symbol at `depth` is `code` or higher."""
        while low < high:
            middle = (low + high) // 2
            if int(self.codes[int(self.suffixes[middle]) + depth]) < code:
                low = middle + 1
            else:
                high = middle
        return low

    def followers(self, history: Any) -> list[tuple[int, int]]:
        """What followed a history, as (id, count) by id; empty where nothing ever did. Needs no table.

        >>> index = SuffixIndex.build(np.array([0, 1, 0, 2, 0, 1]), np.array([[0, 6]]), symbols=3)  # abacab
        >>> index.followers([0])
        [(1, 2), (2, 1)]
        """
        depth = len(history)
        low, high = self.find(history)
        low = self._bisect(low, high, depth, 1)  # past the places where a span ended
        found = []
        while low < high:
            code = int(self.codes[int(self.suffixes[low]) + depth])
            after = self._bisect(low, high, depth, code + 1)
            found.append((int(self.alphabet[code - 1]), after - low))
            low = after
        return found

    def save(self, directory: Path) -> None:
        """Writes the arrays as `index-NAME.npy`, each file whole or not at all."""
        for name in _FILES:
            array = getattr(self, name)
            write_with(_path(directory, name), partial(np.save, arr=array, allow_pickle=False))

    @classmethod
    def load(cls, directory: Path, *, symbols: int) -> SuffixIndex:
        """Opens what `save` wrote as memory maps.

        Raises:
            CheckpointError: a file that is missing or broken, or arrays that do not fit each other.
        """
        arrays = {name: _open(_path(directory, name)) for name in _FILES}
        _check(arrays, directory, symbols)
        return cls(**arrays, symbols=symbols)


def _use_fast(method: str) -> bool:
    if method not in _METHODS:
        raise OptionError(f"unknown method {method!r}: choose one of {', '.join(_METHODS)}")
    if method == "fast" and not fast_available():
        raise OptionError("the method 'fast' needs pydivsufsort: install charlm[fast], or use 'numpy'")
    return method == "fast" or (method == "auto" and fast_available())


def _encode(ids: Ids, spans: Spans, symbols: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The codes of the spans with their separators, and the ids that occur."""
    spans = spans[spans[:, 1] > spans[:, 0]]
    size = int((spans[:, 1] - spans[:, 0] + 1).sum())
    if not size:
        raise TextError("there is no character to count: use a longer text or another --split")
    if size >= 1 << 31:
        raise TextError(
            f"an index takes under {1 << 31:,} characters, this text has {size:,}: use a part of it"
        )
    seen = _occurring(ids, spans)
    if seen[0] < 0 or seen[-1] >= symbols:
        raise TextError(
            f"a text to count has ids from 0 to {symbols - 1}, not {int(seen[0])} to {int(seen[-1])}"
        )
    codes = np.zeros(size, dtype=smallest_dtype(len(seen) + 1))
    table = np.zeros(int(seen[-1]) + 1, dtype=codes.dtype)
    table[seen] = np.arange(1, len(seen) + 1)
    at = 0
    for start, end in spans.tolist():
        codes[at : at + end - start] = table[ids[start:end]]
        at += end - start + 1
    return codes, seen.astype(np.int32)


def _occurring(ids: Ids, spans: Spans) -> NDArray[np.int64]:
    found = (
        [np.unique(ids[start:end]) for start, end in spans.tolist()]
        if len(spans) < 64
        else [np.unique(np.concatenate([ids[start:end] for start, end in spans.tolist()]))]
    )
    return np.unique(np.concatenate(found)).astype(np.int64)


def _path(directory: Path, name: str) -> Path:
    return directory / f"index-{name}.npy"


def _open(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the directory is not a whole model") from None
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        raise CheckpointError(f"{path} is not a whole index file ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 1 or not len(array):
        raise CheckpointError(f"{path} does not hold a list of numbers")
    return np.asarray(array)


def _check(arrays: dict[str, NDArray[Any]], directory: Path, symbols: int) -> None:
    codes, suffixes, lcp, alphabet = (arrays[name] for name in _FILES)
    kinds = [array.dtype for array in (suffixes, lcp, alphabet)]
    sound = (
        kinds == [np.int32, np.uint8, np.int32]
        and codes.dtype == smallest_dtype(len(alphabet) + 1)
        and codes[-1] == 0
        and codes[0] != 0
        and int(codes.max()) <= len(alphabet)
        and len(suffixes) == len(lcp) == int(np.count_nonzero(codes))
        and lcp[0] == 0
        and int(lcp.max()) <= DEPTH
        and int(suffixes.min()) >= 0
        and int(suffixes.max()) < len(codes)
        and int(alphabet[0]) >= 0
        and int(alphabet[-1]) < symbols
        and bool((np.diff(alphabet) > 0).all())
    )
    if not sound:
        raise CheckpointError(
            f"the index in {directory} is damaged: its parts do not fit each other; count the text again"
        )
