"""The models beside the network: against Bayes' rule by hand, scikit-learn itself, and brute force."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from charlm.errors import CheckpointError, OptionError
from charlm.sequences import Examples, Sequences
from charlm.sequences.baselines import Counted, Linear, Trees
from charlm.sequences.estimators import SequenceClassifier
from charlm.sequences.fit import fit_table
from charlm.sequences.fitted_models import best_of, fit_models, load_sequence, mixed, mixing_weights, save_sequence
from charlm.sequences.metrics import mean_nats, summary_features
from charlm.sequences.model import SequenceModel
from charlm.sequences.table_fit import most_wrong
from charlm.sequences.tabular import open_task_again
from charlm.text.vocab import Vocab

chance = np.random.default_rng(0)
TEXTS = ["".join(chance.choice(list("abc" if n % 3 else "bcd"), 2 + n % 5)) for n in range(120)]
LABELS = np.array([int(n % 3 > 0) for n in range(120)])
VOCAB = Vocab.of("abcd")
INPUTS = Sequences.of_texts(TEXTS, VOCAB)
SHARES = np.eye(2)[LABELS]
NUMBERS = Sequences.of_numbers([chance.normal(size=3 + n % 6) + 0.8 * (n % 3) for n in range(240)])
THREE = np.eye(3)[np.arange(240) % 3]


def test_the_counted_model_is_bayes_rule_by_hand() -> None:
    """Order 1 with both boundaries: Kneser-Ney's probabilities by the formula, from counts in dictionaries."""
    model = Counted.fit(INPUTS, SHARES, None, None)._of_order(1)
    asked = "abca"
    nats = []
    for number in (0, 1):
        texts = [f"<{text}>" for text, label in zip(TEXTS, LABELS, strict=True) if label == number]
        nats.append(-sum(math.log(kneser_ney(texts, h, c)) for h, c in zip(f"<{asked}", f"{asked}>", strict=True)))
    prior = (np.bincount(LABELS) + 0.5) / (len(LABELS) + 1)
    joint = prior * np.exp(-np.array(nats))
    assert model.nats(Sequences.of_texts([asked], VOCAB))[0] == pytest.approx(nats)
    assert model.say(Sequences.of_texts([asked], VOCAB))[0] == pytest.approx(joint / joint.sum())


def kneser_ney(texts: list[str], history: str, character: str) -> float:
    """Interpolated modified Kneser-Ney of order 1 over five symbols, an unknown one and the boundary (6 in all)."""
    from charlm.ngrams.kneser_ney import discounts

    both = Counter((a, b) for text in texts for a, b in zip(text, text[1:].replace(">", "<"), strict=False))
    first = Counter(b for (_, b) in both)  # in how many different histories each character stands
    first["<"] += 1  # the beginning of a span is one more thing that stands before its first symbol
    off_top, off_low = (dict(zip((1, 2, 3), discounts(np.array(list(c.values()))), strict=True)) for c in (both, first))

    def low(symbol: str) -> float:
        total = sum(first.values())
        rest = sum(off_low[min(count, 3)] for count in first.values()) / total
        kept = max(first[symbol] - off_low[min(first[symbol], 3)], 0) / total if first[symbol] else 0.0
        return kept + rest / 6

    row = {b: count for (a, b), count in both.items() if a == history}
    if not row:  # a history that never occurred
        return low(character.replace(">", "<"))
    total, symbol = sum(row.values()), character.replace(">", "<")
    rest = sum(off_top[min(count, 3)] for count in row.values()) / total
    kept = (row[symbol] - off_top[min(row[symbol], 3)]) / total if symbol in row else 0.0
    return kept + rest * low(symbol)


def test_the_linear_model_is_scikit_learns() -> None:
    model = Linear.fit(INPUTS, SHARES, None, None)
    counter = CountVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False)
    counts = counter.fit_transform([f"<{text}>" for text in TEXTS])
    regression = LogisticRegression(C=1.0, tol=1e-3, max_iter=150).fit(counts, LABELS)
    new = ["abca", "ddd", "c"]
    expected = regression.predict_proba(counter.transform([f"<{text}>" for text in new]))
    assert model.say(Sequences.of_texts(new, VOCAB)) == pytest.approx(expected, abs=2e-2)  # both stop near the optimum


