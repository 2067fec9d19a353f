"""Surprise: the bits of every character of a text, and of its words, lines and documents.

The bits of a character are −log₂ P(character | all before it in its span). Spans, context and figures are those of
`charlm.lm.evaluate`: the bits of all targets over the number of characters are its bits per character. Axes: N
targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import bytes_bar
from charlm.errors import OptionError
from charlm.lm.evaluate import (
    Evaluation,
    as_part,
    characters_of,
    finite,
    measure,
    per_character,
    places_of,
    row_of,
    targets_of,
)
from charlm.lm.interface import LanguageModel, OnRead, name_of, source_of
from charlm.text.corpus import Corpus, read_corpus
from charlm.text.reading import Reading
from charlm.text.splits import Spans
from charlm.text.text import Part, Text
from charlm.text.units import sentence_starts, token_starts, word_starts
from charlm.text.vocab import Ids, Vocab


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """What one model gave every target of a text.

    Args:
        position_N: int64; where the target stands in the ids of the text.
        length_N: int64; how many symbols it has: 1, but more where bytes were put together to a character.
        bits_N: float64; its bits. Infinite where the model held it impossible or is undefined (its history was never
            seen), NaN where the vocabulary does not hold it.
        undefined_N: bool; where the bits are infinite because the model is undefined.
        evaluation: the figures of the whole, as `charlm eval` gives them.
    """

    position_N: NDArray[np.int64]
    length_N: NDArray[np.int64]
    bits_N: NDArray[np.float64]
    undefined_N: NDArray[np.bool_]
    evaluation: Evaluation

    def to_json(self, number: int) -> dict[str, Any]:
        """The figures of one target; None where its bits are infinite or unknown."""
        bits = float(self.bits_N[number])
        return {"bits": finite(bits), "zero_probability": math.isinf(bits), "unknown": math.isnan(bits)}


def read_like(
    models: Sequence[LanguageModel],
    path: str | Path,
    part: str | None,
    progress: bool | None,
    **reading: Any,
) -> Part:
    """The part of a file that models are to score, read as their own texts were, in the file's own characters."""
    given = {name: value for name, value in reading.items() if value is not None}
    sources = [source_of(model) for model in models]
    readings: set[Reading] = {replace(source.reading, vocab_size=None, **given) for source in sources}
    if len(readings) > 1:
        raise OptionError("the two models read their texts differently (encoding, line ends or bytes): take alike ones")
    with bytes_bar("reading", show=progress) as tell:
        corpus = read_corpus(path, readings.pop(), progress=tell, arrange=False)
    made = [source for source in sources if source.sha256 == corpus.sha256]
    own = next((source.split for source in made if source.reading.items == corpus.reading.items), None)
    return part_for(models[0], Text(corpus=corpus, split=own), part)


def part_for(model: LanguageModel, text: Text, part: str | None) -> Part:
    """The part of a text that a model is to read: the one named, else test, else valid, else all.

    Args:
        model: what the text is read with.
        text: with a split where the model was made from it.
        part: train, valid, test or all, where it was named.

    Raises:
        OptionError: another text than the model's own has none but all.
    """
    if text.split is None and part not in (None, "all"):
        raise OptionError(
            f"{text.title} is not the text that {name_of(model)} was made from, so it has no {part} part there: "
            "leave --split-part away, or take all"
        )
    return as_part(text, part)


def read_surprise(model: LanguageModel, ids: Ids, spans: Spans, *, progress: OnRead | None = None) -> Surprise:
    """Reads each span as one stream and keeps the bits of every target.

    >>> from charlm.recurrent.model import CharRNN, RNNConfig
    >>> vocab = Vocab.of("abcd")
    >>> model = CharRNN(vocab, RNNConfig(hidden=4))
    >>> for weights in model.parameters(): _ = weights.data.zero_()
    >>> read_surprise(model, vocab.encode("dacb"), np.array([[0, 4]])).bits_N.round(4).tolist()  # 4 characters alike
    [2.0, 2.0, 2.0]
    """
    row, targets_N = row_of(model, ids, spans, progress=progress), targets_of(ids, spans)
    known_N = targets_N >= 0
    undefined_N = known_N & np.isnan(row.logp_T)
    bits_N = np.where(undefined_N, np.inf, -row.logp_T / math.log(2)) + 0.0  # never minus zero
    return Surprise(
        position_N=places_of(spans),
        length_N=np.ones(len(bits_N), np.int64),
        bits_N=np.where(known_N, bits_N, np.nan),
        undefined_N=undefined_N,
        evaluation=measure(*per_character(row, ids, spans, model.vocab)),
    )


