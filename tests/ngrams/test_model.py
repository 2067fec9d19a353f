import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from brute_ngram import Brute
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import CheckpointError, OptionError
from charlm.lm.interface import SamplingRule, generate_by_steps, take
from charlm.ngrams.estimators import ESTIMATORS, make_estimator, ngram_rows
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NOTHING, NGramLM
from charlm.text.corpus import corpus_of_text, read_corpus
from charlm.text.splits import Split
from charlm.text.vocab import Vocab

TEXT = "the theatre then; this thing, that other thing\nthe end\n" * 3 + "then they went"
SPANS = st.lists(st.lists(st.integers(0, 2), max_size=25), min_size=1, max_size=4).filter(any)


def model_of(text=TEXT, order=3, name="none", spans=None, **options):
    vocab = Vocab.of(TEXT)
    ids = vocab.encode(text)
    spans = np.array([[0, len(ids)]]) if spans is None else np.array(spans)
    index = SuffixIndex.build(ids, spans, symbols=len(vocab))
    return NGramLM(vocab=vocab, index=index, order=order, estimator=make_estimator(name, index, order, **options))


def joined(spans):
    edges = np.cumsum([0, *map(len, spans)])
    return np.array([c for span in spans for c in span], dtype=np.int32), np.stack([edges[:-1], edges[1:]], axis=1)


def noise(steps, lanes, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((steps, lanes)))


