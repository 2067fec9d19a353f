"""Scaling against numpy, there and back, and that held-out rows play no part."""

import json
import math

import numpy as np
import pytest
import torch

from charlm.codec import decode, encode
from charlm.errors import CheckpointError, OptionError
from charlm.sequences import Examples, Sequences
from charlm.sequences.config import KINDS, Scale, fit_scales
from charlm.sequences.model import SequenceConfig


def test_against_numpy_and_back_again() -> None:
    rows = np.random.default_rng(0).normal([5, -1e6, 0.001], [2, 1e3, 1e-6], (50, 3))
    for kind in KINDS:
        scale = Scale.fit(torch.from_numpy(rows), kind)
        shift, width = (rows.min(0), np.ptp(rows, 0)) if kind == "min-max" else (rows.mean(0), rows.std(0))
        scaled = scale.apply(torch.from_numpy(rows))
        assert np.allclose(scaled, (rows - shift) / width, rtol=1e-9, atol=1e-9)
        assert np.allclose(scale.undo(scaled), rows, rtol=1e-14)
        assert decode(Scale, json.loads(json.dumps(encode(scale)))) == scale


def test_a_feature_that_never_changes_and_one_row() -> None:
    rows = torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 2.0]]).double()
    for kind in KINDS:
        scale = Scale.fit(rows, kind)
        assert scale.width[0] == 1
        assert scale.apply(rows)[:, 0].abs().max() < 1e-15
        assert Scale.fit(rows[:1], kind).width == (1.0, 1.0)


def test_what_cannot_be_scaled_is_refused_with_its_place() -> None:
    rows = torch.zeros(3, 2)
    rows[1, 1] = math.nan
    with pytest.raises(OptionError, match="row 2, feature 2"):
        Scale.fit(rows, "min-max")
    with pytest.raises(OptionError, match="unknown scaling 'log'"):
        Scale.fit(torch.zeros(3, 2), "log")
    for shape in ((0, 2), (3,), (3, 0)):
        with pytest.raises(OptionError, match="rows and features"):
            Scale.fit(torch.zeros(*shape), "min-max")


def test_what_is_stored_is_not_believed() -> None:
    good = {"kind": "min-max", "shift": [0.0], "width": [1.0]}
    wrong: list[object] = [
        None,
        [],
        {},
        {**good, "kind": "log"},
        {**good, "shift": [1.0, 2.0]},
        {**good, "shift": [], "width": []},
        {**good, "width": [-1.0]},
        {**good, "width": [math.inf]},
        {**good, "shift": ["0"]},
        {**good, "shift": [True]},
        {**good, "shift": 0.0},
        {**good, "more": 1},
    ]
    for value in wrong:
        with pytest.raises(CheckpointError):
            decode(Scale, value)


def test_held_out_rows_never_influence_the_scales() -> None:
    chance = np.random.default_rng(1)
    inputs = [chance.normal(size=(1 + n % 3, 2)) for n in range(30)]
    targets = chance.normal(size=30)
    parts = torch.arange(30).split([20, 10])
    found = []
    for held_out in (0.0, 1e9, -1e9):  # the held-out rows are anything at all
        for row in parts[1].tolist():
            inputs[row] = np.full_like(inputs[row], held_out)
            targets[row] = held_out
        whole = Examples(inputs=Sequences.of_numbers(inputs), targets=Sequences.of_numbers(targets))
        config = fit_scales(SequenceConfig(features=2), whole.take(parts[0]), inputs="z-score", targets=True)
        found.append((config.input_scale, config.target_scale))
    assert found[0] == found[1] == found[2]
    steps = np.concatenate(inputs[:20])
    assert found[0][0] is not None
    assert found[0][1] is not None
    assert found[0][0].shift == pytest.approx(steps.mean(0))
    assert found[0][0].width == pytest.approx(steps.std(0))
    assert (found[0][1].shift[0], found[0][1].width[0]) == pytest.approx((targets[:20].min(), np.ptp(targets[:20])))


def test_text_has_no_scale() -> None:
    labels = Sequences.of_labels([0, 1])
    with pytest.raises(OptionError, match="text has no scale"):
        fit_scales(SequenceConfig(features=0), Examples(inputs=labels, targets=labels), inputs="min-max")


def test_a_target_that_never_changes_is_undone_to_its_value() -> None:
    x = Sequences.of_numbers([[1.0], [2.0], [3.0]])
    examples = Examples(inputs=x, targets=Sequences.of_numbers([4.5, 4.5, 4.5]))
    scale = fit_scales(SequenceConfig(), examples, targets=True).target_scale
    assert scale is not None
    assert scale.apply(torch.tensor([4.5, 6.5])).tolist() == [0, 2]
    assert scale.undo(torch.tensor([0.0, 0.3, 1.0])).tolist() == [4.5, 4.5, 4.5]
    assert decode(Scale, json.loads(json.dumps(encode(scale)))) == scale
    with pytest.raises(OptionError, match="each has a width above 0"):
        SequenceConfig(input_scale=scale)
