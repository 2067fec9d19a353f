"""How the probabilities of several models become one: the arithmetic of mixtures, and weights that learn.

Axes: B lanes, M models, V symbols, S sets of weights, X any others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError

__all__ = ["CONTEXTS", "KINDS", "Floats", "Mixer", "MixtureConfig", "linear"]

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
