"""Figures beside their base rate, by hand."""

import json
import math

import numpy as np
import pytest

from charlm.errors import CharlmError
from charlm.sequences.predictions import distribution_figures, score_figures


def test_scores_by_hand() -> None:
    figures = score_figures([0.9, 0.6, 0.2, 0.4], [1, 0, 0, 1], base=0.25)
    assert figures.values == {
        "accuracy": 0.5,
        "area_under_curve": 0.75,  # of four pairs (0.4, 0.6) alone is wrong
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
