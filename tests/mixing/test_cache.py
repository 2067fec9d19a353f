"""The cache against counting by hand, and what it adds to a mixture."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import OptionError
from charlm.mixing.cache import CacheLM
from charlm.mixing.mixture import mix
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NGramLM
from charlm.text.corpus import corpus_of_text
from charlm.text.vocab import Vocab

VOCAB = Vocab.of("abc")


def naive(past: list[int], order: int) -> list[float]:
    """Witten-Bell's recursion over dicts, by the textbook."""
    row = [1 / 3] * 3
    for k in range(order + 1):
        history = past[len(past) - k :]
        if len(history) < k or -1 in history:
            break
        followed = Counter(past[i] for i in range(k, len(past)) if past[i - k : i] == history and past[i] >= 0)
        if not followed:
            break
        total, kinds = followed.total(), len(followed)
        row = [(followed[v] + kinds * row[v]) / (total + kinds) for v in range(3)]
    return row


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=40), st.integers(0, 5))
def test_rows_are_those_of_counting_by_hand(text: list[int], order: int) -> None:
    model = CacheLM(VOCAB, order=order)
    logp, _ = model.logprobs(torch.tensor(text)[:, None], model.initial_state(1))
    for step, row in enumerate(logp[:, 0].exp().tolist()):
        assert row == pytest.approx(naive(text[: step + 1], order), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 1), min_size=1, max_size=40), st.integers(0, 4), st.integers(1, 12))
def test_what_lies_too_far_back_is_forgotten(text: list[int], order: int, memory: int) -> None:
    model = CacheLM(VOCAB, order=order, memory=memory)
    logp, state = model.logprobs(torch.tensor(text)[:, None], model.initial_state(1))
    for step, row in enumerate(logp[:, 0].exp().tolist()):
        assert row == pytest.approx(naive(text[: step + 1][-memory:], order), abs=1e-12)
    assert state["read"].shape == state["match"].shape == (1, min(memory, len(text)))


@pytest.mark.parametrize("bad", [{"order": 33}, {"order": -1}, {"memory": 0}])
def test_impossible_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="a cache"):
        CacheLM(VOCAB, **bad)


def test_it_learns_the_names_that_the_training_text_lacks() -> None:
    corpus = corpus_of_text("ANNA: it is cold. BERT: it is late. " * 20 + "ZOE: it is late. YVES: it is cold. " * 20)
    middle = len(corpus) // 2
    train, held = np.array([[0, middle]]), torch.from_numpy(corpus.ids[middle:].astype(np.int64))[:, None]
    index = SuffixIndex.build(corpus.ids, train, symbols=len(corpus.vocab))
    counted = NGramLM(vocab=corpus.vocab, index=index, order=4, estimator="kneser-ney")

    def nats(model: object) -> float:
        logp, _ = model.target_logprobs(held[:-1], held[1:], model.initial_state(1))  # type: ignore[attr-defined]
        return -float(logp.mean())

    alone, mixed = nats(counted), nats(mix([counted], cache=True))
    assert mixed < 0.8 * alone
