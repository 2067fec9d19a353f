"""The one idea: a language model reads ids with a state, and returns log-probabilities and the next state.

Counted and neural models both are `LanguageModel`s; evaluating, sampling, scoring and comparing know only this
file. `SamplingRule` says how a symbol is drawn from a row of log-probabilities; `read_segments` reads the spans of a
text with any model, many side by side, and carries the state from chunk to chunk.
Axes: T steps in time, B lanes (independent streams side by side), V symbols of the vocabulary, N targets.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.text.cache import give_back
from charlm.text.splits import Spans
from charlm.text.text import TextFacts
from charlm.text.vocab import Ids, Vocab


@dataclass(frozen=True, kw_only=True)
class SamplingRule:
    """Temperature first, then top-k, then top-p, as is usual.

    Args:
        temperature: log-probabilities are divided by it; 0 takes the most probable symbol.
        top_k: keep the k most probable symbols, of equally probable ones those that come first; 0 keeps all.
        top_p: keep the smallest set of most probable symbols whose mass reaches p (nucleus sampling, Holtzman
            et al. 2020); 1 keeps all.

    >>> rule = SamplingRule(temperature=0.5)
    >>> logp = torch.tensor([[0.2, 0.8]]).log()
    >>> rule.probabilities(logp).tolist()  # 0.2**2 and 0.8**2 over their sum
    [[0.0588..., 0.9411...]]
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise OptionError(f"a temperature is 0 (the most probable character) or more, not {self.temperature}")
        if self.top_k < 0:
            raise OptionError(f"top-k keeps at least 1 character (0 keeps all), not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top-p is a share of probability above 0 and up to 1, not {self.top_p}")

    @property
    def greedy(self) -> bool:
        """Whether the most probable symbol is always taken, so that noise plays no part."""
        return self.temperature < 1e-300 or self.top_k == 1  # so near to 0 a quotient would not be finite

    def probabilities(self, logp_BV: Tensor) -> Tensor:
        """The distribution that is drawn from, float64; the symbols left out have probability 0.

        Log-probabilities need not be normalised, so logits will do. A row that is NaN throughout has no
        distribution; callers do not draw from one.
        """
        if self.greedy:
            best = logp_BV.argmax(-1, keepdim=True)
            return torch.zeros_like(logp_BV, dtype=torch.float64).scatter_(-1, best, 1.0)
        scaled = logp_BV.double() / self.temperature
        if 0 < self.top_k < scaled.shape[-1]:
            best = (-scaled).argsort(dim=-1, stable=True)[..., : self.top_k]  # equals by the vocabulary
            scaled = torch.full_like(scaled, -torch.inf).scatter_(-1, best, scaled.gather(-1, best))
        p_BV = scaled.softmax(-1)
        return self._nucleus(p_BV) if self.top_p < 1 else p_BV

    def _nucleus(self, p_BV: Tensor) -> Tensor:
        ordered, order = p_BV.sort(stable=True, dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        kept = torch.where(before < self.top_p, ordered, torch.zeros_like(ordered))
        kept = kept / kept.sum(-1, keepdim=True)
        return torch.zeros_like(p_BV).scatter_(-1, order, kept)

    def draw(self, logp_BV: Tensor, noise_B: Tensor) -> Tensor:
        """One symbol a row by inversion: the first at which the cumulative probability exceeds the noise.

        Args:
            logp_BV: log-probabilities, or logits.
            noise_B: uniform numbers in [0, 1), float64.
        """
        if self.greedy:
            return logp_BV.argmax(-1)
        cumulative = self.probabilities(logp_BV).cumsum(-1)
        threshold = noise_B.to(cumulative.device).unsqueeze(-1) * cumulative[:, -1:]
        drawn = (cumulative <= threshold).sum(-1)
        last = (cumulative < cumulative[:, -1:]).sum(-1)  # the last symbol with any probability
        return torch.minimum(drawn, last)


State = dict[str, Tensor]
"""What a model remembers: flat, a tensor a name, lanes on axis 0."""


class LanguageModel(abc.ABC):
    """A model of the next character given all characters so far. Log-probabilities are natural logarithms.

    Every method takes the state and returns the next one; the model itself remembers nothing. Reading a text
    whole or in pieces with the state carried gives the same numbers; a lane never affects its neighbour.

    Ids are int64 tensors on `device`. The id -1 stands for a character that the vocabulary does not hold: it
    may be read, as a symbol never seen before, and is never a target.

    An impossible next character has log-probability -inf. Where the history was never seen and the model is
    undefined there (unsmoothed maximum likelihood), the whole row is NaN; every other row sums to 1.
    """

    vocab: Vocab
    is_baseline: bool = False
    """Whether the model is counted: a table compares the other models with it."""
    is_adaptive: bool = False
    """Whether the model learns from what it reads, so that its figures stand in rows of their own."""
    reads: int = 4096
    """How many characters, of all lanes together, a call is given at least where a whole text is read."""

    @property
    def device(self) -> torch.device:
        """Where ids are expected and states live: the CPU, unless a family says another device."""
        return torch.device("cpu")

    @abc.abstractmethod
    def initial_state(self, lanes: int) -> State:
        """The state before anything was read, for so many lanes."""

    @abc.abstractmethod
    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads ids; row [t, b] of `logp_TBV` is log P(next symbol | all that lane b has read up to step t)."""

    def target_logprobs(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """Like `logprobs`, but only the log-probability of the symbol that came: `logp_TB`.

        Targets of -1 (unknown symbols and padding) get an arbitrary finite value or NaN; callers mask them. A family
        overrides it only to be faster.
        """
        logp_TBV, state = self.logprobs(ids_TB, state)
        return pick_targets(logp_TBV, targets_TB), state

    def target_hits(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Like `target_logprobs`, with `hit_TB` in the middle: whether each target was the most probable symbol, the
        first of them where several are. A family overrides it only to be faster."""
        logp_TBV, state = self.logprobs(ids_TB, state)
        logp_TB = pick_targets(logp_TBV, targets_TB)
        return logp_TB, (logp_TBV.argmax(-1) == targets_TB) & ~logp_TB.isnan(), state

    def generate(
        self, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """Draws `steps` symbols a lane, asking for one row at a time; a family overrides it only to be faster.

        Args:
            ids_B: the last symbol of each lane, not yet read.
            state: the state before that symbol.
            steps: how many symbols to draw.
            rule: temperature, top-k, top-p.
            noise_TB: uniform numbers in [0, 1), float64, on the CPU or the device; number [t, b] decides draw t
                of lane b, so the same noise gives the same text however the steps are cut into calls.

        Returns:
            The drawn ids [steps, B]; the model's own log-probability of each (at temperature 1, nothing left
            out); and the state in which the last drawn symbol has not been read.

        Raises:
            OptionError: there is less noise than steps.
        """
        return generate_by_steps(self, ids_B, state, steps, rule, noise_TB)


def name_of(model: LanguageModel) -> str:
    """What tables call a model."""
    return str(getattr(model, "name", type(model).__name__))


def source_of(model: LanguageModel) -> TextFacts:
    """The facts about the text that a model was made from; empty where it does not keep any."""
    found: TextFacts = getattr(model, "source", TextFacts())
    return found


def pick_targets(logp_TBV: Tensor, targets_TB: Tensor) -> Tensor:
    """The log-probability of each target out of full rows; targets of -1 pick symbol 0 (callers mask them).

    >>> logp = torch.tensor([[[0.25, 0.75]]]).log()
    >>> pick_targets(logp, torch.tensor([[1]])).exp().item()
    0.75
    """
    return logp_TBV.gather(-1, targets_TB.clamp(min=0).unsqueeze(-1)).squeeze(-1)


def generate_by_steps(
    model: LanguageModel, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
) -> tuple[Tensor, Tensor, State]:
    """`LanguageModel.generate` by asking for one row at a time: right for any model, fast for none."""
    if len(noise_TB) < steps:
        raise OptionError(f"{steps} steps need as many rows of noise, not {len(noise_TB)}")
    if not steps:
        return ids_B.new_zeros((0, len(ids_B))), noise_TB.new_zeros((0, len(ids_B))), state
    drawn, logps = [], []
    for step in range(steps):
        logp_TBV, state = model.logprobs(ids_B.unsqueeze(0), state)
        ids_B = rule.draw(logp_TBV[0], noise_TB[step])
        drawn.append(ids_B)
        logps.append(pick_targets(logp_TBV, ids_B.unsqueeze(0))[0])
    return torch.stack(drawn), torch.stack(logps), state


def take(state: Mapping[str, Tensor], lanes: Tensor) -> State:
    """The state of some lanes, in the order asked for (an id may be asked for twice)."""
    return {name: tensor.index_select(0, lanes.to(tensor.device)) for name, tensor in state.items()}


def copy_into(destination: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copies one state into the tensors of another of the same shape."""
    for name, tensor in destination.items():
        tensor.copy_(source[name])


def detach(state: Mapping[str, Tensor]) -> State:
    """The same numbers without a past to differentiate: what truncates backpropagation through time."""
    return {name: tensor.detach() for name, tensor in state.items()}


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
    chunk: int | None = None,
    hits: bool = True,
    progress: OnRead | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Reads segments with a model, up to `lanes` side by side, `chunk` steps at a time, by default some 256 and of few
    lanes more (`LanguageModel.reads`).

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
        steps = chunk or max(256, model.reads // max(1, len(group)))
        _read_group(model, ids, segments[group], offsets[group], steps, hits, logp_N, hit_N, progress)
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
            logp_TB, hit_TB, state = model.target_hits(inputs_TB, targets_TB, state)
        else:
            logp_TB, state = model.target_logprobs(inputs_TB, targets_TB, state)
            hit_TB = torch.zeros_like(targets_TB, dtype=torch.bool)
        give_back(ids, position_TB.size)
        scored = inside_TB & (position_TB + 1 >= first_B[:alive])
        place = (offsets[:alive] + position_TB + 1 - first_B[:alive])[scored]
        known = (targets_TB >= 0).cpu().numpy()[scored]
        logp_N[place] = np.where(known, logp_TB.double().cpu().numpy()[scored], np.nan)
        hit_N[place] = hit_TB.cpu().numpy()[scored]
        if progress is not None:
            progress(int(scored.sum()))


def _tensor(ids: NDArray[Any], model: LanguageModel) -> torch.Tensor:
    return torch.from_numpy(ids.astype(np.int64)).to(model.device)
