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

from charlm.display import html, progress_bar, surprise_level, visible
from charlm.errors import OptionError, TextError
from charlm.lm.evaluate import as_part, finite
from charlm.lm.interface import LanguageModel, name_of, source_of
from charlm.lm.surprise import (
    Stretch,
    Surprise,
    difference,
    gained,
    line_starts,
    ranked,
    read_like,
    read_surprise,
    stretches,
    whole_characters,
    word_or_sentence_starts,
)
from charlm.text.corpus import Corpus
from charlm.text.splits import overlap
from charlm.text.text import Part, Text


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
        if by in ("word", "sentence"):
            words: dict[str, Any] = {"space": self.space, "apart": self.apart, "tokens": self.tokens}
            starts = word_or_sentence_starts(self.shown, by, **words)
        return [
            stretches(surprise, starts, seen.ids, seen.documents, seen.vocab)
            for surprise, seen in zip(self.items, self.seen, strict=True)
        ]

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
            source = source_of(model)
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

    def to_json(self, by: str, top: int | None = None, rank: str = "mean") -> Iterator[dict[str, Any]]:
        """What `charlm score --json` prints: a value for each character, in the order of `character_order`, or for each
        word, sentence, line or document, in the order of `stretch_order`."""
        if by == "char":
            for i in self.character_order(top):
                place = {"position": self.place(int(self.items[0].position_N[i])), "char": self.characters[i]}
                yield place | self._beside([item.to_json(i) for item in self.items], float(self.order_values[i]))
            return
        for group in self.stretch_order(by, rank, top)[:top]:
            first = group[0]
            found: dict[str, Any] = {by: first.number, **({"document": first.document} if by == "line" else {})}
            found |= {"name": self.shown.name_of(first.document - 1), "start": self.place(first.start)}
            found |= {"end": self.place(first.end), "characters": first.characters}
            found |= self._beside([stretch.to_json() for stretch in group], gained(*group) if group[1:] else None)
            yield found | ({} if by == "document" else {"text": self.text(first.start, first.end)})

    def _beside(self, figures: list[dict[str, Any]], more: float | None) -> dict[str, Any]:
        """The figures of one model or of two, with their difference."""
        if len(figures) == 1:
            return figures[0]
        second = {f"second_{name}": value for name, value in figures[1].items()}
        return figures[0] | second | {"difference": finite(more)}

    def columns(self) -> Iterator[list[str]]:
        """Every character in the order of the text: position, bits (of two models and the difference), character."""
        positions = self.items[0].position_N.tolist()
        for position, character, *bits in zip(positions, self.characters, *self._values, strict=True):
            yield [str(self.place(position)), *map(_number, bits), visible(character)]

    def table(
        self, by: str, top: int | None = None, rank: str = "mean"
    ) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
        """The same for a person, the strangest first.

        Returns:
            Headings, and for each character or stretch where it begins in the ids of the text, and its cells.
        """
        mean = " a char" if by in ("line", "document") else ""
        names = [f"bits{mean}"] if len(self.names) == 1 else [*self.names, "difference"]
        known = {"char": ("character", "context"), "line": ("line", "text"), "document": ("characters", "document")}
        more = known.get(by, ("characters", by))
        rows = self._character_rows(top) if by == "char" else self._stretch_rows(by, top, rank)
        return [*names, *([] if mean else ["position"]), *more], rows

    @property
    def _values(self) -> list[list[float]]:
        """Bits of each character, by each model, and of two models the difference."""
        found: list[list[float]] = [item.bits_N.tolist() for item in self.items]
        return [*found, self.order_values.tolist()] if len(found) == 2 else found

    def _character_rows(self, top: int | None) -> Iterator[tuple[int, list[str]]]:
        first, values = self.items[0], self._values
        for i in self.character_order(top):
            at, length = int(first.position_N[i]), int(first.length_N[i])
            before, after = self.text(max(0, at - _CONTEXT), at), self.text(at + length, at + length + _CONTEXT)
            sign = visible(self.characters[i])
            bits = [_number(column[i]) for column in values]
            yield at, [*bits, str(self.place(at)), sign, f"{visible(before)}[{sign}]{visible(after)}"]

    def _stretch_rows(self, by: str, top: int | None, rank: str) -> Iterator[tuple[int, list[str]]]:
        several = len(self.shown.names) > 1
        for group in self.stretch_order(by, rank, top)[:top]:
            first, name = group[0], self.shown.name_of(group[0].document - 1)
            text = "" if by == "document" else self.text(first.start, first.end)
            if by in ("word", "sentence"):
                bits = [_number(stretch.bits if stretch.characters else None) for stretch in group]
                bits += [_number(group[1].bits - first.bits)] if group[1:] else []
                yield first.start, [*bits, str(self.place(first.start)), str(first.characters), visible(text)]
                continue
            bits = ["unknown" if not each.characters else _number(each.bits_per_char) for each in group]
            bits += [_number(gained(*group))] if group[1:] else []
            where = f"{name}:{first.number}" if several else str(first.number)
            more = [where, visible(text.removesuffix("\n"))] if by == "line" else [f"{first.characters:,}", name]
            yield first.start, [*bits, *more]

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


_CONTEXT = 30  # characters on both sides of a strange one


def _number(value: float | None) -> str:
    """Bits for a person."""
    if value is None:
        return "-"
    return "unknown" if math.isnan(value) else f"{value:.3f}".replace("inf", "infinite")


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
    return replace(score_text(opened, as_part(text, part), progress=progress), **words)


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
