"""The estimators by name, the choice of their parameters on a validation part, and sampling from maximum likelihood.

Sampling needs no distribution: the occurrences of a history are neighbours in the sorted order of the index, and sorted
by what follows, so the occurrence number floor(noise · total) is the draw that inverts the cumulative distribution.

Axes: T steps, B lanes, H histories, E events, P places in the sorted order.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.files import fingerprint, storage_errors, write_config, write_json
from charlm.ngrams.counted import AddK, Contexts, Counted, Estimator, Floats, MaximumLikelihood, UniformMix
from charlm.ngrams.kneser_ney import KneserNey, WittenBell
from charlm.ngrams.levels import Counts, pick, slices
from charlm.ngrams.strings import added_up
from charlm.ngrams.tables import CountTables
from charlm.text.splits import Spans, count_targets
from charlm.text.text import TextFacts
from charlm.text.vocab import Ids, Vocab

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


def read_spans(ids: Ids, spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The symbols of all spans one after the other, and for each how many of its span were read with it.

    >>> ids, age = read_spans(np.array([7, 8, 9, 7]), np.array([[0, 2], [3, 4]]))
    >>> ids.tolist(), age.tolist()
    ([7, 8, 7], [1, 2, 1])
    """
    lengths = spans[:, 1] - spans[:, 0]
    begins = np.cumsum(lengths) - lengths
    within = np.arange(int(lengths.sum())) - np.repeat(begins, lengths)
    return ids[np.repeat(spans[:, 0], lengths) + within].astype(np.int64), within + 1


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


def describe_ngram(estimator: Estimator) -> dict[str, Any]:
    """What `NGramLM.config` says of a model with this estimator; `tables` where it was counted past memory."""
    index = estimator.index
    return {
        "order": estimator.order,
        "smoothing": estimator.name,
        "parameters": estimator.parameters(),
        "characters": len(index),
        **({"tables": True} if isinstance(index, CountTables) else {}),
    }


def fingerprints(directory: Path) -> dict[str, str]:
    """The fingerprint of every file of an n-gram model's counts."""
    files = sorted([*directory.glob("index-*.npy"), *directory.glob("level-*.npy")])
    return {path.name: fingerprint(path) for path in files}


_FEW = 16  # lanes followed one by one


def can_draw(estimator: Estimator, contexts: Contexts) -> bool:
    """Whether every lane has read a full history, and one that was followed by something."""
    order = estimator.order
    if isinstance(estimator.index, CountTables):
        return False  # tables know of no places
    if order == 0 and estimator.levels.context_V.any():
        return False  # a symbol that is context alone has a place, and is no event
    full = bool((contexts.read_N >= order).all())
    return full and bool((pick(estimator.levels[order].total_H, contexts.nodes[order]) > 0).all())


def draw_occurrences(
    estimator: Estimator, contexts: Contexts, noise_TB: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draws symbols until the noise is used up or a lane comes to a history that nothing follows.

    Args:
        estimator: maximum likelihood.
        contexts: for which `can_draw` holds.
        noise_TB: numbers in [0, 1).

    Returns:
        The ids and log-probabilities of the steps made, at least one where there is noise; each [steps, B].
    """
    level, links = estimator.levels[estimator.order], _links(estimator)
    walk = _walk_one_by_one if noise_TB.shape[1] <= _FEW else _walk
    place_TB = walk(links, contexts.nodes[estimator.order], noise_TB)
    event_TB = np.searchsorted(level.place_E, place_TB, side="right") - 1
    logp_TB = np.log(level.count_E[event_TB] / level.total_H[level.history_E[event_TB]])
    return level.id_E[event_TB].astype(np.int64), logp_TB


_Links = tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]
"""For each history, how many of its occurrences are followed by anything and the place of the first; for each place in
the sorted order, the history one symbol later, which is arbitrary where nothing follows."""


def _links(estimator: Estimator) -> _Links:
    """The links of an estimator, which are made once and kept with it."""
    kept: _Links | None = estimator.__dict__.get("_links")
    if kept is None:
        level, order = estimator.levels[estimator.order], estimator.order
        after_P = np.zeros(len(estimator.index), dtype=np.int32)
        if order:
            after_E = estimator.levels.suffix(order)
            after_P[slices(level.place_E, level.count_E)] = np.repeat(after_E, level.count_E)
        place_H = np.append(level.place_E, 0)[level.first_H[:-1]].astype(np.int32)
        kept = estimator.__dict__["_links"] = (level.total_H.astype(np.float64), place_H, after_P)
    return kept


def _walk(links: _Links, node_B: NDArray[np.int32], noise_TB: NDArray[np.float64]) -> NDArray[np.int32]:
    """The places drawn, [steps, B]."""
    total_H, place_H, after_P = links
    place_TB = np.empty(noise_TB.shape, dtype=np.int32)
    for step, noise_B in enumerate(noise_TB):
        total_B = total_H[node_B]
        if not total_B.all():
            return place_TB[:step]
        number_B = (noise_B * total_B).astype(np.int32)
        place_B = np.add(place_H[node_B], number_B, out=place_TB[step])
        node_B = after_P[place_B]
    return place_TB


def _walk_one_by_one(links: _Links, node_B: NDArray[np.int32], noise_TB: NDArray[np.float64]) -> NDArray[np.int32]:
    """The same, lane by lane: quicker for a few."""
    total, place, after = (array.data for array in links)  # items of a view come quicker than an array's
    steps, lanes = len(noise_TB), []
    for node, noise in zip(node_B.tolist(), noise_TB.T.tolist(), strict=True):
        drawn: list[int] = []
        for number in noise[:steps]:
            if not total[node]:
                break
            drawn.append(place[node] + int(number * total[node]))
            node = after[drawn[-1]]  # noqa: PLW2901
        steps = len(drawn)
        lanes.append(drawn)
    return np.array([drawn[:steps] for drawn in lanes], dtype=np.int32).T


WORK = "counting"
"""The directory, in that of the model, where a count keeps what it has done so far."""


def publish(directory: Path, estimator: Estimator, vocab: Vocab, facts: TextFacts) -> None:
    """Moves the tables into the model's directory and writes `config.json` last, which makes it a model."""
    work = directory / WORK
    with storage_errors(directory):
        for path in sorted((work / "text").glob("level-*.npy")):
            os.replace(path, directory / path.name)
        write_json(directory / "vocab.json", vocab.to_json())
        marks = {"files": fingerprints(directory), "vocab_sha256": vocab.sha256}
        write_config(directory, "ngram", describe_ngram(estimator), facts, **marks)
        shutil.rmtree(work)
