"""Killing a training process at random moments changes nothing in what it ends with."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.kills import command, curve, kill_and_resume, options_of, weights

KILLS = 20
STEPS = 400


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("backend", ["fused"])
def test_twenty_kills_leave_no_trace(tmp_path: Path, verse: Path, cell: str, backend: str) -> None:
    options = options_of(cell, STEPS, backend)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    subprocess.run(command(verse, *options, "--out", whole), check=True, capture_output=True)
    survived = kill_and_resume(verse, options, pieces, kills=KILLS, steps=STEPS, seed=cell)
    assert survived.kills == KILLS
    assert weights(whole) == weights(pieces)
    assert curve(whole) == curve(pieces)
    assert not list(pieces.glob(".*"))
