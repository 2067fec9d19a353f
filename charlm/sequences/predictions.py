"""The figures of Scores and Distributions on held-out rows, each beside the base rate.

The base rate is what somebody says who has seen the labels of the training part and no sequence: their mean for every
Score, the shares of the classes for every Distribution (whose most frequent class is then always the guess).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlm.errors import CharlmError
from charlm.sequences.calibration import (
    Reliability,
    accuracy,
    area_under_curve,
    brier_score,
    confusion_matrix,
    log_loss,
    mean_squared_error,
    r_squared,
    reliability,
)

__all__ = ["Figures", "distribution_figures", "score_figures"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured.

    Args:
        targets: how many labels were predicted.
        values: the figures by name; one that is undefined (no positive, all labels equal) is None.
        base: those that the base rate has, by the same names.
        guess: what the base rate says: a mean, or the most frequent class.
        reliability: what was said and what came; None for numbers that are no probabilities.
        confusion: classes that came (rows) and were said (columns); None for Scores.
        classes: their names.
    """

    targets: int
    values: dict[str, float | None]
    base: dict[str, float | None]
    guess: float | str
    reliability: Reliability | None = None
    confusion: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: what is infinite or undefined is None."""
        return {
            "targets": self.targets,
            **{name: _finite(value) for name, value in self.values.items()},
            "base": {"guess": self.guess, **{name: _finite(value) for name, value in self.base.items()}},
            "reliability": None if self.reliability is None else self.reliability.to_json(),
            "classes": list(self.classes),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def score_figures(said_N: ArrayLike, came_N: ArrayLike, *, base: float, bounded: bool = True) -> Figures:
    """Figures of Scores.

    Args:
        said_N: what was predicted.
        came_N: the labels. All 0 or 1: accuracy and the area under the curve are among the figures.
        base: the mean label of the training part.
        bounded: whether labels and Scores are probabilities; numbers in other units have squared errors alone.

    >>> figures = score_figures([0.9, 0.2], [1, 0], base=0.5)
    >>> figures.values["accuracy"], figures.values["area_under_curve"], round(figures.base["brier"], 3)
    (1.0, 1.0, 0.25)
    """
    said, came = np.asarray(said_N, dtype=np.float64), np.asarray(came_N, dtype=np.float64)
    _check(said)
    flat = np.full_like(came, base)
    measures: dict[str, Callable[[Any, Any], float | None]] = {}
    if bounded and bool(((came == 0) | (came == 1)).all()):
        measures = {"accuracy": accuracy, "area_under_curve": area_under_curve}
    if bounded:
        measures |= {"log_loss": log_loss, "brier": brier_score, "expected_calibration_error": _expected_error}
    else:
        measures |= {"mean_squared_error": mean_squared_error}
    measures["r_squared"] = r_squared
    return Figures(
        targets=len(came),
        values={name: measure(said, came) for name, measure in measures.items()},
        base={name: measure(flat, came) for name, measure in measures.items()},
        guess=base,
        reliability=reliability(said, came) if bounded else None,
    )


def distribution_figures(said_NV: ArrayLike, came: ArrayLike, *, base_V: ArrayLike, classes: Sequence[str]) -> Figures:
    """Figures of Distributions.

    Args:
        said_NV: a probability for each class.
        came: the classes [N], or their shares [N, V]; of shares the largest counts as what came, where one is needed.
        base_V: the shares of the classes in the training part.
        classes: the V names.

    >>> figures = distribution_figures([[0.8, 0.2], [0.6, 0.4]], [0, 1], base_V=[0.75, 0.25], classes="ab")
    >>> figures.values["accuracy"], figures.guess, figures.confusion.tolist()
    (0.5, 'a', [[1, 0], [1, 0]])
    """
    said, outcomes, base = np.asarray(said_NV, dtype=np.float64), np.asarray(came), np.asarray(base_V, dtype=np.float64)
    _check(said)
    said = said / said.sum(axis=1, keepdims=True)
    flat = np.repeat(base[None], len(said), axis=0)
    shares = outcomes if outcomes.ndim == 2 else np.eye(len(classes))[outcomes]
    top = said.argmax(axis=1)
    curve = reliability(said.max(axis=1), shares[np.arange(len(said)), top])
    measures = {"accuracy": accuracy, "log_loss": log_loss, "brier": brier_score}
    values: dict[str, float | None] = {name: measure(said, shares) for name, measure in measures.items()}
    return Figures(
        targets=len(said),
        values={**values, "expected_calibration_error": curve.expected_error},
        base={name: measure(flat, shares) for name, measure in measures.items()},
        guess=classes[int(base.argmax())],
        reliability=curve,
        confusion=confusion_matrix(shares.argmax(axis=1), top, len(classes)),
        classes=tuple(classes),
    )


def _expected_error(said: ArrayLike, came: ArrayLike) -> float:
    return reliability(said, came).expected_error


def _check(said: NDArray[np.float64]) -> None:
    if not len(said):
        raise CharlmError("there is nothing to measure: no predictions")
    if not np.isfinite(said).all():
        raise CharlmError("some predictions are no numbers: the model diverged, or the input is far outside its range")
