"""Words, sentences and tokens cover every character once; equal items are in one part, whatever the file's order."""

import importlib
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import charlm
from charlm.cli import cli
from charlm.errors import OptionError, TextError
from charlm.text.units import sentence_starts, token_starts, word_starts
from charlm.text.vocab import Vocab

UGLY = "\tTo  be,\r\n or\tnot   \n\n\nto be? He said: “No.” \u00a0 Don't go"


def pieces(text: str, starts: list[int]) -> list[str]:
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def test_words_of_a_text_with_all_kinds_of_white_space() -> None:
    before, after = (pieces(UGLY, word_starts(UGLY, space)) for space in ("before", "after"))
    assert "".join(before) == "".join(after) == UGLY
    assert [word.strip() for word in before] == UGLY.split()
    assert [word.strip() for word in after if word.strip()] == UGLY.split()
    assert pieces("Don't go, no.", word_starts("Don't go, no.", apart=True)) == ["Don't", " go", ",", " no", "."]
    assert pieces("A b. C d!\nE", sentence_starts("A b. C d!\nE")) == ["A b.", " C d!", "\nE"]
    assert pieces("A b. C d!\nE", sentence_starts("A b. C d!\nE", "after")) == ["A b. ", "C d!\n", "E"]


def test_tokens_are_aligned_and_checked() -> None:
    starts = token_starts("Well, to be\n", ["Well", ",", "to", "be"])
    assert pieces("Well, to be\n", starts) == ["Well", ",", " to", " be", "\n"]
    with pytest.raises(TextError, match="token 3 is 'two', but at character 6"):
        token_starts("Well, to be", ["Well", ",", "two", "be"])
    with pytest.raises(TextError, match="after the last token"):
        token_starts("Well, to be", ["Well", ","])


@pytest.mark.slow
@pytest.mark.parametrize("space", ["before", "after"])
def test_words_add_up_to_characters_exactly_on_the_drama(space: str) -> None:
    """Each word is the sum of its own characters, added in their order, and every character is in one word."""
    drama = (Path(__file__).parents[2] / "data" / "shakespeare.txt").read_text(encoding="utf-8")
    tail = "\tTo  be,\tor   not\n\n to be"  # tabs, several blanks, no final line end
    model = charlm.ngram(charlm.Text.of(drama + tail), order=2, smoothing="kneser-ney")
    for text in (drama, tail):
        scored = charlm.score(model, text, space=space)  # type: ignore[arg-type]
        places = dict(zip(scored.items[0].position_N.tolist(), scored.bits_each.tolist(), strict=True))
        for word in scored.found("word")[0]:
            total = 0.0
            for place in range(word.start, word.end):
                total += places.pop(place, 0.0)
            assert word.bits == total
        assert not places


@pytest.mark.parametrize("space", ["before", "after"])
@pytest.mark.parametrize("by", ["word", "sentence"])
def test_words_add_up_to_characters(by: str, space: str) -> None:
    drama = (Path(__file__).parents[2] / "data" / "shakespeare.txt").read_text(encoding="utf-8")[:30_000]
    model = charlm.ngram(charlm.Text.of(drama + UGLY), order=3, smoothing="kneser-ney")
    spelled = charlm.ngram(charlm.Text.of(drama, vocab=charlm.Vocab.of_bytes()), order=3, smoothing="kneser-ney")
    for text in (drama, UGLY, UGLY.strip(), "one"):
        for each in (model, spelled):
            scored = charlm.score(each, text, space=space)  # type: ignore[arg-type]
            words = scored.found(by)[0]
            assert sum(word.bits for word in words) == pytest.approx(np.nansum(scored.bits_each), rel=1e-12)
            assert sum(word.characters for word in words) == len(scored.bits_each)
            assert [word.start for word in words[1:]] == [word.end for word in words[:-1]]


def test_the_command_prints_words_in_the_order_of_the_text(tmp_path: Path) -> None:
    text = charlm.Text.of("to be or not to be, that is the question. " * 20)
    charlm.ngram(text, order=3, smoothing="witten-bell", out=tmp_path / "model")
    (tmp_path / "t.txt").write_text("to be, or not. that is")
    (tmp_path / "tokens").write_text("to\nbe\n,\nor\nnot\n.\nthat\nis\n")
    command = ["score", str(tmp_path / "model"), str(tmp_path / "t.txt"), "--by", "word"]
    shown = CliRunner().invoke(cli, command).stdout.splitlines()
    assert shown[0].split("\t") == ["bits", "position", "characters", "word"]
    assert len(shown) == 7
    assert shown[1].split("\t")[2] == "1"
    rows = CliRunner().invoke(cli, [*command, "--json", "--tokens", str(tmp_path / "tokens")]).stdout.splitlines()
    assert [json.loads(row)["text"].strip() for row in rows] == ["to", "be", ",", "or", "not", ".", "that", "is"]


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
    with pytest.raises(TextError, match="has no column 'names': its columns are 'name', 'n'"):
        charlm.read_text(tmp_path / "list.parquet", items="column:names")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match="is a Parquet file: pip install"):
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


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.9, 0.5, 1], "item 1 of names counts 1.9: a weight is a whole number of 0 or more"),
        ([1, -1, 1], "item 2 of names counts -1"),
        ([1, 1, float("nan")], "item 3 of names counts nan"),
        ([1, None, 1], "item 2 of names counts None"),
        ([10**18, 1, 1], "item 1 of names counts 1000000000000000000"),
        ([10**15, 10**15, 10**15], "divide the counts"),
        ([0, 0, 0], "no item"),
        ([1, 1], "3 items and 2 weights"),
    ],
)
def test_weights_given_in_python_are_checked_as_those_of_a_table(weights: list[float], words: str) -> None:
    with pytest.raises((TextError, OptionError), match=words):
        charlm.Text.of(["ada", "bob", "eve"], weights=weights, name="names")  # type: ignore[arg-type]


def test_weights_of_whole_numbers_of_any_type_count() -> None:
    for weights in ([2, 0, 1], np.array([2.0, 0.0, 1.0]), np.array([2, 0, 1], np.uint8)):
        text = charlm.Text.of(["ada", "bob", "eve"], weights=weights, split="100/0/0")  # type: ignore[arg-type]
        assert sorted(str(text.all).split()) == ["ada", "ada", "eve"]


def test_options_of_items_that_do_not_go_together() -> None:
    with pytest.raises(OptionError, match="goes with --items"):
        charlm.read_text("x", items="line", weights="n")
    with pytest.raises(OptionError, match="'line' or 'column:NAME'"):
        charlm.read_text("x", items="lines")
