"""Rows: what one model says about every target of a text. Tables and reports are made of these alone.

One suffix index yields the rows of many orders at once, a network yields one; nobody downstream asks which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one model gave each of T targets, in the order of the text.

    Args:
        name: what a table calls the model, `maximum likelihood, order 4` or a directory's name.
        family: `ngram`, `rnn`, `mixture`, or `dynamic` for a network that goes on learning while it reads.
        logp_T: float64 natural logarithms; -inf where the model held the target impossible, NaN where the
            history was never seen and the model is undefined, or where the target is unknown.
        hit_T: bool; whether the target was the most probable symbol.
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
    order: int | None = None
    smoothing: str | None = None
    parameters: int | None = None
    ngrams: int | None = None
    bytes: int | None = None
    train_nats: float | None = None
    seconds: float | None = None
