"""What is in a text, measured: entropies, compressed size, repeated passages, passages of two texts alike.

A corpus in figures: size, symbols, how predictable it is, what repeats, and whether its split leaks."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.corpus import Corpus
from charlm.text.splits import PARTS, Spans, Split
from charlm.text.vocab import Ids

__all__ = [
    "LEAK",
    "PASSAGE",
    "Leak",
    "Portrait",
    "compressed_size",
    "distinct_share",
    "entropies",
    "longest_repeat",
    "longest_shared",
    "portrait",
    "shared_share",
    "whole",
]

_MASK = (1 << 64) - 1
_Places = tuple[NDArray[np.int64], ...]


def whole(ids: Ids) -> Spans:
    """One span over all of `ids`.

    >>> whole(np.zeros(7)).tolist()
    [[0, 7]]
    """
    return np.array([[0, len(ids)]], dtype=np.int64)


def entropies(ids: Ids, documents: Spans, orders: int = 5) -> list[float]:
    """The empirical conditional entropies of orders 0..`orders`, in nats per character.

    Order n is H(next character | the n before it), with the text's own relative frequencies. It says how much
    is left to know after n characters *of this text*; with growing n it falls to 0 because every history of a
    finite text is unique at last, so it is no bound on what a model can reach on other text.

    Args:
        ids: the text.
        documents: spans that no history crosses.
        orders: the highest order.

    >>> [round(float(h), 4) for h in entropies(np.array([0, 1, 0, 1]), np.array([[0, 4]]), 1)]
    [0.6931, 0.0]
    """
    symbols = int(ids.max()) + 2 if len(ids) else 1
    starts, left = _starts(documents, 1), _left(documents, 1)
    history = np.zeros(len(starts), dtype=np.int64)
    found = []
    for order in range(orders + 1):
        keep = left > order
        starts, left, history = starts[keep], left[keep], history[keep]
        key = history * symbols + (ids[starts + order].astype(np.int64) + 1)
        grams, history, counts = np.unique(key, return_inverse=True, return_counts=True)
        found.append(_conditional_entropy(grams // symbols, counts))
    return found


def _conditional_entropy(histories: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """The entropy of the next character in nats, from the counts of n-grams and each one's history."""
    if not len(counts):
        return 0.0
    of_history = np.bincount(histories, weights=counts)[histories]
    return float((counts * np.log(of_history / counts)).sum() / counts.sum())


def compressed_size(content: bytes) -> int:
    """How many bytes `xz -9` makes of `content`."""
    return len(lzma.compress(content, preset=9))


def distinct_share(ids: Ids, spans: Spans, length: int = 40) -> float:
    """The share of passages of `length` characters that stand for themselves: distinct ones among all.

    >>> distinct_share(np.array([1, 2, 1, 2, 1, 2]), np.array([[0, 6]]), 2)  # 12, 21, 12, 21, 12
    0.4
    """
    prints = _Prints(ids).of(spans, length)
    return len(np.unique(prints)) / len(prints) if len(prints) else 1.0


def longest_repeat(ids: Ids, spans: Spans) -> tuple[int, int]:
    """The length of the longest passage that occurs twice (it may overlap itself), and where it begins first.

    >>> longest_repeat(np.array([1, 2, 3, 9, 1, 2, 3, 8]), np.array([[0, 8]]))
    (3, 0)
    """
    prints = _Prints(ids)
    ends = _ends(spans)

    def repeated(length: int, starts: _Places) -> _Places | None:
        at = starts[0][starts[0] + length <= ends[starts[0]]]
        found = prints.at(at, length)
        order = np.argsort(found, kind="stable")
        same = found[order[1:]] == found[order[:-1]]
        twice = np.zeros(len(at), dtype=np.bool_)
        twice[order[1:][same]] = twice[order[:-1][same]] = True
        return (at[twice],) if twice.any() else None

    length, (places,) = _longest(repeated, (_starts(spans, 1),))
    return length, int(places[0]) if length else 0


def longest_shared(ids: Ids, first: Spans, second: Spans) -> tuple[int, int]:
    """The length of the longest passage that both lists of spans have, and where it begins in the second.

    >>> ids = np.array([1, 2, 3, 4, 9, 2, 3, 4, 5])
    >>> longest_shared(ids, np.array([[0, 4]]), np.array([[4, 9]]))
    (3, 5)
    """
    prints = _Prints(ids)
    ends = [_ends(spans) for spans in (first, second)]

    def shared(length: int, starts: _Places) -> _Places | None:
        places = [at[at + length <= end[at]] for at, end in zip(starts, ends, strict=True)]
        mine, theirs = (prints.at(at, length) for at in places)
        hit = np.isin(theirs, mine)
        return (places[0][np.isin(mine, theirs[hit])], places[1][hit]) if hit.any() else None

    length, (_, places) = _longest(shared, (_starts(first, 1), _starts(second, 1)))
    return length, int(places[0]) if length else 0


