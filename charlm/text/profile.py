"""A text in figures: size, symbols, how predictable it is, what repeats, and whether its split leaks."""

from __future__ import annotations

import html
import lzma
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.corpus import Corpus, corpus_of_text, split_of
from charlm.text.splits import PARTS, Spans, Split, spans_of
from charlm.text.text import Text
from charlm.text.units import distinct_share, longest_repeat, longest_shared, shared_share, starts_in
from charlm.text.vocab import Ids

PASSAGE = 40
"""The length of the passages that are counted as distinct or repeated."""

LEAK = 100
"""From this length on a passage that training and held-out part share is called a leak."""

_LIMIT = 4_000_000
_RARE = 10
_SHOWN = 60
_WINDOWS = "of Windows (\\r\\n), kept as they are; --newlines normalise makes them line feeds"


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


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Profile:
    """A text in figures; made by `profile`. Its `repr` is what `charlm corpus info` prints.

    Args:
        corpus: what was measured.
        split: how it is divided.
        characters: how many there are; bytes where the symbols are bytes.
        lines: newlines, and a last line without one.
        documents: files; items of a list.
        symbols: size of the vocabulary.
        rare: the symbols that occur less than ten times, with their counts, rarest first.
        measured: on how many symbols from the beginning (of each part) the figures below were measured.
        entropies: of orders 0..5, in nats per character; see `entropies`.
        compressed_bits: bits per character that `xz -9` needs.
        distinct: the share of distinct passages of `PASSAGE` characters.
        repeat: characters of the longest passage that occurs twice.
        repeated: that passage.
        parts: how many characters each part of the split has.
        leak: what training and held-out parts share; None where nothing is held out.
    """

    corpus: Corpus
    split: Split
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

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values for a person; a name that is empty goes on with the fact before."""
        corpus, unit = self.corpus, self.corpus.vocab.unit
        documents = f" in {self.documents:,} documents" if self.documents > 1 else ""
        if corpus.items is not None:
            documents = f" in {self.documents:,} items, {len(np.unique(corpus.items)):,} of them distinct"
        of = f" (first {self.measured:,} symbols)" if self.measured < len(corpus) else ""
        symbols = _short("".join(corpus.vocab.characters) or "every byte")
        entropies = [
            ("entropy" if order == 0 else "", f"{order:5}  {h:.3f}  {h / math.log(2):.3f}  {math.exp(h):7.2f}")
            for order, h in enumerate(self.entropies)
        ]
        return [
            ("text", corpus.title),
            ("sha256", corpus.sha256),
            (f"{unit}s", f"{self.characters:,}{documents}, {self.lines:,} lines"),
            *([("line ends", _WINDOWS)] if self.windows_lines else []),
            ("vocabulary", f"{self.symbols:,} symbols, kept as {corpus.ids.dtype.name}: {symbols}"),
            ("rare", _rare_words(self.rare)),
            ("", f"order   nats   bits   perplexity{of}"),
            *entropies,
            ("compressed", f"{self.compressed_bits:.3f} bits per {unit} by xz -9{of}"),
            ("passages", f"{self.distinct:.2%} of those of {PASSAGE} symbols are distinct{of}"),
            ("repeated", f"the longest passage that occurs twice has {self.repeat:,}: {_short(self.repeated)}"),
            ("split", f"{self.split}: " + ", ".join(f"{name} {size:,}" for name, size in self.parts.items())),
            ("leak", _leak_words(self.leak)),
        ]

    @property
    def windows_lines(self) -> bool:
        """Whether the text was read with Windows line ends (`\\r\\n`), which are kept."""
        return "\r" in self.corpus.vocab.characters and self.corpus.reading.newlines == "keep"

    def __repr__(self) -> str:
        return "\n".join(f"{name:12} {value}" for name, value in self.facts)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def to_json(self) -> dict[str, Any]:
        """What `charlm corpus info --json` prints."""
        corpus, leak = self.corpus, self.leak
        return {
            "texts": list(corpus.names),
            "sha256": corpus.sha256,
            "unit": corpus.vocab.unit,
            "characters": self.characters,
            "symbols": len(corpus),
            "lines": self.lines,
            "documents": self.documents,
            "vocabulary": self.symbols,
            "vocabulary_characters": list(corpus.vocab.characters),
            "rare": [{"symbol": symbol, "count": count} for symbol, count in self.rare],
            "measured_symbols": self.measured,
            "entropy_nats": self.entropies,
            "compressed_bits_per_char": self.compressed_bits,
            "distinct_passages": self.distinct,
            "longest_repeat": self.repeat,
            "split": str(self.split),
            "parts": self.parts,
            "longest_shared": leak.longest if leak else None,
            "shared_passages": leak.share if leak else None,
            "leak": leak.found if leak else None,
        }


def profile(text: Text | str, split: Split | str | None = None, *, limit: int = _LIMIT) -> Profile:
    """A text in figures: size, symbols, how predictable it is, what repeats, and whether its split leaks.

    Args:
        text: what `read_text` returns, or plain characters.
        split: how to divide it, as `--split` takes it; by default as the text is divided.
        limit: what takes sorting is measured on at most so many symbols from the beginning (of each part).

    Raises:
        TextError: the text is empty.

    >>> found = profile("abracadabra\\n", "100/0/0")
    >>> found.lines, found.repeat, found.repeated, found.rare[0]
    (1, 4, 'abra', ('\\n', 1))
    """
    corpus = text.corpus if isinstance(text, Text) else corpus_of_text(text)
    if split is None:
        split = text.split if isinstance(text, Text) else None
    split = split_of(corpus, split)
    counts = _counts(corpus)
    ids, documents = _cut(corpus.ids, corpus.documents, limit)
    content = corpus.vocab.decode_bytes(ids)
    begins = corpus.vocab.begins_character
    repeat, at = longest_repeat(ids, documents)
    parts = split.parts(corpus.ids, corpus.documents, corpus.newline, corpus.items, begins)  # also of too short a text
    return Profile(
        corpus=corpus,
        split=split,
        characters=int(counts[begins].sum()),
        lines=_lines(corpus, counts),
        documents=len(corpus.documents),
        symbols=len(corpus.vocab),
        rare=_rare(corpus, counts),
        measured=len(ids),
        entropies=entropies(ids, documents),
        compressed_bits=8 * len(lzma.compress(content, preset=9)) / max(int(begins[ids].sum()), 1),
        distinct=distinct_share(ids, documents, PASSAGE),
        repeat=repeat,
        repeated=corpus.vocab.decode(ids[at : at + repeat]),
        parts={
            name: int((spans[:, 1] - spans[:, 0]).sum()) - (0 if corpus.items is None else len(spans))
            for name, spans in ((name, parts[name]) for name in PARTS)
        },
        leak=_leak(corpus, parts, limit),
    )


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
    starts = starts_in(documents, 1)
    left = np.repeat(documents[:, 1], documents[:, 1] - documents[:, 0]) - starts  # symbols of its document from there
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
    return np.concatenate(taken or [ids[:0]]), spans_of(lengths[lengths > 0])


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


# -- words ------------------------------------------------------------------------------------------------------------


def _rare_words(rare: list[tuple[str, int]]) -> str:
    if not rare:
        return "no symbol occurs less than 10 times"
    shown = " ".join(f"{symbol!r}:{count}" for symbol, count in rare[:12])
    more = f" and {len(rare) - 12:,} more" if len(rare) > 12 else ""
    return f"{len(rare):,} symbols occur less than 10 times: {shown}{more}"


def _leak_words(leak: Leak | None) -> str:
    if leak is None:
        return "nothing is held out"
    common = (
        f"the longest passage that the training and held-out parts share has {leak.longest:,} symbols: "
        f"{_short(leak.passage)}; {leak.share:.2%} of the held-out passages of 40 symbols are in training"
    )
    return f"LEAK: {common}" if leak.found else f"none: {common}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def looks_like_list(corpus: Corpus) -> str | None:
    r"""A sentence to say where a text looks like a list of short, independent lines; None for any other text.

    A list has a hundred lines or more, nearly all of at most 80 characters, and one of three signs: neighbouring lines
    are in sorted order, most lines share their first half with the line before, or most lines are one word. In a list
    the line before tells nothing, or too much, about the next one.

    >>> looks_like_list(corpus_of_text("".join(f"name{i:04d}\n" for i in range(200)))) is None
    False
    >>> looks_like_list(corpus_of_text("It was a dark and stormy night, and the rain fell.\n" * 200)) is None
    True
    """
    if corpus.items is not None:
        return None
    text = corpus.vocab.decode(corpus.ids[: 1 << 20][corpus.ids[: 1 << 20] >= 0])
    lines = [line.strip() for line in text.split("\n")[:20_000]]
    lines = [line for line in lines if line]
    if len(lines) < 100 or sum(len(line) > 80 for line in lines) > len(lines) // 20:
        return None
    pairs = [(first, second) for first, second in pairwise(lines) if first != second]
    if len(pairs) < 50:  # one line again and again is no list
        return None
    ordered = sum(first < second for first, second in pairs) / len(pairs)
    alike = sum(first.startswith(second[: -(-len(second) // 2)]) for first, second in pairs) / len(pairs)
    if ordered > 0.95 or ordered < 0.05:
        sign = "its lines are in sorted order"
    elif alike > 0.5:
        sign = "most lines begin like the line before"
    elif sum(len(line.split()) == 1 for line in lines) > 0.95 * len(lines):
        sign = "its lines are single words"
    else:
        return None
    return (
        f"this text looks like a list ({sign}): with --items line each line is modelled by itself, and lines from "
        "everywhere in it are held out; as running text, a model copies the line before"
    )