@pytest.mark.parametrize("name", ESTIMATORS)
@given(
    training=SPANS,
    held_out=st.lists(st.lists(st.integers(-1, 3), max_size=12), min_size=1, max_size=3),
    orders=st.sets(st.integers(0, 12), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_rows_of_all_orders_agree_with_dicts(name, training, held_out, orders):
    vocab = Vocab.of("abcd")
    index = SuffixIndex.build(*joined(training), symbols=4)
    brute = Brute(training, 4, max(orders) + 2)
    ids, spans = joined(held_out)
    rows = list(ngram_rows(index, vocab, name, list(orders), ids, spans))
    assert [row.order for row in rows] == sorted(orders)
    for row in rows:
        expected, hits = [], []
        for span in held_out:
            for at in range(1, len(span)):
                p = brute.row(name, span[:at], row.order)
                known = p is not None and span[at] >= 0
                expected.append(p[span[at]] if known else math.nan)
                best = [] if p is None else [c for c in range(4) if p[c] > max(p) - 1e-12]
                hits.append((span[at] in best, len(best) == 1))
        assert np.exp(row.logp_T) == pytest.approx(expected, abs=1e-12, nan_ok=True)
        for hit, (possible, sure) in zip(row.hit_T.tolist(), hits, strict=True):
            assert hit == possible if sure else hit <= possible
        assert row.ngrams == sum(len(string) == row.order + 1 for string in brute.count)
        train = [math.log(brute.row(name, s[:at], row.order)[s[at]]) for s in training for at in range(1, len(s))]
        if train:
            assert row.train_nats == pytest.approx(-math.fsum(train) / len(train), abs=1e-10)
        else:
            assert math.isnan(row.train_nats)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("order", [0, 1, 4])
def test_the_interface_and_the_rows_say_the_same(name, order):
    model = model_of(TEXT[:90], order, name)
    held_out = TEXT[80:]
    ids = torch.from_numpy(model.vocab.encode(held_out).astype(np.int64))
    spans = np.array([[0, len(ids)]])
    (row,) = model.rows(ids.numpy(), spans, [order])
    logp_TBV, _ = model.logprobs(ids[:-1, None], model.initial_state(1))
    logp = logp_TBV[:, 0].gather(1, ids[1:, None])[:, 0].numpy()
    np.testing.assert_array_equal(row.logp_T, logp)
    best = torch.where(logp_TBV[:, 0].isnan().any(1), -1, logp_TBV[:, 0].argmax(1))
    np.testing.assert_array_equal(row.hit_T, (best == ids[1:]).numpy())
    streamed, _ = model.target_logprobs(ids[:-1, None], ids[1:, None], model.initial_state(1))
    np.testing.assert_array_equal(streamed[:, 0].numpy(), logp)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_text_in_pieces_and_lanes_side_by_side(name):
    model = model_of(order=4, name=name)
    rng = np.random.default_rng(3)
    ids_TB = torch.from_numpy(rng.integers(-1, len(model.vocab), (30, 3)))
    whole, last = model.logprobs(ids_TB, model.initial_state(3))
    state, pieces = model.initial_state(3), []
    for piece in ids_TB.split([1, 2, 0, 7, 20]):
        logp, state = model.logprobs(piece, state)
        pieces.append(logp)
    assert torch.equal(torch.cat(pieces).nan_to_num(7), whole.nan_to_num(7))
    assert torch.equal(state["history"], last["history"])
    for lane in range(3):
        alone, _ = model.logprobs(ids_TB[:, lane : lane + 1], model.initial_state(1))
        assert torch.equal(alone[:, 0].nan_to_num(7), whole[:, lane].nan_to_num(7))


def test_the_state_is_the_last_characters():
    model = model_of(order=3)
    assert model.initial_state(2)["history"].tolist() == [[NOTHING] * 3] * 2
    _, state = model.logprobs(torch.tensor([[4], [5]]), model.initial_state(1))
    assert state["history"].tolist() == [[NOTHING, 4, 5]]
    _, state = model.logprobs(torch.tensor([[6], [7]]), state)
    assert state["history"].tolist() == [[5, 6, 7]]


def test_an_unseen_history_is_undefined_and_generation_goes_on():
    model = model_of(order=3)
    z = model.vocab.encode(";").tolist()
    ids = torch.tensor([z * 3]).T
    logp, state = model.logprobs(ids, model.initial_state(1))
    assert logp[1:].isnan().all()
    assert not logp[0].isnan().any()
    drawn, logps, _ = model.generate(
        ids[-1], model.initial_state(1) | {"history": state["history"]}, 20, SamplingRule(), noise(20, 1)
    )
    assert drawn[0].item() == model.vocab.encode(" ").item()  # the only character after ;
    assert logps.isfinite().all()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("rule", [SamplingRule(), SamplingRule(temperature=0.5, top_k=3), SamplingRule(temperature=0)])
def test_generation_is_the_general_way_where_every_history_is_seen(name, rule):
    model = model_of(TEXT + "\nthe", order=2, name=name)  # its end stands elsewhere too
    start = torch.from_numpy(model.vocab.encode("t\no").astype(np.int64))
    fast = model.generate(start, model.initial_state(3), 40, rule, noise(40, 3))
    slow = generate_by_steps(model, start, model.initial_state(3), 40, rule, noise(40, 3))
    assert torch.equal(fast[0], slow[0])
    assert torch.allclose(fast[1], slow[1], atol=1e-12, rtol=0)
    assert torch.equal(fast[2]["history"], slow[2]["history"])


@pytest.mark.parametrize("order", [0, 1, 3, 8])
def test_generation_in_pieces_and_with_fewer_lanes_gives_the_same(order):
    model = model_of(order=order, spans=[[0, 30], [30, 60], [60, 100]])  # ends of spans: dead histories
    start, numbers = torch.tensor([1, 5, 9]), noise(60, 3)
    whole_ids, whole_logp, last = model.generate(start, model.initial_state(3), 60, SamplingRule(), numbers)
    state, ids_B, drawn, logps = model.initial_state(3), start, [], []
    for a, b in ((0, 1), (1, 8), (8, 8), (8, 60)):
        ids, logp, state = model.generate(ids_B, state, b - a, SamplingRule(), numbers[a:b])
        ids_B = ids[-1] if len(ids) else ids_B
        drawn.append(ids)
        logps.append(logp)
    assert torch.equal(torch.cat(drawn), whole_ids)
    assert torch.allclose(torch.cat(logps), whole_logp, atol=1e-12, rtol=0)
    assert torch.equal(state["history"], last["history"])
    some = torch.tensor([2, 0])
    alone, _, _ = model.generate(start[some], take(model.initial_state(3), some), 60, SamplingRule(), numbers[:, some])
    assert torch.equal(alone, whole_ids[:, some])


def test_frequencies_of_generated_text_are_the_counts():
    model = model_of(order=1)
    t = model.vocab.encode("t").item()
    ids, _, _ = model.generate(torch.full((4000,), t), model.initial_state(4000), 1, SamplingRule(), noise(1, 4000))
    share = np.bincount(ids[0].numpy(), minlength=len(model.vocab)) / 4000
    used, distribution = model.next_distribution([t])
    assert used == [t]
    for id, p, _ in distribution:
        assert share[id] == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 4000))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_next_distribution_is_sorted_and_whole(name):
    model = model_of(order=4, name=name)
    history = model.vocab.encode(" the").tolist()
    used, found = model.next_distribution([*[0] * 10, *history])
    assert used == history
    brute = Brute([model.vocab.encode(TEXT).tolist()], len(model.vocab), 6)
    expected = brute.row(name, history, 4)
    assert [p for _, p, _ in found] == pytest.approx(sorted((p for p in expected if p), reverse=True))
    assert found == sorted(found, key=lambda item: (-item[1], item[0]))
    for id, p, count in found:
        assert p == pytest.approx(expected[id], abs=1e-12)
        assert count == brute.count.get((*history, id), 0)
    assert math.fsum(p for _, p, _ in found) == pytest.approx(1, abs=1e-12)
    used, _ = model.next_distribution(model.vocab.encode(";;e").tolist())
    assert model.vocab.decode(used) == "e"
    assert model.next_distribution([])[0] == []


