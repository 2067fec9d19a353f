"""Splits: which characters of a text train, validate and test. A split has a name, so that figures can be compared.

A part is a list of spans, `int64[n, 2]` rows of (start, end). Counts and states never cross a span. The first
character of a span is context: it is read, but it is not a target. No character is a target of two parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError

if TYPE_CHECKING:
    from charlm.text.vocab import Ids

Spans = NDArray[np.int64]
"""Rows of (start, end), end excluded, in the order of the text."""

PARTS = ("train", "valid", "test")
_KINDS = ("tail", "interleaved", "lines", "paragraphs", "files", "items")
_GRAMMAR = (
    "a split is written TRAIN/VALID/TEST in per cent, as 90/5/5, with tail:, interleaved:LANES:, "
    "lines[:SEED]: or paragraphs[:SEED]: before it"
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """How a text is divided into train, valid and test.

    Args:
        kind: `tail` cuts the text twice, in order. `interleaved` cuts it into `number` equal pieces and each
            of those twice (the protocol of the original char-rnn: held-out pieces lie scattered through the
            text). `lines` and `paragraphs` shuffle whole lines, or the blocks between blank lines, with seed
            `number` and give each to one part; neighbours in one part stay one span. Such a span begins with the
            line end before its first line, which is context, so that every character of a line is a target, its
            own line end included. `files` gives each part its own documents. `items` shuffles the distinct items of
            a list with seed `number`, so that equal items are in one part; `lines` shuffles the copies of items too.
        shares: per cent of train, valid and test, summing to 100; for `files` numbers of documents.
        number: lanes of `interleaved`, seed of `lines`, `paragraphs` and `items`, else 0.

    >>> split = Split.parse("interleaved:50:90/5/5")
    >>> split.kind, split.number, str(split)
    ('interleaved', 50, 'interleaved:50:90/5/5')
    """

    kind: str = "tail"
    shares: tuple[Fraction, Fraction, Fraction] = (Fraction(90), Fraction(5), Fraction(5))
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise OptionError(f"unknown kind of split {self.kind!r}: {_GRAMMAR}")
        if any(share < 0 for share in self.shares) or self.shares[0] == 0:
            raise OptionError("a split needs a training part and no negative share: write it as 90/5/5")
        if self.kind != "files" and sum(self.shares) != 100:
            total = float(sum(self.shares))
            raise OptionError(f"the shares of a split sum to 100, not to {total:g}: write it as 90/5/5")
        if self.kind == "interleaved" and self.number < 1:
            raise OptionError("an interleaved split names its lanes: write it as interleaved:50:90/5/5")

    @classmethod
    def parse(cls, text: str) -> Split:
        """Reads the way a split is written on the command line and in checkpoints."""
        *head, shares = text.strip().split(":")
        kind = head[0] if head else "tail"
        if len(head) > 2 or (len(head) == 2 and kind in ("tail", "files")):
            raise OptionError(f"cannot read the split {text!r}: {_GRAMMAR}")
        if len(head) == 2 and not re.fullmatch(r"[0-9]{1,20}", head[1]):
            raise OptionError(f"{head[1][:40]!r} in the split {text[:80]!r} is not a whole number: {_GRAMMAR}")
        return cls(kind=kind, shares=parse_shares(shares, text), number=int(head[1]) if len(head) == 2 else 0)

    def for_items(self) -> Split:
        """The split of a list of items: by distinct item; `lines` gives each copy of an item a part of its own.

        >>> str(Split.parse("80/10/10").for_items()), str(Split.parse("lines:7:80/10/10").for_items())
        ('items:80/10/10', 'lines:7:80/10/10')
        """
        if self.kind in ("interleaved", "paragraphs"):
            raise OptionError(f"the split {self} is one of running text: a list is split by item, as 80/10/10")
        return replace(self, kind="items") if self.kind == "tail" else self

    @classmethod
    def default(cls, characters: int) -> Split:
        """`tail:90/5/5`, or 80/10/10 under a million characters, where 5 % is too little to measure on."""
        return cls.parse("tail:90/5/5" if characters >= 1_000_000 else "tail:80/10/10")

    def __str__(self) -> str:
        shares = show_shares(self.shares)
        numbered = self.kind == "interleaved" or self.number
        return f"{self.kind}:{self.number}:{shares}" if numbered else f"{self.kind}:{shares}"

    def parts(
        self,
        ids: Ids,
        documents: Spans,
        newline: int | None = None,
        items: NDArray[np.int64] | None = None,
        begins_V: NDArray[np.bool_] | None = None,
    ) -> dict[str, Spans]:
        """The spans of each part; together their targets are every character once, but for the first of each span.

        Spans of `lines` and `paragraphs` share the line end before them, as context, with the span before; the
        targets of these parts together are every character but the first of each document.

        Args:
            ids: the ids of the whole text; looked at by `lines` and `paragraphs` alone.
            documents: the spans of the documents, which no span of a part crosses.
            newline: the id of the line feed, needed by `lines` and `paragraphs`.
            items: the number of each document, equal for equal ones, needed by `items`.
            begins_V: which symbols begin a character, where some are spelled in bytes: such a character is not cut.
        """
        if self.kind == "items" or (self.kind == "lines" and items is not None):
            return self._by_items(documents, items)
        if self.kind == "files":
            return self._by_files(documents)
        if self.kind == "tail":
            pieces = _cut(int(documents[0, 0]), int(documents[-1, 1]), self._bounds())
        elif self.kind == "interleaved":
            if self.number > max(documents[-1, 1] - documents[0, 0], 1 << 20):
                raise TextError(
                    f"the split {self} has more lanes than the text has characters ({int(documents[-1, 1]):,}): "
                    "use fewer lanes or a longer text"
                )
            edges = np.linspace(documents[0, 0], documents[-1, 1], self.number + 1).astype(np.int64)
            lanes = [_cut(int(a), int(b), self._bounds()) for a, b in pairwise(edges)]
            pieces = [np.concatenate(rows) for rows in zip(*lanes, strict=True)]
        else:
            pieces = self._by_units(ids, documents, newline)
        if begins_V is not None and not begins_V.all():
            pieces = [_whole(rows, ids, begins_V) for rows in pieces]
        parts = {part: _within(rows, documents) for part, rows in zip(PARTS, pieces, strict=True)}
        if self.kind in ("lines", "paragraphs"):
            for rows in parts.values():
                rows[:, 0] -= ~np.isin(rows[:, 0], documents[:, 0])  # the line end before, but none before a document
        return parts

    def _bounds(self) -> tuple[Fraction, Fraction]:
        return self.shares[0] / 100, (self.shares[0] + self.shares[1]) / 100

    def _by_files(self, documents: Spans) -> dict[str, Spans]:
        counts = [int(share) for share in self.shares]
        if sum(counts) != len(documents):
            raise TextError(f"the split {self} is for {sum(counts)} documents, this corpus has {len(documents)}")
        edges = np.cumsum([0, *counts])
        return {part: documents[edges[i] : edges[i + 1]] for i, part in enumerate(PARTS)}

    def _by_items(self, documents: Spans, items: NDArray[np.int64] | None) -> dict[str, Spans]:
        """Gives each distinct item to a part; with `lines` each copy of one."""
        if items is None:
            raise OptionError(f"the split {self} is one of items: read the text with --items line")
        if self.kind == "lines":
            items = np.argsort(np.argsort(items, kind="stable"), kind="stable")
        size = int(items.max()) + 1
        train, valid = (int(size * bound) for bound in self._bounds())
        place = np.empty(size, np.int64)
        place[np.random.default_rng(self.number).permutation(size)] = np.arange(size)
        owner = np.searchsorted([train, valid], place[items], side="right")
        return {part: documents[owner == i] for i, part in enumerate(PARTS)}

    def _by_units(self, ids: Ids, documents: Spans, newline: int | None) -> list[Spans]:
        """Gives each line or paragraph to a part; neighbours of one part become one span."""
        starts = _unit_starts(ids, documents, newline, blank=self.kind == "paragraphs")
        train, valid = (int(len(starts) * bound) for bound in self._bounds())
        owner = np.full(len(starts), 2, dtype=np.int8)
        order = np.random.default_rng(self.number).permutation(len(starts))
        owner[order[:train]], owner[order[train:valid]] = 0, 1
        change = np.flatnonzero(np.diff(owner, prepend=-1))
        runs = np.stack([starts[change], np.append(starts[change[1:]], documents[-1, 1])], axis=1)
        return [runs[owner[change] == part] for part in range(3)]


def show_shares(shares: Sequence[Fraction]) -> str:
    """Shares as they are written in a split, without rounding."""
    return "/".join(f"{Decimal(share.numerator) / Decimal(share.denominator):f}" for share in shares)


def parse_shares(shares: str, text: str, grammar: str = _GRAMMAR) -> tuple[Fraction, Fraction, Fraction]:
    """The three shares of a split, exactly.

    Args:
        shares: as 90/5/5.
        text: the whole of the split, for messages.
        grammar: how a split is written, for messages.
    """
    written = shares.split("/")
    if not all(re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,20})?", share) for share in written):
        raise OptionError(f"cannot read the split {text[:80]!r}: {grammar}")
    values = [Fraction(share) for share in written]
    if len(values) != 3:
        raise OptionError(f"the split {text!r} names {len(values)} parts, not three: {grammar}")
    return values[0], values[1], values[2]


def _cut(start: int, end: int, bounds: tuple[Fraction, Fraction]) -> list[Spans]:
    """Three consecutive spans of start..end, as arrays of one row."""
    edges = [start, *(start + int((end - start) * bound) for bound in bounds), end]
    return [np.array([pair], dtype=np.int64) for pair in pairwise(edges)]


def _unit_starts(ids: Ids, documents: Spans, newline: int | None, *, blank: bool) -> NDArray[np.int64]:
    """Where lines (or paragraphs, after one or more blank lines) begin, document starts included."""
    starts = documents[:, 0]
    if newline is not None:
        ends = _places_of(ids, newline) + 1
        if blank:
            follows = np.diff(ends, prepend=-1) == 1  # this newline comes right after another one,
            follows &= ~np.isin(ends - 1, documents[:, 0])  # of the same document,
            goes_on = np.diff(ends, append=-1) == 1  # and another one comes after it
            ends = ends[follows & ~goes_on]
        starts = np.union1d(starts, ends[ends < documents[-1, 1]])
    return starts.astype(np.int64)


def _places_of(ids: Ids, id: int, block: int = 1 << 24) -> NDArray[np.int64]:
    """Where `id` stands, looked for block by block: a text may be mapped and larger than memory."""
    found = [np.flatnonzero(ids[start : start + block] == id) + start for start in range(0, len(ids), block)]
    return np.concatenate(found or [np.zeros(0, dtype=np.int64)])


def _within(rows: Spans, documents: Spans) -> Spans:
    """The rows cut at document boundaries, empty pieces left out."""
    if len(documents) > 1:
        edges = np.unique(np.concatenate([documents.ravel(), rows.ravel()]))
        pieces = np.stack([edges[:-1], edges[1:]], axis=1)
        row = np.searchsorted(rows[:, 0], pieces[:, 0], side="right") - 1
        inside = (row >= 0) & (pieces[:, 1] <= rows[np.maximum(row, 0), 1]) if len(rows) else np.zeros(0, np.bool_)
        rows = pieces[inside] if len(rows) else rows
    return rows[rows[:, 1] > rows[:, 0]].reshape(-1, 2).astype(np.int64)


def spans_of(lengths: Any) -> Spans:
    """The spans of pieces that stand one after the other, from their lengths.

    >>> spans_of([3, 1]).tolist()
    [[0, 3], [3, 4]]
    """
    edges = np.cumsum(np.append(0, lengths).astype(np.int64))
    return np.stack([edges[:-1], edges[1:]], axis=1)


def slices(first_N: NDArray[Any], sizes_N: NDArray[Any]) -> NDArray[np.int64]:
    """The numbers first[0], first[0]+1, ..., then those from first[1] on, and so on, `sizes` of each.

    >>> slices(np.array([5, 1]), np.array([2, 3])).tolist()
    [5, 6, 1, 2, 3]
    """
    ends = np.cumsum(sizes_N, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    found: NDArray[np.int64] = np.arange(total) + np.repeat(first_N - ends + sizes_N, sizes_N)
    return found


def read_spans(ids: Ids, spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The symbols of all spans one after the other, and for each how many of its span were read with it.

    >>> ids, age = read_spans(np.array([7, 8, 9, 7]), np.array([[0, 2], [3, 4]]))
    >>> ids.tolist(), age.tolist()
    ([7, 8, 7], [1, 2, 1])
    """
    lengths = spans[:, 1] - spans[:, 0]
    places = slices(spans[:, 0], lengths)
    return ids[places].astype(np.int64), places - np.repeat(spans[:, 0], lengths) + 1


