"""Scoring a text at many n-gram orders in one pass: every order takes one step from the order below.

Axes: N places of a text, T targets, V symbols.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.lm.evaluate import Row
from charlm.ngrams.counted import Counted, Estimator, Floats, check_order
from charlm.ngrams.estimators import TUNED, make_estimator, read_spans
from charlm.ngrams.kneser_ney import Interpolated, Weights
from charlm.ngrams.levels import Counts, Nodes, pick
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, Vocab

_COUNTED = ("none", *TUNED)
_Step = tuple[int, Estimator, Floats, NDArray[np.bool_]]


def ngram_rows(
    index: Counts,
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

    A row's `seconds` are those of its order; of the interpolated estimators, whose orders share most of the work,
    the mean over all orders.

    Args:
        index: of the training part.
        vocab: of text and index.
        estimator_name: as `--smoothing` takes it.
        orders: characters of history, each 0 to 32; rows come in ascending order.
        ids: of the text; -1 for an unknown character.
        spans: of the part to score.
        parameters: of the estimator, by order.
        hits: whether `hit_T` is wanted; without it all are False.
        training: whether `train_nats` is wanted.
    """
    if index.symbols != len(vocab):
        raise OptionError(f"the index is for {index.symbols} symbols, the vocabulary has {len(vocab)}")
    wanted = sorted({check_order(order) for order in orders})
    chosen = {order: dict((parameters or {}).get(order, {})) for order in wanted}
    if not wanted:
        return
    if estimator_name in _COUNTED:
        steps = _counted_steps(estimator_name, index, chosen, ids, spans)
    else:
        made = [make_estimator(estimator_name, index, order, **parameters) for order, parameters in chosen.items()]
        assert isinstance(made[-1], Interpolated)  # the one of the highest order has the weights of all
        steps = _interpolated_steps(made[-1], wanted, ids, spans, hits=hits)
    since = time.perf_counter()
    rows: Iterable[Row] = (_row(step, index, training=training) for step in steps)
    if estimator_name not in _COUNTED:  # most of their time goes into what all orders share
        rows = list(rows)
        mean = (time.perf_counter() - since) / len(rows)
        yield from (replace(row, seconds=mean) for row in rows)
        return
    for row in rows:
        yield replace(row, seconds=time.perf_counter() - since)
        since = time.perf_counter()


def _row(step: _Step, index: Counts, *, training: bool) -> Row:
    order, estimator, logp_T, hit_T = step
    return Row(
        name=f"{estimator.title}, order {order}",
        family="ngram",
        is_baseline=True,
        logp_T=logp_T,
        hit_T=hit_T,
        order=order,
        smoothing=estimator.name,
        ngrams=index.levels[order].events,
        bytes=index.nbytes,
        train_nats=train_nats(estimator, order) if training else None,
    )


def _log(p_T: Floats, target_T: NDArray[np.int64]) -> Floats:
    with np.errstate(divide="ignore"):
        return np.where(target_T >= 0, np.log(p_T), np.nan)


def _counted_steps(
    name: str, index: Counts, chosen: Mapping[int, Mapping[str, Any]], ids: Ids, spans: Spans
) -> Iterator[_Step]:
    """Orders that look at one level each; a target with less history keeps what its shorter history gave."""
    ids_N, age_N = read_spans(ids, spans)
    targets = np.flatnonzero(age_N > 1)
    read_T, target_T = age_N[targets] - 1, ids_N[targets]
    count_T, total_T, best_T = (np.zeros(len(read_T), dtype=np.int64) for _ in range(3))
    longest = any(parameters.get("longest") for parameters in chosen.values())
    for order, nodes in enumerate(index.levels.walk(ids_N, age_N, max(chosen) + 1)):
        history_T, event_T = (node_N[targets] for node_N in nodes)
        level = index.levels[order]
        total = pick(level.total_H, history_T)
        now = total > 0 if longest else read_T >= order
        count_T = np.where(now, pick(level.count_E, event_T), count_T)
        total_T = np.where(now, total, total_T)
        best_T = np.where(now, pick(level.id_E, pick(level.best_H, history_T)), best_T)
        if order in chosen:
            estimator = make_estimator(name, index, order, **{**chosen[order], "longest": longest})
            assert isinstance(estimator, Counted)
            unseen = -1 if name == "none" else 0  # elsewhere all are equal, and the lowest id is the first of them
            hit_T = np.where(total_T > 0, best_T, unseen) == target_T
            logp_T = _log(estimator.of_counts(count_T, total_T), target_T)
            yield order, estimator, logp_T, hit_T & (target_T >= 0)


