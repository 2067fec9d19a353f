"""Drawing: the distribution, the rules, prompts, stops, streams, seeds; and what is expected next."""

import math

import numpy as np
import pytest
import torch

from charlm.errors import OptionError, UnknownCharacterError
from charlm.lm.interface import LanguageModel, SamplingRule, generate_by_steps
from charlm.lm.sampling import Noise, expected_next, generate_streams
from charlm.ngrams.fit import count
from charlm.ngrams.model import NGramLM
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.text.vocab import Vocab

VOCAB = Vocab.of("abcdefgh \n")
CORPUS = corpus_of_text("to be, or not to be:\nthat is the question.\n\nwhether 'tis nobler\n" * 6)
COUNTED = count(CORPUS, CORPUS.parts(Split.parse("50/25/25")), order=2)


@pytest.fixture
def model() -> CharRNN:
    return CharRNN(VOCAB, RNNConfig(model="lstm", hidden=12))


def chi_square(counts: np.ndarray, p: np.ndarray) -> float:
    expected = p * counts.sum()
    seen = expected > 0
    assert counts[~seen].sum() == 0
    return float(((counts - expected)[seen] ** 2 / expected[seen]).sum())


@pytest.mark.parametrize(
    "rule",
    [
        SamplingRule(),
        SamplingRule(temperature=0.5),
        SamplingRule(temperature=2.0),
        SamplingRule(top_k=3),
        SamplingRule(top_p=0.7),
        SamplingRule(temperature=1.5, top_k=5, top_p=0.9),
    ],
)
def test_draws_follow_the_distribution(rule: SamplingRule) -> None:
    logp = torch.tensor([0.4, 0.05, 0.2, 0.15, 0.1, 0.1, 0.0]).log()
    by_hand = logp.double().numpy() / rule.temperature
    order = np.argsort(-by_hand, kind="stable")
    if rule.top_k:
        by_hand[order[rule.top_k :]] = -np.inf
    p = np.exp(by_hand) / np.exp(by_hand).sum()
    if rule.top_p < 1:
        order = np.argsort(-p, kind="stable")
        kept = int(np.searchsorted(np.cumsum(p[order]), rule.top_p) + 1)
        p[order[kept:]] = 0
        p /= p.sum()
    assert np.abs(rule.probabilities(logp[None])[0].numpy() - p).max() < 1e-7
    noise = torch.from_numpy(np.random.default_rng(0).random(20_000))
    drawn = rule.draw(logp.expand(20_000, -1), noise)
    assert chi_square(np.bincount(drawn.numpy(), minlength=7), p) < 22.5  # 0.1 % point of 6 degrees of freedom


def test_noise_at_its_ends_never_draws_the_impossible() -> None:
    logp = torch.tensor([[0.0, 0.5, 0.5, 0.0]]).log().expand(2, -1)
    assert SamplingRule().draw(logp, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 2]


def test_temperature_zero_is_argmax(model: CharRNN) -> None:
    ids, logp, _ = model.generate(
        torch.tensor([3]),
        model.initial_state(1),
        20,
        SamplingRule(temperature=0),
        torch.zeros(20, 1).double(),
    )
    here, state = torch.tensor([[3]]), model.initial_state(1)
    for drawn, value in zip(ids[:, 0].tolist(), logp[:, 0].tolist(), strict=True):
        with torch.no_grad():
            row, state = model.logprobs(here, state)
        assert drawn == int(row.argmax())
        assert value == pytest.approx(float(row.max()), abs=1e-6)
        here = torch.tensor([[drawn]])


def test_generate_is_generate_by_steps_and_pieces_make_the_whole(model: CharRNN) -> None:
    noise, rule = Noise(5, 3).take(30), SamplingRule(temperature=0.9)
    start, state = torch.tensor([0, 1, 2]), model.initial_state(3)
    whole, logp, _ = model.generate(start, state, 30, rule, noise)
    with torch.no_grad():
        by_steps, logp_by_steps, _ = generate_by_steps(model, start, state, 30, rule, noise)
    assert torch.equal(whole, by_steps)
    assert (logp - logp_by_steps).abs().max() < 1e-5
    first, _, middle = model.generate(start, model.initial_state(3), 11, rule, noise[:11])
    second, _, _ = model.generate(first[-1], middle, 19, rule, noise[11:])
    assert torch.equal(torch.cat([first, second]), whole)


def test_the_same_seed_gives_the_same_text_however_it_is_cut(model: CharRNN) -> None:
    texts = {
        tuple(
            stream.text for stream in list(generate_streams(model, [0], length=90, streams=3, seed=7, chunk=chunk))[-1]
        )
        for chunk in (1, 13, 64, 200)
    }
    assert len(texts) == 1
    (three,) = texts
    assert [len(text) for text in three] == [90, 90, 90]
    assert model.sample(VOCAB.decode([0]), length=90, seed=7) == three[0]
    assert model.sample(VOCAB.decode([0]), length=90, seed=8) != three[0]


def test_stop_text_ends_a_stream_and_is_left_out(model: CharRNN) -> None:
    whole = model.sample("a", length=300, seed=1)
    stop = whole[40:42]
    (stream,) = list(generate_streams(model, VOCAB.encode("a").tolist(), length=300, seed=1, stop=stop))[-1]
    assert stream.text == whole[: whole.index(stop)]
    assert len(stream.ids) == len(stream.logps) == len(stream.text)
    streams = list(generate_streams(model, [0], length=200, streams=4, seed=1, stop=" "))[-1]
    alone = list(generate_streams(model, [0], length=200, streams=4, seed=1))[-1]
    assert [s.text for s in streams] == [s.text.split(" ")[0] for s in alone]


