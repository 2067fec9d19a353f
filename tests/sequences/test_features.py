"""Hidden states of texts read side by side, against those of each text read alone."""

import numpy as np
import pytest
import torch

from charlm.errors import OptionError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.sequences.features import hidden_features, hidden_steps
from charlm.text.corpus import corpus_of_text
from charlm.text.vocab import Vocab

CORPUS = corpus_of_text("abracadabra simsalabim ")
VOCAB = CORPUS.vocab
TEXTS = ["abra", "a", "salabim sim", "", "ab", "mississ", "???", "a?b", "ba"]


def network(cell: str = "gru", embedding: int = 0, vocab: Vocab = VOCAB) -> CharRNN:
    return CharRNN(vocab, RNNConfig(model=cell, hidden=6, layers=2, embedding=embedding, dropout=0.5)).double()


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
    with pytest.raises(OptionError, match="hidden_steps"):
        hidden_features(model, ["ab"], kind="steps")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="sequence 2 is empty"):
        hidden_features(model, ["ab", ""])
