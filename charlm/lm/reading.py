"""Reading spans of a text with a language model: many side by side, in chunks, the state carried from chunk to chunk.

Axes: T steps, B lanes, N targets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.lm.interface import LanguageModel, pick_targets, take
from charlm.text.splits import Spans
from charlm.text.vocab import Ids

__all__ = ["OnRead", "Segments", "lane_segments", "read_segments", "span_segments"]

Segments = NDArray[np.int64]
"""Rows of (start, first target, end): read from start, score from the first target on, end excluded."""


OnRead = Callable[[int], object]
"""Called with the number of targets that were just read."""


def lane_segments(spans: Spans, lanes: int = 32, warmup: int = 512) -> Segments:
    """Cuts long spans so that about `lanes` pieces can be read side by side.

    Each piece is read from `warmup` characters before its first target (or from the start of its span), so that
    the state is warm where scoring begins. Every target of the spans is scored exactly once.
    """
    total = int((spans[:, 1] - spans[:, 0] - 1).clip(min=0).sum())
    longest = max(1, -(-total // lanes))
    rows = []
    for start, end in spans.tolist():
        pieces = max(1, -(-(end - start - 1) // longest))
        edges = np.linspace(start + 1, end, pieces + 1).astype(np.int64).tolist()
        rows += [(max(start, a - 1 - warmup), a, b) for a, b in itertools.pairwise(edges) if b > a]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def span_segments(spans: Spans) -> Segments:
    """Every span as one piece, read as one stream from its first character."""
    rows = spans[spans[:, 1] - spans[:, 0] > 1]
    return np.stack([rows[:, 0], rows[:, 0] + 1, rows[:, 1]], axis=1)


@torch.no_grad()
def read_segments(
    model: LanguageModel,
    ids: Ids,
    segments: Segments,
    *,
    lanes: int = 64,
    chunk: int = 256,
    hits: bool = True,
    progress: OnRead | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Reads segments with a model, up to `lanes` side by side, `chunk` steps at a time.

    Returns:
        `logp_N`, the log-probability of each scored target in the order of the segments (NaN for targets that
        the vocabulary does not hold), and `hit_N`, whether it was the most probable symbol (all false where
        `hits` is false, which is faster).
    """
    counts = segments[:, 2] - segments[:, 1]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    logp_N = np.full(int(offsets[-1]), np.nan)
    hit_N = np.zeros(len(logp_N), dtype=np.bool_)
    order = np.argsort(segments[:, 0] - segments[:, 2], kind="stable")
    for group in np.split(order, range(lanes, len(order), lanes)):
        _read_group(model, ids, segments[group], offsets[group], chunk, hits, logp_N, hit_N, progress)
    return logp_N, hit_N


def _read_group(
    model: LanguageModel,
    ids: Ids,
    segments: Segments,
    offsets: NDArray[np.int64],
    chunk: int,
    hits: bool,
    logp_N: NDArray[np.float64],
    hit_N: NDArray[np.bool_],
    progress: OnRead | None,
) -> None:
    """Reads segments side by side, the longest first, and writes what they gave to its places."""
    start_B, first_B, end_B = segments.T
    lengths_B = end_B - start_B - 1
    state = model.initial_state(len(segments))
    for begin in range(0, int(lengths_B.max()), chunk):
        alive = int((lengths_B > begin).sum())  # lengths fall, so these are the first ones
        if alive < len(next(iter(state.values()), ())):
            state = take(state, torch.arange(alive))
        t = np.arange(begin, min(begin + chunk, int(lengths_B.max())))[:, None]
        inside_TB = t < lengths_B[:alive]
        position_TB = np.where(inside_TB, start_B[:alive] + t, start_B[:alive])
        inputs_TB = _tensor(ids[position_TB], model)
        targets_TB = _tensor(np.where(inside_TB, ids[position_TB + 1].astype(np.int64), -1), model)
        if hits:
            logp_TBV, state = model.logprobs(inputs_TB, state)
            logp_TB = pick_targets(logp_TBV, targets_TB)
            hit_TB = (logp_TBV.argmax(-1) == targets_TB) & ~logp_TB.isnan()
        else:
            logp_TB, state = model.target_logprobs(inputs_TB, targets_TB, state)
            hit_TB = torch.zeros_like(targets_TB, dtype=torch.bool)
        scored = inside_TB & (position_TB + 1 >= first_B[:alive])
        place = (offsets[:alive] + position_TB + 1 - first_B[:alive])[scored]
        known = (targets_TB >= 0).cpu().numpy()[scored]
        logp_N[place] = np.where(known, logp_TB.double().cpu().numpy()[scored], np.nan)
        hit_N[place] = hit_TB.cpu().numpy()[scored]
        if progress is not None:
            progress(int(scored.sum()))


def _tensor(ids: NDArray[Any], model: LanguageModel) -> torch.Tensor:
    return torch.from_numpy(ids.astype(np.int64)).to(model.device)