def shared_share(ids: Ids, first: Spans, second: Spans, length: int = 40) -> float:
    """The share of the second spans' passages of `length` characters that occur in the first ones too."""
    prints = _Prints(ids)
    held_out = prints.of(second, length)
    return float(np.isin(held_out, prints.of(first, length)).mean()) if len(held_out) else 0.0


def _longest(attempt: Callable[[int, _Places], _Places | None], places: _Places) -> tuple[int, _Places]:
    """The greatest length that `attempt` finds, and its places: by doubling, then by bisection.

    A longer passage can only begin where a shorter one was found: every success leaves fewer places.
    """
    low, high = 0, 16
    while (found := attempt(high, places)) is not None:
        low, high, places = high, high * 2, found
    while high - low > 1:
        middle = (low + high) // 2
        found = attempt(middle, places)
        if found is None:
            high = middle
        else:
            low, places = middle, found
    return low, places


def _ends(spans: Spans) -> NDArray[np.int64]:
    """For each position of the text the end of the span it lies in, 0 outside all of them."""
    ends = np.zeros(int(spans[:, 1].max(initial=0)), dtype=np.int64)
    ends[_starts(spans, 1)] = np.repeat(spans[:, 1], spans[:, 1] - spans[:, 0])
    return ends


def _starts(spans: Spans, length: int) -> NDArray[np.int64]:
    """Where a passage of `length` characters can begin without leaving its span."""
    counts = np.maximum(spans[:, 1] - spans[:, 0] - length + 1, 0)
    first = np.repeat(spans[:, 0] - np.cumsum(counts) + counts, counts)
    return first + np.arange(counts.sum(), dtype=np.int64)


def _left(spans: Spans, length: int) -> NDArray[np.int64]:
    """For each of `_starts`, how many characters its span has from there on."""
    counts = np.maximum(spans[:, 1] - spans[:, 0] - length + 1, 0)
    return np.repeat(spans[:, 1], counts) - _starts(spans, length)