@pytest.mark.parametrize("classes", [2, 3])
def test_the_trees_are_scikit_learns(classes: int) -> None:
    labels = np.arange(240) % 3 % classes
    model = Trees.fit(NUMBERS, np.eye(classes)[labels], None, None)
    forest = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    features = summary_features(NUMBERS)
    assert model.say(NUMBERS) == pytest.approx(forest.fit(features, labels).predict_proba(features), abs=1e-6)


def test_summary_features_by_hand() -> None:
    x = np.array([1.0, 4.0, 2.0, 2.0])
    found = summary_features(Sequences.of_numbers([x, [3.0]]))
    centred = x - x.mean()
    lag = (centred[1:] * centred[:-1]).sum() / (4 * x.var())
    assert found[0, :10] == pytest.approx([4, 2.25, x.std(), 1, 4, 1, 2, 2.25, 5 / 3, 13 / 3])
    assert found[0, 10] == pytest.approx(np.polyfit(np.linspace(-1, 1, 4), x, 1)[0])
    assert found[0, 12] == pytest.approx(lag)
    assert found[0, -2:] == pytest.approx([0, 0.25])
    assert np.isfinite(found).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e160, 1e200, 1.7e308])
def test_summary_features_of_huge_numbers_are_finite_and_those_of_smaller_ones(size: float) -> None:
    rows = [[1.0, -1.0, 0.5, 0.25], [1.0], [-1.0, -1.0]]
    found = summary_features(Sequences.of_numbers([[size * each for each in row] for row in rows]))
    small = summary_features(Sequences.of_numbers(rows))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1e300
    assert found[:, [0, *range(11, 20)]] == pytest.approx(small[:, [0, *range(11, 20)]])  # what has no unit
    if size < 1e300:
        assert found[:, 1:9] == pytest.approx(size * small[:, 1:9])


def test_the_weights_of_a_mix_have_the_least_log_loss() -> None:
    said = {name: chance.dirichlet((1, 1, 1), 200) for name in "ab"}
    said["b"] = 0.5 * said["b"] + 0.5 * np.eye(3)[np.arange(200) % 3]
    labels = np.eye(3)[np.arange(200) % 3]
    weights = mixing_weights(said, labels)
    assert list(said) == list(weights)

    def loss(w: Any) -> float:
        nats = mean_nats(mixed(said, dict(zip("ab", w, strict=True))), labels)
        return nats + 0.01 * float(((np.asarray(w) - 0.5) ** 2).sum())

    found = minimize(loss, [0.5, 0.5], bounds=[(0, None)] * 2)
    assert [*weights.values()] == pytest.approx(found.x, abs=2e-3)


def test_a_winner_is_named_only_where_it_can_be_told_apart() -> None:
    base = chance.exponential(size=400)
    assert best_of({"a": base, "b": base + 0.05, "c": base + 0.5}) == ("a", [])
    assert best_of({"a": base, "b": chance.permutation(base)})[1] != []


