"""Sampling from maximum likelihood without a distribution: draw one occurrence of the history, take what
followed it.

The occurrences of a history are neighbours in the sorted order and sorted by what follows, so the occurrence
number floor(noise · total) is the same draw as inverting the cumulative distribution. Axes: T steps, B lanes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.models.counted import Contexts, Estimator, total_of

__all__ = ["can_draw", "draw_occurrences"]


def can_draw(estimator: Estimator, contexts: Contexts) -> bool:
    """Whether every lane has read a full history, and one that was followed by something."""
    order = estimator.order
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
    order = estimator.order
    level = estimator.levels[order]
    total_H = level.total_H
    node_B = contexts.nodes[order]
    event_TB = np.empty(noise_TB.shape, dtype=np.int32)
    history_TB = np.empty(noise_TB.shape, dtype=np.int32)
    steps = 0
    while steps < len(noise_TB):
        total_B = total_H[node_B]
        if steps and not total_B.all():
            break
        number_B = np.minimum((noise_TB[steps] * total_B).astype(np.int32), total_B - 1)
        place_B = level.place_E[level.first_H[node_B]] + number_B.astype(np.int32)
        event_B = np.searchsorted(level.place_E, place_B, side="right") - 1
        event_TB[steps], history_TB[steps] = event_B, node_B
        node_B = estimator.levels.suffix(order)[event_B] if order else node_B
        steps += 1
    event_TB, history_TB = event_TB[:steps], history_TB[:steps]
    logp_TB = np.log(level.count_E[event_TB] / total_H[history_TB])
    return level.id_E[event_TB].astype(np.int64), logp_TB
