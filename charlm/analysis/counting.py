"""Making n-gram models of a text under a split: what is counted, and what their parameters are tuned on.

Nothing is chosen on the part that is reported. Where there is a test part, parameters are tuned on the valid part;
where there is none, on the last twentieth of the training part, by counts of the rest of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from charlm.analysis.tuning import TUNED, tuning_parts
from charlm.models.estimators import make_estimator, tune
from charlm.models.ngram import NGramLM
from charlm.models.ngram_rows import ngram_rows
from charlm.models.rows import Row
from charlm.text.corpus import Corpus
from charlm.text.index import SuffixIndex
from charlm.text.splits import Spans, count_targets

__all__ = ["TUNED", "best_order", "count", "counted_rows", "tuning_parts"]


def _parameters(
    corpus: Corpus, parts: Mapping[str, Spans], smoothing: str, orders: Iterable[int]
) -> dict[int, dict[str, Any]]:
    if smoothing not in TUNED:
        return {}
    counted, tuned = tuning_parts(parts)
    if not count_targets(tuned):
        return {}
    index = SuffixIndex.build(corpus.ids, counted, symbols=len(corpus.vocab))
    return {order: tune(smoothing, index, order, corpus.ids, tuned) for order in orders}


def count(corpus: Corpus, parts: Mapping[str, Spans], *, order: int, smoothing: str = "none") -> NGramLM:
    """An n-gram model of the training part, its parameter tuned where it has one."""
    parameters = _parameters(corpus, parts, smoothing, [order]).get(order, {})
    index = SuffixIndex.build(corpus.ids, parts["train"], symbols=len(corpus.vocab))
    estimator = make_estimator(smoothing, index, order, **parameters)
    return NGramLM(vocab=corpus.vocab, index=index, order=order, estimator=estimator)


def best_order(corpus: Corpus, parts: Mapping[str, Spans], *, orders: list[int], smoothing: str) -> int:
    """The order with the lowest nats on the spans to tune on, of which none is reported."""
    counted, tuned = tuning_parts(parts)
    index = SuffixIndex.build(corpus.ids, counted, symbols=len(corpus.vocab))
    rows = ngram_rows(index, corpus.vocab, smoothing, orders, corpus.ids, tuned, hits=False, training=False)
    nats = {row.order: -float(row.logp_T.mean()) for row in rows}
    return min(orders, key=lambda order: nats[order])


def counted_rows(
    corpus: Corpus, parts: Mapping[str, Spans], held: Spans, *, orders: list[int], smoothings: Iterable[str]
) -> Iterator[Row]:
    """The rows of n-gram models of several orders and smoothings over held-out spans, from one index."""
    index = SuffixIndex.build(corpus.ids, parts["train"], symbols=len(corpus.vocab))
    for smoothing in smoothings:
        parameters = _parameters(corpus, parts, smoothing, orders)
        yield from ngram_rows(index, corpus.vocab, smoothing, orders, corpus.ids, held, parameters=parameters)
