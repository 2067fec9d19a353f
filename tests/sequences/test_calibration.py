"""Figures of probabilities against arithmetic by hand, naive loops and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CharlmError
from charlm.sequences.calibration import (
    accuracy,
    area_under_curve,
    brier_score,
    confusion_matrix,
    log_loss,
    mean_squared_error,
    r_squared,
    reliability,
    top_label,
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
    error, points = 0.0, []
    for m in range(bins):
        inside = [(p, y) for p, y in rows if m / bins < p <= (m + 1) / bins or (m == 0 and p == 0)]
        assert curve.count[m] == len(inside)
        if inside:
            said, came = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            assert (curve.said[m], curve.came[m]) == (pytest.approx(said), pytest.approx(came))
            error += abs(said - came) * len(inside) / len(rows)
            points.append(abs(said - came))
    assert curve.expected_error == pytest.approx(error, abs=1e-12)
    assert curve.largest_error == pytest.approx(max(points))
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


def test_accuracy_and_confusion() -> None:
    p = [[0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3]]
    assert accuracy(p, [0, 2, 2, 1]) == 0.75
    assert accuracy([0.5, 0.49], [1, 1]) == 0.5
    said, came = top_label(p, [0, 2, 2, 1])
    assert (said.tolist(), came.tolist()) == ([0.6, 0.8, 0.4, 0.5], [True, True, False, True])
    matrix = confusion_matrix([0, 2, 2, 1], np.argmax(p, axis=1), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert np.trace(matrix) / matrix.sum() == accuracy(p, [0, 2, 2, 1])


def test_errors_of_numbers() -> None:
    assert mean_squared_error([1, 2, 3], [2, 2, 5]) == pytest.approx(5 / 3)
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
    with pytest.raises(CharlmError):
        confusion_matrix([0, 3], [0, 1], 3)
