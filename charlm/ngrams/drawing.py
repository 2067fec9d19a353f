"""Sampling from maximum likelihood without computing a distribution.

The occurrences of a history are neighbours in the sorted order of the index, and sorted by what follows. The occurrence
number floor(noise · total) is therefore the same draw as inverting the cumulative distribution.

Axes: T steps, B lanes, H histories, E events, P places in the sorted order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.ngrams.counted import Contexts, Estimator, total_of
from charlm.ngrams.levels import slices
from charlm.ngrams.tables import CountTables

__all__ = ["can_draw", "draw_occurrences"]

_FEW = 16  # lanes followed one by one


def can_draw(estimator: Estimator, contexts: Contexts) -> bool:
    """Whether every lane has read a full history, and one that was followed by something."""
    order = estimator.order
    if isinstance(estimator.index, CountTables):
        return False  # tables know of no places
    if order == 0 and estimator.levels.context_V.any():
        return False  # a symbol that is context alone has a place, and is no event
    full = bool((contexts.read_N >= order).all())
    return full and bool((total_of(estimator.levels[order], contexts.nodes[order]) > 0).all())


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Links:
    """From a history to its occurrences, and from each to the history after it; P places in the sorted order.

    Args:
        total_H: float64, how many occurrences are followed by anything.
        place_H: int32, the first of them.
        after_P: int32, the history one symbol on; arbitrary where nothing follows.
    """

    total_H: NDArray[np.float64]
    place_H: NDArray[np.int32]
    after_P: NDArray[np.int32]


def _links(estimator: Estimator) -> _Links:
    """Made once for an estimator and kept with it."""
    kept: _Links | None = estimator.__dict__.get("_links")
    if kept is None:
        level, order = estimator.levels[estimator.order], estimator.order
        after_P = np.zeros(len(estimator.index), dtype=np.int32)
        if order:
            after_E = estimator.levels.suffix(order)
            after_P[slices(level.place_E, level.count_E)] = np.repeat(after_E, level.count_E)
        place_H = np.append(level.place_E, 0)[level.first_H[:-1]].astype(np.int32)
        kept = _Links(total_H=level.total_H.astype(np.float64), place_H=place_H, after_P=after_P)
        estimator.__dict__["_links"] = kept
    return kept


def _walk(links: _Links, node_B: NDArray[np.int32], noise_TB: NDArray[np.float64]) -> NDArray[np.int32]:
    """The places drawn, [steps, B]."""
    place_TB = np.empty(noise_TB.shape, dtype=np.int32)
    for step, noise_B in enumerate(noise_TB):
        total_B = links.total_H[node_B]
        if not total_B.all():
            return place_TB[:step]
        number_B = (noise_B * total_B).astype(np.int32)
        place_B = np.add(links.place_H[node_B], number_B, out=place_TB[step])
        node_B = links.after_P[place_B]
    return place_TB


def _walk_one_by_one(links: _Links, node_B: NDArray[np.int32], noise_TB: NDArray[np.float64]) -> NDArray[np.int32]:
    """The same, lane by lane: quicker for a few."""
    total: memoryview = links.total_H.data  # items of a view come quicker than an array's
    place, after = links.place_H.data, links.after_P.data
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