class _Prints:
    """64-bit fingerprints of all passages of any length of one text, each in a few vectorised steps.

    A passage's fingerprint is the sum of its characters' random numbers times rising powers of an odd base,
    modulo 2^64, read off one array of prefix sums and made independent of the place by the inverse power. Two
    different passages agree with a chance of about 2^-64 a pair.
    """

    def __init__(self, ids: Ids) -> None:
        numbers = np.random.default_rng(0x63686172).integers(0, 1 << 64, int(ids.max(initial=0)) + 2, dtype=np.uint64)
        self._base = 0x9E3779B97F4A7C15
        terms = numbers[ids.astype(np.int64) + 1] * self._powers(self._base, len(ids))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        self._inverse = self._powers(pow(self._base, -1, 1 << 64), len(ids))

    @staticmethod
    def _powers(base: int, count: int) -> NDArray[np.uint64]:
        steps: NDArray[Any] = np.full(count, base & _MASK, dtype=np.uint64)
        steps[:1] = 1
        return np.cumprod(steps, dtype=np.uint64)

    def of(self, spans: Spans, length: int) -> NDArray[np.uint64]:
        """The fingerprints of the passages that begin at `_starts(spans, length)`."""
        return self.at(_starts(spans, length), length)

    def at(self, starts: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
        """The fingerprints of the passages that begin there."""
        found: NDArray[np.uint64] = (self._sums[starts + length] - self._sums[starts]) * self._inverse[starts]
        return found


PASSAGE = 40
"""The length of the passages that are counted as distinct or repeated."""

LEAK = 100
"""From this length on a passage that training and held-out part share is called a leak."""

_LIMIT = 4_000_000
_RARE = 10


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What the training part and the held-out parts (valid and test) have in common.

    Args:
        longest: characters of the longest passage that both have.
        passage: that passage.
        share: of the held-out passages of `PASSAGE` characters, those that the training part has too.
    """

    longest: int
    passage: str
    share: float

    @property
    def found(self) -> bool:
        """Whether the longest common passage is too long to be chance or idiom."""
        return self.longest >= LEAK


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """What `charlm corpus info` shows.

    Args:
        characters: how many there are; bytes where the symbols are bytes.
        lines: newlines, and a last line without one.
        documents: files.
        symbols: size of the vocabulary.
        rare: the symbols that occur less than ten times, with their counts, rarest first.
        measured: on how many symbols from the beginning (of each part) the figures below were measured.
        entropies: of orders 0..5, in nats per character; see `charlm.text.profile.entropies`.
        compressed_bits: bits per character that `xz -9` needs.
        distinct: the share of distinct passages of `PASSAGE` characters.
        repeat: characters of the longest passage that occurs twice.
        repeated: that passage.
        parts: how many characters each part of the split has.
        leak: what training and held-out parts share; None where nothing is held out.
    """

    characters: int
    lines: int
    documents: int
    symbols: int
    rare: list[tuple[str, int]]
    measured: int
    entropies: list[float]
    compressed_bits: float
    distinct: float
    repeat: int
    repeated: str
    parts: dict[str, int]
    leak: Leak | None


def portrait(corpus: Corpus, split: Split, limit: int = _LIMIT) -> Portrait:
    """Measures a corpus; what takes sorting is measured on at most `limit` symbols.

    >>> from charlm.text.corpus import corpus_of_text
    >>> found = portrait(corpus_of_text("abracadabra\\n"), Split.parse("100/0/0"))
    >>> found.lines, found.repeat, found.repeated, found.rare[0]
    (1, 4, 'abra', ('\\n', 1))
    """
    counts = _counts(corpus)
    ids, documents = _cut(corpus.ids, corpus.documents, limit)
    text = corpus.vocab.decode_bytes(ids)
    begins = corpus.vocab.begins_character
    repeat, at = longest_repeat(ids, documents)
    parts = split.parts(corpus.ids, corpus.documents, corpus.newline)  # also of a text too short to train on
    return Portrait(
        characters=int(counts[begins].sum()),
        lines=_lines(corpus, counts),
        documents=len(corpus.documents),
        symbols=len(corpus.vocab),
        rare=_rare(corpus, counts),
        measured=len(ids),
        entropies=entropies(ids, documents),
        compressed_bits=8 * compressed_size(text) / max(int(begins[ids].sum()), 1),
        distinct=distinct_share(ids, documents, PASSAGE),
        repeat=repeat,
        repeated=corpus.vocab.decode(ids[at : at + repeat]),
        parts={name: int((parts[name][:, 1] - parts[name][:, 0]).sum()) for name in PARTS},
        leak=_leak(corpus, parts, limit),
    )


def _counts(corpus: Corpus, block: int = 1 << 24) -> NDArray[np.int64]:
    counts = np.zeros(len(corpus.vocab), dtype=np.int64)
    for start in range(0, len(corpus), block):
        counts += np.bincount(corpus.ids[start : start + block], minlength=len(counts))
    return counts


def _lines(corpus: Corpus, counts: NDArray[np.int64]) -> int:
    if corpus.newline is None:
        return len(corpus.documents)
    ends = corpus.documents[corpus.documents[:, 1] > corpus.documents[:, 0], 1]
    return int(counts[corpus.newline]) + int((corpus.ids[ends - 1] != corpus.newline).sum())


def _rare(corpus: Corpus, counts: NDArray[np.int64]) -> list[tuple[str, int]]:
    rare = np.flatnonzero((counts > 0) & (counts < _RARE))
    rare = rare[np.argsort(counts[rare], kind="stable")]
    return [(corpus.vocab.symbol(int(id)), int(counts[id])) for id in rare]


def _cut(ids: Ids, spans: Spans, limit: int) -> tuple[Ids, Spans]:
    """The first `limit` symbols of some spans as a text of their own."""
    lengths = spans[:, 1] - spans[:, 0]
    before = np.cumsum(lengths) - lengths
    lengths = np.minimum(lengths, np.maximum(limit - before, 0))
    taken = [ids[start : start + length] for start, length in zip(spans[:, 0], lengths, strict=True) if length]
    edges = np.concatenate([[0], np.cumsum(lengths[lengths > 0])])
    return np.concatenate(taken or [ids[:0]]), np.stack([edges[:-1], edges[1:]], axis=1)


def _leak(corpus: Corpus, parts: dict[str, Spans], limit: int) -> Leak | None:
    held_out = np.concatenate([parts["valid"], parts["test"]])
    if not len(held_out):
        return None
    train_ids, train = _cut(corpus.ids, parts["train"], limit)
    other_ids, other = _cut(corpus.ids, held_out, limit)
    ids, other = np.concatenate([train_ids, other_ids]), other + len(train_ids)
    longest, at = longest_shared(ids, train, other)
    return Leak(
        longest=longest,
        passage=corpus.vocab.decode(ids[at : at + longest]),
        share=shared_share(ids, train, other, PASSAGE),
    )
