"""Reading a text with a language model and measuring how well it foresaw each character.

Every number comes from one place: the log-probability of each target, in the order of the text. A `Row` holds these for
one model; tables, comparisons and reports are made of rows alone. Axes: T steps, B lanes, N targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import decimals, progress_bar
from charlm.errors import OptionError, TextError
from charlm.lm.interface import LanguageModel, OnRead, read_segments, source_of, span_segments
from charlm.text.splits import Spans, count_targets, overlap
from charlm.text.text import Part, Text
from charlm.text.vocab import Ids, Vocab


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one model gave each of T targets, in the order of the text.

    Args:
        name: what a table calls the model, `maximum likelihood, order 4` or a directory's name.
        family: `ngram`, `rnn`, `mixture`, or `dynamic` for a network that goes on learning while it reads.
        logp_T: float64 natural logarithms; -inf where the model held the target impossible, NaN where the
            history was never seen and the model is undefined, or where the target is unknown.
        hit_T: bool; whether the target was the most probable symbol.
        is_baseline: whether the model is counted.
        is_adaptive: whether the model learns from what it reads.
        order: characters of history of an n-gram model.
        smoothing: of an n-gram model, by the name that `--smoothing` takes.
        parameters: of a network.
        ngrams: distinct n-grams of exactly this order plus one, the model's own event table.
        bytes: what the model needs in memory or on disk.
        train_nats: nats a character on the training part (memorisation), where it is known.
        seconds: time it took to make this row.
    """

    name: str
    family: str
    logp_T: NDArray[np.float64]
    hit_T: NDArray[np.bool_]
    is_baseline: bool = False
    is_adaptive: bool = False
    order: int | None = None
    smoothing: str | None = None
    parameters: int | None = None
    ngrams: int | None = None
    bytes: int | None = None
    train_nats: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """How well a model foresaw a text. Its `repr` is the line that `charlm eval` prints.

    Args:
        nats: mean negative natural log-probability a character (`inf` where a target was held impossible).
        accuracy: share of the known targets that were the most probable character, in all bytes that spell it.
        targets: characters to predict, Σ (length − 1) over the spans.
        zero_probability_targets: targets that got probability 0, or whose history the model is undefined at.
        unknown_targets: targets that the vocabulary does not hold; they are in no other figure.
        standard_error: of `nats`, by a block bootstrap; None where nats are infinite.
        text: the name of the text that was read.
        split: the split of which a part was read; None where all of a text was read.
        part: the part that was read.
        text_sha256: of the text that was read.
        notes: sentences about what the figures leave out, or what makes them easier than they look.
        unit: what is predicted: `character`, or `byte` where a text is read as bytes.
    """

    nats: float
    accuracy: float
    targets: int
    zero_probability_targets: int
    unknown_targets: int
    standard_error: float | None
    text: str = ""
    split: str | None = None
    part: str | None = None
    text_sha256: str | None = None
    notes: tuple[str, ...] = ()
    unit: str = "character"

    def __repr__(self) -> str:
        error = "" if self.standard_error is None else f" ± {decimals(self.standard_error, 4)}"
        return (
            f"{decimals(self.nats, 6)}{error} nats a {self.unit}, {decimals(self.bits_per_char, 4)} bits, "
            f"perplexity {decimals(self.perplexity, 4)}, {100 * self.accuracy:.2f} % right of {self.scored:,}"
        )

    @property
    def scored(self) -> int:
        """Targets that the model knows: nats times their number are those of the whole text."""
        return self.targets - self.unknown_targets

    @property
    def bits_per_char(self) -> float:
        """nats / ln 2."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats), the size of a fair die that would be as hard to foresee."""
        return math.exp(self.nats) if self.nats < 700 else math.inf

    def to_json(self) -> dict[str, Any]:
        """The figures as `charlm eval --json` prints them; an infinite value is None."""
        return {
            "nats": finite(self.nats),
            "bits_per_char": finite(self.bits_per_char),
            "perplexity": finite(self.perplexity),
            "accuracy": self.accuracy,
            "targets": self.targets,
            "zero_probability_targets": self.zero_probability_targets,
            "unknown_targets": self.unknown_targets,
            "standard_error": finite(self.standard_error),
        }


def finite(value: float | None) -> float | None:
    """The value, or None where JSON has no word for it (infinite or undefined)."""
    return value if value is not None and math.isfinite(value) else None


def targets_of(ids: Ids, spans: Spans) -> NDArray[np.int64]:
    """The targets of the spans, int64[N]: every character but the first of each.

    >>> targets_of(np.array([5, 6, 7, 8]), np.array([[0, 2], [2, 4]])).tolist()
    [6, 8]
    """
    pieces = [ids[start + 1 : end] for start, end in spans.tolist()]
    return np.concatenate(pieces).astype(np.int64) if pieces else np.zeros(0, np.int64)


