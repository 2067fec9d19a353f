"""Figures of probabilities against scikit-learn, arithmetic by hand, naive loops and brute force."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve

from charlm.errors import CharlmError
from charlm.sequences.figures import distribution_figures, score_figures
from charlm.sequences.metrics import (
    accuracy,
    area_under_curve,
    brier_score,
    log_loss,
    r_squared,
    reliability,
)

tenths = st.integers(0, 10).map(lambda number: number / 10)
binary = st.lists(st.tuples(tenths, st.integers(0, 1)), min_size=1, max_size=30)


@given(binary)
def test_the_area_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[float, int]]) -> None:
    yes = [p for p, y in rows if y]
    no = [p for p, y in rows if not y]
    pairs = [(a > b) + (a == b) / 2 for a in yes for b in no]
    expected = sum(pairs) / len(pairs) if pairs else None
    assert area_under_curve(*zip(*rows, strict=True)) == (pytest.approx(expected) if pairs else None)


@given(binary, st.integers(1, 12))
def test_bins_hold_what_is_above_their_lower_edge_and_not_above_their_upper(
    rows: list[tuple[float, int]], bins: int
) -> None:
    curve = reliability(*zip(*rows, strict=True), bins=bins)
    error = 0.0
    for m in range(bins):
        inside = [(p, y) for p, y in rows if m / bins < p <= (m + 1) / bins or (m == 0 and p == 0)]
        assert curve.count[m] == len(inside)
        if inside:
            said, came = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            assert (curve.said[m], curve.came[m]) == (pytest.approx(said), pytest.approx(came))
            error += abs(said - came) * len(inside) / len(rows)
    assert curve.expected_error == pytest.approx(error, abs=1e-12)
    assert sum(point["count"] for point in curve.to_json()) == len(rows)


def test_shares_count_as_shares() -> None:
    curve = reliability([0.2, 0.2], [0.25, 0.75], bins=4)
    assert (curve.count.tolist(), curve.came[0]) == ([2, 0, 0, 0], 0.5)
    assert curve.expected_error == pytest.approx(0.3)
    assert math.isnan(curve.said[1])


def test_calibration_of_known_probabilities_vanishes_and_of_bold_ones_does_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    assert reliability(p, y).expected_error < 0.005
    assert reliability((p > 0.5).astype(float), y).expected_error == pytest.approx(0.25, abs=0.005)  # E|1 - p|, p > 1/2
    assert brier_score(p, y) == pytest.approx(1 / 6, abs=0.002)  # the mean of p(1 − p)
    assert area_under_curve(p, y) == pytest.approx(5 / 6, abs=0.003)  # ∬ 2p · 2(1−q) [p > q]


def test_log_loss_by_hand() -> None:
    assert log_loss([0.9, 0.3], [1, 0]) == pytest.approx(-(math.log(0.9) + math.log(0.7)) / 2)
    assert log_loss([0.9], [0.25]) == pytest.approx(-0.25 * math.log(0.9) - 0.75 * math.log(0.1))
    assert log_loss([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], [0, 2]) == pytest.approx(-math.log(0.5 * 0.8) / 2)
    soft = log_loss([[0.5, 0.5, 0.0]], [[0.25, 0.75, 0.0]])
    assert soft == pytest.approx(math.log(2))
    assert log_loss([0.0, 1.0], [0, 1]) == 0
    assert math.copysign(1, log_loss([0.0], [0])) == 1
    assert log_loss([0.0], [1]) == math.inf


def test_brier_score_by_hand() -> None:
    assert brier_score([0.9, 0.3], [1, 0]) == pytest.approx((0.01 + 0.09) / 2)
    assert brier_score([[0.5, 0.3, 0.2]], [0]) == pytest.approx(0.25 + 0.09 + 0.04)
    assert brier_score([[0.5, 0.5]], [[0.25, 0.75]]) == pytest.approx(2 / 16)
    p, y = [0.1, 0.7, 0.4], [0, 1, 1]
    both = np.stack([1 - np.array(p), p], axis=1)
    assert brier_score(both, y) == pytest.approx(2 * brier_score(p, y))


def test_accuracy() -> None:
    p = [[0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3]]
    assert accuracy(p, [0, 2, 2, 1]) == 0.75
    assert accuracy([0.5, 0.49], [1, 1]) == 0.5


def test_errors_of_numbers() -> None:
    assert r_squared([2, 2, 2], [1, 2, 3]) == 0
    assert r_squared([3, 2, 1], [1, 2, 3]) == -3
    assert r_squared([1, 1], [4, 4]) is None


def test_what_is_no_probability_is_refused() -> None:
    for p, y in (([1.1], [1]), ([-0.1], [1]), ([math.nan], [1]), ([], []), ([0.5, 0.5], [1]), ([[0.5, 0.5]], [2])):
        with pytest.raises(CharlmError):
            log_loss(p, y)
    with pytest.raises(CharlmError):
        reliability([0.5], [2])
    with pytest.raises(CharlmError):
        reliability([0.5], [1], bins=0)


def test_against_scikit_learn() -> None:
    """Log loss, Brier score and bins are ours (shares, no clipping, counts); where both are defined they are equal."""
    rng = np.random.default_rng(0)
    p, y = rng.random(500), rng.integers(0, 2, 500)
    assert log_loss(p, y) == pytest.approx(metrics.log_loss(y, p), abs=1e-12)
    assert brier_score(p, y) == pytest.approx(metrics.brier_score_loss(y, p), abs=1e-12)
    assert area_under_curve(p, y) == pytest.approx(_ranks(p, y), abs=1e-12)
    p_NV, classes = rng.dirichlet(np.ones(4), 300), rng.integers(0, 4, 300)
    assert log_loss(p_NV, classes) == pytest.approx(metrics.log_loss(classes, p_NV, labels=range(4)), abs=1e-12)
    assert accuracy(p_NV, classes) == pytest.approx(metrics.accuracy_score(classes, p_NV.argmax(1)))
    came, said = calibration_curve(y, p, n_bins=15)
    curve = reliability(p, y, bins=15)
    assert curve.said[curve.count > 0] == pytest.approx(said, abs=1e-12)
    assert curve.came[curve.count > 0] == pytest.approx(came, abs=1e-12)


def _ranks(scores: np.ndarray, positive: np.ndarray) -> float:
    """Hanley and McNeil (1982): the area is the Mann-Whitney statistic over the number of pairs; no ties here."""
    ranks = scores.argsort().argsort() + 1
    n = positive.sum()
    return float(ranks[positive == 1].sum() - n * (n + 1) / 2) / n / (len(scores) - n)


def test_a_rare_class_is_seen() -> None:
    """Two of a hundred are spam; always "ham" is as accurate as the model, which ranks well all the same."""
    came = np.zeros(100, dtype=np.int64)
    came[:2] = 1
    p = np.full(100, 0.01)
    p[[0, 1, 2]] = 0.4, 0.03, 0.6
    figures = distribution_figures(np.stack([1 - p, p], 1), came, base_V=[0.98, 0.02], classes=("ham", "spam"))
    assert figures.values["accuracy"] == pytest.approx(0.97)
    assert figures.values["area_under_curve"] == pytest.approx((97 * 2 + 0) / (98 * 2))
    assert (figures.values["precision"], figures.values["recall"], figures.rare) == (0.0, 0.0, "spam")
    assert (figures.base["area_under_curve"], figures.base["precision"], figures.base["recall"]) == (0.5, None, 0.0)
    caught = distribution_figures([[0.4, 0.6], [0.3, 0.7], [0.9, 0.1]], [1, 0, 0], base_V=[0.9, 0.1], classes="ab")
    assert (caught.values["precision"], caught.values["recall"]) == (0.5, 1.0)
    assert "recall" not in distribution_figures([[1, 0, 0]], [0], base_V=[1, 0, 0], classes="abc").values


def test_scores_by_hand() -> None:
    figures = score_figures([0.9, 0.6, 0.2, 0.4], [1, 0, 0, 1], base=0.25)
    assert figures.values == {
        "accuracy": 0.5,
        "area_under_curve": 0.75,  # of four pairs (0.4, 0.6) alone is wrong
        "average_precision": pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3),
        "detection_at_0.01": 0.5,  # 0.9 is above both others
        "detection_at_0.001": 0.5,
        "log_loss": pytest.approx(-math.log(0.9 * 0.4 * 0.8 * 0.4) / 4),
        "brier": pytest.approx((0.01 + 0.36 + 0.04 + 0.36) / 4),
        "expected_calibration_error": pytest.approx((0.1 + 0.6 + 0.2 + 0.6) / 4),
        "r_squared": pytest.approx(1 - 0.77 / 1),
    }
    assert figures.base["accuracy"] == 0.5
    assert figures.base["area_under_curve"] == 0.5
    assert figures.base["log_loss"] == pytest.approx(-(2 * math.log(0.25) + 2 * math.log(0.75)) / 4)
    assert figures.base["expected_calibration_error"] == pytest.approx(0.25)


def test_shares_and_other_units() -> None:
    shares = score_figures([0.5, 0.5], [0.25, 0.75], base=0.5)
    assert "accuracy" not in shares.values
    assert shares.values["brier"] == pytest.approx(1 / 16)
    wide = score_figures([10.0, 30.0], [12.0, 28.0], base=20.0, bounded=False)
    assert wide.values == {"mean_squared_error": 4.0, "r_squared": pytest.approx(1 - 4 / 64)}
    assert wide.base == {"mean_squared_error": 64.0, "r_squared": 0.0}
    assert wide.reliability is None


def test_distributions_by_hand() -> None:
    said = [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]]
    figures = distribution_figures(said, [0, 1, 1], base_V=[0.2, 0.8, 0.0], classes=("a", "b", "c"))
    assert figures.values["accuracy"] == pytest.approx(2 / 3)
    assert figures.values["log_loss"] == pytest.approx(-math.log(0.5 * 0.2 * 0.8) / 3)
    assert figures.values["expected_calibration_error"] == pytest.approx((0.5 + 0.6 + 0.2) / 3)
    assert (figures.guess, figures.base["accuracy"]) == ("b", pytest.approx(2 / 3))
    assert figures.confusion is not None
    assert figures.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    same = distribution_figures(said, np.eye(3)[[0, 1, 1]], base_V=[0.2, 0.8, 0.0], classes=("a", "b", "c"))
    assert same.to_json() == figures.to_json()


def test_json_is_strict() -> None:
    figures = distribution_figures([[1.0, 0.0]], [1], base_V=[1.0, 0.0], classes=("a", "b"))
    assert figures.values["log_loss"] == math.inf
    found = json.loads(json.dumps(figures.to_json(), allow_nan=False))
    assert (found["log_loss"], found["base"]["log_loss"]) == (None, None)
    assert json.dumps(score_figures([0.5], [1], base=0.5).to_json(), allow_nan=False)


def test_nothing_and_what_is_no_number_are_refused() -> None:
    for said, came in (([], []), ([math.nan], [1.0])):
        with pytest.raises(CharlmError):
            score_figures(said, came, base=0.5)
