"""Language modelling by truncated backpropagation through time: how the text is cut into windows, and the loss.

All pairs (character, next character) of the training spans stand one after the other in a ring. An epoch cuts the
ring at an offset of its own into B contiguous lanes whose lengths differ by at most one, and reads all lanes
side by side in windows of T steps. Every pair is used exactly once an epoch, whatever B and T are; the ragged
end is masked. Where a lane enters another span (or passes the end of the text) its state is to be reset.

Each step reads the next window of all lanes; the hidden state goes from window to window and is detached there, so
gradients end at the window while memory does not (Williams and Peng 1990). Axes: T steps, B lanes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import CharlmError, OptionError, TextError
from charlm.lm.evaluate import wide
from charlm.lm.interface import Segments, State, detach, lane_segments, pick_targets, read_segments
from charlm.nn.kernels import multiplying
from charlm.recurrent.model import CharRNN
from charlm.text.cache import give_back
from charlm.text.splits import Spans
from charlm.text.vocab import Ids
from charlm.training.distributed import ALONE, Processes
from charlm.training.interfaces import Objective

ALL = slice(None)
_MANY = 1000


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


class Ring:
    """All pairs (character, next character) of some spans, one after the other in a ring.

    Args:
        ids: the ids of the whole text.
        spans: of which each has one pair less than characters.
    """

    def __init__(self, ids: Ids, spans: Spans) -> None:
        self.ids, self.spans = ids, spans[spans[:, 1] - spans[:, 0] > 1]
        self._edges = np.concatenate([[0], np.cumsum(self.spans[:, 1] - self.spans[:, 0] - 1)])

    def __len__(self) -> int:
        return int(self._edges[-1])

    def read(self, place_TB: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Ids read, ids to predict, and whether a span begins there, of the pairs at these places of the ring."""
        pair_TB = place_TB % len(self)
        span_TB = np.searchsorted(self._edges, pair_TB, side="right") - 1
        position_TB = pair_TB - self._edges[span_TB] + self.spans[span_TB, 0]
        inputs_TB, targets_TB = (self.ids[position_TB + i].astype(np.int64) for i in (0, 1))
        give_back(self.ids, inputs_TB.size)
        return inputs_TB, targets_TB, pair_TB == self._edges[span_TB]


