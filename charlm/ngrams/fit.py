"""What the parameters of n-gram models are tuned on: never the part that is reported.

Making n-gram models of a text under a split: what is counted, and what their parameters are tuned on.

Nothing is chosen on the part that is reported. Where there is a test part, parameters are tuned on the valid part;
where there is none, on the last twentieth of the training part, by counts of the rest of it.


An n-gram model of a text that is larger than memory; nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from charlm.errors import StorageError
from charlm.files import unwritten, write_json
from charlm.lm.directory import write_config
from charlm.lm.evaluate import Row
from charlm.ngrams.counted import Estimator
from charlm.ngrams.estimators import describe_ngram, fingerprints, make_estimator, tune
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NGramLM
from charlm.ngrams.past_memory.external import Progress, count_past_memory
from charlm.ngrams.rows import ngram_rows
from charlm.text.corpus import Corpus
from charlm.text.splits import Spans, Split, count_targets, shared_context
from charlm.text.text import Text, TextFacts

__all__ = [
    "TUNED",
    "WORK",
    "best_order",
    "count",
    "count_to_directory",
    "counted_rows",
    "ngram",
    "tuning_parts",
    "was_stopped",
]

TUNED = ("add-k", "uniform-mix")
"""The estimators that have a parameter of their own to choose."""


def tuning_parts(parts: Mapping[str, Spans]) -> tuple[Spans, Spans]:
    """The spans to count and the spans to tune on, of which none is reported.

    >>> train, none = np.array([[0, 100]]), np.zeros((0, 2), np.int64)
    >>> [spans.tolist() for spans in tuning_parts({"train": train, "valid": np.array([[100, 120]]), "test": none})]
    [[[0, 95]], [[95, 100]]]
    """
    if count_targets(parts["test"]) and count_targets(parts["valid"]):
        return parts["train"], parts["valid"]
    train = parts["train"]
    lengths = train[:, 1] - train[:, 0]
    rest = int(lengths.sum()) * 19 // 20
    before = np.cumsum(lengths) - lengths
    cut = np.clip(train[:, 0] + rest - before, train[:, 0], train[:, 1])
    counted = np.stack([train[:, 0], cut], axis=1)
    tuned = np.stack([cut, train[:, 1]], axis=1)
    return counted[counted[:, 1] > counted[:, 0]], tuned[tuned[:, 1] > tuned[:, 0]]


def _index(corpus: Corpus, spans: Spans, parts: Mapping[str, Spans]) -> SuffixIndex:
    """The index of a part, or of pieces of it."""
    shared_N = shared_context(spans, parts)
    return SuffixIndex.build(corpus.ids, spans, symbols=len(corpus.vocab), shared_N=shared_N)


def _parameters(
    corpus: Corpus, parts: Mapping[str, Spans], smoothing: str, orders: Iterable[int]
) -> dict[int, dict[str, Any]]:
    if smoothing not in TUNED:
        return {}
    counted, tuned = tuning_parts(parts)
    if not count_targets(tuned):
        return {}
    index = _index(corpus, counted, parts)
    return {order: tune(smoothing, index, order, corpus.ids, tuned) for order in orders}


def count(corpus: Corpus, parts: Mapping[str, Spans], *, order: int, smoothing: str = "none") -> NGramLM:
    """An n-gram model of the training part, its parameter tuned where it has one."""
    parameters = _parameters(corpus, parts, smoothing, [order]).get(order, {})
    index = _index(corpus, parts["train"], parts)
    estimator = make_estimator(smoothing, index, order, **parameters)
    return NGramLM(vocab=corpus.vocab, index=index, order=order, estimator=estimator)


def best_order(corpus: Corpus, parts: Mapping[str, Spans], *, orders: list[int], smoothing: str) -> int:
    """The order with the lowest nats on the spans to tune on, of which none is reported."""
    counted, tuned = tuning_parts(parts)
    index = _index(corpus, counted, parts)
    rows = ngram_rows(index, corpus.vocab, smoothing, orders, corpus.ids, tuned, hits=False, training=False)
    nats = {row.order: -float(row.logp_T.mean()) for row in rows}
    return min(orders, key=lambda order: nats[order])


def counted_rows(
    corpus: Corpus, parts: Mapping[str, Spans], held: Spans, *, orders: list[int], smoothings: Iterable[str]
) -> Iterator[Row]:
    """The rows of n-gram models of several orders and smoothings over held-out spans, from one index."""
    index = _index(corpus, parts["train"], parts)
    for smoothing in smoothings:
        parameters = _parameters(corpus, parts, smoothing, orders)
        yield from ngram_rows(index, corpus.vocab, smoothing, orders, corpus.ids, held, parameters=parameters)


WORK = "counting"
"""The directory, in that of the model, where a count keeps what it has done so far."""


def was_stopped(directory: Path) -> bool:
    """Whether a count was begun in this directory and is still to be finished."""
    return (directory / WORK).is_dir() and not (directory / "config.json").exists()


def count_to_directory(
    directory: Path,
    corpus: Corpus,
    split: Split,
    *,
    order: int,
    smoothing: str,
    memory: int,
    processes: int = 1,
    progress: Progress | None = None,
) -> Estimator:
    """Counts the training part of a corpus and keeps it as a model; see `count_past_memory`.

    What is done is kept in `counting/` until the model is whole, so that a count that was stopped goes on.

    Args:
        directory: of the model, locked by the caller.
        corpus: best with its ids mapped.
        split: which of them train.
        order: characters of history, 0 to 32.
        smoothing: as `--smoothing` takes it; its parameter is tuned where it has one.
        memory: bytes, of all processes together.
        processes: how many share the work.
        progress: told how far the work is.
    """
    parts, work = corpus.parts(split), directory / WORK
    bounded = partial(
        count_past_memory,
        corpus.ids,
        symbols=len(corpus.vocab),
        order=order,
        memory=memory,
        processes=processes,
        identity=_identity(corpus),
    )
    parameters = _parameters_past_memory(corpus, parts, smoothing, order, partial(bounded, directory=work / "tuning"))
    shared_N = shared_context(parts["train"], parts)
    tables = bounded(parts["train"], shared_N=shared_N, directory=work / "text", progress=progress)
    estimator = make_estimator(smoothing, tables, order, **parameters)
    _publish(directory, estimator, corpus, split)
    return estimator


def _identity(corpus: Corpus) -> str:
    """What tells these ids from all others: the text, how it was read, the vocabulary."""
    about = [corpus.sha256, corpus.reading.to_json(), corpus.vocab.to_json()]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _parameters_past_memory(
    corpus: Corpus, parts: Mapping[str, Spans], smoothing: str, order: int, bounded: Any
) -> dict[str, Any]:
    """The estimator's parameter, tuned as it is in memory."""
    if smoothing not in TUNED:
        return {}
    counted, tuned = tuning_parts(parts)
    if not count_targets(tuned):
        return {}
    return tune(smoothing, bounded(counted, shared_N=shared_context(counted, parts)), order, corpus.ids, tuned)


def _publish(directory: Path, estimator: Estimator, corpus: Corpus, split: Split) -> None:
    """Puts the tables in their places; `config.json` comes last, and makes them a model."""
    work = directory / WORK
    try:
        for path in sorted((work / "text").glob("level-*.npy")):
            os.replace(path, directory / path.name)
        write_json(directory / "vocab.json", corpus.vocab.to_json())
        files = fingerprints(directory)
        write_config(directory, "ngram", describe_ngram(estimator), TextFacts.of(corpus, split), files=files)
        shutil.rmtree(work)
    except StorageError:
        raise
    except OSError as error:
        raise unwritten(directory, error) from None


def ngram(text: Text, *, order: int = 4, smoothing: str = "none") -> NGramLM:
    """Counts an n-gram model of the training part of a text."""
    assert text.split is not None
    model = count(text.corpus, text.parts, order=order, smoothing=smoothing)
    model.source = TextFacts.of(text.corpus, text.split)
    return model
