"""The estimators by name, the choice of their parameters on a validation part, and a text scored at many orders.

All orders are scored in one pass: every order takes one step from the order below. Axes: N places of a text, T targets,
V symbols, P pairs of counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.ngrams.counted import AddK, Contexts, Counted, Estimator, Floats, MaximumLikelihood, UniformMix, check_order
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.kneser_ney import Interpolated, KneserNey, Weights, WittenBell
from charlm.ngrams.levels import Counts, Nodes, pick
from charlm.ngrams.strings import added_up
from charlm.text.corpus import Corpus
from charlm.text.splits import Spans, count_targets, read_spans
from charlm.text.vocab import Ids, Vocab

if TYPE_CHECKING:  # it imports torch, which a count within a memory limit does without
    from charlm.lm.evaluate import Row

_CLASSES: tuple[type[Estimator], ...] = (MaximumLikelihood, AddK, UniformMix, WittenBell, KneserNey)

ESTIMATORS = tuple(cls.name for cls in _CLASSES)
"""The names that `--smoothing` takes."""

TUNED = ("add-k", "uniform-mix")
"""Those that have a parameter of their own to choose."""


def make_estimator(name: str, index: Counts, order: int, **parameters: Any) -> Estimator:
    """The estimator of a name.

    Args:
        name: one of `ESTIMATORS`.
        index: of the training text.
        order: characters of history, 0 to 32.
        parameters: `k` of add-k, `weight` of uniform-mix, and `longest` of these two and of none (use the
            longest history that was ever followed, instead of exactly `order` characters).

    Raises:
        OptionError: an unknown name, a parameter that the estimator does not take, or a value it refuses.

    >>> from charlm.ngrams.index import SuffixIndex
    >>> index = SuffixIndex.build(np.array([0, 1, 0]), np.array([[0, 3]]), symbols=2)
    >>> make_estimator("add-k", index, 2, k=0.5).parameters()
    {'k': 0.5, 'longest': False}
    """
    if name not in ESTIMATORS:
        raise OptionError(f"unknown smoothing {name!r}: choose one of {', '.join(ESTIMATORS)}")
    made = _CLASSES[ESTIMATORS.index(name)]
    unknown = sorted(set(parameters) - set(made.takes))
    if unknown:
        rule = f"takes {' and '.join(made.takes)}" if made.takes else "takes no parameters"
        raise OptionError(f"the estimator {name} {rule}, not {', '.join(unknown)}")
    for key, value in parameters.items():
        if not isinstance(value, bool if key == "longest" else int | float) or (key != "longest" and value is True):
            raise OptionError(f"the parameter {key} of {name} cannot be {value!r}")
    return made(index, order, **parameters)


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


def tune(name: str, index: Counts, order: int, ids: Ids, spans: Spans) -> dict[str, Any]:
    """The parameters with the lowest nats on the spans of a validation part; empty for estimators without any.

    Args:
        name: of the estimator; add-k chooses k from 1e-9 to 1e3, uniform-mix its weight from 1e-6 to 1 - 1e-6.
        index: of the training part.
        order: characters of history.
        ids: of the text.
        spans: of the validation part, never of the part that is reported.

    >>> from charlm.ngrams.index import SuffixIndex
    >>> index = SuffixIndex.build(np.array([0, 1] * 8), np.array([[0, 16]]), symbols=2)
    >>> ids, spans = np.array([0, 1, 0, 1, 1]), np.array([[0, 5]])
    >>> round(tune("uniform-mix", index, 1, ids, spans)["weight"], 4)  # 1 of 4 surprises
    0.5
    """
    if name not in TUNED:
        return {}
    estimator = make_estimator(name, index, order)
    assert isinstance(estimator, Counted)
    count_P, total_P, times_P = _counts(estimator, ids, spans)
    if not len(count_P):
        raise OptionError("the validation part has no character to tune on: use another --split")

    def nats(value: float, key: str) -> float:
        tried = make_estimator(name, index, order, **{key: value})
        assert isinstance(tried, Counted)
        return float(-(times_P * np.log(tried.of_counts(count_P, total_P))).sum() / times_P.sum())

    if name == "add-k":
        return {"k": math.exp(_lowest(lambda x: nats(math.exp(x), "k"), math.log(1e-9), math.log(1e3)))}
    return {"weight": _sigmoid(_lowest(lambda x: nats(_sigmoid(x), "weight"), -13.8, 13.8))}


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _counts(estimator: Counted, ids: Ids, spans: Spans) -> tuple[Floats, Floats, Floats]:
    """Returns the P different pairs of (count of a target after its history, count of the history), and how many
    targets of the spans have each pair. The text is read in stretches, as it may be larger than memory.
    """
    found = added_up([np.zeros(0, dtype=np.uint64) for _ in range(2)])
    for start, end, read, new in _stretches(spans, max(1, estimator.order)):
        ids_N, place_N = read_spans(ids, np.stack([start, end], axis=1))
        age_N = place_N + np.repeat(read, end - start)
        targets = np.flatnonzero((age_N > 1) & (ids_N >= 0) & (place_N > np.repeat(new, end - start)))
        nodes = estimator.levels.nodes(ids_N, age_N, estimator.order)
        contexts = Contexts(nodes=nodes, read_N=age_N).some(targets - 1)
        found_N = estimator.target_counts(contexts, ids_N[targets])
        pairs = added_up([numbers_N.astype(np.uint64) for numbers_N in found_N])
        words = [np.concatenate(both) for both in zip(found.words, pairs.words, strict=True)]
        found = added_up(words, np.concatenate([found.counts, pairs.counts]))
    count_P, total_P = (word.astype(np.float64) for word in found.words)
    return count_P, total_P, found.counts.astype(np.float64)


def _stretches(spans: Spans, overlap: int, size: int = 1 << 17) -> Iterator[NDArray[np.int64]]:
    """Cuts spans into overlapping pieces and yields about `size` symbols of them at a time, as four rows: the start and
    end of each piece, how many symbols of its span stand before it, and how many of its first are history alone.

    >>> [rows.tolist() for rows in _stretches(np.array([[0, 5]]), 1, 3)]
    [[[0], [3], [0], [0]], [[2], [5], [2], [1]]]
    """
    found: list[tuple[int, int, int, int]] = []
    held = 0
    for start, end in spans.tolist():
        for at in range(start, end, size):
            begin = max(start, at - overlap)
            found.append((begin, min(at + size, end), begin - start, at - begin))
            held += found[-1][1] - begin
            if held >= size:
                yield np.array(found).T
                found, held = [], 0
    if found:
        yield np.array(found).T


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest: golden-section search (Kiefer 1953), to 1e-4."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-4:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def index_of(corpus: Corpus, spans: Spans, parts: Mapping[str, Spans]) -> SuffixIndex:
    """The index of a part, or of pieces of it."""
    shared_N = corpus.shared_context(spans, parts)
    return SuffixIndex.build(corpus.ids, spans, symbols=len(corpus.vocab), shared_N=shared_N)


def best_order(corpus: Corpus, parts: Mapping[str, Spans], *, orders: list[int], smoothing: str) -> int:
    """The order with the lowest nats on the spans to tune on, of which none is reported."""
    counted, tuned = tuning_parts(parts)
    index = index_of(corpus, counted, parts)
    rows = ngram_rows(index, corpus.vocab, smoothing, orders, corpus.ids, tuned, hits=False, training=False)
    nats = {row.order: -float(row.logp_T.mean()) for row in rows}
    return min(orders, key=lambda order: nats[order])


# -- many orders in one pass -------------------------------------------------------------------------------------------

_COUNTED = ("none", *TUNED)
_Step = tuple[int, Estimator, Floats, NDArray[np.bool_]]


def ngram_rows(
    index: Counts, vocab: Vocab, estimator_name: str, orders: Sequence[int], ids: Ids, spans: Spans, *,
    parameters: Mapping[int, Mapping[str, Any]] | None = None, hits: bool = True, training: bool = True,
) -> Iterator[Row]:  # fmt: skip
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
        training: whether `Estimator.train_nats` is wanted.
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
    from charlm.lm.evaluate import Row

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
        train_nats=estimator.train_nats(order) if training else None,
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
