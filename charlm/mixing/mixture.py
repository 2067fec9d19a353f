"""Several language models as one: their log-probabilities are added up with weights that learn while a text is read.

Weighted sums of log-probabilities, normalised, with weights that descend the gradient of the coding cost, as in the PAQ
compressors (Mahoney 2005) and for alphabets of any size (Mattern 2012, geometric mixing). There is one set of weights
for each symbol that was read last, added to a set that all share. Everything learned while reading is in the state, so
a text read in pieces gives the same numbers, and a prediction never depends on what comes after it. A row that a model
leaves undefined counts as the uniform distribution.

A static mixture has weights that were learned in the same way from a part of a text that its models were not made of,
and that stay as they are. `CacheLM` is made for mixtures: it counts as it goes what it has read itself.

Axes: T steps, B lanes, M models, V symbols, S = V + 2 sets of weights: one that all contexts share, one for each
symbol that may have been read last, one for an unknown symbol. Of the cache: N places of what was read, K + 1 orders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import OptionError
from charlm.lm.interface import State
from charlm.lm.model import TextModel, as_models
from charlm.text.text import Part, Text, TextFacts
from charlm.text.vocab import Vocab

Floats = NDArray[np.float64]

RATE = 0.002
"""The step of the weights, the best of six on the validation part of a bundled text (benchmarks/RESULTS.md)."""

_FLOOR = math.log(1e-9)  # an impossible symbol counts as this improbable: other models may give it a chance
_CELLS = 1 << 22  # numbers held at once
_PIECE = 4096  # characters of a fit that are read at once


class Mixer:
    """Mixing with weights that learn, one step at a time.

    Args:
        rate: the step of the weights.
        state: arrays with lanes on axis 0, which it goes on from: the `weights` [B, S, M]; the `rows` [B, M,
            V] predicted last and the number of the `set` [B] that mixed them, which the next symbol judges; and
            whether there are such, `pending` [B].
    """

    def __init__(self, rate: float, state: dict[str, NDArray[Any]]) -> None:
        self.rate, self.state = rate, state
        self._lanes = np.arange(len(state["set"]))

    def read(self, ids_B: NDArray[np.int64], rows_BMV: Floats) -> Floats:
        """Learns from the symbols that came, then mixes the next rows: log-probabilities [B, V]."""
        self._learn(ids_B)
        self.state["rows"] = np.maximum(rows_BMV, _FLOOR)
        self.state["set"] = np.where(ids_B >= 0, ids_B, rows_BMV.shape[2]) + 1
        self.state["pending"] = np.ones(len(ids_B), dtype=np.bool_)
        return self._mix(self.state["rows"])

    def _mix(self, rows_BMV: Floats) -> Floats:
        """The rows mixed by the weights in force, normalised."""
        weights_BSM = self.state["weights"]
        weights_BM = weights_BSM[self._lanes, self.state["set"]] + weights_BSM[:, 0]
        scores_BV = (weights_BM[:, :, None] * rows_BMV).sum(1)
        scores_BV -= scores_BV.max(1, keepdims=True)
        return np.asarray(scores_BV - np.log(np.exp(scores_BV).sum(1, keepdims=True)))

    def _learn(self, ids_B: NDArray[np.int64]) -> None:
        """A step down the gradient of -log p(symbol): each model's log p less its mean under the mixture.

        Unknown symbols change nothing.
        """
        judged = self._lanes[self.state["pending"] & (ids_B >= 0)]
        if not len(judged) or not self.rate:
            return
        rows_BMV = self.state["rows"]
        came_BM = rows_BMV[judged, :, ids_B[judged]]
        p_BV = np.exp(self._mix(rows_BMV)[judged])
        expected_BM = (p_BV[:, None] * rows_BMV[judged]).sum(2)
        step_BM = self.rate * (came_BM - expected_BM)
        self.state["weights"][judged, self.state["set"][judged]] += step_BM
        self.state["weights"][judged, 0] += step_BM


class MixtureLM(TextModel):
    """Several language models over one vocabulary as one language model, on the CPU, float64.

    Args:
        models: two or more; each is read with a state of its own.
        weights: to begin with, not negative and summing to 1; equal by default. Or all sets of weights [S, M], as `mix`
            learns them from a part of a text.
        rate: the step of the weights, from 0 (they stay as they are, and the mixture is static) to below 1.
    """

    kind = "mixture"

    def __init__(
        self, models: Sequence[TextModel], *, weights: Sequence[float] | Floats | None = None, rate: float = RATE
    ) -> None:
        if len(models) < 2 or any(model.vocab != models[0].vocab for model in models):
            raise OptionError("a mixture takes two or more models of one vocabulary: make them from the same text")
        if not 0 <= rate < 1:
            raise OptionError(f"the rate of a mixture is 0 or more and below 1, not {rate}")
        self.vocab, self.models, self.rate = models[0].vocab, tuple(models), rate
        self.source = next((model.source for model in models if model.source.sha256), TextFacts())
        self.is_adaptive = rate > 0 or any(model.is_adaptive for model in models)
        self.weights = np.asarray([1 / len(models)] * len(models) if weights is None else weights, dtype=np.float64)
        if self.weights.shape == (2 + len(self.vocab), len(models)) and np.isfinite(self.weights).all():
            return
        sound = self.weights.shape == (len(models),) and bool((self.weights >= 0).all())
        if not sound or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise OptionError(f"the weights of {len(models)} models are as many numbers that sum to 1, not {weights}")

    def __repr__(self) -> str:
        return f"MixtureLM({', '.join(map(repr, self.models))})"

    @property
    def title(self) -> str:
        """The models' own titles."""
        return " + ".join(model.title for model in self.models)

    def initial_state(self, lanes: int) -> State:
        """The models' states under their numbers, the weights, and the prediction not yet judged."""
        state: State = {}
        for number, model in enumerate(self.models):
            state |= {f"{number}.{name}": tensor for name, tensor in model.initial_state(lanes).items()}
        sets, count = 2 + len(self.vocab), len(self.models)
        weights_SM = np.zeros((sets, count))
        weights_SM[: sets if self.weights.ndim == 2 else 1] = self.weights
        own = {
            "weights": np.tile(weights_SM, (lanes, 1, 1)),
            "rows": np.zeros((lanes, count, len(self.vocab))),
            "set": np.zeros(lanes, dtype=np.int64),
            "pending": np.zeros(lanes, dtype=np.bool_),
        }
        return state | {f"mixture.{name}": torch.from_numpy(array) for name, array in own.items()}

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`."""
        cells = ids_TB.shape[1] * len(self.models) * len(self.vocab)
        mixed = []
        for piece_TB in torch.split(ids_TB, max(1, _CELLS // max(1, cells))):
            logp_TBV, state = self._piece(piece_TB, state)
            mixed.append(logp_TBV)
        return torch.cat(mixed), state

    def _piece(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        rows: list[Floats] = []
        after: State = {}
        for number, model in enumerate(self.models):
            logp_TBV, own = model.logprobs(ids_TB.to(model.device), _own(state, number))
            rows.append(logp_TBV.detach().cpu().double().numpy())
            after |= {f"{number}.{name}": tensor for name, tensor in own.items()}
        uniform = -math.log(len(self.vocab))
        rows_TBMV = np.nan_to_num(np.stack(rows, axis=2), nan=uniform, neginf=-np.inf)
        mixer = Mixer(self.rate, {name: tensor.numpy().copy() for name, tensor in _own(state, "mixture").items()})
        mixed = [mixer.read(ids_B, rows_BMV) for ids_B, rows_BMV in zip(ids_TB.numpy(), rows_TBMV, strict=True)]
        after |= {f"mixture.{name}": torch.from_numpy(array) for name, array in mixer.state.items()}
        return torch.from_numpy(np.array(mixed, dtype=np.float64).reshape(*ids_TB.shape, len(self.vocab))), after

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`; each model is kept in a directory of its own inside this one's."""
        return {"models": len(self.models), "weights": self.weights.tolist(), "rate": self.rate}

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the models into the directories 0, 1, ..."""
        for number, model in enumerate(self.models):
            model.write_to(directory / str(number))
        return {}


def mix(
    models: Sequence[TextModel], *, cache: bool = False, rate: float = RATE, fit: Text | Part | None = None
) -> MixtureLM:
    """Mixes language models of one vocabulary into one that learns, while it reads, how far to trust each.

    Args:
        models: two or more, or one where there is a cache.
        cache: also mix in an n-gram model of what was just read (`CacheLM`); it begins with a weight of 0, for it has
            read nothing yet.
        rate: the step of the weights.
        fit: a part of a text that the models were not made of, such as `text.valid`. The weights are learned from it,
            in three readings at `rate`, a half and a quarter of it, and stay so: a static model. A part that the
            models were made of would teach it to trust counts that know it by heart.

    Raises:
        OptionError: too few models, models of different vocabularies, or a part that has another one or no character
            to predict.

    >>> import charlm
    >>> text = charlm.Text.of("abracadabra " * 40)
    >>> mix([charlm.ngram(text, order=2, smoothing="kneser-ney")], cache=True).evaluate(text.test).targets
    47
    """
    models = as_models(models)
    weights = [1 / max(1, len(models))] * len(models) + [0.0] * cache
    parts = [*models, *([CacheLM(models[0].vocab)] if cache and models else [])]
    mixture = MixtureLM(parts, weights=weights, rate=rate)
    if fit is None:
        return mixture
    if not rate:
        raise OptionError("weights are learned at a rate above 0: leave rate out, or fit")
    part = fit.all if isinstance(fit, Text) else fit
    if part.text.vocab != mixture.vocab or not len(part):
        raise OptionError("weights are learned from a part in the models' vocabulary with a character to predict")
    return MixtureLM(parts, weights=_fitted(parts, mixture.weights, rate, part), rate=0)


def _fitted(models: Sequence[TextModel], weights: Floats, rate: float, part: Part) -> Floats:
    """All sets of weights [S, M] after some readings of a part; its pieces are independent, the weights are not."""
    for step in (rate, rate / 2, rate / 4):
        for start, end in part.spans.tolist():
            learner = MixtureLM(models, weights=weights, rate=step)
            ids_T = torch.from_numpy(part.text.corpus.ids[start:end].astype(np.int64))
            state = learner.initial_state(1)
            for begin in range(0, len(ids_T), _PIECE):  # the last symbol is read too, as it judges the row before it
                with torch.no_grad():
                    _, state = learner.logprobs(ids_T[begin : begin + _PIECE].unsqueeze(1), state)
            weights = state["mixture.weights"][0].numpy().copy()
    return weights


def _own(state: Mapping[str, Tensor], owner: int | str) -> State:
    """A model's part of the state by its number, or that of the mixture itself."""
    prefix = f"{owner}."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


