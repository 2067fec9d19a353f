"""How the probabilities of several models become one: the arithmetic of mixtures, and weights that learn.

Axes: B lanes, M models, V symbols, S sets of weights, X any others.


Several language models as one: fixed weights, weights by Bayes' rule while reading, or logistic mixing
learned online.

Everything learned while reading is in the state, so a text read in pieces gives the same numbers, and a
prediction never depends on what comes after it. A row that a model leaves undefined counts as the uniform
distribution.
Axes: T steps, B lanes, M models, V symbols, S sets of weights, N targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.interface import LanguageModel, SamplingRule, State, generate_by_steps, pick_targets
from charlm.mixing.cache import CacheLM
from charlm.text.splits import Spans
from charlm.text.vocab import Ids

__all__ = ["CONTEXTS", "KINDS", "Floats", "Mixer", "MixtureConfig", "MixtureLM", "adaptive", "linear", "tune_weights"]

KINDS = ("fixed", "bayes", "logistic")
CONTEXTS = ("none", "previous", "confidence")

Floats = NDArray[np.float64]

_FLOOR = math.log(1e-9)  # logistic mixing takes impossible symbols for this improbable: others may object
_GRADES = 4  # of a model's confidence


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """How models are mixed.

    Args:
        kind: `fixed`: the weighted mean of the probabilities. `bayes`: the same, each weight multiplied by
            the probability its model gave to the symbol that came, and a share of all weight dealt out evenly
            again (fixed share, Herbster and Warmuth 1998). `logistic`: weighted sums of log-probabilities,
            normalised, with weights that descend the gradient of the coding cost, as in the PAQ compressors
            (Mahoney 2005) and for alphabets of any size (Mattern 2012, geometric mixing).
        contexts: which set of weights is used: one for all (`none`), one for each symbol read last
            (`previous`), or one for each combination of how sure the models are (`confidence`, four grades
            each). In logistic mixing a set is added to weights that all contexts share.
        rate: of `bayes` the share dealt out again, of `logistic` the step; None for 0.01 and 0.002, the
            best of six settings on the validation part of a bundled text (benchmarks/RESULTS.md).

    >>> MixtureConfig(kind="logistic").step
    0.002
    """

    kind: str = "logistic"
    contexts: str = "previous"
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"unknown kind of mixture {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.contexts not in CONTEXTS:
            raise OptionError(f"unknown contexts {self.contexts!r} of a mixture: choose one of {', '.join(CONTEXTS)}")
        if self.rate is not None and not 0 <= self.rate < 1:
            raise OptionError(f"the rate of a mixture is 0 or more and below 1, not {self.rate}")

    @property
    def step(self) -> float:
        """The rate that is used."""
        return {"bayes": 0.01}.get(self.kind, 0.002) if self.rate is None else self.rate


class Mixer:
    """Mixing with weights that learn, one step at a time.

    Args:
        config: `bayes` or `logistic`.
        state: arrays with lanes on axis 0, which it goes on from: the `weights` [B, S, M]; the `rows` [B, M,
            V] predicted last and the number of the `set` [B] that mixed them, which are judged by the next
            symbol; and whether there are such, `pending` [B].
    """

    NAMES: ClassVar = ("weights", "rows", "set", "pending")

    @classmethod
    def begin(cls, config: MixtureConfig, weights_M: Floats, lanes: int, symbols: int) -> dict[str, NDArray[Any]]:
        """The state before anything was read."""
        models = len(weights_M)
        sets = {"none": 0, "previous": symbols + 1, "confidence": _GRADES**models}[config.contexts]
        weights_SM = np.tile(weights_M, (1 + sets, 1))  # the first set serves all contexts
        if config.kind == "logistic":
            weights_SM[1:] = 0.0
        return {
            "weights": np.tile(weights_SM, (lanes, 1, 1)),
            "rows": np.zeros((lanes, models, symbols)),
            "set": np.zeros(lanes, dtype=np.int64),
            "pending": np.zeros(lanes, dtype=np.bool_),
        }

    def __init__(self, config: MixtureConfig, state: dict[str, NDArray[Any]]) -> None:
        self.config, self.state = config, state
        self._lanes = np.arange(len(state["set"]))

    def read(self, ids_B: NDArray[np.int64], rows_BMV: Floats) -> Floats:
        """Learns from the symbols that came, then mixes the next rows: log-probabilities [B, V]."""
        self._learn(ids_B)
        if self.config.kind == "logistic":
            rows_BMV = np.maximum(rows_BMV, _FLOOR)
        self.state["rows"] = rows_BMV
        self.state["set"] = self._set_of(ids_B, rows_BMV)
        self.state["pending"] = np.ones(len(ids_B), dtype=np.bool_)
        return self._mix(rows_BMV)

    def _set_of(self, ids_B: NDArray[np.int64], rows_BMV: Floats) -> NDArray[np.int64]:
        """The number of the set for each lane: 0 without contexts, else from 1 on."""
        if self.config.contexts == "previous":
            return np.where(ids_B >= 0, ids_B, rows_BMV.shape[2]) + 1
        if self.config.contexts == "confidence":
            grades_BM = np.minimum(np.exp(rows_BMV.max(2)) * _GRADES, _GRADES - 1).astype(np.int64)
            return np.asarray(grades_BM @ (_GRADES ** np.arange(rows_BMV.shape[1])) + 1)
        return np.zeros(len(ids_B), dtype=np.int64)

    def _weights(self) -> Floats:
        """The weights [B, M] in force."""
        weights_BSM, set_B = self.state["weights"], self.state["set"]
        chosen_BM: Floats = weights_BSM[self._lanes, set_B]
        if self.config.kind == "logistic" and self.config.contexts != "none":
            return np.asarray(chosen_BM + weights_BSM[:, 0])
        return chosen_BM

    def _mix(self, rows_BMV: Floats) -> Floats:
        weights_BM = self._weights()
        if self.config.kind == "bayes":
            return linear(rows_BMV, weights_BM)
        scores_BV = (weights_BM[:, :, None] * rows_BMV).sum(1)
        scores_BV -= scores_BV.max(1, keepdims=True)
        return np.asarray(scores_BV - np.log(np.exp(scores_BV).sum(1, keepdims=True)))

    def _learn(self, ids_B: NDArray[np.int64]) -> None:
        """Changes the weights in force by what came; unknown symbols teach nothing."""
        judged = self._lanes[self.state["pending"] & (ids_B >= 0)]
        if len(judged):
            came_BM = self.state["rows"][judged, :, ids_B[judged]]
            step = self._descend if self.config.kind == "logistic" else self._condition
            step(judged, came_BM)

    def _descend(self, judged: NDArray[np.int64], came_BM: Floats) -> None:
        """A step down the gradient of -log p(symbol): each model's log p less its mean under the mixture."""
        p_BV = np.exp(self._mix(self.state["rows"])[judged])
        expected_BM = (p_BV[:, None] * self.state["rows"][judged]).sum(2)
        step_BM = self.config.step * (came_BM - expected_BM)
        self.state["weights"][judged, self.state["set"][judged]] += step_BM
        if self.config.contexts != "none":
            self.state["weights"][judged, 0] += step_BM

    def _condition(self, judged: NDArray[np.int64], came_BM: Floats) -> None:
        """Bayes' rule, then a share of the weight dealt out evenly."""
        before_BM = self._weights()[judged]
        after_BM = before_BM * np.exp(came_BM)
        total_B1 = after_BM.sum(1, keepdims=True)
        share = self.config.step
        after_BM = after_BM / np.where(total_B1 > 0, total_B1, 1) * (1 - share) + share / came_BM.shape[1]
        kept_BM = np.where(total_B1 > 0, after_BM, before_BM)  # what nobody foresaw teaches nothing
        self.state["weights"][judged, self.state["set"][judged]] = kept_BM


