"""Items: the same list in any order or with counts is one corpus; equal items are in one part; spans are exact."""

import importlib
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

import charlm
from charlm.errors import OptionError, TextError
from charlm.text.vocab import Vocab

NAMES = ["ada", "bob", "ada", "eve", "ida", "bob", "ada", "uwe", "ann", "leo", "mia", "tom"]


def test_order_and_counts_give_the_same_corpus_to_the_bit(tmp_path: Path) -> None:
    shuffled = random.Random(3).sample(NAMES, len(NAMES))
    counts = {name: NAMES.count(name) for name in sorted(set(NAMES))}
    (tmp_path / "a.txt").write_text("\n".join(NAMES) + "\n")
    (tmp_path / "b.txt").write_text("\n".join(shuffled))  # no final line end
    (tmp_path / "c.csv").write_text("name;n\n" + "".join(f"{name};{n}\n" for name, n in counts.items()))
    rows = [{"name": name, "n": n} for name, n in counts.items()]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    column = {"items": "column:name", "weights": "n"}
    texts = [
        charlm.read_text(tmp_path / "a.txt", items="line"),
        charlm.read_text(tmp_path / "b.txt", items="line"),
        charlm.read_text(tmp_path / "c.csv", **column),
        charlm.read_text(tmp_path / "d.jsonl", **column),
        charlm.Text.of(NAMES),
        charlm.Text.of(list(counts), weights=list(counts.values())),
        charlm.Text.of("\n\n".join(shuffled), items="line"),
    ]
    models = [charlm.ngram(text, order=2, smoothing="kneser-ney") for text in texts]
    for text, model in zip(texts[1:], models[1:], strict=True):
        assert str(text) == str(texts[0])
        assert all(np.array_equal(text.parts[name], texts[0].parts[name]) for name in text.parts)
        assert np.array_equal(model.next("\na").probabilities, models[0].next("\na").probabilities)
    assert sorted(str(texts[0].all).split()) == sorted(NAMES)


def test_an_item_is_counted_from_its_begin_to_its_end_mark() -> None:
    """By hand: of four items two begin with a, one of which ends after it."""
    text = charlm.Text.of(["a", "ab", "b", "b"], split="100/0/0")
    first = charlm.ngram(text, order=1)
    assert first.next("\n").top() == [("a", 0.5), ("b", 0.5)]
    assert first.next("a").top() == [("\n", 0.5), ("b", 0.5)]
    zero = charlm.ngram(text, order=0)  # 5 letters and 4 end marks; the begin state is no event
    assert dict(zero.next("a").top()) == pytest.approx({"\n": 4 / 9, "a": 2 / 9, "b": 3 / 9})
    assert first.evaluate(text.all).targets == 9


def test_equal_items_are_in_one_part_unless_lines_are_asked_for() -> None:
    many = [f"n{i % 50}" for i in range(500)]
    text = charlm.Text.of(many)
    train, test = (set(str(text.part(name)).split()) for name in ("train", "test"))
    assert len(train) == 40
    assert len(test) == 5
    assert not train & test
    assert str(text.split) == "items:80/10/10"
    assert text.corpus.repeated(text.split) == ""
    copies = charlm.Text.of(many, split="lines:1:80/10/10")
    assert len(str(copies.train).split()) == 400
    assert copies.corpus.repeated(copies.split).startswith("100.0 %")
    with pytest.raises(OptionError, match="by item"):
        charlm.Text.of(many, split="interleaved:5:80/10/10")


def test_a_saved_model_reads_its_list_again_as_items(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(f"item{i}" for i in range(100)))
    text = charlm.read_text(path, items="line")
    charlm.ngram(text, order=2, smoothing="witten-bell", out=tmp_path / "model")
    model = charlm.load(tmp_path / "model")
    again = charlm.read_text(path, like=model)
    assert model.source.reading.items == "line"
    assert str(again.test) == str(text.test)
    alone = [model.evaluate(charlm.Text.of([item], vocab=model.vocab).all) for item in str(text.test).split()]
    nats = sum(each.nats * each.targets for each in alone) / sum(each.targets for each in alone)
    assert model.evaluate(again.test).nats == pytest.approx(nats, abs=1e-12)
    with pytest.raises(OptionError, match="memory"):
        charlm.read_text(path, items="line", streamed=True)


