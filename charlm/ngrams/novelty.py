"""How much of a generated text was copied from the training text: the longest passage, and the share of short ones.

A model that knows its text by heart writes well and says nothing. The same figures for real held-out text
show how much agreement is natural.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.suffixes import DEPTH
from charlm.text.splits import Spans

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
    return Novelty(
        characters=len(ids),
        longest=longest,
        begins=begins,
        stands=_position(index, position, spans),
        passages=passages,
        copied=int((lengths[:passages] >= PASSAGE).sum()),
    )


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
    size, block = min(len(first), len(second)), 1 << 12
    for at in range(0, size, block):
        a, b = first[at : min(at + block, size)], second[at : min(at + block, size)]
        different = (a != b) | (b == 0)
        if different.any():
            return at + int(different.argmax())
    return size


def _position(index: SuffixIndex, position: int, spans: Spans | None) -> int:
    """From a position in the codes to one in the original ids."""
    span = int(np.searchsorted(index.starts, position, side="right")) - 1
    if spans is None:
        return position - span  # a separator stands after each span
    spans = spans[spans[:, 1] > spans[:, 0]]
    return int(spans[span, 0]) + position - int(index.starts[span])
