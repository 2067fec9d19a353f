"""A split of lines: held-out lines cost what they are worth, and the line ends before them are history alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import charlm
from charlm.ngrams.estimators import ESTIMATORS
from charlm.ngrams.fit import count, count_within
from charlm.ngrams.model import NGramLM
from charlm.text.text import Text


def letters(lines: int = 4000) -> str:
    drawn = np.random.default_rng(0).integers(0, 26, lines)
    return "".join(f"{chr(ord('a') + letter)}-end\n" for letter in drawn.tolist())


def nats(model: NGramLM, text: Text) -> float:
    return model.evaluate(text.test, progress=False).nats


def test_a_line_of_one_random_letter_costs_the_logarithm_of_the_letters() -> None:
    # six characters a line, of which the letter costs ln 26 and the others, which follow from it, next to nothing
    for split in ("lines:80/10/10", "80/10/10"):
        text = Text.of(letters(), split=split)
        model = count(text.corpus, text.parts, order=3, smoothing="kneser-ney")
        assert nats(model, text) == pytest.approx(math.log(26) / 6, rel=0.01)


def test_the_context_of_a_held_out_paragraph_is_one_line_end() -> None:
    # after one line end comes another one half of the time, so a paragraph that begins a span costs ln 2 more
    text = Text.of(letters().replace("\n", "\n\n"), split="paragraphs:80/10/10")
    model = count(text.corpus, text.parts, order=3, smoothing="kneser-ney")
    begin_spans = len(text.test.spans) / 400
    assert nats(model, text) == pytest.approx((math.log(26) + begin_spans * math.log(2)) / 7, rel=0.01)


def test_each_letter_of_a_held_out_line_is_a_target() -> None:
    text = Text.of(letters(), split="lines:80/10/10")
    sizes = [len(part) for part in (text.train, text.valid, text.test)]
    # 6 · 400 characters in each held-out part; the first of the text is the target of no part
    assert sum(sizes) == 6 * 4000 - 1
    assert abs(sizes[1] - 2400) <= 1
    assert abs(sizes[2] - 2400) <= 1
    assert str(text.test).count("\n") == 400
    assert len(str(text.test)) == 2400


@pytest.mark.parametrize("smoothing", ESTIMATORS)
@pytest.mark.parametrize("order", [0, 2])
def test_context_is_no_event_of_order_0(tmp_path: Path, smoothing: str, order: int) -> None:
    text = Text.of("ab\nabc\nca\nb\n" * 20, split="lines:3:60/40/0")
    assert text.split is not None
    model = count(text.corpus, text.parts, order=order, smoothing=smoothing)
    train = str(text.train)  # its characters, without the line ends that are context
    level = model.index.levels[0]
    counts = dict(zip(text.vocab.decode(level.id_E), level.count_E.tolist(), strict=True))
    assert counts == {symbol: train.count(symbol) for symbol in sorted(set(train))}
    assert dict(model.index.followers([])) == {text.vocab.characters.index(c): n for c, n in counts.items()}

    # past memory, and after saving and opening, it is the same model
    where = tmp_path / "tables"
    where.mkdir()
    estimator = count_within(1 << 30, where, text, order=order, smoothing=smoothing)
    tables = NGramLM(vocab=text.vocab, index=estimator.index, order=order, estimator=estimator)
    model.write_files(tmp_path)
    again = NGramLM.read(tmp_path, model.shape(), text.vocab)
    spans = text.parts["valid"]
    rows = [next(m.rows(text.corpus.ids, spans, [order])) for m in (model, again, tables)]
    for row in rows[1:]:
        np.testing.assert_array_equal(row.logp_T, rows[0].logp_T)
        assert row.train_nats == rows[0].train_nats
    own = -next(model.rows(text.corpus.ids, text.parts["train"], [order])).logp_T.mean()
    assert rows[0].train_nats == pytest.approx(own, abs=1e-12)  # the nats that are read off the counts


WORDS = {"ab": 0.3, "ba": 0.2, "abc": 0.2, "cab": 0.1, "bcaa": 0.1, "ccc": 0.06, "acacb": 0.04}
"""A list of lines with known probabilities, each independent of the others."""


@pytest.mark.slow
def test_known_probabilities_are_found_by_eval_by_line_and_line_for_line() -> None:
    drawn = np.random.default_rng(3).choice(list(WORDS), 4000, p=list(WORDS.values()))
    text = Text.of("".join(f"{word}\n" for word in drawn.tolist()), split="lines:80/10/10")
    held = str(text.test).splitlines()
    surprises = np.array([-math.log(WORDS[line]) for line in held])
    characters = sum(len(line) + 1 for line in held)
    truth = surprises.sum() / characters
    error = surprises.std() * math.sqrt(len(held)) / characters  # of a mean over lines drawn anew
    models = [
        charlm.ngram(text, order=5, smoothing="kneser-ney"),
        charlm.ngram(text, order=5, smoothing="witten-bell"),
        charlm.train(
            text, model="gru", layers=1, hidden=16, batch_size=16, seq_length=32, max_steps=400, lr=0.02, seed=1,
            backend="torch", progress=False,
        ),
    ]  # fmt: skip
    for model in models:
        whole = model.evaluate(text.test, progress=False)
        lines = model.score(text.test).found("line")[0]
        assert (len(lines), whole.targets) == (len(held), characters)
        by_line = sum(line.bits for line in lines) * math.log(2) / characters
        own = model.score_items(held, progress=False).logp_N
        line_for_line = [
            model.evaluate(Text.of(f"\n{line}\n", vocab=text.vocab).all, progress=False) for line in held[:60]
        ]
        alone = sum(each.nats * each.targets for each in line_for_line)
        assert alone == pytest.approx(-own[:60].sum(), rel=1e-4)
        assert [each.targets for each in line_for_line] == [len(line) + 1 for line in held[:60]]
        for found in (whole.nats, by_line, -own.sum() / characters):
            assert abs(found - truth) < 3 * error, (model.title, found, truth, error)
        assert by_line == pytest.approx(whole.nats, rel=1e-5)