def test_score_is_the_mean_probability(model: CharRNN) -> None:
    (stream,) = list(generate_streams(model, [0], length=50))[-1]
    ids = torch.tensor([0, *stream.ids])[:, None]
    with torch.no_grad():
        logp, _ = model.target_logprobs(ids[:-1], ids[1:], model.initial_state(1))
    assert stream.nats == pytest.approx(-float(logp.mean()), abs=1e-5)
    assert stream.score == pytest.approx(math.exp(float(logp.mean())), abs=1e-5)


def test_length_counts_characters_where_they_are_spelled_in_bytes() -> None:
    model = CharRNN(Vocab(("a",), byte_fallback=True), RNNConfig(hidden=4))
    text = model.sample("é", length=30, seed=3)
    assert len(text) > 0
    (stream,) = list(generate_streams(model, model.vocab.encode("é").tolist(), length=30, seed=3, chunk=7))[-1]
    assert model.vocab.begins_character[stream.ids].sum() == 30
    assert stream.text == text


def test_wrong_options_are_named(model: CharRNN) -> None:
    for options in (
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ):
        with pytest.raises(OptionError):
            SamplingRule(**options)  # type: ignore[arg-type]
    with pytest.raises(UnknownCharacterError, match=r"'Z'.*position 2"):
        model.sample("abZ")
    with pytest.raises(OptionError, match="length"):
        model.sample("a", length=0)


@pytest.mark.parametrize("temperature", [1e-305, 1e-308, 1e-310, 5e-324])
@pytest.mark.parametrize("kernels", [True, False])
def test_a_temperature_next_to_zero_is_argmax(
    model: CharRNN, temperature: float, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(CharRNN, "_compiled", lambda self: False)
    ids, noise = torch.zeros(2, dtype=torch.int64), torch.full((20, 2), 0.7, dtype=torch.float64)
    drawn, _, _ = model.generate(ids, model.initial_state(2), 20, SamplingRule(temperature=temperature), noise)
    greedy, _, _ = model.generate(ids, model.initial_state(2), 20, SamplingRule(temperature=0), noise)
    assert torch.equal(drawn, greedy)


@pytest.mark.parametrize("compiled", [True, False])
def test_of_equally_probable_symbols_the_first_are_drawn_and_shown(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    model = CharRNN(Vocab.of("abcd"), RNNConfig(model="gru", hidden=8))
    with torch.no_grad():
        model.head.linear.weight.zero_()
        model.head.linear.bias.zero_()
    if not compiled:
        monkeypatch.setattr(CharRNN, "_compiled", lambda self: False)
    start, noise = torch.zeros(3, dtype=torch.long), torch.rand(50, 3, dtype=torch.float64)
    drawn, _, _ = model.generate(start, model.initial_state(3), 50, SamplingRule(top_k=2), noise)
    assert set(drawn.flatten().tolist()) == {0, 1}
    assert [symbol for symbol, _ in model.next("a").top(2)] == ["a", "b"]


def test_a_stop_text_that_can_never_come_is_refused() -> None:
    model = CharRNN(Vocab.of("abcd"), RNNConfig(hidden=4))
    for stop in ("x", ""):
        with pytest.raises(OptionError, match="can never come"):
            model.sample("a", length=3, stop=stop)


def test_seeds_and_numbers_of_streams_out_of_range_are_refused(model: CharRNN) -> None:
    for seed in (-1, 2**63, 1.5):
        with pytest.raises(OptionError, match="a seed is a whole number"):
            model.sample(length=3, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="at least 1"):
        model.sample(length=3, streams=0)
    assert model.sample(length=9, seed=np.int64(2**63 - 1)) == model.sample(length=9, seed=2**63 - 1)


@pytest.mark.parametrize("model", [CharRNN(CORPUS.vocab, RNNConfig(model="gru", hidden=7)), COUNTED])
def test_expected_characters_are_the_most_probable_ones(model: LanguageModel) -> None:
    spans = np.array([[0, 40], [60, 61], [100, 140]])
    found = expected_next(model, CORPUS.ids, spans, k=3, limit=60, chunk=7)
    assert found.ids_NK.shape == (60, 3)
    ids = CORPUS.ids.tolist()
    histories = [ids[0 : t + 1] for t in range(39)] + [ids[100 : 100 + t + 1] for t in range(21)]
    for row, history in enumerate(histories):
        logp, _ = model.logprobs(torch.tensor(history)[:, None], model.initial_state(1))
        p = logp[-1, 0].detach().exp()
        best = sorted(range(len(p)), key=lambda id: (-float(p[id]), id))[:3]
        assert found.probability_NK[row] == pytest.approx([float(p[id]) for id in best], abs=1e-6)
        if isinstance(model, NGramLM):
            assert found.ids_NK[row].tolist() == best


def test_expected_of_an_undefined_history_is_nothing() -> None:
    source, text = corpus_of_text("ababab"), corpus_of_text("bxaab")
    model = count(source, source.parts(Split.parse("100/0/0")), order=1)
    seen = text.under(source.vocab)
    found = expected_next(model, seen.ids, seen.documents)
    assert found.ids_NK.shape == (4, 2)
    assert np.isnan(found.probability_NK).all(axis=1).tolist() == [False, True, False, False]
