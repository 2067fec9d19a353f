"""Comparisons of models that lack characters of the text, or spell them in bytes: by hand and by their parts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import charlm
from charlm.display import wrapped
from charlm.lm.compare import Compared, _duel, paired_error
from charlm.lm.evaluate import Evaluation, Row, measure, targets_of
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

OWN = charlm.Text.of("abcabcabd xyz cab dab " * 60)
FOREIGN = charlm.Text.of("abcabc qq xyzé abd ü cab " * 60)


def network(vocab: Vocab) -> CharRNN:
    return CharRNN(vocab, RNNConfig(model="gru", hidden=8))


@pytest.mark.parametrize("kind", ["network", "counts"])
def test_a_foreign_text_is_read_by_every_kind_of_model(kind: str) -> None:
    """Mixtures and caches over a model of another text: unknown characters are in no figure, for none of the rows."""
    model = network(OWN.vocab) if kind == "network" else charlm.ngram(OWN, order=2, smoothing="kneser-ney")
    found = charlm.compare(
        FOREIGN, [model], orders=[0, 2], smoothings=["kneser-ney"], mixture=True, cache=True, progress=False
    )
    rows = [line.row.name for line in found.lines]
    assert rows[2:] == [model.name, f"{model.name} + Kneser-Ney 2", f"{model.name} + Kneser-Ney 2 + cache"]
    unknown = sum(character in "qéü" for character in str(FOREIGN.test))
    for line in found.lines:
        assert line.evaluation.unknown_targets == unknown
        assert math.isfinite(line.evaluation.nats)
    assert any(f"{unknown:,} targets are characters" in note for note in found.notes)
    alone = model.evaluate(FOREIGN.test)
    assert found.lines[2].evaluation.nats == pytest.approx(alone.nats, rel=1e-6)
    assert found.lines[3].evaluation.nats < alone.nats  # the counts are of this text


def test_bytes_beside_characters_are_compared_by_the_character() -> None:
    """A model that spells é in two bytes stands beside one that has é: the same targets, bits of both bytes added."""
    spelling = Vocab.of("abcdqxyz ").with_fallback()
    model = network(spelling)
    found = charlm.compare(FOREIGN, [model], orders=[1], smoothings=["kneser-ney"], progress=False)
    counted, read = found.lines
    assert counted.evaluation.targets == read.evaluation.targets == len(FOREIGN.test)
    text = str(FOREIGN.part("test"))
    start = int(FOREIGN.test.spans[0, 0])
    whole = str(FOREIGN)[start] + text if len(text) == len(FOREIGN.test) else text
    state, total = model.initial_state(1), 0.0
    ids = spelling.encode(whole).tolist()
    context = len(spelling.encode(whole[0]))
    with torch.no_grad():
        logp, _ = model.logprobs(torch.tensor(ids)[:, None], state)
    for place in range(context, len(ids)):
        total -= float(logp[place - 1, 0, ids[place]])
    assert read.evaluation.nats == pytest.approx(total / (len(whole) - 1), rel=1e-5)


def test_a_text_with_a_byte_fallback_is_compared_by_the_character_too() -> None:
    spelled = charlm.Text.of(str(FOREIGN), vocab=Vocab.of("abcdqxyz ").with_fallback())
    found = charlm.compare(
        spelled, [network(FOREIGN.vocab)], orders=[1], smoothings=["kneser-ney"], mixture=True, progress=False
    )
    targets = {line.evaluation.targets for line in found.lines}
    part = found.part.under(FOREIGN.vocab)
    assert targets == {len(targets_of(part.text.corpus.ids, part.spans))}
    assert all(math.isfinite(line.evaluation.nats) for line in found.lines)


def test_parts_under_another_spelling_begin_and_end_at_the_same_characters() -> None:
    spelling = Vocab.of("abcdqxyz ").with_fallback()
    for name in ("train", "valid", "test"):
        part = FOREIGN.part(name)
        there = part.under(spelling)
        assert str(there) == str(part)
        back = there.under(FOREIGN.vocab)
        assert np.array_equal(back.spans, part.spans)


def test_models_are_told_apart_by_the_paired_error_of_their_difference() -> None:
    """Each model's own error is wide, since characters differ; that of their difference is narrow."""
    chance = np.random.default_rng(0)
    common = chance.normal(-2, 1, 20_000)
    own = chance.normal(0, 0.2, 20_000)
    first, second = (Row(name=name, family=name, logp_T=x, hit_T=x > 0) for name, x in (("a", common), ("b", common)))
    second = replace(second, logp_T=common + own)
    error = paired_error(first, second)
    assert error == pytest.approx(0.2 / math.sqrt(20_000), rel=0.2)
    assert error is not None
    targets_N = np.zeros(20_000, np.int64)
    for gap, apart in ((1.0, False), (5.0, True)):
        second = replace(second, logp_T=common + own - own.mean() - gap * error)
        lines = [compared(row, measure(row, targets_N)) for row in (first, second)]
        difference = lines[1].evaluation.nats - lines[0].evaluation.nats
        assert difference == pytest.approx(gap * error)
        assert lines[0].evaluation.standard_error is not None
        assert difference < 2 * lines[0].evaluation.standard_error  # side by side they would look alike
        said = _duel(*lines)
        assert ("foresees this text best" in said) == apart
        assert ("are not told apart by this text" in said) != apart


def compared(row: Row, evaluation: Evaluation) -> Compared:
    return Compared(
        row=row, evaluation=evaluation, coverage=1.0, unseen_histories=0, unseen_continuations=0, covered_nats=None,
        network_covered_nats={},
    )  # fmt: skip


def test_a_comparison_fits_eighty_columns() -> None:
    text = charlm.Text.of("the quick brown fox jumps over the lazy dog.\n" * 300)
    found = charlm.compare(
        text, [network(text.vocab)], orders=[0, 12], smoothings=["none", "kneser-ney"], progress=False
    )
    assert max(map(len, repr(found).splitlines())) <= 80
    for width in (40, 80):
        lines = wrapped(found.summary, width).splitlines()
        assert max(map(len, lines)) <= width
        assert " ".join(lines) == found.summary


def test_a_mixture_without_rows_of_counts_tries_the_usual_orders() -> None:
    counts = charlm.ngram(OWN, order=1)
    alone = charlm.compare(OWN, [counts], orders=[], mixture=True, progress=False)
    usual = charlm.compare(OWN, [counts], mixture=True, progress=False)
    assert alone.lines[-1].row.name == usual.lines[-1].row.name
    assert alone.lines[-1].evaluation.nats == usual.lines[-1].evaluation.nats
