"""A text scored by one model or by two: how surprising each character, line or document is, in bits.

With two models the difference counts: above 0 where the first model knows more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.display import bytes_bar, html, progress_bar, surprise_level
from charlm.errors import OptionError, TextError
from charlm.lm.interface import LanguageModel
from charlm.lm.surprise import (
    Stretch,
    Surprise,
    difference,
    line_starts,
    ranked,
    read_surprise,
    stretches,
    whole_characters,
)
from charlm.text.corpus import Corpus, read_corpus
from charlm.text.reading import Reading
from charlm.text.splits import overlap
from charlm.text.text import Part, Text, TextFacts
from charlm.text.units import sentence_starts, token_starts, word_starts


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TextScore:
    """What one model or two said about each character of a text.

    Args:
        models: the models.
        names: what they are called.
        part: the part that was read, in the first model's symbols.
        seen: the text in the symbols of each model.
        shown: the text in symbols that can all be shown, at the same positions as those of the first model.
        symbols: what each model said about each symbol.
        items: the same of each character.
        space, apart, tokens: how words are taken; see `score`.
    """

    models: list[LanguageModel]
    names: list[str]
    part: Part
    seen: list[Corpus]
    shown: Corpus
    symbols: list[Surprise]
    items: list[Surprise]
    space: str = "before"
    apart: bool = False
    tokens: tuple[str, ...] | None = None

    @property
    def bits(self) -> float:
        """Mean bits a character of the first model; infinite where it held a character impossible."""
        return self.items[0].evaluation.bits_per_char

    @property
    def score(self) -> float:
        """The Score of the text under the first model: its mean probability per character, exp(−nats), in 0..1."""
        return math.exp(-self.items[0].evaluation.nats)

    @property
    def bits_each(self) -> NDArray[np.float64]:
        """float64[N], the bits of each scored character under the first model; NaN for one that it does not know."""
        return self.items[0].bits_N

    @cached_property
    def order_values(self) -> NDArray[np.float64]:
        """Per character what it is ranked by: its bits, or how many bits less it is to the first model."""
        return self.items[0].bits_N if len(self.items) == 1 else difference(*self.items)

    @cached_property
    def characters(self) -> list[str]:
        """The scored characters, in the order of the text."""
        vocab, ids = self.shown.vocab, self.shown.ids
        table = vocab.shown
        first = self.items[0]
        pairs = zip(first.position_N.tolist(), first.length_N.tolist(), strict=True)
        return [table[ids[at]] if n == 1 else vocab.decode(ids[at : at + n]) for at, n in pairs]

    @cached_property
    def _before(self) -> NDArray[np.int64] | None:
        """How many characters begin before each symbol and before the end; None where each symbol is one."""
        vocab = self.shown.vocab
        if not (vocab.byte_fallback and vocab.characters):
            return None
        return np.concatenate([[0], np.cumsum(vocab.begins_character[self.shown.ids])])

    def place(self, symbol: int) -> int:
        """The position in characters of a symbol of the text, counted from 0."""
        return symbol if self._before is None else int(self._before[symbol])

    @property
    def context(self) -> str:
        """The characters before the first scored one: read, but not scored."""
        start = int(self.part.spans[0, 0])
        return self.text(start, start + 1)

    def text(self, start: int, end: int) -> str:
        """The characters between two positions."""
        return self.shown.vocab.decode(self.shown.ids[start:end])

    def found(self, by: str) -> list[list[Stretch]]:
        """Words, sentences, lines or documents, as `by` says, for each model in the order of the text."""
        by_line = by == "line" or self.shown.items is not None  # an item is a document of one line
        starts = line_starts(self.shown) if by_line else self.shown.documents[:, 0]
        starts = self._word_starts(by) if by in ("word", "sentence") else starts
        return [
            stretches(surprise, starts, seen.ids, seen.documents, seen.vocab)
            for surprise, seen in zip(self.items, self.seen, strict=True)
        ]

    def _word_starts(self, by: str) -> NDArray[np.int64]:
        """Where words, given tokens or sentences begin among the symbols of the text."""
        corpus, found = self.shown, []
        if self.tokens is not None and len(corpus.documents) > 1:
            raise OptionError("tokens are those of one text, not of several")
        for start, end in corpus.documents.tolist():
            text, ids = corpus.vocab.decode(corpus.ids[start:end]), corpus.ids[start:end]
            if self.tokens is not None:
                starts = token_starts(text, self.tokens, self.space)
            elif by == "word":
                starts = word_starts(text, self.space, apart=self.apart)
            else:
                starts = sentence_starts(text, self.space)
            begins = np.flatnonzero(corpus.vocab.begins_character[ids]) if corpus.vocab.byte_fallback else None
            found.append(start + (np.array(starts, np.int64) if begins is None else begins[starts]))
        return np.unique(np.concatenate(found))

    def figure(self, number: int = 0) -> str:
        """The figure of one model in a sentence."""
        figures = self.items[number].evaluation
        bits = "infinitely many" if figures.zero_probability_targets else f"{figures.bits_per_char:.4f}"
        words = f"{self.names[number]}: {bits} bits a character"
        if figures.zero_probability_targets:
            words += f", as {figures.zero_probability_targets:,} were impossible"
        if figures.unknown_targets:
            words += f"; {figures.unknown_targets:,} characters are unknown to it and in no figure"
        return words

    def warnings(self) -> Iterator[str]:
        """What must be said beside the figures."""
        for model, name, corpus in zip(self.models, self.names, self.seen, strict=True):
            source: TextFacts = getattr(model, "source", TextFacts())
            alike = source.sha256 == corpus.sha256 and source.reading.items == corpus.reading.items
            if alike and overlap(corpus.parts(source.split)["train"], self.part.spans):
                yield f"{name} was made from characters that are scored here: it remembers them"

    def character_order(self, top: int | None = None) -> list[int]:
        """Characters in the order of the text, or the `top` strangest: unknown ones first, of two models last."""
        values = self.order_values
        if top is None:
            return list(range(len(values)))
        worth = np.where(np.isnan(values), np.inf if len(self.items) == 1 else -np.inf, values)
        return np.argsort(-worth, kind="stable")[:top].tolist()  # type: ignore[no-any-return]

    def stretch_order(self, by: str, rank: str = "mean", top: int | None = None) -> list[tuple[Stretch, ...]]:
        """Lines or documents, the strangest first (see `ranked`); of two models those that the first knows best.

        Words and sentences stay in the order of the text where no `top` is asked for.
        """
        found = self.found(by)
        if by in ("word", "sentence") and top is None:
            return list(zip(*found, strict=True))
        if len(found) == 1:
            return [(stretch,) for stretch in ranked(found[0], rank)]
        pairs = list(zip(*found, strict=True))
        worth = [gained(*pair) for pair in pairs]
        keys = [float("inf") if value is None else -value for value in worth]
        return [pairs[i] for i in sorted(range(len(pairs)), key=keys.__getitem__)]

    def __repr__(self) -> str:
        figures = self.items[0].evaluation
        score = f", Score {self.score:.4f}" if math.isfinite(figures.nats) else ""
        return "\n".join([self.figure(0) + score, *(self.figure(n) for n in range(1, len(self.names)))])

    def _repr_html_(self) -> str:
        values = self.items[0].bits_N.tolist()[:20_000]
        pieces = [(self.context, "s0", "context, not scored")]
        for character, bits in zip(self.characters, values, strict=False):
            said = "unknown to the model" if math.isnan(bits) else f"{character!r}: {bits:.2f} bits"
            pieces.append((character, surprise_level(bits), said))
        said = repr(self).replace("\n", "; ")
        style = "white-space:pre-wrap;font-family:monospace"
        return f'<div><pre style="{style}">{html(pieces)}</pre><div><small>{said}</small></div></div>'


def gained(first: Stretch, second: Stretch) -> float | None:
    """How many bits a character less it is to the first model; None where that means nothing."""
    a, b = first.bits_per_char, second.bits_per_char
    return None if a is None or b is None or a == b == np.inf else b - a


def read_like(
    models: Sequence[LanguageModel],
    path: str | Path,
    part: str | None,
    progress: bool | None,
    **reading: Any,
) -> Part:
    """The part of a file that models are to score, read as their own texts were, in the file's own characters."""
    given = {name: value for name, value in reading.items() if value is not None}
    sources: list[TextFacts] = [getattr(model, "source", TextFacts()) for model in models]
    readings: set[Reading] = {replace(source.reading, vocab_size=None, **given) for source in sources}
    if len(readings) > 1:
        raise OptionError("the two models read their texts differently (encoding, line ends or bytes): take alike ones")
    with bytes_bar("reading", show=progress) as tell:
        corpus = read_corpus(path, readings.pop(), progress=tell, arrange=False)
    made = [source for source in sources if source.sha256 == corpus.sha256]
    own = next((source.split for source in made if source.reading.items == corpus.reading.items), None)
    text = Text(corpus=corpus, split=own)
    if own is None and part not in (None, "all"):
        raise OptionError(
            f"{corpus.title} is not the text that {name_of(models[0])} was made from, so it has no {part} part there: "
            "leave --split-part away, or take all"
        )
    return text.reported if part is None else text.part(part)