def whole_characters(surprise: Surprise, ids: Ids, vocab: Vocab) -> Surprise:
    """The same with the bytes that spell one character put together: their bits are added up.

    In a vocabulary without such bytes, and in one of bytes alone, it is the same as before. Bytes of the character
    before a span's first target are left out.
    """
    if not (vocab.byte_fallback and vocab.characters):
        return surprise
    kept_N, first = characters_of(surprise.position_N, ids, vocab)
    return replace(
        surprise,
        position_N=surprise.position_N[kept_N][first],
        length_N=np.diff(np.append(first, len(kept_N))),
        bits_N=np.add.reduceat(surprise.bits_N[kept_N], first),
        undefined_N=np.logical_or.reduceat(surprise.undefined_N[kept_N], first),
    )


def difference(first: Surprise, second: Surprise) -> NDArray[np.float64]:
    """Per target, how many bits less it is to the first model than to the second; above 0 the first knows more.

    Infinite where one alone held it impossible; NaN where both did, or where it is unknown to one of them.
    """
    if not np.array_equal(first.position_N, second.position_N):
        raise OptionError(
            "the two models spell this text in different symbols, so their characters cannot be put side by side: "
            "take two models whose texts were read alike"
        )
    with np.errstate(invalid="ignore"):  # infinite − infinite
        return second.bits_N - first.bits_N


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A line or a document, and what a model made of it.

    Args:
        number: from 1 on; of a line in its document, of a document among the documents.
        document: number of the document, from 1 on.
        start: where it begins in the ids of the text.
        end: where it ends there; a line's newline belongs to it.
        characters: how many of its characters were foreseen and counted: neither context nor unknown.
        bits: of those together; infinite where one was impossible.
        highest: the bits of the most surprising one of these.
        zero_probability: characters that were impossible, or where the model is undefined.
        unknown: characters that the vocabulary does not hold; they are in no figure.
        blank: whether it is a line of nothing but its end.
    """

    number: int
    document: int
    start: int
    end: int
    characters: int
    bits: float
    highest: float
    zero_probability: int
    unknown: int
    blank: bool = False

    @property
    def bits_per_char(self) -> float | None:
        """Bits a character, the newline of a line counted; None where every character is unknown."""
        return self.bits / self.characters if self.characters else None

    def to_json(self) -> dict[str, Any]:
        """The figures; None where one is infinite or unknown."""
        return {
            "bits_per_char": finite(self.bits_per_char),
            "bits": finite(self.bits),
            "highest_bits": finite(self.highest),
            "zero_probability": self.zero_probability > 0,
            "zero_probability_targets": self.zero_probability,
            "unknown_targets": self.unknown,
        }


def gained(first: Stretch, second: Stretch) -> float | None:
    """How many bits a character less it is to the first model; None where that means nothing."""
    a, b = first.bits_per_char, second.bits_per_char
    return None if a is None or b is None or a == b == np.inf else b - a


def line_starts(corpus: Corpus) -> NDArray[np.int64]:
    """Where lines begin: at the beginning of a document and after every line feed.

    >>> from charlm.text.corpus import corpus_of_text
    >>> line_starts(corpus_of_text("ab\\n\\nc\\n")).tolist()
    [0, 3, 4]
    """
    starts = corpus.documents[:, 0]
    if corpus.items is not None:
        return starts + 1
    if corpus.newline is not None:
        starts = np.union1d(starts, np.flatnonzero(corpus.ids == corpus.newline) + 1)
    return starts[starts < len(corpus)].astype(np.int64)


def word_or_sentence_starts(
    corpus: Corpus, by: str, *, space: str, apart: bool = False, tokens: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Where words, given tokens or sentences begin among the symbols of a text.

    Args:
        corpus: the text.
        by: `word` or `sentence`.
        space, apart, tokens: how words are taken; see `charlm.score`.
    """
    if tokens is not None and len(corpus.documents) > 1:
        raise OptionError("tokens are those of one text, not of several")
    found = []
    for start, end in corpus.documents.tolist():
        text, ids = corpus.vocab.decode(corpus.ids[start:end]), corpus.ids[start:end]
        if tokens is not None:
            starts = token_starts(text, tokens, space)
        elif by == "word":
            starts = word_starts(text, space, apart=apart)
        else:
            starts = sentence_starts(text, space)
        begins = np.flatnonzero(corpus.vocab.begins_character[ids]) if corpus.vocab.byte_fallback else None
        found.append(start + (np.array(starts, np.int64) if begins is None else begins[starts]))
    return np.unique(np.concatenate(found))


