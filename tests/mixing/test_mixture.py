"""Mixtures against the formulas, and the cache against counting by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import charlm
from charlm.errors import OptionError
from charlm.lm.interface import SamplingRule, generate_by_steps, take
from charlm.lm.model import TextModel
from charlm.mixing.mixture import CacheLM, MixtureLM, mix
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NGramLM
from charlm.pages.export import playground_page
from charlm.text.corpus import corpus_of_text
from charlm.text.text import Part
from charlm.text.vocab import Vocab

TEXT = "she sells sea shells by the sea shore; the shells she sells are surely seashells.\n" * 2
VOCAB = Vocab.of(TEXT)
IDS = VOCAB.encode(TEXT)


def ngram(order, name, characters=90):
    index = SuffixIndex.build(IDS, np.array([[0, characters]]), symbols=len(VOCAB))
    return NGramLM(vocab=VOCAB, index=index, order=order, estimator=name)


def models():
    return [ngram(3, "kneser-ney"), ngram(1, "add-k"), ngram(2, "none")]


def mixture(**options):
    return MixtureLM(models(), **options)


def column(text):
    return torch.from_numpy(VOCAB.encode(text).astype(np.int64))[:, None]


def rows_of(parts, ids_T):
    """Each model's probabilities, undefined rows uniform: [T][M][V]."""
    rows = [part.logprobs(ids_T[:, None], part.initial_state(1))[0][:, 0].exp() for part in parts]
    rows = [row.nan_to_num(1 / len(VOCAB)) for row in rows]
    return [[row[t].tolist() for row in rows] for t in range(len(ids_T))]


def by_hand(rate, ids, rows):
    """The formulas, a symbol at a time."""
    m, v = len(rows[0]), len(rows[0][0])
    tables, shared, found, last = {}, [1 / m] * m, [], None
    for id, row in zip(ids, rows, strict=True):
        if last is not None and id >= 0:
            key, p, old = last
            stretched = [[max(math.log(max(x, 1e-300)), math.log(1e-9)) for x in r] for r in old]
            for i in range(m):
                mean = sum(p[c] * stretched[i][c] for c in range(v))
                step = rate * (stretched[i][id] - mean)
                shared[i] += step
                tables[key][i] += step
        own = tables.setdefault(id, [0.0] * m)
        weights = [s + o for s, o in zip(shared, own, strict=True)]
        stretched = [[max(math.log(max(x, 1e-300)), math.log(1e-9)) for x in r] for r in row]
        scores = [sum(w * r[c] for w, r in zip(weights, stretched, strict=True)) for c in range(v)]
        total = sum(map(math.exp, scores))
        p = [math.exp(score) / total for score in scores]
        found.append(p)
        last = (id, p, row)
    return found


def test_mixing_agrees_with_the_formulas():
    mixed = mixture(rate=0.05)
    ids = torch.tensor([*column("the sea; she").flatten().tolist(), -1, *column("shells the").flatten().tolist()])
    logp, _ = mixed.logprobs(ids[:, None], mixed.initial_state(1))
    expected = by_hand(0.05, ids.tolist(), rows_of(models(), ids))
    np.testing.assert_allclose(logp[:, 0].exp().numpy(), expected, atol=1e-9)


def test_sums_pieces_lanes_and_causality():
    mixed = mixture()
    ids_TB = torch.from_numpy(np.random.default_rng(1).integers(-1, len(VOCAB), (25, 3)))
    whole, last = mixed.logprobs(ids_TB, mixed.initial_state(3))
    assert torch.allclose(whole.exp().sum(-1), torch.ones(25, 3, dtype=torch.float64), atol=1e-9)
    state, pieces = mixed.initial_state(3), []
    for piece in ids_TB.split([1, 3, 0, 21]):
        logp, state = mixed.logprobs(piece, state)
        pieces.append(logp)
    assert torch.equal(torch.cat(pieces), whole)
    assert state.keys() == last.keys()
    assert all(torch.equal(state[name], last[name]) for name in state)
    alone, _ = mixed.logprobs(ids_TB[:, 2:], mixed.initial_state(1))
    assert torch.allclose(alone[:, 0], whole[:, 2], atol=1e-12, rtol=0)
    other = ids_TB.clone()
    other[12:] = 0
    changed, _ = mixed.logprobs(other, mixed.initial_state(3))
    assert torch.equal(changed[:12], whole[:12])
    moved, _ = mixed.logprobs(
        ids_TB[20:, [2, 0]], take(mixed.logprobs(ids_TB[:20], mixed.initial_state(3))[1], torch.tensor([2, 0]))
    )
    assert torch.allclose(moved, whole[20:, [2, 0]], atol=1e-12, rtol=0)


def test_generation_is_the_general_way():
    mixed = mixture()
    numbers = torch.from_numpy(np.random.default_rng(0).random((12, 2)))
    start, state = torch.tensor([3, 5]), mixed.initial_state(2)
    one = mixed.generate(start, state, 12, SamplingRule(), numbers)
    two = generate_by_steps(mixed, start, mixed.initial_state(2), 12, SamplingRule(), numbers)
    assert torch.equal(one[0], two[0])
    ids, logp, after = mixed.generate(start, state, 0, SamplingRule(), numbers[:0])
    assert (ids.shape, logp.shape) == ((0, 2), (0, 2))
    assert after is state


