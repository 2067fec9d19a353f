"""One sorted index of a text, from which the counts of every n-gram order are read; and what a text has copied.

The text's codes, its suffixes in sorted order, and how much each shares with the one before: six bytes a
character for up to 255 different symbols in under 2 GiB of text. All places where a string stands are
neighbours in the sorted order, so every count is the length of an interval.

`novelty` says how much of a generated text was copied from the training text: a model that knows its text by heart
writes well and says nothing. The same figures for real held-out text show how much agreement is natural.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.ngrams import suffixes as sorting
from charlm.ngrams.levels import IndexLevels, Levels
from charlm.ngrams.suffixes import DEPTH
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, smallest_dtype

MAX_ORDER = DEPTH - 1
"""The longest history that the index tells apart."""

_BLOCK = 1 << 13  # rows matched at once


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
        context: int64 [V], how many spans begin with each symbol as context that another span counts; see `Levels`.

    >>> index = SuffixIndex.build(np.array([0, 1, 2, 0, 1]), np.array([[0, 5]]), symbols=3)  # abcab
    >>> index.find([0, 1])  # ab: two of the five sorted suffixes
    (0, 2)
    """

    codes: NDArray[Any]
    suffixes: NDArray[np.int32]
    lcp: NDArray[np.uint8]
    alphabet: NDArray[np.int32]
    symbols: int
    context: NDArray[np.int64]

    @classmethod
    def build(
        cls, ids: Ids, spans: Spans, *, symbols: int, method: str = "auto", shared_N: NDArray[np.bool_] | None = None
    ) -> SuffixIndex:
        """Sorts the suffixes of the spans of a text; no string crosses a span's end.

        Args:
            ids: of a text.
            spans: rows of (start, end) in it.
            symbols: size of the vocabulary; ids are below it.
            method: `numpy`, `fast` (needs pydivsufsort), or `auto`: the fast one where it is installed. Both
                give the same counts at every order up to 32.
            shared_N: for each span whether its first symbol is counted by the span before it and is context
                alone here, as `charlm.text.splits.shared_context` says; by default none is.

        Raises:
            TextError: no character in the spans, an id outside the vocabulary, or 2 GiB or more of text.
            OptionError: an unknown method, or `fast` without pydivsufsort.
        """
        codes, alphabet = sorting.codes_of_spans(ids, spans, symbols)
        suffixes = sorting.sort_suffixes(codes, method)
        lcp = sorting.lcp_array(codes, suffixes)
        context = sorting.count_context(ids, spans, shared_N, symbols)
        return cls(codes=codes, suffixes=suffixes, lcp=lcp, alphabet=alphabet, symbols=symbols, context=context)

    def __len__(self) -> int:
        """How many characters are indexed."""
        return len(self.suffixes)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays of the size of the text."""
        return sum(getattr(self, name).nbytes for name in sorting.ARRAYS)

    @cached_property
    def levels(self) -> Levels:
        """The tables of counts by order, made when asked for."""
        return IndexLevels(self)

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
        found: NDArray[Any] = self.alphabet.astype(smallest_dtype(self.symbols))[codes.astype(np.int64) - 1]
        return found

    def codes_of(self, ids: Any) -> NDArray[np.int64]:
        """The codes of ids; 0 for an id that does not occur in the text."""
        ids = np.asarray(ids, dtype=np.int64)
        slot = np.minimum(np.searchsorted(self.alphabet, ids), len(self.alphabet) - 1)
        return np.where(self.alphabet[slot] == ids, slot + 1, 0)

    def find(self, string: Any) -> tuple[int, int]:
        """The interval of sorted suffixes that begin with a string of at most `DEPTH` ids; empty where it is unseen."""
        low, high = 0, len(self)
        for depth, code in enumerate(self.codes_of(string).tolist()):
            low = self._bisect(low, high, depth, code)
            high = self._bisect(low, high, depth, code + 1) if code else low
        return low, high

    def _bisect(self, low: int, high: int, depth: int, code: int) -> int:
        """The first suffix in low..high whose symbol at `depth` is `code` or higher."""
        while low < high:
            middle = (low + high) // 2
            if int(self.codes[int(self.suffixes[middle]) + depth]) < code:
                low = middle + 1
            else:
                high = middle
        return low

    def match(self, ids_N: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How far the text from each place of another text on can be read in this one.

        Args:
            ids_N: the other text, a single stretch; -1 for an unknown character.

        Returns:
            The length of the longest match, at most `DEPTH`, and the place in `suffixes` of a suffix that has it.

        >>> index = SuffixIndex.build(np.array([0, 1, 2, 0, 1]), np.array([[0, 5]]), symbols=3)  # abcab
        >>> index.match(np.array([1, 0, 1, 2, 1]))[0].tolist()  # b, abc, bc, c, b
        [1, 3, 2, 1, 1]
        """
        codes = np.concatenate([self.codes_of(ids_N), np.zeros(DEPTH, dtype=np.int64)])
        windows = np.lib.stride_tricks.sliding_window_view(codes.astype(self.codes.dtype), DEPTH)
        starts = range(0, len(ids_N), _BLOCK)
        found = [self._match(windows[at : min(at + _BLOCK, len(ids_N))]) for at in starts]
        lengths, places = np.concatenate([np.zeros((2, 0), dtype=np.int64), *found], axis=1)
        return lengths, places

    def _match(self, query_ND: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same for a block of rows, each the codes from one place on."""
        low = np.zeros(len(query_ND), dtype=np.int64)
        high = np.full(len(query_ND), len(self), dtype=np.int64)
        while (low < high).any():
            middle = np.minimum((low + high) >> 1, len(self) - 1)
            below = self._compare(query_ND, middle)[1]
            low, high = np.where((low < high) & below, middle + 1, low), np.where(below, high, middle)
            high = np.maximum(low, high)
        before, after = np.maximum(low - 1, 0), np.minimum(low, len(self) - 1)
        equal_before, equal_after = self._compare(query_ND, before)[0], self._compare(query_ND, after)[0]
        known = np.where((query_ND == 0).any(1), (query_ND == 0).argmax(1), query_ND.shape[1])
        best = np.maximum(equal_before, equal_after)
        return np.minimum(best, known), np.where(equal_before > equal_after, before, after)

    def _compare(
        self, query_ND: NDArray[Any], place_N: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """How many codes agree with the suffix at each place, and whether it sorts before the row."""
        depth = query_ND.shape[1]
        text = self.suffixes[place_N].astype(np.int64)[:, None] + np.arange(depth)
        text_ND = self.codes.take(text, mode="clip")
        different = text_ND != query_ND
        equal = np.where(different.any(1), different.argmax(1), depth)
        at = np.minimum(equal, depth - 1)[:, None]
        below = np.take_along_axis(text_ND, at, 1) < np.take_along_axis(query_ND, at, 1)
        return equal.astype(np.int64), below[:, 0]

    def followers(self, history: Any) -> list[tuple[int, int]]:
        """What followed a history, as (id, count) by id; empty where nothing ever did.

        >>> index = SuffixIndex.build(np.array([0, 1, 0, 2, 0, 1]), np.array([[0, 6]]), symbols=3)  # abacab
        >>> index.followers([0])
        [(1, 2), (2, 1)]
        """
        depth = len(history)
        if not depth:
            level = self.levels[0]
            return [(id, n) for id, n in zip(level.id_E.tolist(), level.count_E.tolist(), strict=True) if n]
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
        for name in sorting.ARRAYS:
            sorting.save_array(directory / sorting.file_of(name), getattr(self, name))
        sorting.save_context(directory, self.context)

    @classmethod
    def load(cls, directory: Path, *, symbols: int) -> SuffixIndex:
        """Opens what `save` wrote as memory maps.

        Raises:
            CheckpointError: a file that is missing or broken, or arrays that do not fit each other.
        """
        return cls(
            **sorting.load_arrays(directory, symbols), symbols=symbols, context=sorting.load_context(directory, symbols)
        )


# -- what was copied ---------------------------------------------------------------------------------------------------

PASSAGE = 20
"""Characters of the passages that are counted."""

_MOST_PLACES = 1 << 16  # of one passage, tried for the longest continuation


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """What a text has in common with the training text.

    Args:
        characters: length of the text that was looked at.
        longest: length of the longest passage that stands in the training text word for word.
        begins: where that passage begins in the text; of several as long, the first.
        stands: where it begins in the training text: the position in the ids that the index was built from where the
            spans were given, else the position in the spans joined together.
        passages: how many passages of `PASSAGE` characters the text has, one from each place.
        copied: how many of those stand in the training text.
    """

    characters: int
    longest: int
    begins: int
    stands: int
    passages: int
    copied: int

    @property
    def share(self) -> float | None:
        """Share of passages that stand in the training text; None for a text shorter than one."""
        return self.copied / self.passages if self.passages else None

    def to_json(self) -> dict[str, Any]:
        """The figures by name, with the share."""
        return {**asdict(self), "share": self.share}


def novelty(index: SuffixIndex, ids: NDArray[Any], *, spans: Spans | None = None) -> Novelty:
    """Compares a text with the one that an index was built from.

    Args:
        index: of the training text.
        ids: the text, a single stretch; -1 for a character the training text's vocabulary lacks.
        spans: the spans the index was built from, to tell positions in the whole text.

    >>> index = SuffixIndex.build(np.array([0, 1, 2, 0, 1, 3]), np.array([[0, 6]]), symbols=4)  # abcabd
    >>> found = novelty(index, np.array([3, 2, 0, 1, 3, 3]))  # dcabdd
    >>> found.longest, found.begins, found.stands  # cabd
    (4, 1, 2)
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise OptionError(f"novelty looks at one text, not at {ids.ndim} axes of them: take one stream")
    lengths, places = index.match(ids)
    longest, begins, position = _longest(index, ids, lengths, places)
    passages = max(0, len(ids) - PASSAGE + 1)
    stands, copied = _position(index, position, spans), int((lengths[:passages] >= PASSAGE).sum())
    found = {"characters": len(ids), "longest": longest, "begins": begins, "stands": stands}
    return Novelty(**found, passages=passages, copied=copied)


def _longest(
    index: SuffixIndex, ids: NDArray[Any], lengths: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Length, beginning in the text and position in the index's codes of the longest common passage."""
    if not len(ids) or not lengths.max():
        return 0, 0, 0
    begins = int(lengths.argmax())
    best = (int(lengths[begins]), begins, int(index.suffixes[places[begins]]))
    if best[0] < DEPTH:
        return best
    codes = index.codes_of(ids).astype(index.codes.dtype)
    full = lengths == DEPTH
    ends = np.flatnonzero(~full)  # a passage from inside a run of full matches ends before the run's end plus DEPTH
    bound = np.append(ends, len(ids))[np.searchsorted(ends, np.arange(len(ids)))] - np.arange(len(ids)) + DEPTH - 1
    best = (0, 0, 0)
    for start in np.flatnonzero(full)[np.argsort(-bound[full], kind="stable")].tolist():
        if bound[start] <= best[0]:
            break
        length, position = _extend(index, codes, start)
        if length > best[0] or (length == best[0] and start < best[1]):
            best = (length, start, position)
    return best


def _extend(index: SuffixIndex, codes: NDArray[Any], start: int) -> tuple[int, int]:
    """The longest match from a place that matches to the full depth, and one position where it stands."""
    low, high = index.find(index.ids_of(codes[start : start + DEPTH]))
    positions = index.suffixes[low : min(high, low + _MOST_PLACES)].astype(np.int64)
    length = DEPTH
    while start + length < len(codes) and codes[start + length]:
        going = index.codes.take(positions + length, mode="clip") == codes[start + length]
        if not going.any():
            break
        positions = positions[going]
        length += 1
        if len(positions) == 1:
            return length + _run(index.codes[positions[0] + length :], codes[start + length :]), int(positions[0])
    return length, int(positions.min())


def _run(first: NDArray[Any], second: NDArray[Any]) -> int:
    """How many codes two texts share from their beginnings, separators and unknown characters excluded."""
    size = min(len(first), len(second))
    for at in range(0, size, _BLOCK):
        a, b = first[at:size][:_BLOCK], second[at:size][:_BLOCK]
        if (different := (a != b) | (b == 0)).any():
            return at + int(different.argmax())
    return size


def _position(index: SuffixIndex, position: int, spans: Spans | None) -> int:
    """From a position in the codes to one in the original ids."""
    span = int(np.searchsorted(index.starts, position, side="right")) - 1
    if spans is None:
        return position - span  # a separator stands after each span
    spans = spans[spans[:, 1] > spans[:, 0]]
    return int(spans[span, 0]) + position - int(index.starts[span])
