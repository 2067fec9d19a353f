"""Whole items: an automaton's known probabilities, guess numbers by enumeration, and drawing what is new."""

import itertools
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import charlm
from charlm.cli import cli
from charlm.errors import OptionError
from charlm.lm.items import guess_numbers

NEXT = {
    "": {"a": 0.5, "b": 0.3, "c": 0.2},
    "a": {"b": 0.6, "c": 0.2, "": 0.2},
    "b": {"a": 0.3, "c": 0.4, "": 0.3},
    "c": {"a": 0.3, "b": 0.2, "": 0.5},
}
POSSIBLE = ["".join(letters) for size in range(1, 7) for letters in itertools.product("abc", repeat=size)]


def probability(item: str) -> float:
    """Of the automaton."""
    found, state = 1.0, ""
    for letter in item:
        found *= NEXT[state].get(letter, 0.0)
        state = letter
    return found * NEXT[state].get("", 0.0)


def drawn(count: int) -> list[str]:
    chance, found = random.Random(5), []
    for _ in range(count):
        item, state = "", ""
        while True:
            state = chance.choices(list(NEXT[state]), list(NEXT[state].values()))[0]
            if not state:
                break
            item += state
        found.append(item)
    return found


def check_probabilities(model: charlm.TextModel, count: int, slack: float) -> None:
    """Each frequent item within sampling error of the truth, and all of them together at most 1."""
    logp_N = model.score_items(POSSIBLE).logp_N
    p_N, true_N = np.exp(logp_N), np.array([probability(item) for item in POSSIBLE])
    assert p_N.sum() <= 1 + 1e-9
    top = np.argsort(-true_N)[:60]
    error = np.sqrt(true_N[top] * (1 - true_N[top]) / count)
    assert np.sqrt((((p_N - true_N)[top] / error) ** 2).mean()) < slack


def test_an_ngram_gives_each_item_its_probability() -> None:
    text = charlm.Text.of(drawn(10_000), split="100/0/0")
    for smoothing in ("none", "kneser-ney"):
        check_probabilities(charlm.ngram(text, order=2, smoothing=smoothing), 10_000, 1.2)


@pytest.mark.slow
def test_a_network_gives_each_item_its_probability_and_no_order_matters() -> None:
    items = drawn(10_000)
    text = charlm.Text.of(items, split="lines:90/10/0")
    options = {"model": "gru", "layers": 1, "hidden": 32, "max_steps": 600, "batch_size": 64, "seq_length": 32}
    network = charlm.train(text, **options)
    check_probabilities(network, 9_000, 2.0)
    counts = {item: items.count(item) for item in set(items)}
    others = [
        charlm.Text.of(random.Random(7).sample(items, len(items)), split="lines:90/10/0"),
        charlm.Text.of(list(counts), weights=list(counts.values()), split="lines:90/10/0"),
    ]
    nats = network.evaluate(text.valid).nats
    for other in others:  # another order; counts
        assert charlm.train(other, **options).evaluate(text.valid).nats == pytest.approx(nats, abs=1e-6)
    seed = charlm.train(text, **options, seed=1).evaluate(text.valid).nats
    assert seed == pytest.approx(nats, abs=0.01)


def test_the_order_of_lines_and_written_out_counts_make_no_difference_to_an_ngram() -> None:
    items = drawn(3_000)
    counts = {item: items.count(item) for item in set(items)}
    texts = [items, items[::-1], random.Random(2).sample(items, len(items))]
    models = [charlm.ngram(charlm.Text.of(each), order=3, smoothing="kneser-ney") for each in texts]
    models.append(
        charlm.ngram(charlm.Text.of(list(counts), weights=list(counts.values())), order=3, smoothing="kneser-ney")
    )
    first = models[0].score_items(POSSIBLE).logp_N
    for model in models[1:]:
        assert np.array_equal(model.score_items(POSSIBLE).logp_N, first)