def score(
    models: Sequence[LanguageModel] | LanguageModel,
    text: Text | Part | str | Path,
    *,
    part: str | None = None,
    encoding: str | None = None,
    newlines: Literal["keep", "normalise"] | None = None,
    bytes: bool | None = None,
    items: str | None = None,
    weights: str | None = None,
    space: Literal["before", "after"] = "before",
    apart: bool = False,
    tokens: Sequence[str] | None = None,
    progress: bool | None = None,
) -> TextScore:
    """How surprising each character of a text is to one model, or to two that are compared.

    Args:
        models: one model or two.
        text: plain characters, what `read_text` returns, or the `Path` of a file, which is read as the models' own
            texts were.
        part: which part of the text; by default test, else valid, else all.
        encoding, newlines, bytes, items, weights: where a file is to be read otherwise than the models' own texts.
        space: whether a word has the white space before or after it.
        apart: whether punctuation stands apart from words.
        tokens: the words of the text, where they are given.
        progress: show a bar; None shows it on a terminal or in a notebook.
    """
    words: dict[str, Any] = {"space": space, "apart": apart, "tokens": None if tokens is None else tuple(tokens)}
    opened = [models] if isinstance(models, LanguageModel) else list(models)
    if not 1 <= len(opened) <= 2:
        raise OptionError(f"one model or two are scored, not {len(opened)}")
    if isinstance(text, Path):
        reading = {"encoding": encoding, "newlines": newlines, "bytes": bytes, "items": items, "weights": weights}
        return replace(
            score_text(opened, read_like(opened, text, part, progress, **reading), progress=progress), **words
        )
    given = Text.of(text).all if isinstance(text, str) else text
    if isinstance(given, Text):
        given = given.reported if part is None else given.part(part)
    return replace(score_text(opened, given, progress=progress), **words)