def stretches(surprise: Surprise, starts: NDArray[np.int64], ids: Ids, documents: Spans, vocab: Vocab) -> list[Stretch]:
    """Adds the bits of targets up over the stretches of a text that begin at these places, in the order of the text.

    Args:
        surprise: of one model, of whole characters.
        starts: where stretches begin, rising, the beginning of every document among them.
        ids: the text in that model's symbols.
        documents: its documents.
        vocab: that model's.

    A stretch that has no target (it was not read, or is a single context character) is left out.
    """
    place_N = surprise.position_N
    known_N = ~np.isnan(surprise.bits_N)
    group_N = np.searchsorted(starts, place_N, side="right") - 1
    size = len(starts)
    begins_N = known_N & vocab.begins_character[np.maximum(ids[place_N].astype(np.int64), 0)]
    bits = np.bincount(group_N, np.where(known_N, surprise.bits_N, 0.0), size)
    highest = np.zeros(size)
    np.maximum.at(highest, group_N[known_N], surprise.bits_N[known_N])
    characters, unknown, impossible = (
        np.bincount(group_N[which_N], minlength=size)
        for which_N in (begins_N, ~known_N, known_N & np.isinf(surprise.bits_N))
    )
    ends = np.append(starts[1:], documents[-1, 1])
    document = np.searchsorted(documents[:, 0], starts, side="right") - 1
    number = np.arange(size) - np.searchsorted(starts, documents[document, 0]) + 1
    if size == len(documents):
        number = document + 1
    return [
        Stretch(
            number=int(number[i]),
            document=int(document[i]) + 1,
            start=int(starts[i]),
            end=int(ends[i]),
            characters=int(characters[i]),
            bits=float(bits[i]),
            highest=float(highest[i]),
            zero_probability=int(impossible[i]),
            unknown=int(unknown[i]),
            blank=bool(ends[i] - starts[i] == 1) and _is_line_end(int(ids[starts[i]]), vocab),
        )
        for i in np.unique(group_N).tolist()
    ]


def _is_line_end(id: int, vocab: Vocab) -> bool:
    return id >= 0 and vocab.decode([id]) in ("\n", "\r")


RANKS = ("mean", "total", "max")
"""By what lines and documents are ranked: bits a character, bits in all, bits of the most surprising character."""


def ranked(found: Iterable[Stretch], rank: str = "mean") -> list[Stretch]:
    """The strangest first; those with unknown characters before all others, blank lines after them.

    Of infinite ones those with more impossible characters come first, else the earlier one.

    Args:
        found: lines or documents.
        rank: by bits a character (`mean`), bits in all (`total`), or the most surprising character (`max`).
    """
    if rank not in RANKS:
        raise OptionError(f"lines are ranked by {', '.join(RANKS)}, not by {rank!r}")

    def strangeness(stretch: Stretch) -> tuple[bool, int, float, int]:
        value = {"mean": stretch.bits_per_char or 0.0, "total": stretch.bits, "max": stretch.highest}[rank]
        return stretch.blank, -stretch.unknown, -value, -stretch.zero_probability

    return sorted(found, key=strangeness)
