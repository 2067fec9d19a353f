"""Scoring a text at many n-gram orders in one pass: every order takes one step from the order below.

Axes: N places of a text, T targets, V symbols.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.models.counted import Contexts, Counted, Estimator, Floats, check_order, total_of
from charlm.models.estimators import make_estimator, read_spans
from charlm.models.kneser_ney import Interpolated, Weights
from charlm.models.rows import Row
from charlm.text.index import SuffixIndex
from charlm.text.levels import UNSEEN, Levels, Nodes
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, Vocab

__all__ = ["ngram_rows", "train_nats"]

_CELLS = 1 << 22  # numbers in one block of rows


def ngram_rows(
    index: SuffixIndex,
    vocab: Vocab,
    estimator_name: str,
    orders: Sequence[int],
    ids: Ids,
    spans: Spans,
    *,
    parameters: Mapping[int, Mapping[str, Any]] | None = None,
    hits: bool = True,
    training: bool = True,
) -> Iterator[Row]:
    """What n-gram models of several orders say about the targets of a text, from one index in one pass.

    Args:
        index: of the training part.
        vocab: of text and index.
        estimator_name: as `--smoothing` takes it.
        orders: characters of history, each 0 to 32; rows come in ascending order.
        ids: of the text; -1 for an unknown character.
        spans: of the part to score.
        parameters: of the estimator, by order.
        hits: whether `hit_T` is wanted; it takes most of the time of the interpolated estimators.
        training: whether `train_nats` is wanted.
    """
    if index.symbols != len(vocab):
        raise OptionError(f"the index is for {index.symbols} symbols, the vocabulary has {len(vocab)}")
    wanted = sorted({check_order(order) for order in orders})
    chosen = {order: dict((parameters or {}).get(order, {})) for order in wanted}
    if not wanted:
        return
    if estimator_name in ("none", "add-k", "uniform-mix"):
        steps = _counted_steps(estimator_name, index, chosen, ids, spans)
    else:
        steps = _interpolated_steps(estimator_name, index, chosen, ids, spans, hits=hits)
    since = time.perf_counter()
    for estimator, logp_T, hit_T in steps:
        level = index.levels[estimator.order]
        nats = train_nats(estimator) if training else None
        now = time.perf_counter()
        yield Row(
            name=f"{estimator.title}, order {estimator.order}",
            family="ngram",
            logp_T=logp_T,
            hit_T=hit_T,
            order=estimator.order,
            smoothing=estimator.name,
            ngrams=level.events,
            bytes=index.nbytes,
            train_nats=nats,
            seconds=now - since,
        )
        since = time.perf_counter()


_Step = tuple[Estimator, Floats, NDArray[np.bool_]]


def _walk(
    levels: Levels, top: int, ids_N: NDArray[np.int64], age_N: NDArray[np.int64]
) -> Iterator[tuple[Nodes, Nodes]]:
    """For each order 0..top the history before each target, and the event that the target makes with it."""
    targets = np.flatnonzero(age_N > 1)
    node_N = np.zeros(len(ids_N), dtype=np.int32)
    for order in range(top + 1):
        before_N = np.zeros_like(node_N)
        if order:
            before_N[1:] = node_N[:-1]
            before_N[age_N <= order] = UNSEEN
        node_N = levels[order].child(before_N, ids_N)
        yield before_N[targets], node_N[targets]


def _log(p_T: Floats, target_T: NDArray[np.int64]) -> Floats:
    with np.errstate(divide="ignore"):
        return np.where(target_T >= 0, np.log(p_T), np.nan)


def _counted_steps(
    name: str, index: SuffixIndex, chosen: Mapping[int, Mapping[str, Any]], ids: Ids, spans: Spans
) -> Iterator[_Step]:
    """Orders that look at one level each; a target with less history keeps what its shorter history gave."""
    ids_N, age_N = read_spans(ids, spans)
    read_T, target_T = age_N[age_N > 1] - 1, ids_N[age_N > 1]
    count_T, total_T, best_T = (np.zeros(len(read_T), dtype=np.int64) for _ in range(3))
    longest = any(parameters.get("longest") for parameters in chosen.values())
    for order, (history_T, event_T) in enumerate(_walk(index.levels, max(chosen), ids_N, age_N)):
        level = index.levels[order]
        total = total_of(level, history_T)
        now = total > 0 if longest else read_T >= order
        count_T = np.where(now, np.where(event_T >= 0, level.count_E[event_T], 0), count_T)
        total_T = np.where(now, total, total_T)
        best_T = np.where(now, level.id_E[level.best_H[history_T]], best_T)
        if order in chosen:
            estimator = make_estimator(name, index, order, **{**chosen[order], "longest": longest})
            assert isinstance(estimator, Counted)
            unseen = (
                -1 if name == "none" else 0
            )  # elsewhere all are equal, and the lowest id is the first of them
            hit_T = np.where(total_T > 0, best_T, unseen) == target_T
            yield estimator, _log(estimator.of_counts(count_T, total_T), target_T), hit_T & (target_T >= 0)


def _interpolated_steps(
    name: str,
    index: SuffixIndex,
    chosen: Mapping[int, Mapping[str, Any]],
    ids: Ids,
    spans: Spans,
    *,
    hits: bool,
) -> Iterator[_Step]:
    """Orders that are mixed with all below: one more level of weights each."""
    ids_N, age_N = read_spans(ids, spans)
    read_T, target_T = age_N[age_N > 1] - 1, ids_N[age_N > 1]
    p_T = np.full(len(read_T), 1 / index.symbols)
    histories: list[Nodes] = []
    lower: list[Weights] = []
    for order, (history_T, event_T) in enumerate(_walk(index.levels, max(chosen), ids_N, age_N)):
        histories.append(history_T)
        if order in chosen:
            estimator = make_estimator(name, index, order, **chosen[order])
            assert isinstance(estimator, Interpolated)
            top = estimator.weights(order, top=True)
            top_T = np.where(read_T >= order, _mixed(p_T, top, history_T, event_T), p_T)
            hit_T = np.zeros(len(read_T), dtype=np.bool_)
            if hits:
                best_T = _best(estimator, [*lower, top], Contexts(nodes=histories, read_N=read_T))
                hit_T = (best_T == target_T) & (target_T >= 0)
            yield estimator, _log(top_T, target_T), hit_T
        if order < max(chosen):
            family = make_estimator(name, index, order + 1, **chosen.get(order, {}))
            assert isinstance(family, Interpolated)
            lower.append(family.make_weights(order, top=False))
            p_T = _mixed(p_T, lower[-1], history_T, event_T)


def _mixed(p_T: Floats, weights: Weights, history_T: Nodes, event_T: Nodes) -> Floats:
    return np.asarray(p_T * weights.left[history_T] + weights.share[event_T])


def _best(estimator: Interpolated, weights: Sequence[Weights], contexts: Contexts) -> NDArray[np.int64]:
    """The most probable symbol of each context, the lower id among equals, a block of rows at a time."""
    size = len(contexts.read_N)
    best_T = np.empty(size, dtype=np.int64)
    block = max(1, _CELLS // estimator.symbols)
    for begin in range(0, size, block):
        some = contexts.some(slice(begin, begin + block))
        p_NV = np.full((len(some.read_N), estimator.symbols), 1 / estimator.symbols)
        for order, part in enumerate(weights):
            estimator.add_level(p_NV, some, order, part)
        best_T[begin : begin + block] = p_NV.argmax(1)
    return best_T


def train_nats(estimator: Estimator) -> float:
    """Nats a character on the training part itself, read off the index: how much of the text a model knows by
    heart.

    Every target with a full history is one occurrence of an event of the highest level; those near a span's
    beginning are read along it. NaN where the training part has no target.
    """
    levels, top = estimator.levels, estimator.order
    total, targets = 0.0, 0
    openings = levels.openings(top)
    for order in range(1, top):
        node = openings[order + 1]
        if len(node):
            total += float(np.log(estimator.event_probabilities(order, top=False)[node]).sum())
            targets += len(node)
    logp_E = np.log(estimator.event_probabilities(top, top=True))
    count_E = levels[top].count_E.astype(np.float64)
    if top == 0:
        count_E -= np.bincount(openings[1], minlength=len(count_E))  # first characters are no targets
    total += float((count_E * logp_E).sum())
    targets += int(count_E.sum())
    return -total / targets if targets else float("nan")