class Lanes:
    """The windows of every epoch over the spans of a training part.

    Args:
        ids: the ids of the whole text.
        spans: the spans to train on.
        lanes: B; fewer are used where there are fewer pairs.
        window: T, steps a window.
        seed: decides where each epoch's lanes begin.
        replay: an older text that is kept in the mix: the last lanes read it round and round, from places that are
            equally far apart, and go on from epoch to epoch.
        share: of the lanes that read it; at least one lane does, and at least one does not.

    >>> lanes = Lanes(np.arange(8), np.array([[0, 8]]), lanes=2, window=3)
    >>> lanes.windows_per_epoch  # 7 pairs in lanes of 4 and 3
    2
    >>> window = lanes.window_at(0, 1)
    >>> window.targets_TB.shape, window.count
    ((1, 2), 1)
    >>> old = Ring(np.arange(50, 55), np.array([[0, 5]]))
    >>> mixed = Lanes(np.arange(8), np.array([[0, 8]]), lanes=2, window=5, replay=old, share=0.5)
    >>> mixed.window_at(0, 0).inputs_TB[:, 1].tolist(), mixed.window_at(0, 1).inputs_TB[:, 1].tolist()
    ([50, 51, 52, 53, 50], [51, 52])
    """

    def __init__(
        self,
        ids: Ids,
        spans: Spans,
        *,
        lanes: int,
        window: int,
        seed: int = 0,
        replay: Ring | None = None,
        share: float = 0.0,
    ) -> None:
        if lanes < 1 or window < 1:
            raise OptionError("training needs at least 1 lane (--batch-size) and windows of 1 step (--seq-length)")
        if replay is not None and lanes < 2:
            raise OptionError("one lane cannot read two texts: --replay needs a --batch-size of 2 or more")
        self.ring, self.replay = Ring(ids, spans), replay
        if not self.pairs or (replay is not None and not len(replay)):
            which = "training part" if not self.pairs else "text of --replay"
            raise TextError(f"the {which} has no character to predict: use a longer text or another --split")
        self.window, self.seed = window, seed
        self.replayed = 0 if replay is None else min(max(1, round(share * lanes)), lanes - 1)
        self.own = min(lanes - self.replayed, self.pairs)
        self.lanes = self.own + self.replayed

    @property
    def pairs(self) -> int:
        """How many targets an epoch has, those of the older text not counted."""
        return len(self.ring)

    @property
    def windows_per_epoch(self) -> int:
        """How many windows cover the longest lane."""
        return -(-self._longest // self.window)

    @property
    def _longest(self) -> int:
        return -(-self.pairs // self.own)

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
        t_T1 = np.arange(number * self.window, min((number + 1) * self.window, self._longest))[:, None]
        edges_B = np.arange(self.own + 1) * self.pairs // self.own
        place_TB = edges_B[:-1] + t_T1
        inside_TB = place_TB < edges_B[1:]
        lane_B = np.arange(self.lanes)[own]
        new_B = lane_B[lane_B < self.own]
        inputs_TB, targets_TB, resets_TB = self.ring.read(place_TB[:, new_B] + self._offset(epoch))
        targets_TB[~inside_TB[:, new_B]] = -1
        if self.replay is not None:
            start_B = (lane_B[len(new_B) :] - self.own) * len(self.replay) // self.replayed
            old = self.replay.read(start_B + epoch * self._longest + t_T1)
            inputs_TB, targets_TB, resets_TB = (
                np.concatenate(pair, axis=1) for pair in zip((inputs_TB, targets_TB, resets_TB), old, strict=True)
            )
        if number == 0:
            resets_TB[0] = False  # the state is zero there anyway
        return Window(
            inputs_TB=inputs_TB,
            targets_TB=targets_TB,
            resets_TB=resets_TB if resets_TB.any() else None,
            first=number == 0,
            count=int((targets_TB >= 0).sum()),
        )


FORGETTING = 1 / 16
"""Share of the lanes that forget what they look back on before a window; measured in benchmarks/RESULTS.md."""


class LanguageObjective(Objective):
    """The mean negative log-likelihood of the next character.

    Args:
        model: the network, on its device.
        lanes: the windows of the training part.
        ids: of the whole text.
        valid: the spans of the validation; read in 32 lanes, each after the 512 characters before it as context.
        limit: characters that a validation reads at most, from places all over these spans.
        seed: of dropout, and of what lanes forget.
        processes: they share the lanes and the validation; each has dropout masks of its own.
        precision: of products; see `charlm.nn.kernels.PRECISIONS`.
    """

    def __init__(
        self,
        model: CharRNN,
        lanes: Lanes,
        ids: Ids,
        valid: Spans,
        *,
        limit: int | None = None,
        seed: int = 0,
        processes: Processes = ALONE,
        precision: str = "auto",
    ) -> None:
        self.module, self.model, self.precision = model, model, precision
        self.lanes, self.ids, self.processes = lanes, ids, processes
        self.steps_per_epoch = lanes.windows_per_epoch
        self.untrained_loss = math.log(len(model.vocab))  # of a uniform distribution
        self.segments = _shortened(lane_segments(valid), limit)
        self.generator = torch.Generator(device=model.device).manual_seed(processes.seed(seed))
        self.own, self.seed = processes.own(lanes.lanes), seed
        self.state: State = self._zeros()

    def _zeros(self) -> State:
        return self.model.initial_state(self.own.stop - self.own.start)

    def window(self, position: int) -> Window:
        """The data of a step, of this process's lanes."""
        return self.lanes.window_at(*divmod(position, self.steps_per_epoch), self.own)

    def loss(self, position: int) -> tuple[Tensor, int]:
        """The mean over the targets of window `position`; the state of every lane moves on to its end."""
        window = self.window(position)
        device = self.model.device
        state = self._zeros() if window.first else self._forgetting(position)
        inputs_TB = torch.from_numpy(window.inputs_TB).to(device)
        targets_TB = torch.from_numpy(window.targets_TB).to(device)
        resets_TB = None if window.resets_TB is None else torch.from_numpy(window.resets_TB).to(device)
        loss, self.state = self.mean_loss(inputs_TB, targets_TB, state, resets_TB, window.count)
        return loss, window.count

    def _forgetting(self, position: int) -> State:
        """The state; before a window one lane in sixteen forgets the places that it looks back on, so that the network
        also learns to do without them, as it has to at the beginning of a text that is generated."""
        if self.model.look_back is None:
            return self.state
        gone_B = np.random.default_rng([self.seed, position]).random(self.lanes.lanes)[self.own] < FORGETTING
        return {**self.state, **self.model.look_back.without_places(self.state, torch.from_numpy(gone_B))}

    def mean_loss(
        self,
        inputs_TB: Tensor,
        targets_TB: Tensor,
        state: State,
        resets_TB: Tensor | None = None,
        count: int | None = None,
    ) -> tuple[Tensor, State]:
        """The mean loss over `count` targets (by default all), and the detached state after the window."""
        with multiplying(self.model.device, self.precision):
            logp_TBV, state = self.model(inputs_TB, state, resets_TB, self.generator)
            logp_TB = pick_targets(logp_TBV, targets_TB)
        count = inputs_TB.numel() if count is None else max(count, 1)
        return -(logp_TB * (targets_TB >= 0)).sum() / count, detach(state)

    def validate(self) -> float:
        """Nats a character on the validation spans."""
        segments = self.segments[self.processes.rank :: self.processes.size]
        logp_N = np.zeros(0)
        if len(segments):
            with multiplying(self.model.device, self.precision):
                logp_N, _ = read_segments(self.model, self.ids, segments, lanes=wide(segments[:, ::2], 32), hits=False)
        total, count = self.processes.add([float(logp_N.sum()), len(logp_N)])
        return -total / count

    def carried(self) -> dict[str, Tensor]:
        """The hidden state of every lane of every process, and the generators of their dropout masks by rank."""
        generators = self.processes.gather(self.generator.get_state())
        return {
            **{f"state/{name}": torch.cat(self.processes.gather(t)) for name, t in self.state.items()},
            **{_generator(rank): state for rank, state in enumerate(generators)},
        }

    def forget(self) -> None:
        """Sets every lane's state to zero."""
        self.state = self._zeros()

    def restore(self, carried: Mapping[str, Tensor]) -> None:
        """Goes on from what `carried` returned; each process takes its own lanes, however many processes there were.

        A generator of another device or of an additional process starts anew; lanes without a state start at zero.
        """
        state = {key.removeprefix("state/"): t for key, t in carried.items() if key.startswith("state/")}
        shapes = {name: (self.lanes.lanes, *tensor.shape[1:]) for name, tensor in self.state.items()}
        if state and shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
            raise CharlmError("the saved state has hidden states of another number of lanes")
        self.state |= {name: tensor[self.own].clone().to(self.model.device) for name, tensor in state.items()}
        own = _generator(self.processes.rank)
        if own in carried:
            with contextlib.suppress(RuntimeError, TypeError):
                self.generator.set_state(carried[own].clone())


def _shortened(segments: Segments, limit: int | None) -> Segments:
    """The beginnings of the segments, with about `limit` targets in all; each is cut to the same share.

    Of many segments, as lines or items are, some are taken whole instead.

    >>> _shortened(np.array([[0, 1, 101], [80, 101, 201]]), 50).tolist()
    [[0, 1, 26], [80, 101, 126]]
    """
    counts = segments[:, 2] - segments[:, 1]
    if limit is None or counts.sum() <= limit:
        return segments
    if len(segments) > _MANY:  # lines or items: whole ones from everywhere
        return segments[:: -(-int(counts.sum()) // limit)]
    kept = np.maximum(1, counts * limit // counts.sum())
    return np.stack([segments[:, 0], segments[:, 1], segments[:, 1] + kept], axis=1)


def _generator(rank: int) -> str:
    """The name of a process's dropout generator in a state."""
    return f"dropout/{rank}" if rank else "dropout"