def places_of(spans: Spans) -> NDArray[np.int64]:
    """Where the targets of the spans stand in the ids, int64[N]."""
    pieces = [np.arange(start + 1, end, dtype=np.int64) for start, end in spans.tolist()]
    return np.concatenate([np.zeros(0, np.int64), *pieces])


def standard_error(nats_N: NDArray[np.float64]) -> float | None:
    """The standard error of a mean over neighbouring characters, by a circular block bootstrap.

    Characters near each other are easy or hard together, so blocks of them are drawn, not single ones (Künsch
    1989; Politis and Romano 1992): 500 characters long, in a short text a twentieth of it. The 1,000 draws come from a
    fixed seed.

    Args:
        nats_N: one number a target, in the order of the text.
    """
    n = len(nats_N)
    if n < 2 or not np.isfinite(nats_N).all():
        return None
    block = max(1, min(500, n // 20))
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([nats_N, nats_N[:block]]))])
    blocks = sums[block : block + n] - sums[:n]
    draws = np.random.default_rng(0).integers(0, n, size=(1000, max(1, n // block)))
    return float(blocks[draws].mean(axis=1).std(ddof=1) / block)


def measure(row: Row, targets_N: NDArray[np.int64]) -> Evaluation:
    """The figures of a row whose targets are characters (see `per_character`).

    Args:
        row: what a model gave each target.
        targets_N: the targets themselves; -1 where unknown.
    """
    known_N = targets_N >= 0
    logp_N = row.logp_T[known_N]
    if not len(logp_N):
        raise TextError(
            "none of the characters to predict is in the model's vocabulary: the model knows another script"
        )
    impossible = int((~np.isfinite(logp_N)).sum())
    return Evaluation(
        nats=math.inf if impossible else float(-logp_N.mean()) + 0.0,  # never minus zero
        accuracy=float(row.hit_T[known_N].mean()),
        targets=len(targets_N),
        zero_probability_targets=impossible,
        unknown_targets=int((~known_N).sum()),
        standard_error=standard_error(-logp_N),
    )


def characters_of(place_N: NDArray[np.int64], ids: Ids, vocab: Vocab) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which targets spell whole characters, and where among those each character begins.

    Bytes of the character before a stretch of targets are left out: they are context.

    Args:
        place_N: where the targets stand in the ids, rising.
        ids, vocab: the text; the vocabulary spells characters in bytes.

    >>> vocab = Vocab(("a",), byte_fallback=True)
    >>> kept, first = characters_of(np.arange(1, 6), vocab.encode("ééa€"), vocab)  # 2 + 2 + 1 + 3 symbols
    >>> kept.tolist(), first.tolist()
    ([1, 2, 3, 4], [0, 2, 3])
    """
    begins_N = vocab.begins_character[ids[place_N]]
    stretch_N = np.cumsum(np.diff(place_N, prepend=-2) != 1) - 1
    seen_N = np.cumsum(begins_N)
    before_N = np.concatenate([[0], seen_N])[np.searchsorted(stretch_N, stretch_N)]  # begun in earlier stretches
    kept_N = np.flatnonzero(seen_N > before_N)
    return kept_N, np.flatnonzero(begins_N[kept_N])


def per_character(row: Row, ids: Ids, spans: Spans, vocab: Vocab) -> tuple[Row, NDArray[np.int64]]:
    """The row with the bytes of each character put together, and the targets, the first symbol of each character.

    Log-probabilities are added up, and a character is right where all its bytes are.

    Args:
        row: what a model gave each target of the spans.
        ids, spans, vocab: what it read.

    >>> vocab, spans = Vocab(("a",), byte_fallback=True), np.array([[0, 4]])
    >>> row = Row(name="m", family="rnn", logp_T=np.array([-1.0, -2.0, -4.0]), hit_T=np.array([True, True, False]))
    >>> found, targets = per_character(row, vocab.encode("aaé"), spans, vocab)
    >>> found.logp_T.tolist(), found.hit_T.tolist(), len(targets)
    ([-1.0, -6.0], [True, False], 2)
    """
    targets_N = targets_of(ids, spans)
    if not (vocab.byte_fallback and vocab.characters):
        return row, targets_N
    kept_N, first = characters_of(places_of(spans), ids, vocab)
    if not len(first):
        raise TextError("no character of this part begins behind its first one: there is nothing to predict")
    logp_T, hit_T = np.add.reduceat(row.logp_T[kept_N], first), np.logical_and.reduceat(row.hit_T[kept_N], first)
    return replace(row, logp_T=logp_T, hit_T=hit_T), targets_N[kept_N][first]


def row_of(
    model: LanguageModel,
    ids: Ids,
    spans: Spans,
    *,
    name: str = "model",
    lanes: int = 64,
    progress: OnRead | None = None,
    **facts: Any,
) -> Row:
    """Reads each span as one stream, up to `lanes` side by side, and gives the model's row; `facts` go into the row
    as they are; of many short spans, as items are, more of them."""
    lanes = lanes if model.is_adaptive else wide(spans, lanes)
    logp_N, hit_N = read_segments(model, ids, span_segments(spans), lanes=lanes, progress=progress)
    return Row(
        name=name,
        family=str(getattr(model, "kind", "rnn")),
        logp_T=logp_N,
        hit_T=hit_N,
        is_baseline=model.is_baseline,
        is_adaptive=model.is_adaptive,
        **facts,
    )


def wide(spans: Spans, lanes: int) -> int:
    """How many spans are read side by side: `lanes`, and of short ones as many as have some 16,000 characters together.

    >>> wide(np.array([[0, 11], [10, 21]]), 64), wide(np.array([[0, 5000]]), 64)
    (1024, 64)
    """
    return max(lanes, min(1024, (len(spans) << 14) // max(1, count_targets(spans))))


def evaluate(
    model: LanguageModel, ids: Ids, spans: Spans, *, lanes: int = 64, progress: OnRead | None = None
) -> Evaluation:
    """Measures a model on the spans of a text, each read as one stream, up to `lanes` side by side.

    >>> import torch
    >>> from charlm.recurrent.model import CharRNN, RNNConfig
    >>> vocab = Vocab.of("abracadabra")
    >>> model = CharRNN(vocab, RNNConfig(hidden=4))
    >>> for weights in model.parameters(): _ = weights.data.zero_()
    >>> result = evaluate(model, vocab.encode("abracadabra"), np.array([[0, 11]]))
    >>> result.targets, round(result.perplexity, 5)  # uniform over 5 characters
    (10, 5.0)
    """
    row = row_of(model, ids, spans, lanes=lanes, progress=progress)
    return replace(measure(*per_character(row, ids, spans, model.vocab)), unit=model.vocab.unit)


def evaluate_part(
    model: LanguageModel, part: Part, *, lanes: int | None = None, progress: bool | None = None
) -> Evaluation:
    """Measures a model on a part of a text, in the model's own symbols; see `TextModel.evaluate`."""
    read = part.under(model.vocab)
    lanes = lanes or (1 if model.is_adaptive else 64)
    label = "reading and learning" if model.is_adaptive else "reading"
    with progress_bar(len(read), label, "char", show=progress) as bar:
        found = evaluate(model, read.text.corpus.ids, read.spans, lanes=lanes, progress=bar.update)
    return replace(
        found,
        text=part.text.title,
        split=None if part.text.split is None else str(part.text.split),
        part=part.name,
        text_sha256=part.text.corpus.sha256,
        notes=tuple(_notes(found, model, part)),
    )


def as_part(text: Text | Part | str, name: str | None = None) -> Part:
    """The part of a text that is to be read: the one named, else test, else valid, else all; of characters all."""
    if isinstance(text, str):
        return Text.of(text).all
    if isinstance(text, Part):
        return text
    if isinstance(text, Text):
        return text.reported if name is None else text.part(name)
    raise OptionError(
        f"a text is given as a str, or as what read_text returns, not as {type(text).__name__}: "
        "read files with charlm.read_text"
    )


def called(part: Part) -> str:
    """What sentences call a part: `the test part of verse.txt`, or `all of verse.txt`."""
    title = "standard input" if part.text.title == "-" else part.text.title
    return f"all of {title}" if part.name == "all" else f"the {part.name} part of {title}"


def _notes(found: Evaluation, model: LanguageModel, part: Part) -> Iterator[str]:
    """What stands in the way of a figure, or makes it easier than it looks."""
    if found.zero_probability_targets:
        yield f"{found.zero_probability_targets:,} targets got probability zero, so nats and perplexity are infinite"
    if found.unknown_targets:
        yield f"{found.unknown_targets:,} targets are characters that the model does not know; they are in no figure"
    corpus, source = part.text.corpus, source_of(model)
    if source.sha256 != corpus.sha256 or source.reading.items != corpus.reading.items:
        return
    if repeated := corpus.repeated(source.split):
        why = "the parts were given so" if source.split.kind == "files" else "the split is by copy"
        yield f"{repeated}: {why}"
    parts = corpus.parts(source.split)
    if overlap(parts["train"], part.spans):
        yield "the model was made from this: the figure says how much it remembers, not how well it foresees"
    elif not model.is_baseline and overlap(parts["valid"], part.spans):
        yield "early stopping watched this part: a test part would be stricter"
