"""What the parameters of n-gram models are tuned on: never the part that is reported."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from charlm.text.splits import Spans, count_targets

__all__ = ["TUNED", "tuning_parts"]

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
