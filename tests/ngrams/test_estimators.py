import math

import numpy as np
import pytest
from brute_ngram import Brute
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import OptionError
from charlm.ngrams.counted import Contexts
from charlm.ngrams.estimators import ESTIMATORS, make_estimator, tune
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.kneser_ney import discounts

SYMBOLS = 4
OPTIONS = {
    "none": [{}, {"longest": True}],
    "add-k": [{"k": 0.3}],
    "uniform-mix": [{"weight": 0.2, "longest": True}],
}
SPANS = st.lists(st.lists(st.integers(0, 2), max_size=30), min_size=1, max_size=3).filter(any)
CASES = [(name, options) for name in ESTIMATORS for options in OPTIONS.get(name, [{}])]


def index_of(spans, symbols=SYMBOLS):
    edges = np.cumsum([0, *map(len, spans)])
    ids = np.array([c for span in spans for c in span], dtype=np.uint8)
    return SuffixIndex.build(ids, np.stack([edges[:-1], edges[1:]], axis=1), symbols=symbols)


def contexts_of(index, text, order):
    """The context after each symbol of a text."""
    ids, age = np.array(text, dtype=np.int64), np.arange(1, len(text) + 1)
    return Contexts(nodes=index.levels.nodes(ids, age, order), read_N=age)


