"""Lanes and windows: how a training text is cut for truncated backpropagation through time.

All pairs (character, next character) of the training spans stand one after the other in a ring. An epoch cuts the
ring at an offset of its own into B contiguous lanes whose lengths differ by at most one, and reads all lanes
side by side in windows of T steps. Every pair is used exactly once an epoch, whatever B and T are; the ragged
end is masked. Where a lane enters another span (or passes the end of the text) its state is to be reset.

Axes: T steps, B lanes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError
from charlm.text.splits import Spans
from charlm.text.vocab import Ids

__all__ = ["Lanes", "Window"]

ALL = slice(None)


@dataclass(frozen=True, kw_only=True)
class Window:
    """T steps of all lanes, ready to be trained on.

    Args:
        inputs_TB: int64 ids read.
        targets_TB: int64 ids to predict, -1 where nothing is to be predicted (the ragged end).
        resets_TB: bool, true where a lane's state is set to zero before the step; None where that is nowhere.
        first: whether these are the first steps of an epoch, before which every lane's state is zero.
        count: how many targets there are.
    """

    inputs_TB: NDArray[np.int64]
    targets_TB: NDArray[np.int64]
    resets_TB: NDArray[np.bool_] | None
    first: bool
    count: int


class Lanes:
    """The windows of every epoch over the spans of a training part.

    Args:
        ids: the ids of the whole text.
        spans: the spans to train on.
        lanes: B; fewer are used where there are fewer pairs.
        window: T, steps a window.
        seed: decides where each epoch's lanes begin.

    >>> lanes = Lanes(np.arange(8), np.array([[0, 8]]), lanes=2, window=3)
    >>> lanes.windows_per_epoch  # 7 pairs in lanes of 4 and 3
    2
    >>> window = lanes.window_at(0, 1)
    >>> window.targets_TB.shape, window.count
    ((1, 2), 1)
    """

    def __init__(self, ids: Ids, spans: Spans, *, lanes: int, window: int, seed: int = 0) -> None:
        if lanes < 1 or window < 1:
            raise OptionError("training needs at least 1 lane (--batch-size) and windows of 1 step (--seq-length)")
        self.spans = spans[spans[:, 1] - spans[:, 0] > 1]
        if not len(self.spans):
            raise TextError("the training part has no character to predict: use a longer text or another --split")
        self._edges = np.concatenate([[0], np.cumsum(self.spans[:, 1] - self.spans[:, 0] - 1)])
        self.ids, self.window, self.seed = ids, window, seed
        self.lanes = min(lanes, self.pairs)

    @property
    def pairs(self) -> int:
        """How many targets an epoch has."""
        return int(self._edges[-1])

    @property
    def windows_per_epoch(self) -> int:
        """How many windows cover the longest lane."""
        return -(-self._longest // self.window)

    @property
    def _longest(self) -> int:
        return -(-self.pairs // self.lanes)

    def _offset(self, epoch: int) -> int:
        """Where in the ring the first lane of an epoch begins; the first epoch begins at the start of the text."""
        return 0 if epoch == 0 else int(np.random.default_rng([self.seed, epoch]).integers(self.pairs))

    def window_at(self, epoch: int, number: int, own: slice = ALL) -> Window:
        """Window 0, 1, ... of epoch 0, 1, ...; a function of these two numbers and the seed alone.

        Args:
            epoch, number: which.
            own: lanes to look at alone; the window is as long as that of all lanes.

        >>> lanes = Lanes(np.arange(8), np.array([[0, 8]]), lanes=2, window=3)
        >>> lanes.window_at(0, 0, slice(1, 2)).inputs_TB.ravel().tolist()
        [3, 4, 5]
        """
        edges_B = np.arange(self.lanes + 1) * self.pairs // self.lanes
        starts_B, ends_B = edges_B[:-1][own], edges_B[1:][own]
        t = np.arange(number * self.window, min((number + 1) * self.window, self._longest))
        place_TB = starts_B + t[:, None]
        inside_TB = place_TB < ends_B
        pair_TB = (place_TB + self._offset(epoch)) % self.pairs
        span_TB = np.searchsorted(self._edges, pair_TB, side="right") - 1
        position_TB = pair_TB - self._edges[span_TB] + self.spans[span_TB, 0]
        inputs_TB = self.ids[position_TB].astype(np.int64)
        targets_TB = np.where(inside_TB, self.ids[position_TB + 1].astype(np.int64), -1)
        resets_TB = pair_TB == self._edges[span_TB]
        if number == 0:
            resets_TB[0] = False  # the state is zero there anyway
        return Window(
            inputs_TB=inputs_TB,
            targets_TB=targets_TB,
            resets_TB=resets_TB if resets_TB.any() else None,
            first=number == 0,
            count=int(inside_TB.sum()),
        )