def name_of(model: LanguageModel) -> str:
    """What tables call a model."""
    return str(getattr(model, "name", type(model).__name__))


def score_text(models: Sequence[LanguageModel], part: Part, *, progress: bool | None = None) -> TextScore:
    """Reads a part once with each of one or two models and keeps the bits of every character.

    Args:
        models: one, or two to compare.
        part: what to score.
        progress: show a bar; None shows it on a terminal or in a notebook.

    Raises:
        TextError: the part has no character to score.
        OptionError: the models spell the text in different symbols.
    """
    if not len(part):
        raise TextError("a text of two characters or more is needed: the first one is context, not scored")
    parts = [part.under(model.vocab) for model in models]
    seen = [read.text.corpus for read in parts]
    if len({len(corpus) for corpus in seen}) > 1:
        raise OptionError("the two models spell this text in different symbols: take two whose texts were read alike")
    held, symbols = parts[0], []
    with progress_bar(len(held) * len(seen), "reading", "char", show=progress) as bar:
        for model, corpus in zip(models, seen, strict=True):
            symbols.append(read_surprise(model, corpus.ids, held.spans, progress=bar.update))
    items = [whole_characters(s, c.ids, c.vocab) for s, c in zip(symbols, seen, strict=True)]
    if len(items) == 2:
        difference(*items)  # refused here where the characters are not the same ones
    return TextScore(
        models=list(models),
        names=[name_of(model) for model in models],
        part=held,
        seen=seen,
        shown=seen[0] if seen[0].vocab.byte_fallback else part.text.corpus,
        symbols=symbols,
        items=items,
    )