def count_targets(spans: Spans) -> int:
    """How many characters of these spans are targets: all but the first of each.

    >>> count_targets(np.array([[0, 10], [20, 21]]))
    9
    """
    return int((spans[:, 1] - spans[:, 0] - 1).clip(min=0).sum())


def first_of(spans: Spans, symbols: int) -> Spans:
    """As many spans from the beginning as have so many symbols, the last one cut, none without a target.

    >>> first_of(np.array([[0, 4], [6, 10]]), 6).tolist()
    [[0, 4], [6, 8]]
    """
    lengths = spans[:, 1] - spans[:, 0]
    before = np.cumsum(lengths) - lengths
    ends = np.minimum(spans[:, 1], spans[:, 0] + np.maximum(symbols - before, 0))
    cut: Spans = np.stack([spans[:, 0], ends], axis=1)
    return cut[cut[:, 1] - cut[:, 0] > 1]


def shared_context(spans: Spans, parts: Mapping[str, Spans]) -> NDArray[np.bool_]:
    """For each span of a part whether its first character is the last one of a span of another part.

    So it is in the splits of lines and of paragraphs: the line end before a span is context in one part and a target
    in another.

    Args:
        spans: of one part, or pieces of them.
        parts: all parts of the split.

    >>> parts = {"train": np.array([[0, 3], [4, 8]]), "test": np.array([[2, 5]])}
    >>> shared_context(parts["train"], parts).tolist(), shared_context(parts["test"], parts).tolist()
    ([False, True], [True])
    """
    ends = [rows[:, 1] for rows in parts.values()]
    return np.isin(spans[:, 0] + 1, np.concatenate(ends)) & (spans[:, 1] - spans[:, 0] > 1)


def _whole(spans: Spans, ids: Ids, begins_V: NDArray[np.bool_]) -> Spans:
    """The same with each cut inside a character moved to where the next one begins.

    >>> _whole(np.array([[0, 2], [2, 4]]), np.array([0, 1, 2, 0]), np.array([True, True, False])).tolist()
    [[0, 3], [3, 4]]
    """
    spans = spans.copy()
    while (inside := (spans < len(ids)) & ~begins_V[ids[np.minimum(spans, len(ids) - 1)]]).any():
        spans += inside
    return spans


def overlap(first: Spans, second: Spans) -> int:
    """How many targets two lists of spans share; the context characters of either do not count.

    >>> overlap(np.array([[0, 10]]), np.array([[4, 7], [8, 30]]))  # 5, 6 and 9
    3
    >>> overlap(np.array([[0, 10]]), np.array([[9, 30]]))  # 9 is the context of what follows
    0
    """
    total = 0
    i = j = 0
    while i < len(first) and j < len(second):
        total += max(0, int(min(first[i, 1], second[j, 1]) - max(first[i, 0], second[j, 0]) - 1))
        if first[i, 1] < second[j, 1]:
            i += 1
        else:
            j += 1
    return total
