"""Sorting the suffixes of a text, with numpy alone or with pydivsufsort where it is installed, and the index's files.

A text here is an array of codes: 0 is the separator that ends every span, symbols are 1..D. The separator
sorts before every symbol, so a suffix that ends early comes before its continuations. The files of an index are plain
arrays, which are opened as memory maps and checked against each other.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError, OptionError, TextError
from charlm.files import fingerprint, write_with
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

Codes = NDArray[Any]
"""uint8, uint16 or uint32; 0 separates, the last code is 0."""

DEPTH = 33
"""How many symbols deep suffixes are told apart: 32 of history and the one after them."""

_BLOCK = 1 << 20
_WORD = 8  # bytes compared at once


def fast_available() -> bool:
    """Whether pydivsufsort (the extra `fast`) is installed."""
    try:
        import pydivsufsort  # noqa: F401
    except ImportError:
        return False
    return True


METHODS = ("auto", "numpy", "fast")
"""Ways of sorting: `fast` needs pydivsufsort, `auto` takes it where it is installed."""


def sort_suffixes(codes: Codes, method: str) -> NDArray[np.int32]:
    """The positions of all symbols by `sort_numpy` or `sort_fast`; an OptionError where there is no such method."""
    if method not in METHODS:
        raise OptionError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if method == "fast" and not fast_available():
        raise OptionError("the method 'fast' needs pydivsufsort: install charlm-toolkit[fast], or use 'numpy'")
    return sort_fast(codes) if method == "fast" or (method == "auto" and fast_available()) else sort_numpy(codes)


def sort_numpy(codes: Codes) -> NDArray[np.int32]:
    """The positions of all symbols, sorted by the `DEPTH` symbols from there on, ties by position.

    Prefix doubling (Karp, Miller and Rosenberg 1972; Manber and Myers 1993): first by as many symbols as fit
    in 63 bits, then only what is still tied, by the pair (own rank, rank of the suffix further on).

    >>> sort_numpy(np.array([1, 2, 1, 0], dtype=np.uint8)).tolist()  # aba: a < aba < ba
    [2, 0, 1]
    """
    bits = int(codes.max()).bit_length()
    depth = min(63 // bits, DEPTH)
    suffixes, tied, rank = _sort_by_words(codes, bits, depth)
    while depth < DEPTH and len(tied):
        step = min(depth, DEPTH - depth)
        tied = _refine(suffixes, tied, rank, step)
        depth += step
    if len(tied):
        _order_ties(suffixes, tied, rank)
    return suffixes


def _sort_by_words(
    codes: Codes, bits: int, depth: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Sorts by the first `depth` symbols; returns suffixes, places still tied, and each position's rank."""
    size = len(codes)
    keys = np.zeros(size, dtype=np.int64)
    for offset in range(depth):
        keys <<= bits
        keys[: max(size - offset, 0)] |= codes[offset:]
    positions = np.flatnonzero(codes).astype(np.int32)
    keys = keys[positions]
    order = np.argsort(keys)
    suffixes = positions[order]
    keys = keys[order]
    del order, positions
    new = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    rank = np.zeros(size + DEPTH, dtype=np.int32)
    first = np.flatnonzero(new)
    sizes = np.diff(first, append=len(keys))
    rank[suffixes] = np.repeat((first + 1).astype(np.int32), sizes)
    return suffixes, np.flatnonzero(np.repeat(sizes > 1, sizes)), rank


def _refine(
    suffixes: NDArray[np.int32], tied: NDArray[np.int64], rank: NDArray[np.int32], step: int
) -> NDArray[np.int64]:
    """Sorts the tied places by the rank of what comes `step` symbols on; returns the places tied still."""
    positions = suffixes[tied]
    keys = rank[positions].astype(np.int64) << 32
    keys |= rank[positions + np.int32(step)]
    order = np.argsort(keys)
    positions, keys = positions[order], keys[order]
    suffixes[tied] = positions
    new = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    first = np.flatnonzero(new)
    sizes = np.diff(first, append=len(keys))
    rank[positions] = np.repeat((tied[first] + 1).astype(np.int32), sizes)
    return tied[np.repeat(sizes > 1, sizes)]