def test_they_are_saved_and_read_again(tmp_path: Path) -> None:
    examples = Examples(inputs=INPUTS, targets=Sequences.of_labels(LABELS))
    model = SequenceModel(cell="gru", hidden=3, mode="distribution", vocab=VOCAB)
    train, valid = examples.take(torch.arange(90)), examples.take(torch.arange(90, 120))
    said: list[str] = []
    models = fit_models(model, train, valid, say=said.append)
    assert models.names == ["rnn", "counted", "linear", "mix"]
    assert models.chosen == min(models.valid_nats, key=lambda name: models.valid_nats[name]) != "rnn"
    assert said[0].startswith("valid part, nats a label: rnn 0.")
    directory = tmp_path / "kept"
    directory.mkdir()
    save_sequence(directory, models, {})
    again = load_sequence(directory).models
    for name in models.names:
        assert np.allclose(np.concatenate(again.say(INPUTS, name)), np.concatenate(models.say(INPUTS, name)), atol=1e-6)
    assert again.chosen == models.chosen
    with pytest.raises(OptionError, match="it has rnn, counted, linear, mix"):
        models.say(INPUTS, "trees")
    (directory / "baselines.safetensors").write_bytes((directory / "best.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="does not hold the models"):
        load_sequence(directory)


def test_estimators_predict_by_any_model(tmp_path: Path) -> None:
    names = np.array(["bcd", "abc"])[LABELS]
    for model in ("counted", "linear", "mix", "auto"):
        fitted = SequenceClassifier(model=model, hidden=3, max_steps=3).fit(TEXTS, names)
        assert fitted.score(TEXTS, names) > 0.7
        again = SequenceClassifier.load(fitted.save(tmp_path / model), device="cpu")
        assert np.allclose(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-6)
    with pytest.raises(ValueError, match="no model 'trees'"):
        SequenceClassifier(model="trees", hidden=3, max_steps=3).fit(TEXTS, names)
    with pytest.raises(ValueError, match="unknown model"):
        SequenceClassifier(model="bayes", hidden=3, max_steps=3).fit(TEXTS, names)


def test_characters_are_painted_by_what_happens_without_them(tmp_path: Path) -> None:
    rows = "".join(f"{text},{'good' if label else 'bad'}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (tmp_path / "t.csv").write_text("text,label\n" + rows)
    found = fit_table(tmp_path / "t.csv", model="linear", hidden=3, max_steps=2, progress=False, cost="1:3")
    task = open_task_again(str(tmp_path / "t.csv"), found.facts, found.model.vocab)
    worst = most_wrong(found.models, task, 3)
    nats = found.compared["linear"].nats_N
    assert [row.nats for row in worst] == pytest.approx(sorted(nats, reverse=True)[:3])
    row = worst[0]
    assert len(row.moves) == len(row.text)
    came = found.facts.classes.index(row.came)

    def odds(text: str) -> float:
        assert found.model.vocab is not None
        p = found.models.probabilities(Sequences.of_texts([text], found.model.vocab), "linear")[0, came]
        return float(np.log(p / (1 - p)))

    assert row.moves[1] == pytest.approx(odds(row.text) - odds(row.text[:1] + "?" + row.text[2:]))
    # the threshold costs no more on the rows that it was chosen on than any other
    threshold = found.threshold
    assert threshold is not None
    valid = task.part("valid")
    assert valid is not None
    p = found.models.probabilities(valid.inputs, "linear")[:, found.facts.classes.index(threshold.of)]
    yes = valid.targets.values.numpy() == found.facts.classes.index(threshold.of)
    costs = [np.where(yes, 3 * (p < t), p >= t).mean() for t in (*p, threshold.value, 2.0)]
    assert costs[-2] == min(costs)
    assert found.to_json()["threshold"]["value"] == threshold.value
    with pytest.raises(OptionError, match="FALSE_ALARM:MISS"):
        fit_table(tmp_path / "t.csv", cost="3")


def test_a_rare_class_is_said_not_to_be_hidden_by_accuracy(tmp_path: Path) -> None:
    """3 % of 1,000 rows are rare, two thirds of these begin with an x, and nothing else tells them apart."""
    rows = []
    for number in range(1000):
        rare, body = number % 33 == 0, "".join(chance.choice(list("abc"), 6))
        rows.append(f"{'x' if rare and number % 99 else 'a'}{body},{'rare' if rare else 'common'}\n")
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(rows))
    found = fit_table(tmp_path / "t.csv", model="linear", hidden=3, max_steps=2, progress=False, split="50/10/40")
    task = open_task_again(str(tmp_path / "t.csv"), found.facts, found.model.vocab)
    came = np.array([row.endswith("rare\n") for row in rows])[task.parts["test"]]
    said = re.search(r"accuracy (\S+)\. The model finds (\d+) % of it at 1 %", found.hidden)
    assert said is not None
    assert float(said[1]) == pytest.approx(1 - came.mean(), abs=1e-4)
    test = task.part("test")
    assert test is not None
    p = np.concatenate(found.models.say(test.inputs, "linear"))[:, found.facts.classes.index("rare")]
    allowed = int(0.01 * (~came).sum())  # false alarms
    threshold = np.sort(p[~came])[::-1][allowed]
    assert int(said[2]) == pytest.approx(100 * (p[came] > threshold).mean(), abs=0.5)
    assert 0 < int(said[2]) < 100
    assert found.hidden in repr(found)
    assert found.result()["rare"] == found.hidden
