"""A small part of `benchmarks.fuzz`: damaged and hostile files end in a result or in one sentence."""

from collections import Counter

import pytest

from benchmarks.fuzz import fuzz


@pytest.mark.slow
def test_damaged_checkpoints_and_texts_end_in_a_result_or_a_sentence() -> None:
    tally = fuzz(checkpoints=150, texts=150, seed=1)
    assert not tally.wrong, tally.wrong[0]
    kinds = Counter(kind for kind, _ in tally.outcomes)
    assert set(kinds) == {"network", "run", "n-gram", "Kneser-Ney", "text"}
    assert sum(tally.outcomes.values()) == 300
