"""What a language model says of texts, against its own rows read one by one and against counting by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from charlm.errors import OptionError, TextError
from charlm.lm.interface import LanguageModel
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NGramLM
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.sequences.features import distribution, hidden_features, hidden_steps, score, scores
from charlm.text.corpus import corpus_of_text
from charlm.text.vocab import Vocab

CORPUS = corpus_of_text("abracadabra simsalabim ")
VOCAB = CORPUS.vocab
TEXTS = ["abra", "a", "salabim sim", "", "ab", "mississ", "???", "a?b", "ba"]


def network(cell: str = "gru", embedding: int = 0, vocab: Vocab = VOCAB) -> CharRNN:
    return CharRNN(vocab, RNNConfig(model=cell, hidden=6, layers=2, embedding=embedding, dropout=0.5)).double()


def counted(smoothing: str, order: int) -> NGramLM:
    index = SuffixIndex.build(CORPUS.ids, CORPUS.documents, symbols=len(VOCAB))
    return NGramLM(vocab=VOCAB, index=index, order=order, estimator=smoothing)


def score_by_hand(model: LanguageModel, text: str) -> float:
    """One character at a time; NaN where there is nothing to score."""
    ids = VOCAB.encode(text, unknown=True).tolist()
    state, logps = model.initial_state(1), []
    for id, following in itertools.pairwise(ids):
        row, state = model.logprobs(torch.tensor([[id]]), state)
        if following >= 0:
            logps.append(row[0, 0, following].item())
    if not logps:
        return math.nan
    return math.exp(math.fsum(logps) / len(logps)) if all(map(math.isfinite, logps)) else 0.0


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "none", "witten-bell", "kneser-ney"])
def test_scores_are_those_of_reading_character_by_character(name: str) -> None:
    model: LanguageModel = network(name) if name in ("rnn", "gru", "lstm") else counted(name, 2)
    expected = [score_by_hand(model, text) for text in TEXTS]
    for batch in (1, 3, 64):
        assert np.allclose(scores(model, TEXTS, batch=batch), expected, rtol=1e-9, equal_nan=True)
    assert math.isnan(expected[1])
    assert score(model, "abra") == pytest.approx(expected[0])


def test_a_counted_score_by_hand() -> None:
    model = counted("none", 1)
    after_a = {"b": 3, "c": 1, "d": 1, "l": 1, " ": 1}  # in abracadabra simsalabim
    after_b = {"r": 2, "i": 1}
    p = after_a["b"] / sum(after_a.values()) * after_b["r"] / sum(after_b.values())
    assert score(model, "abr") == pytest.approx(math.sqrt(p))
    assert score(model, "aa") == 0  # never seen, so impossible
    found = distribution(model, "xxa")
    assert {VOCAB.characters[id]: found[id] for id in found.nonzero()[0]} == pytest.approx(
        {character: count / 7 for character, count in after_a.items()}
    )
    assert np.isnan(distribution(counted("none", 4), "zzzz")).all()


def test_a_distribution_is_the_last_row() -> None:
    model = network("lstm")
    model.stack.backend = "torch"
    history = "abracadabra " * 200
    row, _ = model.logprobs(
        torch.from_numpy(VOCAB.encode(history).astype(np.int64)).unsqueeze(-1), model.initial_state(1)
    )
    assert np.allclose(distribution(model, history), row[-1, 0].exp().detach().numpy(), atol=1e-12)


def test_a_character_spelled_in_bytes_counts_once() -> None:
    vocab = Vocab.of("ab").with_fallback()
    model = CharRNN(vocab, RNNConfig(hidden=4))
    for weights in model.parameters():
        weights.data.zero_()
    assert score(model, "aé") == pytest.approx(len(vocab) ** -2)  # two symbols, one character
    assert score(model, "ab") == pytest.approx(1 / len(vocab))


@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_hidden_states_are_those_of_each_text_alone(cell: str, embedding: int) -> None:
    model = network(cell, embedding)
    texts = [text for text in TEXTS if text]
    model.train()  # dropout is left out all the same
    steps = hidden_steps(model, texts, batch=3)
    last, mean = (hidden_features(model, texts, kind=kind, batch=2) for kind in ("last", "mean"))
    assert model.training
    model.eval()
    for text, y, final, average in zip(texts, steps, last, mean, strict=True):
        state = model.initial_state(1)
        tops = []
        for id in VOCAB.encode(text, unknown=True).tolist():
            _, state = model(torch.tensor([[id]]), state)
            tops.append(state["h1"][0].detach().numpy())
        assert np.allclose(y, tops, atol=1e-6)
        assert np.allclose(final, tops[-1], atol=1e-6)
        assert np.allclose(average, np.mean(tops, 0), atol=1e-6)


def test_what_cannot_be_asked_is_refused() -> None:
    model = network()
    for text in ("", "a", "a?"):
        with pytest.raises(TextError, match="two characters"):
            score(model, text)
    assert scores(model, []).shape == (0,)
    assert np.isnan(scores(model, [""])).all()
    with pytest.raises(TextError, match="at least one character"):
        distribution(model, "")
    with pytest.raises(OptionError, match="hidden_steps"):
        hidden_features(model, ["ab"], kind="steps")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="sequence 2 is empty"):
        hidden_features(model, ["ab", ""])
