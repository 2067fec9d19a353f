"""How good Scores and Distributions are on held-out examples, each figure beside that of the base rate.

The base rate is the prediction of somebody who has seen the labels of the training part and no sequence: their mean for
every Score, the shares of the classes for every Distribution (whose most frequent class is then always the guess).

What scikit-learn measures is taken from it. Three things are computed here: log loss and Brier score, because labels
may be shares of several classes, and because an impossible event that happened costs infinitely many nats (scikit-learn
clips it); and the bins of a reliability curve, because the calibration error needs their counts. For labels that are
classes the tests compare all three with scikit-learn.

N predictions, V classes, M bins. Binary predictions are probabilities [N] of "yes" with outcomes [N] from 0 to 1;
predictions over classes are [N, V] with outcomes [N] (the class that came) or [N, V] (a share of each class).

Sequences of numbers are measured too: `summary_features` is what the trees see of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlm.errors import CharlmError
from charlm.sequences import Sequences

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Predictions gathered in bins of equal width: what was said and what came.

    Args:
        edges: the M + 1 bounds k/M; bin m holds what is above edge m and not above edge m + 1, the first also 0.
        count: predictions in each bin.
        said: their mean probability; NaN in an empty bin.
        came: how often it came; NaN in an empty bin.
    """

    edges: Floats
    count: NDArray[np.int64]
    said: Floats
    came: Floats

    @property
    def expected_error(self) -> float:
        """The expected calibration error: the mean of |said − came| over the predictions, 0 to 1.

        Σ_m (n_m / N) |came_m − said_m| over the bins that are not empty (Guo et al. 2017, equation 3).
        """
        full = self.count > 0
        return float(np.abs(self.came - self.said)[full] @ (self.count[full] / self.count.sum()))

    def to_json(self) -> list[dict[str, Any]]:
        """The points of the reliability curve; empty bins are left out."""
        return [
            {
                "from": float(self.edges[m]),
                "to": float(self.edges[m + 1]),
                "count": int(self.count[m]),
                "said": float(self.said[m]),
                "came": float(self.came[m]),
            }
            for m in np.flatnonzero(self.count)
        ]


def reliability(probabilities_N: ArrayLike, came_N: ArrayLike, bins: int = 15) -> Reliability:
    """Sorts predictions into bins of equal width and compares what was said with what came.

    Args:
        probabilities_N: what was said: of "yes", of the most probable class (`top_label`), of the next character.
        came_N: whether it came: 0 or 1, or a share between them.
        bins: M; 15 as in Guo et al. (2017).

    >>> curve = reliability([0.1, 0.3, 0.9, 0.8], [0, 1, 1, 1], bins=2)
    >>> curve.count.tolist(), curve.said.round(3).tolist(), curve.came.tolist()
    ([2, 2], [0.2, 0.85], [0.5, 1.0])
    >>> round(curve.expected_error, 3)  # (0.3 + 0.15) / 2
    0.225
    """
    said_N, came = _probabilities(probabilities_N), _probabilities(came_N)
    if said_N.ndim != 1 or said_N.shape != came.shape or not 1 <= bins <= 1 << 20:
        raise CharlmError(f"calibration needs two lists of one length and a bin, not {said_N.shape}, {came.shape}")
    edges = np.arange(bins + 1) / bins
    bin_N = np.maximum(np.searchsorted(edges, said_N, side="left") - 1, 0)
    count = np.bincount(bin_N, minlength=bins)
    with np.errstate(invalid="ignore"):
        said = np.bincount(bin_N, said_N, minlength=bins) / count
        share = np.bincount(bin_N, came, minlength=bins) / count
    return Reliability(edges=edges, count=count, said=said, came=share)


