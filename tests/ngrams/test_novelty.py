import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import OptionError
from charlm.ngrams.index import PASSAGE, SuffixIndex, novelty


def naive(spans, text):
    """The longest common passage, its first beginning, and how many of 20 are copied, by trying all."""
    longest, begins = 0, 0
    for start in range(len(text)):
        length = 0
        while start + length < len(text) and any(
            text[start : start + length + 1] == span[i : i + length + 1]
            for span in spans
            for i in range(len(span) - length)
        ):
            length += 1
        if length > longest:
            longest, begins = length, start
    pieces = [text[i : i + PASSAGE] for i in range(len(text) - PASSAGE + 1)]
    windows = [span[i : i + PASSAGE] for span in spans for i in range(len(span) - PASSAGE + 1)]
    return longest, begins, sum(piece in windows for piece in pieces)


def built(spans, symbols=3):
    edges = np.cumsum([0, *map(len, spans)])
    ids = np.array([c for span in spans for c in span], dtype=np.int64)
    rows = np.stack([edges[:-1], edges[1:]], axis=1)
    return ids, rows, SuffixIndex.build(ids, rows, symbols=symbols)


@pytest.mark.slow
@given(
    phrase=st.lists(st.integers(0, 2), min_size=35, max_size=60),
    pieces=st.lists(st.tuples(st.integers(0, 59), st.integers(1, 60), st.integers(-1, 2)), min_size=1, max_size=4),
    more=st.lists(st.integers(0, 1), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_trying_everything(phrase, pieces, more):
    spans = [[*more, *phrase], [], phrase[3:] + more, [2] * 3]
    text = [c for start, length, after in pieces for c in [*phrase[start : start + length], after]]
    ids, rows, index = built(spans)
    found = novelty(index, np.array(text), spans=rows)
    assert (found.longest, found.begins, found.copied) == naive(spans, text)
    assert found.passages == max(0, len(text) - PASSAGE + 1)
    passage = text[found.begins : found.begins + found.longest]
    assert ids[found.stands : found.stands + found.longest].tolist() == passage


def test_a_long_copy_is_followed_far_beyond_the_index():
    rng = np.random.default_rng(0)
    training, own = rng.integers(0, 20, 30_000), rng.integers(0, 20, 300)
    index = SuffixIndex.build(training, np.array([[0, 10_000], [10_000, 30_000]]), symbols=20)
    text = np.concatenate([own, training[12_345:25_000], own])
    found = novelty(index, text)
    assert found.longest in range(12_655, 12_665)  # by chance it may go a little further
    assert text[found.begins : found.begins + found.longest].tolist() == (
        training[found.stands : found.stands + found.longest].tolist()
    )
    assert found.share == found.copied / found.passages
    assert found.copied >= 12_655 - PASSAGE + 1
    assert found.to_json()["share"] == found.share


def test_monotonous_texts_and_short_ones():
    index = SuffixIndex.build(np.zeros(150, np.int64), np.array([[0, 150]]), symbols=2)
    assert novelty(index, np.zeros(100, np.int64)).longest == 100
    assert novelty(index, np.zeros(300, np.int64)).longest == 150
    assert novelty(index, np.array([1, 1])).longest == 0
    assert novelty(index, np.zeros(0, np.int64)).share is None
    with pytest.raises(OptionError, match="one text"):
        novelty(index, np.zeros((2, 2), np.int64))