def _order_ties(suffixes: NDArray[np.int32], tied: NDArray[np.int64], rank: NDArray[np.int32]) -> None:
    """Puts suffixes that agree over the whole depth in the order of the text."""
    keys = rank[suffixes[tied]].astype(np.int64) << 32
    keys |= suffixes[tied]
    keys.sort()
    suffixes[tied] = (keys & 0x7FFFFFFF).astype(np.int32)


def sort_fast(codes: Codes) -> NDArray[np.int32]:
    """The same with pydivsufsort (Mori's divsufsort), ordered to the end of the text instead of to `DEPTH`.

    Codes of more than one byte are sorted as big-endian bytes, of which every first one is kept.
    """
    from pydivsufsort import divsufsort

    width = codes.dtype.itemsize
    raw = codes.astype(codes.dtype.newbyteorder(">")).view(np.uint8) if width > 1 else np.ascontiguousarray(codes)
    order = divsufsort(raw)
    if width > 1:
        order = order[order % width == 0] // width
    separators = len(codes) - int(np.count_nonzero(codes))
    suffixes: NDArray[np.int32] = order[separators:].astype(np.int32, copy=False)
    return suffixes


def codes_of_spans(ids: Ids, spans: Spans, symbols: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The codes of the spans with their separators, and the ids that occur, int32.

    Raises:
        TextError: no character in the spans, an id outside the vocabulary, or 2 GiB or more of text.
    """
    spans = spans[spans[:, 1] > spans[:, 0]]
    size = int((spans[:, 1] - spans[:, 0] + 1).sum())
    if not size:
        raise TextError("there is no character to count: use a longer text or another --split")
    if size >= 1 << 31:
        raise TextError(f"an index takes under {1 << 31:,} characters, this text has {size:,}: use a part of it")
    pieces = [ids[start:end] for start, end in spans.tolist()]
    pieces = [np.unique(piece) for piece in pieces] if len(spans) < 64 else pieces
    seen = np.unique(np.concatenate(pieces)).astype(np.int64)
    if seen[0] < 0 or seen[-1] >= symbols:
        raise TextError(f"a text to count has ids from 0 to {symbols - 1}, not {int(seen[0])} to {int(seen[-1])}")
    codes = np.zeros(size, dtype=smallest_dtype(len(seen) + 1))
    table = np.zeros(int(seen[-1]) + 1, dtype=codes.dtype)
    table[seen] = np.arange(1, len(seen) + 1)
    at = 0
    for start, end in spans.tolist():
        codes[at : at + end - start] = table[ids[start:end]]
        at += end - start + 1
    return codes, seen.astype(np.int32)


def room_array(codes: Codes, depth: int = DEPTH) -> NDArray[np.uint8]:
    """For each position how many symbols follow before the span ends, itself included, at most `depth`.

    >>> room_array(np.array([1, 1, 0, 1, 0], dtype=np.uint8)).tolist()
    [2, 1, 0, 1, 0]
    """
    room = np.full(len(codes), depth, dtype=np.uint8)
    ends = np.flatnonzero(codes == 0)
    for distance in range(depth - 1, -1, -1):
        places = ends - distance
        room[places[places >= 0]] = distance
    return room


def lcp_array(codes: Codes, suffixes: NDArray[np.int32]) -> NDArray[np.uint8]:
    """How many symbols each suffix shares with the one sorted before it, at most `DEPTH`, never across a span's end.

    >>> lcp_array(np.array([1, 2, 1, 0], dtype=np.uint8), np.array([2, 0, 1], dtype=np.int32)).tolist()
    [0, 1, 0]
    """
    width = codes.dtype.itemsize
    raw = np.zeros(len(codes) * width + DEPTH * width + _WORD, dtype=np.uint8)
    raw[: len(codes) * width] = np.ascontiguousarray(codes).view(np.uint8)
    words = np.ndarray((len(raw) - _WORD + 1,), dtype="<u8", buffer=raw.data, strides=(1,))
    room = room_array(codes)
    lcp = np.zeros(len(suffixes), dtype=np.uint8)
    for begin in range(1, len(suffixes), _BLOCK):
        end = min(begin + _BLOCK, len(suffixes))
        second = suffixes[begin:end].astype(np.int64)
        first = suffixes[begin - 1 : end - 1].astype(np.int64)
        equal = _equal_bytes(words, first * width, second * width, DEPTH * width) // width
        lcp[begin:end] = np.minimum(equal, room[second])
    return lcp


def _equal_bytes(
    words: NDArray[np.uint64], first: NDArray[np.int64], second: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """How many bytes from two places on are equal, counted a word at a time, at most `limit`."""
    equal = np.zeros(len(first), dtype=np.int64)
    active = np.arange(len(first))
    for offset in range(0, limit, _WORD):
        difference = words[first[active] + offset] ^ words[second[active] + offset]
        lowest = difference & (~difference + np.uint64(1))
        bytes_equal = (np.frexp(lowest.astype(np.float64))[1] - 1) >> 3  # exact: `lowest` is a power of two
        same = difference == 0
        equal[active] += np.where(same, _WORD, bytes_equal)
        active = active[same]
        if not len(active):
            break
    return np.minimum(equal, limit)


ARRAYS = ("codes", "suffixes", "lcp", "alphabet")
"""The arrays of an index; each is a file."""

CONTEXT = "level-context.npy"
"""The file of what `count_context` counts; it is not written where all of that is 0."""

_BROKEN = (OSError, ValueError, EOFError, SyntaxError, MemoryError, TokenError, TypeError, KeyError, ArithmeticError)
"""What numpy raises for a file that is none of its own, or whose header lies."""

_CHECKED = 1 << 22  # items of an array that are checked when it is opened


def file_of(name: str) -> str:
    """The file of an array of an index."""
    return f"index-{name}.npy"


def load_arrays(directory: Path, symbols: int) -> dict[str, NDArray[Any]]:
    """Opens the arrays as memory maps and looks at them; see `SuffixIndex.load`."""
    arrays = {name: open_array(directory / file_of(name), empty=False) for name in ARRAYS}
    codes, suffixes, lcp, alphabet = arrays.values()
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
    return arrays


def count_context(ids: Ids, spans: Spans, shared_N: NDArray[np.bool_] | None, symbols: int) -> NDArray[np.int64]:
    """How many spans begin with each symbol as context that the span before them counts, int64 [V].

    >>> count_context(np.array([0, 1, 0, 1]), np.array([[0, 2], [1, 4]]), np.array([False, True]), 2).tolist()
    [0, 1]
    """
    starts = np.zeros(0, np.int64) if shared_N is None else spans[shared_N, 0]
    return np.bincount(ids[starts].astype(np.int64), minlength=symbols).astype(np.int64)


def save_context(directory: Path, context_V: NDArray[np.int64]) -> None:
    """Writes what `count_context` counted, unless all of it is 0."""
    if context_V.any():
        save_array(directory / CONTEXT, context_V)


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


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array in numpy's format, whole or not at all."""
    write_with(path, partial(np.save, arr=array, allow_pickle=False))


def open_array(path: Path, axes: int = 1, *, empty: bool = True) -> NDArray[Any]:
    """A file that numpy saved, as a memory map.

    Raises:
        CheckpointError: missing, broken, not an array of so many axes, or `empty` where that is not allowed.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    try:
        array = _mapped(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the directory is not a whole model") from None
    except _BROKEN as error:
        raise CheckpointError(f"{path} is not a whole index file ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim != axes or not (empty or len(array)):
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


def pieces(size: int) -> list[slice]:
    """The parts of an array that are checked when it is opened: all of it, or 64 short pieces of a big one."""
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


def fingerprints(directory: Path) -> dict[str, str]:
    """The fingerprint of every file of an n-gram model's counts."""
    files = sorted([*directory.glob("index-*.npy"), *directory.glob("level-*.npy")])
    return {path.name: fingerprint(path) for path in files}