def test_it_learns_which_model_to_trust():
    """One model is right, the other says the opposite: the mixture comes close to the right one."""

    class Always(TextModel):
        device = torch.device("cpu")

        def __init__(self, p):
            self.vocab, self.logp = Vocab.of("ab"), torch.tensor([p, 1 - p], dtype=torch.float64).log()

        def initial_state(self, lanes):
            return {"none": torch.zeros(lanes, 0)}

        def logprobs(self, ids_TB, state):
            return self.logp.expand(*ids_TB.shape, 2), state

        def shape(self):
            return {}

        def write_files(self, directory):
            return {}

    right, wrong = Always(0.9), Always(0.1)
    mixed = MixtureLM([wrong, right], rate=0.02)
    ids = torch.from_numpy((np.random.default_rng(4).random(1200) > 0.9).astype(np.int64))[:, None]
    logp, _ = mixed.target_logprobs(ids[:-1], ids[1:], mixed.initial_state(1))
    best, _ = right.target_logprobs(ids[:-1], ids[1:], right.initial_state(1))
    assert float(logp[600:].mean()) > float(best[600:].mean()) - 0.03


def test_a_static_mixture_has_the_weights_that_were_learned_from_the_part(tmp_path):
    text = charlm.Text.of(TEXT * 20, split="80/10/10")
    parts = [charlm.ngram(text, order=n, smoothing="kneser-ney") for n in (1, 3)]
    mixed = mix(parts, fit=text.valid, rate=0.01)
    weights, (start, end) = np.array([0.5, 0.5]), text.valid.spans[0]
    for rate in (0.01, 0.005, 0.0025):  # by reading with weights that learn
        learner = MixtureLM(parts, weights=weights, rate=rate)
        ids = torch.from_numpy(text.corpus.ids[start:end].astype(int))[:, None]
        _, state = learner.logprobs(ids, learner.initial_state(1))
        weights = state["mixture.weights"][0].numpy()
    assert mixed.weights == pytest.approx(weights, abs=1e-12)
    assert (mixed.rate, mixed.is_adaptive) == (0, False)
    assert mix(parts).is_adaptive
    found = mixed.evaluate(text.test)
    ids = torch.from_numpy(text.corpus.ids[:50].astype(int))[:, None]
    _, after = mixed.logprobs(ids, mixed.initial_state(1))
    assert torch.equal(after["mixture.weights"], mixed.initial_state(1)["mixture.weights"])
    again = charlm.load(mixed.save(tmp_path / "static"))
    assert (again.evaluate(text.test).nats, again.is_adaptive) == (found.nats, False)
    with pytest.raises(OptionError, match="not one that was fitted before"):
        playground_page([again], 16)


def test_a_static_mixture_is_better_than_equal_weights_and_than_its_models():
    text = charlm.read_text("data/shakespeare.txt")
    parts = [charlm.ngram(text, order=n, smoothing="kneser-ney") for n in (2, 5)]
    test = Part(text=text, name="test", spans=text.test.spans.clip(max=text.test.spans[0, 0] + 4000))
    fit = Part(text=text, name="valid", spans=text.valid.spans.clip(max=text.valid.spans[0, 0] + 8000))
    alone = min(part.evaluate(test).nats for part in parts)
    equal = MixtureLM(parts, rate=0).evaluate(test).nats
    assert mix(parts, fit=fit).evaluate(test).nats < min(alone, equal) - 0.001


def test_what_cannot_be_fitted_is_refused():
    text, other = charlm.Text.of(TEXT * 5, split="80/10/10"), charlm.Text.of("xyz" * 50)
    parts = [charlm.ngram(text, order=n, smoothing="kneser-ney") for n in (1, 2)]
    with pytest.raises(OptionError, match="in the models' vocabulary"):
        mix(parts, fit=other)
    with pytest.raises(OptionError, match="at a rate above 0"):
        mix(parts, fit=text.valid, rate=0)


def test_wrong_use_is_one_sentence():
    for rate in (1.0, -0.1):
        with pytest.raises(OptionError):
            MixtureLM(models(), rate=rate)
    with pytest.raises(OptionError, match="two or more"):
        MixtureLM(models()[:1])
    for weights in ([0.5, 0.5], [0.9, 0.9, -0.8], [0.3, 0.3, 0.3]):
        with pytest.raises(OptionError, match="weights"):
            MixtureLM(models(), weights=weights)


ABC = Vocab.of("abc")


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
    model = CacheLM(ABC, order=order)
    logp, _ = model.logprobs(torch.tensor(text)[:, None], model.initial_state(1))
    for step, row in enumerate(logp[:, 0].exp().tolist()):
        assert row == pytest.approx(naive(text[: step + 1], order), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 1), min_size=1, max_size=40), st.integers(0, 4), st.integers(1, 12))
def test_what_lies_too_far_back_is_forgotten(text: list[int], order: int, memory: int) -> None:
    model = CacheLM(ABC, order=order, memory=memory)
    logp, state = model.logprobs(torch.tensor(text)[:, None], model.initial_state(1))
    for step, row in enumerate(logp[:, 0].exp().tolist()):
        assert row == pytest.approx(naive(text[: step + 1][-memory:], order), abs=1e-12)
    assert state["read"].shape == state["match"].shape == (1, min(memory, len(text)))


@pytest.mark.parametrize("bad", [{"order": 33}, {"order": -1}, {"memory": 0}])
def test_impossible_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="a cache"):
        CacheLM(ABC, **bad)


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