@pytest.mark.parametrize(("name", "options"), [("none", {"longest": True}), ("add-k", {"k": 0.25}), ("kneser-ney", {})])
def test_written_and_read_it_is_the_same(tmp_path, name, options):
    model = model_of(order=3, name=name, **options)
    model.write_files(tmp_path)
    config = json.loads(json.dumps(model.shape()))
    again = NGramLM.read(tmp_path, config, model.vocab)
    ids = torch.from_numpy(model.vocab.encode(TEXT[20:60]).astype(np.int64))[:, None]
    one, two = (m.logprobs(ids, m.initial_state(1))[0] for m in (model, again))
    assert torch.equal(one.nan_to_num(7), two.nan_to_num(7))
    assert again.shape() == model.shape()


@pytest.mark.parametrize(
    "change",
    [
        {"order": 99},
        {"order": "3"},
        {"order": None},
        {"smoothing": "magic"},
        {"smoothing": 3},
        {"parameters": []},
        {"parameters": {"k": 1}},
        {"parameters": {"longest": "yes"}},
        {"characters": 5},
        {"more": 1},
    ],
)
def test_a_broken_configuration_is_refused(tmp_path, change):
    model = model_of()
    model.write_files(tmp_path)
    with pytest.raises(CheckpointError):
        NGramLM.read(tmp_path, {**model.shape(), **change}, model.vocab)
    with pytest.raises(CheckpointError):
        NGramLM.read(tmp_path, [], model.vocab)
    with pytest.raises(CheckpointError):
        NGramLM.read(tmp_path, model.shape(), Vocab.of("abc"))


def test_parts_that_do_not_fit_are_refused():
    model, other = model_of(), model_of(order=2)
    with pytest.raises(OptionError, match="symbols"):
        NGramLM(vocab=Vocab.of("ab"), index=model.index, order=3)
    with pytest.raises(OptionError, match="estimator"):
        NGramLM(vocab=model.vocab, index=model.index, order=3, estimator=other.estimator)


def test_the_published_figures_of_tiny_shakespeare():
    path = Path(__file__).parents[3] / "shared" / "data" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("the corpus tinyshakespeare.txt is not on this machine")
    corpus = read_corpus([path])
    parts = corpus.parts(Split.parse("90/10/0"))
    index = SuffixIndex.build(corpus.ids, parts["train"], symbols=len(corpus.vocab))
    (row,) = ngram_rows(index, corpus.vocab, "none", [4], corpus.ids, parts["valid"], training=False)
    covered = np.isfinite(row.logp_T)
    assert len(row.logp_T) == 111_539
    assert covered.mean() == pytest.approx(0.8988, abs=0.001)
    assert -row.logp_T[covered].mean() == pytest.approx(1.2855, abs=0.002)
    smoothed = ngram_rows(
        index, corpus.vocab, "kneser-ney", [4, 5, 6], corpus.ids, parts["valid"], hits=False, training=False
    )
    four, five, six = (-row.logp_T.mean() for row in smoothed)
    assert math.exp(four) == pytest.approx(4.7649, rel=0.002)
    assert math.exp(five) == pytest.approx(4.5847, rel=0.002)
    assert six == pytest.approx(1.5165, abs=0.002)


def test_a_text_of_one_symbol_and_of_one_character():
    for text in ("aaaa", "a"):
        corpus = corpus_of_text(text)
        index = SuffixIndex.build(corpus.ids, corpus.documents, symbols=1)
        model = NGramLM(vocab=corpus.vocab, index=index, order=2, estimator="kneser-ney")
        logp, _ = model.logprobs(torch.zeros((3, 1), dtype=torch.int64), model.initial_state(1))
        assert logp.exp().flatten().tolist() == pytest.approx([1, 1, 1])
