"""Figures against arithmetic by hand and against a naive loop."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from charlm.errors import TextError
from charlm.lm.evaluate import Row, evaluate, measure, per_character, row_of, standard_error, targets_of
from charlm.lm.interface import lane_segments, read_segments, span_segments
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import corpus_of_text
from charlm.text.vocab import Vocab

TEXT = "abracadabra, said the magician; abracadabra, said the bird " * 20


@pytest.fixture
def model() -> CharRNN:
    return CharRNN(Vocab.of(TEXT), RNNConfig(model="gru", hidden=9, layers=2)).double()


def naive(model: CharRNN, ids: np.ndarray) -> list[float]:
    """One character at a time, each from the whole history read again is too slow; from the carried state is not."""
    state, logps = model.initial_state(1), []
    with torch.no_grad():
        for here, there in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
            logp, state = model.logprobs(torch.tensor([[here]]), state)
            logps.append(float(logp[0, 0, there]))
    return logps


def test_spans_are_read_as_streams_whatever_the_lanes_and_chunks(model: CharRNN) -> None:
    ids = model.vocab.encode(TEXT)
    spans = np.array([[0, 100], [100, 101], [101, 357], [400, 402]])
    expected = np.concatenate([naive(model, ids[a:b]) for a, b in spans])
    for lanes, chunk in ((1, 7), (2, 64), (8, 1000)):
        logp, hit = read_segments(model, ids, span_segments(spans), lanes=lanes, chunk=chunk)
        assert np.abs(logp - expected).max() < 1e-12
        quick, _ = read_segments(model, ids, span_segments(spans), lanes=lanes, chunk=chunk, hits=False)
        assert np.abs(quick - expected).max() < 1e-12
    assert hit.sum() == sum(_hits(model, ids[a:b]) for a, b in spans if b - a > 1)


def _hits(model: CharRNN, ids: np.ndarray) -> int:
    with torch.no_grad():
        logp, _ = model.logprobs(torch.from_numpy(ids[:-1].astype(np.int64))[:, None], model.initial_state(1))
    return int((logp[:, 0].argmax(-1).numpy() == ids[1:]).sum())


def test_lanes_score_every_target_once_and_warm_up() -> None:
    spans = np.array([[0, 1000], [1000, 1003], [1003, 1004]])
    segments = lane_segments(spans, lanes=8, warmup=50)
    scored = [i for _, first, end in segments.tolist() for i in range(first, end)]
    assert scored == [*range(1, 1000), 1001, 1002]
    for start, first, _ in segments.tolist()[1:-1]:
        assert first - start == 51 or start in (0, 1000)


def test_uniform_model_has_perplexity_v() -> None:
    corpus = corpus_of_text("abracadabra")
    model = CharRNN(corpus.vocab, RNNConfig(hidden=3))
    for weights in model.parameters():
        weights.data.zero_()
    result = evaluate(model, corpus.ids, corpus.documents)
    assert result.perplexity == pytest.approx(5, abs=1e-6)
    assert result.bits_per_char == pytest.approx(math.log2(5), abs=1e-6)
    assert result.targets == 10


def test_measure_by_hand() -> None:
    row = Row(
        name="hand",
        family="rnn",
        logp_T=np.log([0.5, 0.25, 0.125, 1.0]),
        hit_T=np.array([True, False, False, True]),
    )
    figures = measure(row, np.array([0, 1, 1, -1]))
    assert figures.nats == pytest.approx(2 * math.log(2))  # (1 + 2 + 3) / 3 bits
    assert figures.bits_per_char == pytest.approx(2)
    assert figures.perplexity == pytest.approx(4)
    assert figures.accuracy == pytest.approx(1 / 3)
    assert (figures.targets, figures.unknown_targets, figures.zero_probability_targets) == (4, 1, 0)
    assert "33.33 % right of 3" in repr(figures)  # the fourth was not scored


def test_impossible_and_undefined_targets_make_nats_infinite_and_json_null() -> None:
    row = Row(name="x", family="ngram", logp_T=np.array([-1.0, -np.inf, np.nan]), hit_T=np.zeros(3, bool))
    figures = measure(row, np.array([0, 0, 0]))
    assert figures.zero_probability_targets == 2
    assert figures.nats == math.inf
    json = figures.to_json()
    assert json["nats"] is json["perplexity"] is json["bits_per_char"] is json["standard_error"] is None


def test_figures_are_per_character_where_characters_are_spelled_in_bytes() -> None:
    vocab = Vocab(("a",), byte_fallback=True)
    ids = vocab.encode("aaé€")  # 1 + 1 + 2 + 3 symbols
    row = Row(name="x", family="rnn", logp_T=np.full(6, -1.0), hit_T=np.zeros(6, bool))
    row = replace(row, hit_T=np.array([True, True, False, True, True, True]))
    figures = measure(*per_character(row, ids, np.array([[0, 7]]), vocab))
    assert (figures.nats, figures.targets) == (pytest.approx(6 / 3), 3)
    assert figures.accuracy == pytest.approx(2 / 3)  # of é one byte is wrong


def test_unknown_characters_are_counted_and_read_as_nothing(model: CharRNN) -> None:
    ids = model.vocab.encode("abra€cadabra", unknown=True)
    figures = evaluate(model, ids, np.array([[0, len(ids)]]))
    assert (figures.targets, figures.unknown_targets) == (11, 1)
    assert math.isfinite(figures.nats)
    with pytest.raises(TextError, match="none of the characters"):
        evaluate(model, model.vocab.encode("€€€", unknown=True), np.array([[0, 3]]))


def test_standard_error_of_independent_numbers_is_the_textbook_one() -> None:
    x = np.random.default_rng(1).normal(size=20_000)
    assert standard_error(x) == pytest.approx(x.std() / math.sqrt(len(x)), rel=0.2)
    runs = np.repeat(x[:400], 50)  # neighbours alike: the error of 400 numbers, not of 20,000
    assert standard_error(runs) == pytest.approx(x[:400].std() / math.sqrt(400), rel=0.3)


def test_targets_and_row(model: CharRNN) -> None:
    ids = model.vocab.encode(TEXT[:30])
    spans = np.array([[0, 10], [10, 30]])
    row = row_of(model, ids, spans, name="net", parameters=3)
    assert len(row.logp_T) == len(targets_of(ids, spans)) == 28
    assert (row.name, row.parameters) == ("net", 3)
