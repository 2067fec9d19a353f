"""A corpus in figures: size, symbols, how predictable it is, what repeats, and whether its split leaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.text.corpus import Corpus
from charlm.text.measure import (
    compressed_size,
    distinct_share,
    entropies,
    longest_repeat,
    longest_shared,
    shared_share,
)
from charlm.text.splits import PARTS, Spans, Split
from charlm.text.vocab import Ids

__all__ = ["LEAK", "PASSAGE", "Leak", "Portrait", "portrait"]

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
        entropies: of orders 0..5, in nats per character; see `charlm.text.measure.entropies`.
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