def test_validation_and_test_items_may_be_lists_of_their_own(tmp_path: Path) -> None:
    lists = {"a.txt": NAMES, "b.txt": ["zoe", "ada", "kim"], "c.txt": ["lea"]}
    for name, items in lists.items():
        (tmp_path / name).write_text("\n".join(items))
    held = {"valid": tmp_path / "b.txt", "test": tmp_path / "c.txt"}
    text = charlm.read_text(tmp_path / "a.txt", items="line", **held)
    for part, items in zip(("train", "valid", "test"), lists.values(), strict=True):
        assert sorted(str(text.part(part)).split()) == sorted(items)
    assert str(text.split) == "files:12/3/1"
    assert text.corpus.repeated(text.split).startswith("25.0 % of the held-out items")  # ada, of four held out
    model = charlm.ngram(text, order=2, smoothing="kneser-ney")
    again = charlm.read_text(list(text.corpus.names), like=model)
    assert model.evaluate(again.train).nats != model.evaluate(again.test).nats  # lists are told apart
    alone = charlm.read_text(tmp_path / "c.txt", items="line", vocab=model.vocab)
    assert model.evaluate(text.test).nats == model.evaluate(alone.all).nats
    network = charlm.train(text, hidden=4, max_steps=2, seq_length=4, batch_size=2, out=tmp_path / "run")
    resumed = charlm.train(resume=tmp_path / "run", max_steps=3)
    assert str(resumed.source.split) == "files:12/3/1"
    assert network.trained.evaluation is not None
    assert network.trained.evaluation.targets == len("lea\n")
    (tmp_path / "a.txt").write_text("\n".join(NAMES[::-1]))
    assert str(charlm.read_text(tmp_path / "a.txt", items="line", **held)) == str(text)


def test_a_parquet_table_is_read_with_pyarrow_and_refused_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    counts = {name: NAMES.count(name) for name in sorted(set(NAMES))}
    table = pyarrow.table({"name": [*counts, None, "nobody"], "n": [*counts.values(), 3, 0]})
    parquet.write_table(table, tmp_path / "list.parquet")
    options = {"items": "column:name", "weights": "n"}
    assert str(charlm.read_text(tmp_path / "list.parquet", **options)) == str(charlm.Text.of(NAMES))
    with pytest.raises(TextError, match="has no column 'names': it has 'name', 'n'"):
        charlm.read_text(tmp_path / "list.parquet", items="column:names")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TextError, match="which pyarrow reads: install it, or write the table as CSV"):
        charlm.read_text(tmp_path / "list.parquet", **options)


def test_items_under_another_vocabulary_keep_their_spans() -> None:
    text = charlm.Text.of(["añb", "bb", "ñ"], split="100/0/0")
    part = text.all.under(Vocab(("\n", "a", "b"), byte_fallback=True))
    assert str(part) == str(text.all)
    assert len(part) == len(text.all) + 2
    assert (text.all.under(Vocab.of("\nab")).text.corpus.ids < 0).sum() == 2


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("\n\n", {"items": "line"}, "no item"),
        ("a,n\nx,2\n", {"items": "column:b"}, "has no column 'b'"),
        ("a,n\nx,1.5\n", {"items": "column:a", "weights": "n"}, "whole number"),
        ("a,n\nx\n", {"items": "column:a"}, "row 2 of"),
        ('a,n\n"x\ny",1\n', {"items": "column:a"}, "line end"),
        ("a,n\nx,99999999999\n", {"items": "column:a", "weights": "n"}, "divide the counts"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path: Path, content: str, options: dict[str, str], words: str) -> None:
    (tmp_path / "list").write_text(content)
    with pytest.raises(TextError, match=words):
        charlm.read_text(tmp_path / "list", **options)


def test_options_of_items_that_do_not_go_together() -> None:
    with pytest.raises(OptionError, match="goes with --items"):
        charlm.read_text("x", items="line", weights="n")
    with pytest.raises(OptionError, match="'line' or 'column:NAME'"):
        charlm.read_text("x", items="lines")