@pytest.mark.parametrize(("name", "options"), CASES)
@given(spans=SPANS, text=st.lists(st.integers(-1, 3), min_size=1, max_size=16), order=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_every_estimator_agrees_with_dicts(name, options, spans, text, order):
    index = index_of(spans)
    estimator, brute = make_estimator(name, index, order, **options), Brute(spans, SYMBOLS, order + 2)
    contexts = contexts_of(index, text, order)
    rows = estimator.rows(contexts)
    targets = [estimator.targets(contexts, np.full(len(text), c)) for c in range(SYMBOLS)]
    for at in range(len(text)):
        expected = brute.row(name, text[: at + 1], order, **options)
        if expected is None:
            assert np.isnan(rows[at]).all()
            continue
        assert rows[at] == pytest.approx(expected, abs=1e-12)
        assert math.fsum(rows[at]) == pytest.approx(1, abs=1e-12)
        assert [targets[c][at] for c in range(SYMBOLS)] == rows[at].tolist()


@given(spans=SPANS, text=st.lists(st.integers(-1, 3), min_size=1, max_size=16), order=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_generating_uses_the_longest_seen_suffix(spans, text, order):
    index = index_of(spans)
    brute = Brute(spans, SYMBOLS, order + 2)
    rows = make_estimator("none", index, order).rows(contexts_of(index, text, order), generating=True)
    for at in range(len(text)):
        expected = brute.row("none", text[: at + 1], order, longest=True)
        assert rows[at] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(spans=SPANS, order=st.integers(0, 6), top=st.booleans())
@settings(max_examples=30, deadline=None)
def test_event_probabilities_are_the_rows_of_seen_histories(name, spans, order, top):
    index = index_of(spans)
    estimator, brute = make_estimator(name, index, order + (not top)), Brute(spans, SYMBOLS, order + 2)
    found = sorted(estimator.event_probabilities(order, top=top).tolist())
    strings = [string for string in brute.count if len(string) == order + 1]
    if name == "kneser-ney":
        expected = sorted(brute.kneser_ney(s[:-1], s[-1], top=top) for s in strings)
    else:
        expected = sorted(brute.row(name, list(s[:-1]), estimator.order)[s[-1]] for s in strings)
    assert found == pytest.approx(expected, abs=1e-12)


def test_kneser_ney_on_abracadabra_by_hand():
    # a b r a c a d a b r a, one character of history; a=0 b=1 c=2 d=3 r=4; fallback discounts 0.5, 1, 1.5
    text = [0, 1, 4, 0, 2, 0, 3, 0, 1, 4, 0]
    index = index_of([text], symbols=5)
    row = make_estimator("kneser-ney", index, 1).rows(contexts_of(index, [0], 1))[0]
    # what stands before: a: beginning, r, c, d; b: a; c: a; d: a; r: b -> 4, 1, 1, 1, 1 of 8
    lower = [(4 - 1.5) / 8, *[(1 - 0.5) / 8] * 4]
    lower = [p + (1.5 + 4 * 0.5) / 8 / 5 for p in lower]
    # after a: b twice, c once, d once
    kept, left = [0, 2 - 1.0, 1 - 0.5, 1 - 0.5, 0], (1.0 + 0.5 + 0.5) / 4
    assert row == pytest.approx([k / 4 + left * p for k, p in zip(kept, lower, strict=True)], abs=1e-15)


def test_kneser_ney_after_fewer_symbols_than_its_order_is_the_model_of_that_order():
    text = [0, 1, 2, 0, 1, 0, 2, 2, 1, 0, 1, 2]
    index = index_of([text], symbols=3)
    for order in (1, 2, 3):
        expected = make_estimator("kneser-ney", index, order).rows(contexts_of(index, text[:order], order))[-1]
        longer = make_estimator("kneser-ney", index, 5).rows(contexts_of(index, text[:order], 5))[-1]
        assert longer.tolist() == expected.tolist()


def test_witten_bell_by_hand():
    index = index_of([[0, 1, 0, 1, 0, 2]])
    row = make_estimator("witten-bell", index, 1).rows(contexts_of(index, [0], 1))[0]
    lower = [(3 + 3 / 4) / 9, (2 + 3 / 4) / 9, (1 + 3 / 4) / 9, 3 / 4 / 9]
    assert row == pytest.approx([(n + 2 * p) / 5 for n, p in zip([0, 2, 1, 0], lower, strict=True)], abs=1e-15)


def test_discounts_fall_back_as_a_whole():
    assert discounts(np.array([1] * 8 + [2] * 4 + [3] * 2 + [4])) == (0.5, 1.25, 2.0)
    assert discounts(np.array([1, 2, 3, 5])) == (0.5, 1.0, 1.5)  # no count of 4
    assert discounts(np.array([1, 2, 3, 3, 3, 3, 4])) == (0.5, 1.0, 1.5)  # the second would be negative


@pytest.mark.slow
def test_tuning_finds_what_a_fine_grid_finds():
    rng = np.random.default_rng(2)
    ids = rng.choice(4, 900, p=[0.6, 0.3, 0.08, 0.02]).astype(np.uint8)
    index = SuffixIndex.build(ids, np.array([[0, 700]]), symbols=4)
    spans = np.array([[700, 800], [800, 900]])

    def nats(name, key, value, order=3):
        estimator = make_estimator(name, index, order, **{key: value})
        total = 0.0
        for start, end in spans:
            text = ids[start:end].astype(np.int64)
            contexts = contexts_of(index, text[:-1], order)
            total -= np.log(estimator.targets(contexts, text[1:])).sum()
        return total

    for name, key, grid in (
        ("add-k", "k", np.geomspace(0.01, 100, 400)),
        ("uniform-mix", "weight", np.linspace(0.001, 0.999, 400)),
    ):
        found = tune(name, index, 3, ids, spans)[key]
        assert nats(name, key, found) <= min(nats(name, key, value) for value in grid) + 1e-6
    assert tune("kneser-ney", index, 3, ids, spans) == {}


@pytest.mark.parametrize(
    ("name", "order", "options"),
    [
        ("laplace", 1, {}),
        ("none", 33, {}),
        ("none", -1, {}),
        ("none", True, {}),
        ("add-k", 1, {"k": 0}),
        ("add-k", 1, {"k": math.inf}),
        ("add-k", 1, {"k": "1"}),
        ("uniform-mix", 1, {"weight": 1.0}),
        ("kneser-ney", 1, {"k": 1}),
        ("none", 1, {"longest": 1}),
    ],
)
def test_wrong_use_is_one_sentence(name, order, options):
    with pytest.raises(OptionError) as caught:
        make_estimator(name, index_of([[0, 1]]), order, **options)
    assert "\n" not in str(caught.value)