def accuracy(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """The share of right predictions: "yes" from one half on, or the most probable class (the first of equals).

    >>> accuracy([0.2, 0.5, 0.9], [0, 1, 0]), accuracy([[0.5, 0.2, 0.3]], [0])
    (0.6666666666666666, 1.0)
    """
    p, y = _pair(probabilities, outcomes)
    if p.ndim == 1:
        return float(((p >= 0.5) == (y >= 0.5)).mean())
    return float((p.argmax(axis=1) == y.argmax(axis=1)).mean())


def log_loss(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Nats a prediction: the mean of −log of the probability of what came; for shares their cross-entropy.

    >>> round(log_loss([0.8, 0.4], [1, 0]), 4)  # −(ln 0.8 + ln 0.6) / 2
    0.367
    >>> log_loss([[1.0, 0.0]], [1])
    inf
    """
    p, y = _pair(probabilities, outcomes)
    if p.ndim == 1:
        p, y = np.stack([1 - p, p], axis=1), np.stack([1 - y, y], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(-np.where(y > 0, y * np.log(p), 0.0).sum(axis=1).mean()) + 0.0


def brier_score(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """The mean squared distance between what was said and what came (Brier 1950).

    Binary: the mean of (p − y)², 0 to 1. Classes: the mean of Σ_v (p_v − y_v)², 0 to 2, Brier's own definition; with
    two classes it is twice the binary one.

    >>> round(brier_score([0.8, 0.4], [1, 0]), 4), round(brier_score([[0.2, 0.8], [0.6, 0.4]], [1, 0]), 4)
    (0.1, 0.2)
    """
    p, y = _pair(probabilities, outcomes)
    square = (p - y) ** 2
    return float((square if p.ndim == 1 else square.sum(axis=1)).mean())


def area_under_curve(scores_N: ArrayLike, positive_N: ArrayLike) -> float | None:
    """The area under the ROC curve: how often a positive gets a higher score than a negative, ties counting half.

    None where one of the two kinds is missing.

    >>> area_under_curve([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])  # of four pairs three are right and one is a tie
    0.875
    """
    from sklearn.metrics import roc_auc_score

    positive = np.asarray(positive_N, dtype=bool)
    return None if positive.all() or not positive.any() else float(roc_auc_score(positive, np.asarray(scores_N)))


def average_precision(scores_N: ArrayLike, positive_N: ArrayLike) -> float | None:
    """The area under the precision-recall curve, as a sum over its steps; None where nothing is positive.

    A guess by chance has the share of positives.

    >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)  # 1/2 · 1 + 1/2 · 2/3
    0.8333
    """
    from sklearn.metrics import average_precision_score

    positive = np.asarray(positive_N, dtype=bool)
    return float(average_precision_score(positive, np.asarray(scores_N))) if positive.any() else None


def detection(scores_N: ArrayLike, positive_N: ArrayLike, false_alarms: float) -> float | None:
    """The largest share of positives that a threshold finds with at most this share of false alarms.

    Args:
        scores_N: higher for positives.
        positive_N: 0 or 1.
        false_alarms: the share of negatives that may be taken for positives, as 0.01.

    >>> detection([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 0, 1, 0, 1, 1], 0.25)
    0.6666666666666666
    """
    from sklearn.metrics import roc_curve

    positive = np.asarray(positive_N, dtype=bool)
    if positive.all() or not positive.any():
        return None
    alarms, found, _ = roc_curve(positive, np.asarray(scores_N), drop_intermediate=False)
    return float(found[alarms <= false_alarms].max())


def threshold_for(p_N: ArrayLike, positive_N: ArrayLike, false_alarm: float, miss: float) -> float:
    """The threshold from which on "yes" is said that costs least on these rows.

    Args:
        p_N: probabilities of "yes".
        positive_N: 0 or 1.
        false_alarm, miss: what each costs.

    >>> threshold_for([0.1, 0.2, 0.6, 0.9], [0, 1, 0, 1], 1, 10)  # one false alarm is cheaper than a miss
    0.2
    """
    p, positive = np.asarray(p_N, dtype=np.float64), np.asarray(positive_N, dtype=bool)
    values, place = np.unique(p, return_inverse=True)
    yes = np.bincount(place, positive, minlength=len(values))
    no = np.bincount(place, ~positive, minlength=len(values))
    misses = np.concatenate([[0.0], np.cumsum(yes)])  # below each threshold
    alarms = no.sum() - np.concatenate([[0.0], np.cumsum(no)])
    best = int((false_alarm * alarms + miss * misses).argmin())
    return float(values[best]) if best < len(values) else 1.0


def r_squared(said_N: ArrayLike, came_N: ArrayLike) -> float | None:
    """1 − Σ(came − said)² / Σ(came − mean)²: the share of the variance that is explained.

    1 is perfect, 0 as good as the mean of these very outcomes, negative worse. None where they are all equal.

    >>> r_squared([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    0.5
    """
    from sklearn.metrics import r2_score

    came = np.asarray(came_N, dtype=np.float64)
    return None if came.min() == came.max() else float(r2_score(came, np.asarray(said_N)))


def _pair(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[Floats, Floats]:
    """Both as floats of one shape; the numbers of classes become distributions."""
    p = _probabilities(probabilities)
    given = np.asarray(outcomes)
    if p.ndim == 2 and given.ndim == 1 and len(given) == len(p):
        classes = given.astype(np.int64)
        if (classes != given).any() or classes.min() < 0 or classes.max() >= p.shape[1]:
            raise CharlmError(f"a class is a number from 0 to {p.shape[1] - 1}")
        y = np.eye(p.shape[1])[classes]
    else:
        y = _probabilities(given)
    if p.shape != y.shape or p.ndim not in (1, 2):
        raise CharlmError(f"predictions {p.shape} and outcomes {given.shape} do not belong together")
    return p, y


def _probabilities(values: ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    if not p.size:
        raise CharlmError("there is nothing to measure: no predictions")
    if not (math.isfinite(p.min()) and p.min() >= 0 and p.max() <= 1):
        raise CharlmError(f"a probability is a number from 0 to 1; these go from {p.min():g} to {p.max():g}")
    return p


def nats_each(p_NV: Floats, shares_NV: Floats) -> Floats:
    """The cross-entropy of each row's shares of classes under probabilities, which are taken as at least 1e-12, [N]."""
    return np.asarray(-(shares_NV * np.log(np.maximum(p_NV, 1e-12))).sum(1))


def mean_nats(p_NV: Floats, shares_NV: Floats) -> float:
    """The mean of `nats_each`."""
    return float(nats_each(p_NV, shares_NV).mean())


def softmax(x_NV: Floats) -> Floats:
    """Rows of probabilities from rows of logarithms."""
    p = np.exp(x_NV - x_NV.max(1, keepdims=True))
    return np.asarray(p / p.sum(1, keepdims=True))


def summary_features(inputs: Sequences) -> NDArray[np.float64]:
    """What sequences of numbers have in common whatever their length, [N, G] with G = 1 + 19 F.

    The length, and for each number of a step: mean, standard deviation, least, greatest, first and last value, the
    means of |x|, of |Δx| and of Δx² over neighbours, the correlation of steps 1 to 6 apart, the slope of a line, how
    often it crosses its mean a step, and where the least and the greatest value stand (0 to 1). None is beyond ±1e300,
    however large the numbers are.

    >>> summary_features(Sequences.of_numbers([[1.0, 3.0], [2.0]])).shape
    (2, 20)
    """
    return np.stack([_summary(each.numpy().reshape(len(each), -1)) for each in inputs])


_BIG, _LARGEST = 1e100, 1e300  # what has a square that is no number; the largest feature, which trees can still add


def _summary(x_TF: NDArray[np.float64]) -> NDArray[np.float64]:
    peak_F = np.abs(x_TF).max(0)
    unit_F = np.where(peak_F > _BIG, np.ldexp(1.0, np.frexp(peak_F)[1] - 1), 1.0)  # a power of 2: nothing is rounded
    x_TF = x_TF / unit_F
    steps, mean, deviation = len(x_TF), x_TF.mean(0), x_TF.std(0)
    centred = x_TF - mean
    change = np.diff(x_TF, axis=0) if steps > 1 else np.zeros_like(x_TF)
    t = np.linspace(-1, 1, steps) if steps > 1 else np.zeros(1)
    spread = np.maximum(deviation, 1e-12)
    apart = [(centred[lag:] * centred[:-lag]).sum(0) / (steps * spread**2) for lag in range(1, 7)]
    slope = (t[:, None] * centred).sum(0) / max(float(t @ t), 1e-12)
    crossings = (np.diff(np.sign(centred), axis=0) != 0).sum(0) / steps
    places = [x_TF.argmin(0) / steps, x_TF.argmax(0) / steps]
    parts = [mean, deviation, x_TF.min(0), x_TF.max(0), x_TF[0], x_TF[-1], np.abs(x_TF).mean(0)]
    parts.append(np.abs(change).mean(0))
    with np.errstate(over="ignore"):
        parts += [(change**2).mean(0) * unit_F, slope]
        parts = [np.clip(part * unit_F, -_LARGEST, _LARGEST) for part in parts]
    return np.concatenate([[float(steps)], *parts, crossings, *apart, *places])