def linear(rows_XMV: Floats, weights_XM: Floats) -> Floats:
    """The logarithm of the weighted mean of the probabilities."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log((weights_XM[..., None] * np.exp(rows_XMV)).sum(-2)))


_CELLS = 1 << 22  # numbers held at once


class MixtureLM(LanguageModel):
    """Several language models over one vocabulary as one language model, on the CPU, float64.

    Args:
        models: two or more; each is read with a state of its own.
        weights: to begin with (`fixed`: to stay with), not negative and summing to 1; equal by default.
        config: how they are mixed.

    >>> from charlm.ngrams.model import NGramLM
    >>> from charlm.ngrams.index import SuffixIndex
    >>> from charlm.text.vocab import Vocab
    >>> vocab = Vocab.of("abc")
    >>> index = SuffixIndex.build(vocab.encode("abac"), np.array([[0, 4]]), symbols=3)
    >>> models = [NGramLM(vocab=vocab, index=index, order=order) for order in (0, 1)]
    >>> mixture = MixtureLM(models, weights=[0.5, 0.5], config=MixtureConfig(kind="fixed"))
    >>> logp, _ = mixture.logprobs(torch.tensor([[0]]), mixture.initial_state(1))
    >>> logp.exp().tolist()  # halves of 2/4, 1/4, 1/4 and of 0, 1/2, 1/2
    [[[0.25, 0.375, 0.375]]]
    """

    def __init__(
        self,
        models: Sequence[LanguageModel],
        *,
        weights: Sequence[float] | None = None,
        config: MixtureConfig | None = None,
    ) -> None:
        if len(models) < 2 or any(model.vocab != models[0].vocab for model in models):
            raise OptionError("a mixture takes two or more models of one vocabulary: make them from the same text")
        self.vocab, self.models, self.config = models[0].vocab, tuple(models), config or MixtureConfig()
        self.weights = np.asarray([1 / len(models)] * len(models) if weights is None else weights, dtype=np.float64)
        sound = self.weights.shape == (len(models),) and bool((self.weights >= 0).all())
        if not sound or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise OptionError(f"the weights of {len(models)} models are as many numbers that sum to 1, not {weights}")

    @property
    def device(self) -> torch.device:
        """Mixing happens on the CPU, wherever the models live."""
        return torch.device("cpu")

    def initial_state(self, lanes: int) -> State:
        """The models' states under their numbers, and the weights and the prediction not yet judged."""
        state: State = {}
        for number, model in enumerate(self.models):
            state |= {f"{number}.{name}": tensor for name, tensor in model.initial_state(lanes).items()}
        if self.config.kind != "fixed":
            own = Mixer.begin(self.config, self.weights, lanes, len(self.vocab))
            state |= {f"mixture.{name}": torch.from_numpy(array) for name, array in own.items()}
        return state

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`."""
        cells = ids_TB.shape[1] * len(self.models) * len(self.vocab)
        size, mixed = max(1, _CELLS // max(1, cells)), []
        for begin in range(0, max(1, len(ids_TB)), size):
            logp_TBV, state = self._piece(ids_TB[begin : begin + size], state)
            mixed.append(logp_TBV)
        return torch.cat(mixed), state

    def _piece(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        rows: list[Tensor] = []
        after: State = {}
        for number, model in enumerate(self.models):
            own = _own(state, number)
            logp_TBV, own = model.logprobs(ids_TB.to(model.device), own)
            rows.append(_defined(logp_TBV.detach().cpu().double()))
            after |= {f"{number}.{name}": tensor for name, tensor in own.items()}
        rows_TBMV = np.stack([row.numpy() for row in rows], axis=2)
        if self.config.kind == "fixed":
            return torch.from_numpy(linear(rows_TBMV, self.weights)), after
        mixer = Mixer(self.config, {name: state[f"mixture.{name}"].numpy().copy() for name in Mixer.NAMES})
        mixed = [mixer.read(ids_B, rows_BMV) for ids_B, rows_BMV in zip(ids_TB.numpy(), rows_TBMV, strict=True)]
        after |= {f"mixture.{name}": torch.from_numpy(array) for name, array in mixer.state.items()}
        shape = (*ids_TB.shape, len(self.vocab))
        return torch.from_numpy(np.stack(mixed) if mixed else np.zeros(shape)), after

    def target_logprobs(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.target_logprobs`."""
        if self.config.kind != "fixed":
            logp_TBV, state = self.logprobs(ids_TB, state)
            return pick_targets(logp_TBV, targets_TB), state
        rows: list[Tensor] = []
        after: State = {}
        for number, model in enumerate(self.models):
            ids, targets = ids_TB.to(model.device), targets_TB.to(model.device)
            logp_TB, own = model.target_logprobs(ids, targets, _own(state, number))
            logp_TB = logp_TB.detach().cpu().double()
            rows.append(torch.where(logp_TB.isnan(), -math.log(len(self.vocab)), logp_TB))
            after |= {f"{number}.{name}": tensor for name, tensor in own.items()}
        rows_TBM1 = torch.stack(rows, dim=2).numpy()[..., None]
        return torch.from_numpy(linear(rows_TBM1, self.weights)[..., 0]), after

    def generate(
        self, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """See `LanguageModel.generate`; weights go on learning from what is drawn."""
        return generate_by_steps(self, ids_B, state, steps, rule, noise_TB)


def adaptive(models: Sequence[LanguageModel], *, cache: bool = False) -> MixtureLM:
    """A mixture in the logistic domain, its weights equal to begin with.

    Args:
        models: two or more, or one where there is a cache.
        cache: whether an n-gram model of what was just read (`CacheLM`) is mixed in too; it begins with a weight of
            0, for it knows nothing yet.
    """
    weights = [1 / len(models)] * len(models) + [0.0] * cache
    return MixtureLM([*models, *([CacheLM(models[0].vocab)] if cache else [])], weights=weights)


def _own(state: Mapping[str, Tensor], number: int) -> State:
    """One model's part of the state."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _defined(logp_TBV: Tensor) -> Tensor:
    """Undefined rows made uniform."""
    return torch.where(logp_TBV.isnan(), -math.log(logp_TBV.shape[-1]), logp_TBV)