def _interpolated_steps(
    family: Interpolated, orders: Sequence[int], ids: Ids, spans: Spans, *, hits: bool
) -> Iterator[_Step]:
    """Orders that are mixed with all below: one more level of weights each."""
    ids_N, age_N = read_spans(ids, spans)
    targets = np.flatnonzero(age_N > 1)
    read_T, target_T = age_N[targets] - 1, ids_N[targets]
    p_T = np.full(len(read_T), 1 / family.symbols)
    best = _Best(id_T=np.zeros(len(read_T), dtype=np.int64), p_T=p_T)
    for order, nodes in enumerate(family.levels.walk(ids_N, age_N, orders[-1] + 1)):
        history_T, event_T = (node_N[targets] for node_N in nodes)
        short_T = read_T <= order  # nothing longer was read: this is the highest order for these targets
        top_T, top_best = p_T, best
        if order in orders or short_T.any():
            top_T = _mixed(p_T, family.weights(order, top=True), history_T, event_T)
            top_best = best.above(family, order, history_T, top=True) if hits else best
        if order in orders:
            yield order, family, _log(top_T, target_T), (top_best.id_T == target_T) & (target_T >= 0) & hits
        if order < orders[-1]:
            p_T = np.where(short_T, top_T, _mixed(p_T, family.weights(order, top=False), history_T, event_T))
            best = best.above(family, order, history_T, top=False).where(short_T, top_best) if hits else best


def _mixed(p_T: Floats, weights: Weights, history_T: Nodes, event_T: Nodes) -> Floats:
    return np.asarray(p_T * weights.left[history_T] + weights.share[event_T])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Best:
    """The most probable symbol of each context, the lowest id among equals, and its probability.

    One order higher it is an event of the longer history, or the same symbol as before: every symbol that
    never followed the longer history keeps its probability times one factor.
    """

    id_T: NDArray[np.int64]
    p_T: Floats

    def above(self, family: Interpolated, order: int, history_T: Nodes, *, top: bool) -> _Best:
        """The same one order higher."""
        most_H, id_H = family.best_children(order, top=top)
        most_T, id_T = most_H[history_T], id_H[history_T]
        kept_T = self.p_T * family.weights(order, top=top).left[history_T]
        new_T = (most_T > kept_T) | ((most_T == kept_T) & (id_T < self.id_T))
        return _Best(id_T=np.where(new_T, id_T, self.id_T), p_T=np.where(new_T, most_T, kept_T))

    def where(self, which_T: NDArray[np.bool_], other: _Best) -> _Best:
        """The other's entries at some targets, and these at the rest."""
        return _Best(id_T=np.where(which_T, other.id_T, self.id_T), p_T=np.where(which_T, other.p_T, self.p_T))


def train_nats(estimator: Estimator, order: int) -> float:
    """Nats a character on the training part itself, read off the index: how much of the text a model knows by heart.

    Every target with a full history is one occurrence of an event of the highest level; those near a span's
    beginning are read along it. NaN where the training part has no target.

    Args:
        estimator: of this order or a higher one.
        order: of the model.
    """
    levels, total, targets = estimator.levels, 0.0, 0
    openings = levels.openings(order)
    for shorter in range(1, order):
        p_start = estimator.event_probabilities(shorter, top=True, events=openings[shorter + 1])
        total += float(np.log(p_start).sum())
        targets += len(p_start)
    count_E = levels[order].count_E.astype(np.int64)
    if order == 0:  # first characters are no targets; those that are context alone are not in the counts either
        count_E = count_E + levels.context_V[levels[0].id_E] - np.bincount(openings[1], minlength=len(count_E))
    some = count_E > 0
    logp_E = np.log(estimator.event_probabilities(order, top=True)[some])
    total += float((count_E[some] * logp_E).sum())
    targets += int(count_E.sum())
    return -total / targets if targets else float("nan")
