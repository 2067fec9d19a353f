"""Bits of characters, lines and documents, against loops by hand and the figure of `charlm eval`."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from charlm.errors import OptionError
from charlm.lm.evaluate import evaluate
from charlm.lm.interface import LanguageModel
from charlm.lm.surprise import (
    Surprise,
    difference,
    line_starts,
    ranked,
    read_surprise,
    stretches,
    whole_characters,
)
from charlm.ngrams.fit import count
from charlm.ngrams.model import NGramLM
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import Corpus, corpus_of_text
from charlm.text.splits import Split
from charlm.text.vocab import Vocab

TEXT = "to be, or not to be:\nthat is the question.\n\nwhether 'tis nobler\n" * 6
CORPUS = corpus_of_text(TEXT)


def network(vocab: Vocab, seed: int = 0) -> CharRNN:
    model = CharRNN(vocab, RNNConfig(model="gru", hidden=7))
    model.reset_parameters(torch.Generator().manual_seed(seed))
    return model


def counted(order: int = 2, smoothing: str = "none", corpus: Corpus = CORPUS) -> NGramLM:
    return count(corpus, corpus.parts(Split.parse("50/25/25")), order=order, smoothing=smoothing)


def bits_by_hand(model: LanguageModel, ids: list[int]) -> list[float]:
    """One character after the other, by the distribution."""
    state, found = model.initial_state(1), []
    for now, following in itertools.pairwise(ids):
        logp, state = model.logprobs(torch.tensor([[now]]), state)
        found.append(-float(logp[0, 0, following].detach().double()) / math.log(2))
    return found


@pytest.mark.parametrize("model", [network(CORPUS.vocab), counted(3, "kneser-ney")])
def test_bits_add_up_to_what_eval_says(model: LanguageModel) -> None:
    spans = np.array([[0, 100], [130, 131], [140, 300]])
    surprise = read_surprise(model, CORPUS.ids, spans)
    wanted = bits_by_hand(model, CORPUS.ids[:100].tolist()) + bits_by_hand(model, CORPUS.ids[140:300].tolist())
    assert surprise.bits_N == pytest.approx(wanted, abs=1e-5)
    assert surprise.position_N.tolist() == [*range(1, 100), *range(141, 300)]
    figures = evaluate(model, CORPUS.ids, spans)
    assert math.fsum(surprise.bits_N) / len(surprise.bits_N) == pytest.approx(figures.bits_per_char, abs=1e-6)
    assert surprise.evaluation == figures


def test_lines_are_sums_over_their_own_characters() -> None:
    model = network(CORPUS.vocab)
    surprise = read_surprise(model, CORPUS.ids, CORPUS.documents)
    found = stretches(surprise, line_starts(CORPUS), CORPUS.ids, CORPUS.documents, CORPUS.vocab)
    lines = TEXT.splitlines(keepends=True)
    assert [TEXT[line.start : line.end] for line in found] == lines
    assert [line.number for line in found] == list(range(1, len(lines) + 1))
    bits, at = [math.nan, *bits_by_hand(model, CORPUS.ids.tolist())], 0
    for line, text in zip(found, lines, strict=True):
        own = bits[max(at, 1) : at + len(text)]
        assert line.characters == len(own)
        assert line.bits_per_char == pytest.approx(sum(own) / len(own), abs=1e-5)
        at += len(text)
    order = ranked(found)
    blank = [line.number for line in found if lines[line.number - 1] == "\n"]
    assert [line.number for line in order[len(order) - len(blank) :]] == blank  # blank lines come last
    for rank, value in (("mean", "bits_per_char"), ("total", "bits"), ("max", "highest")):
        values = [getattr(line, value) for line in ranked(found, rank) if not line.blank]
        assert values == sorted(values, reverse=True)
    with pytest.raises(OptionError, match="median"):
        ranked(found, "median")


def test_the_strangest_line_is_the_one_that_is_strange() -> None:
    odd = "zq,xk:\n"
    corpus = corpus_of_text(TEXT + odd + TEXT)
    model = counted(2, "kneser-ney", corpus)
    surprise = read_surprise(model, corpus.ids, corpus.documents)
    first = ranked(stretches(surprise, line_starts(corpus), corpus.ids, corpus.documents, corpus.vocab))[0]
    assert (TEXT + odd + TEXT)[first.start : first.end] == odd


def test_impossible_undefined_and_unknown_are_three_things() -> None:
    source = corpus_of_text("abababab\nabc\nabab\nbaba\n")
    model = count(source, source.parts(Split.parse("100/0/0")), order=1)
    text = corpus_of_text("ab\nacb\n?\nab\n")
    seen = text.under(source.vocab)
    surprise = read_surprise(model, seen.ids, seen.documents)
    places = dict(zip(surprise.position_N.tolist(), surprise.bits_N.tolist(), strict=True))
    counts = Counter(zip("abababab\nabc\nabab\nbaba\n", "bababab\nabc\nabab\nbaba\n", strict=False))
    after = {c: sum(n for (first, _), n in counts.items() if first == c) for c in "abc\n"}
    assert places[1] == pytest.approx(-math.log2(counts["a", "b"] / after["a"]))
    assert places[4] == math.inf  # ac
    assert places[5] == math.inf  # cb
    assert math.isnan(places[7])  # '?' is not in the vocabulary
    assert places[8] == math.inf
    assert surprise.undefined_N.tolist() == [place == 8 for place in surprise.position_N.tolist()]
    assert surprise.evaluation.zero_probability_targets == 3
    lines = stretches(surprise, line_starts(text), seen.ids, seen.documents, source.vocab)
    assert [(line.zero_probability, line.unknown) for line in lines] == [(0, 0), (2, 0), (1, 1), (0, 0)]
    first, last = (places[1] + places[2]) / 2, (places[9] + places[10] + places[11]) / 3
    assert first > last
    assert [line.number for line in ranked(lines)] == [3, 2, 1, 4]


def test_a_line_of_nothing_known_comes_first() -> None:
    source, text = corpus_of_text("abab"), corpus_of_text("ab\nxyz")
    model = network(source.vocab)
    seen = text.under(source.vocab)
    surprise = read_surprise(model, seen.ids, seen.documents)
    first, second = ranked(stretches(surprise, line_starts(text), seen.ids, seen.documents, source.vocab))
    assert (first.number, first.bits_per_char, first.characters, first.unknown) == (2, None, 0, 3)
    assert (second.number, second.characters, second.unknown) == (1, 1, 1)


def test_documents() -> None:
    corpus = corpus_of_text("ab\nab\nba")
    documents = np.array([[0, 4], [4, 8]])
    model = network(corpus.vocab)
    surprise = read_surprise(model, corpus.ids, documents)
    found = stretches(surprise, documents[:, 0], corpus.ids, documents, corpus.vocab)
    assert [(d.number, d.document, d.start, d.end, d.characters) for d in found] == [(1, 1, 0, 4, 3), (2, 2, 4, 8, 3)]
    assert sum(d.bits for d in found) == pytest.approx(surprise.bits_N.sum())
    assert found[1].bits == pytest.approx(sum(bits_by_hand(model, corpus.ids[4:].tolist())), abs=1e-5)


def test_bytes_of_a_character_are_added_up() -> None:
    corpus = corpus_of_text("aé€a", vocab=Vocab.of("a").with_fallback())
    model = network(corpus.vocab)
    surprise = read_surprise(model, corpus.ids, corpus.documents)
    assert len(surprise.bits_N) == 6
    whole = whole_characters(surprise, corpus.ids, corpus.vocab)
    assert (whole.position_N.tolist(), whole.length_N.tolist()) == ([1, 3, 6], [2, 3, 1])
    bits = bits_by_hand(model, corpus.ids.tolist())
    assert whole.bits_N == pytest.approx([sum(bits[:2]), sum(bits[2:5]), bits[5]], abs=1e-5)
    assert math.fsum(whole.bits_N) / 3 == pytest.approx(surprise.evaluation.bits_per_char, abs=1e-6)
    assert whole_characters(surprise, corpus.ids, Vocab.of_bytes()) is surprise
    (line,) = stretches(surprise, line_starts(corpus), corpus.ids, corpus.documents, corpus.vocab)
    assert (line.characters, line.bits_per_char) == (3, pytest.approx(surprise.evaluation.bits_per_char))


def test_difference_is_above_zero_where_the_first_knows_more() -> None:
    first, second = (read_surprise(network(CORPUS.vocab, seed), CORPUS.ids, CORPUS.documents) for seed in (1, 2))
    gained = difference(first, second)
    assert gained.mean() == pytest.approx(second.evaluation.bits_per_char - first.evaluation.bits_per_char)
    bits = np.array([[1.0, np.inf, 2.0, np.inf, np.nan], [3.0, 1.0, np.inf, np.inf, 1.0]])
    made = [
        Surprise(
            position_N=np.arange(5),
            length_N=np.ones(5, np.int64),
            bits_N=row,
            undefined_N=np.zeros(5, bool),
            evaluation=first.evaluation,
        )
        for row in bits
    ]
    assert difference(*made)[:3].tolist() == [2.0, -math.inf, math.inf]
    assert np.isnan(difference(*made)[3:]).all()
    with pytest.raises(OptionError, match="side by side"):
        difference(first, made[0])


def test_under_is_what_reading_with_that_vocabulary_gives() -> None:
    texts = ("caé b", "€ab\n")
    own = corpus_of_text("".join(texts))
    for vocab in (Vocab.of("ab"), Vocab.of("abz").with_fallback(), Vocab.of_bytes(), own.vocab):
        assert own.under(vocab).ids.tolist() == vocab.encode("".join(texts), unknown=True).tolist()
    two = replace(own, documents=np.array([[0, 5], [5, 9]]))
    vocab = Vocab.of_bytes()
    assert two.under(vocab).documents.tolist() == [[0, 6], [6, 12]]