def tune_weights(
    models: Sequence[LanguageModel], ids: Ids, spans: Spans, *, rounds: int = 200, chunk: int = 1024
) -> list[float]:
    """The fixed weights with the lowest nats on a part, by expectation maximisation (Dempster et al. 1977).

    Args:
        models: to be mixed.
        ids: of a text; -1 for an unknown character.
        spans: of the part to tune on, never of the part that is reported.
        rounds: at most so many; it ends when no weight moves by 1e-6.
        chunk: characters read at once.
    """
    logp_MN = np.stack([_read(model, ids, spans, chunk) for model in models])
    if not logp_MN.shape[1]:
        raise OptionError("the part to tune on has no character to predict: use another --split")
    p_MN = np.exp(np.where(np.isnan(logp_MN), -math.log(len(models[0].vocab)), logp_MN))
    p_MN = p_MN[:, p_MN.sum(0) > 0]  # what no model foresees says nothing about their weights
    weights_M = np.full(len(models), 1 / len(models))
    for _ in range(rounds):
        shares_MN = weights_M[:, None] * p_MN
        after_M = (shares_MN / shares_MN.sum(0)).mean(1) if p_MN.size else weights_M
        moved = float(np.abs(after_M - weights_M).max())
        weights_M = after_M
        if moved < 1e-6:
            break
    return [float(weight) for weight in weights_M / weights_M.sum()]


@torch.no_grad()
def _read(model: LanguageModel, ids: Ids, spans: Spans, chunk: int) -> Floats:
    """The log-probabilities of all known targets, each span read as one stream."""
    found: list[Floats] = [np.zeros(0)]
    for start, end in spans.tolist():
        state = model.initial_state(1)
        for at in range(start, end - 1, chunk):
            text = torch.from_numpy(ids[at : min(at + chunk + 1, end)].astype(np.int64)).to(model.device)
            logp_TB, state = model.target_logprobs(text[:-1, None], text[1:, None], state)
            found.append(logp_TB[text[1:] >= 0, 0].cpu().double().numpy())
    return np.concatenate(found)
