import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import OptionError
from charlm.ngrams.estimators import make_estimator, ngram_rows
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.kneser_ney import word_of, write_arpa
from charlm.ngrams.model import NGramLM
from charlm.text.vocab import Vocab

TEXT = "so \\ it\u00a0is:\n\tthat é and 統 go, so it goes;\nand so on, and on it goes.\n" * 4 + "the end"
HELD_OUT = "and so it is: that on\\ it é goes\nzq統 the so\tend"


class Reader:
    """An ARPA file as a back-off reader takes it: the longest listed string, weights on the way down."""

    def __init__(self, path):
        self.logp, self.backoff, self.announced = {}, {}, {}
        section = None
        lines = path.read_text(encoding="utf-8").split("\n")
        assert lines[0] == "\\data\\"
        assert lines[-2:] == ["\\end\\", ""]
        for line in lines[1:-2]:
            if line.startswith("ngram "):
                order, count = line[6:].split("=")
                self.announced[int(order)] = int(count)
            elif line.endswith("-grams:"):
                section = int(line[1:-7])
            elif line:
                logp, words, *backoff = line.split("\t")
                string = tuple(words.split(" "))
                assert len(string) == section
                assert string not in self.logp
                self.logp[string] = float(logp)
                self.backoff[string] = float(backoff[0]) if backoff else 0.0
        self.order = max(self.announced)

    def score(self, history, word):
        history = tuple(history[max(0, len(history) - self.order + 1) :])
        if (*history, word) in self.logp:
            return self.logp[*history, word]
        return self.backoff.get(history, 0.0) + self.score(history[1:], word)


def model_of(name, order, spans=None):
    vocab = Vocab.of(TEXT + HELD_OUT)
    ids = vocab.encode(TEXT)
    spans = np.array(spans or [[0, len(ids)]])
    index = SuffixIndex.build(ids, spans, symbols=len(vocab))
    return NGramLM(vocab=vocab, index=index, order=order, estimator=make_estimator(name, index, order))


@pytest.mark.parametrize("spans", [None, [[0, 50], [50, 51], [60, 200]]])
@pytest.mark.parametrize("order", [0, 1, 3, 6])
@pytest.mark.parametrize("name", ["kneser-ney", "witten-bell"])
def test_an_independent_reader_scores_the_same(tmp_path, name, order, spans):
    model = model_of(name, order, spans)
    write_arpa(model.estimator, model.vocab, tmp_path / "model.arpa")
    reader = Reader(tmp_path / "model.arpa")
    held_out = model.vocab.encode(HELD_OUT)
    (row,) = ngram_rows(model.index, model.vocab, name, [order], held_out, np.array([[0, len(held_out)]]))
    words = [word_of(c) for c in HELD_OUT]
    scores = [reader.score(words[:at], words[at]) for at in range(1, len(words))]
    short = max(0, order - 1) if name == "kneser-ney" else 0  # targets without a whole history
    assert np.array(scores[short:]) * math.log(10) == pytest.approx(row.logp_T[short:], abs=1e-5)


def test_announced_counts_are_the_lines_and_nothing_is_missing(tmp_path):
    model = model_of("kneser-ney", 3)
    write_arpa(model.estimator, model.vocab, tmp_path / "model.arpa")
    reader = Reader(tmp_path / "model.arpa")
    for length, announced in reader.announced.items():
        strings = [s for s in reader.logp if len(s) == length]
        assert len(strings) == announced
        if length > 1:
            assert all(s[:-1] in reader.logp and s[1:] in reader.logp for s in strings)
    assert {"<s>", "</s>", "<unk>"} <= {s[0] for s in reader.logp if len(s) == 1}
    for history in [s for s in reader.logp if len(s) == 2 and s[1] != word_of("\x00")][:20]:
        total = sum(10 ** reader.score(history, word_of(c)) for c in model.vocab.characters)
        assert total == pytest.approx(1, abs=1e-5)


@given(st.characters(exclude_categories=["Cs"]))
def test_spelling_is_reversible_and_without_white_space(character):
    word = word_of(character)
    assert (word if len(word) == 1 else chr(int(word.removeprefix("\\u{").removesuffix("}"), 16))) == character
    assert len(word.split()) == 1
    assert word.isprintable()


def test_bytes_are_spelled_by_their_number():
    vocab = Vocab.of_bytes()
    assert len({word_of(vocab.symbol(id)) for id in range(256)}) == 256


@pytest.mark.parametrize("name", ["none", "add-k", "uniform-mix"])
def test_estimators_of_one_order_are_refused(tmp_path, name):
    with pytest.raises(OptionError, match="kneser-ney"):
        model = model_of(name, 2)
        write_arpa(model.estimator, model.vocab, tmp_path / "model.arpa")
    assert not list(tmp_path.iterdir())


def test_kenlm_scores_the_same_where_it_is_installed(tmp_path):
    kenlm = pytest.importorskip("kenlm", reason="KenLM's Python package is not installed")
    model = model_of("kneser-ney", 4)
    write_arpa(model.estimator, model.vocab, tmp_path / "model.arpa")
    held_out = model.vocab.encode(HELD_OUT)
    (row,) = ngram_rows(model.index, model.vocab, "kneser-ney", [4], held_out, np.array([[0, len(held_out)]]))
    reader, state, scores = kenlm.Model(str(tmp_path / "model.arpa")), kenlm.State(), []
    reader.NullContextWrite(state)
    for character in HELD_OUT:
        after = kenlm.State()
        scores.append(reader.BaseScore(state, word_of(character), after))
        state = after
    assert np.array(scores[4:]) * math.log(10) == pytest.approx(row.logp_T[3:], abs=1e-4)