def test_guess_numbers_agree_with_enumeration() -> None:
    model = charlm.ngram(charlm.Text.of(drawn(3_000), split="100/0/0"), order=2)
    p_N = np.exp(model.score_items(POSSIBLE).logp_N)
    wanted = ["ab", "abc", "bcab", "cbabc"]
    scores = model.score_items(wanted, guesses=5_000)
    assert scores.guesses_N is not None
    assert scores.error_N is not None
    for logp, guesses, error in zip(scores.logp_N, scores.guesses_N, scores.error_N, strict=True):
        # longer items than those listed that are more probable than the last one are few
        assert abs(guesses - (p_N > math.exp(logp) * (1 + 1e-9)).sum()) <= 4 * error + 0.05 * guesses
    assert guess_numbers(np.array([-np.inf]), np.log([0.5, 0.25]), 4)[0].tolist() == [1.5]


def test_unknown_and_impossible_items_are_marked() -> None:
    model = charlm.ngram(charlm.Text.of(["ab", "ba"], split="100/0/0"), order=1)
    scores = model.score_items(["ab", "bb", "xyab"])
    rows = list(scores.rows())
    assert [row[0] for row in rows] == ["bits", f"{-scores.logp_N[0] / math.log(2):.6g}", "infinite", "unknown"]
    assert scores.order(top=2) == [2, 1]
    assert scores.to_json(2)["bits"] is None
    assert scores.to_json(2)["unknown"] == 2


def test_unique_and_new_items_and_the_sentence_when_there_are_no_more(tmp_path: Path) -> None:
    items = random.Random(1).sample([f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"], 50)
    (tmp_path / "list.txt").write_text("\n".join(items))
    text = charlm.read_text(tmp_path / "list.txt", items="line", split="80/20/0")
    model = charlm.ngram(text, order=1, smoothing="kneser-ney")
    fresh = model.sample_items(10, unique=True, new=True)
    assert len(set(fresh.items)) == 10
    assert not set(fresh.items) & set(items)
    assert fresh.drawn == 10 + sum(fresh.dropped.values())
    assert np.allclose(model.score_items(fresh.items).logp_N, fresh.logps)
    assert model.sample_items(10, unique=True, new=True).items == fresh.items  # the same seed
    same = charlm.ngram(charlm.read_text(tmp_path / "list.txt", items="line", split="100/0/0"), order=3)
    none = same.sample_items(3, new=True)  # two letters each: an unsmoothed model of order 3 knows the list alone
    assert len(none) == 0
    assert "0 of 3 items" in none.said
    assert none.dropped == {"in the training list": none.drawn}
    few = charlm.ngram(charlm.Text.of(["ab", "ac", "b"] * 5, split="100/0/0"), order=3)
    rest = few.sample_items(5, unique=True)
    assert sorted(rest.items) == ["ab", "ac", "b"]
    assert "3 of 5 items" in rest.said
    with pytest.raises(OptionError, match="not at hand"):
        few.sample_items(5, new=True)


def test_the_commands_score_and_sample_items(tmp_path: Path) -> None:
    path, directory = tmp_path / "list.txt", str(tmp_path / "model")
    path.write_text("\n".join(drawn(500)))
    run = CliRunner()
    made = run.invoke(cli, ["ngram", str(path), "--items", "line", "--order", "2", "--out", directory])
    assert made.exit_code == 0, made.output
    (tmp_path / "some.txt").write_text("ab\ncabcabca\nab\n")
    scored = run.invoke(cli, ["score", directory, str(tmp_path / "some.txt"), "--by", "item", "--json"])
    rows = [json.loads(line) for line in scored.stdout.splitlines()]
    assert [row["item"] for row in rows] == ["ab", "cabcabca", "ab"]
    assert rows[0]["percentile"] > 50
    assert rows[0]["bits_per_char"] == pytest.approx(rows[0]["bits"] / 3)
    sampled = run.invoke(cli, ["sample", directory, "--items", "20", "--unique"])
    lines = sampled.stdout.splitlines()
    assert lines[0] == "log_probability\tbits_per_char\titem"
    assert len(lines) == 21
    assert "drawn before" in sampled.stderr
    wrong = run.invoke(cli, ["sample", directory, "--unique"])
    assert wrong.exit_code == 2 or isinstance(wrong.exception, OptionError)