class CacheLM(TextModel):
    """Counts of the lane's own past, interpolated over all orders as Witten and Bell (1991) do, from uniform upwards.

    It begins with nothing. It knows the names and turns of the text at hand and nothing else, which is what a model of
    other texts lacks (Kuhn and De Mori 1990, A cache-based natural language model for speech recognition).

    The state holds the symbols `read` [B, N], how many there are (`length` [B]), and for each place how many
    symbols before it agree with the newest ones (`match` [B, N], at most `order`): the symbols that stand at places
    of a match of k or more have followed the last k symbols, which is all that counting needs.

    Args:
        vocab: the symbols; one that it does not hold is read as one never seen, and counted nowhere.
        order: characters of history, 0 to 32.
        memory: the number of newest symbols that are kept; the time of a step grows in proportion to it.

    >>> model = CacheLM(Vocab.of("ab"), order=1)
    >>> logp, _ = model.logprobs(torch.tensor([[0], [1], [0]]), model.initial_state(1))
    >>> [round(p, 4) for p in logp.exp()[:, 0, 0].tolist()]  # of a, behind a, ab and aba
    [0.75, 0.5, 0.3]
    """

    kind = "cache"
    is_adaptive = True

    def __init__(self, vocab: Vocab, *, order: int = 5, memory: int = 1 << 18) -> None:
        if not 0 <= order <= 32:
            raise OptionError(f"a cache has an order from 0 to 32 characters of history, not {order}")
        if memory < 1:
            raise OptionError(f"a cache remembers at least 1 character, not {memory}")
        self.vocab, self.order, self.memory = vocab, order, memory

    def __repr__(self) -> str:
        return f"CacheLM(order {self.order}, {len(self.vocab)} symbols, the last {self.memory:,} read)"

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`."""
        return {"order": self.order, "memory": self.memory}

    def initial_state(self, lanes: int) -> State:
        """Nothing read."""
        return {
            "read": torch.zeros((lanes, 0), dtype=torch.int32),
            "match": torch.zeros((lanes, 0), dtype=torch.uint8),
            "length": torch.zeros(lanes, dtype=torch.int64),
        }

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`; float64."""
        steps, lanes = ids_TB.shape
        lengths_B = state["length"].tolist()
        room = min(self.memory, max(lengths_B, default=0) + steps)
        wider = (0, max(0, room - state["read"].shape[1]))  # padding copies, so that the given state stays as it is
        read_BN, match_BN = (F.pad(state[name], wider).numpy() for name in ("read", "match"))
        rows_TBV = np.empty((steps, lanes, len(self.vocab)))
        for lane, ids_T in enumerate(ids_TB.T.tolist()):
            past = _Past(self, read_BN[lane], match_BN[lane], lengths_B[lane])
            for step, symbol in enumerate(ids_T):
                past.read_on(symbol)
                rows_TBV[step, lane] = past.row()
            lengths_B[lane] = past.length
        found = {"read": torch.from_numpy(read_BN), "match": torch.from_numpy(match_BN)}
        return torch.from_numpy(np.log(rows_TBV)), {**found, "length": torch.tensor(lengths_B, dtype=torch.int64)}


class _Past:
    """What one lane has read, in arrays that are changed in place."""

    def __init__(self, model: CacheLM, read_N: NDArray[np.int32], match_N: NDArray[np.uint8], length: int) -> None:
        self._read_N, self._match_N, self.length = read_N, match_N, length
        self._order, self._symbols = model.order, len(model.vocab)
        read_N = read_N[:length]
        self._single_V = np.bincount(read_N[read_N >= 0], minlength=self._symbols)

    def read_on(self, symbol: int) -> None:
        """Appends a symbol, and removes the oldest one where the memory is full."""
        read_N, match_N = self._read_N, self._match_N
        if self.length == len(read_N):
            if read_N[0] >= 0:
                self._single_V[read_N[0]] -= 1
            read_N[:-1], match_N[:-1] = read_N[1:].copy(), match_N[1:].copy()
            self.length -= 1
            near = min(self._order, self.length)  # what lies before the oldest symbol agrees with nothing any more
            match_N[:near] = np.minimum(match_N[:near], np.arange(near, dtype=np.uint8))
        end = self.length
        read_N[end] = symbol
        if symbol >= 0:  # place i is behind the symbol at i - 1
            self._single_V[symbol] += 1
            longer_N = np.minimum(match_N[:end] + np.uint8(1), self._order)
            match_N[1 : end + 1] = longer_N * (read_N[:end] == symbol)
        else:
            match_N[1 : end + 1] = 0
        match_N[0] = 0
        self.length = end + 1

    def row(self) -> NDArray[np.float64]:
        """The probabilities of the next symbol, [V]."""
        row_V = np.full(self._symbols, 1 / self._symbols)
        for counts_V in self._counts():
            total = counts_V.sum()
            if not total:
                break
            kinds = np.count_nonzero(counts_V)
            row_V = (counts_V + kinds * row_V) / (total + kinds)
        return row_V

    def _counts(self) -> NDArray[np.int64]:
        """How often each symbol followed the newest 0, 1, ... symbols, [K + 1, V]."""
        places = np.flatnonzero(self._match_N[: self.length])
        followed, match = self._read_N[places], self._match_N[places].astype(np.int64)
        cells = (match * self._symbols + followed)[followed >= 0]
        counts_KV = np.bincount(cells, minlength=(self._order + 1) * self._symbols).reshape(-1, self._symbols)
        counts_KV = counts_KV[::-1].cumsum(0)[::-1]  # a match of k is one of k - 1 too
        counts_KV[0] = self._single_V
        return counts_KV
