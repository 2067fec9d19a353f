"""A small part of `python -m tests.fuzz`: damaged and hostile files end in a result or in one sentence."""

import warnings
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.common import Tally
from tests.fuzz.fuzz_commands import fuzz_commands
from tests.fuzz.fuzz_fits import fuzz_fits
from tests.fuzz.fuzz_tables import fuzz_tables


@pytest.mark.slow
def test_damaged_checkpoints_and_texts_end_in_a_result_or_a_sentence() -> None:
    tally = fuzz(checkpoints=150, texts=150, seed=1)
    assert not tally.wrong, tally.wrong[0]
    kinds = Counter(kind for kind, _ in tally.outcomes)
    assert set(kinds) == {"network", "run", "n-gram", "Kneser-Ney", "text"}
    assert sum(tally.outcomes.values()) == 300


def test_damaged_tables_end_in_a_result_or_a_sentence(tmp_path: Path) -> None:
    tally = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuzz_tables(80, 2, tmp_path, tally)
    assert not tally.wrong, tally.wrong[0]
    assert sum(tally.outcomes.values()) == 80
    assert tally.outcomes["table", "result"] > 5  # enough of them get all the way
    assert tally.outcomes["table", "sentence"] > 30


@pytest.mark.slow
def test_odd_command_lines_end_in_a_result_or_a_sentence(tmp_path: Path) -> None:
    tally = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuzz_commands(150, 3, tmp_path, tally)
    assert not tally.wrong, tally.wrong[0]
    assert tally.outcomes["command", "result"] == 150


@pytest.mark.slow
def test_damaged_fits_end_in_a_result_or_a_sentence(tmp_path: Path) -> None:
    tally = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuzz_fits(100, 4, tmp_path, tally)
    assert not tally.wrong, tally.wrong[0]
    assert tally.outcomes["prediction", "result"] > 20
    assert tally.outcomes["fit", "result"] > 20
