"""The maker of n-gram models: the same model in memory, past memory and by parts; what it refuses, what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charlm
from charlm.errors import OptionError, TextError
from charlm.ngrams import fit
from charlm.ngrams.fit import ngram
from charlm.ngrams.past_memory import parse_size
from charlm.text.text import Text

TEXT = Text.of("the theatre then; this thing, that other thing\nthe end\n" * 30)


def test_abracadabra_by_hand() -> None:
    # the training part is the first eight tenths of a b r a c a d a b r a, ten times: 88 characters, 8 repetitions
    text = Text.of("abracadabra" * 10)
    model = ngram(text, order=1)
    # after a, in each repetition: b 2, c 1, d 1, and a between two of them (7 times): 8 · 4 + 7 = 39
    assert model.next("a")["b"] == pytest.approx(16 / 39)
    assert model.next("a")["a"] == pytest.approx(7 / 39)
    assert (model.directory, model.source.sha256) == (None, text.corpus.sha256)  # type: ignore[union-attr]
    assert ngram(text, order=0).next("a")["a"] == pytest.approx(5 / 11)


@pytest.mark.parametrize("smoothing", ["none", "add-k", "kneser-ney"])
def test_in_memory_past_memory_and_loaded_are_one_model(tmp_path: Path, smoothing: str) -> None:
    plain = ngram(TEXT, order=3, smoothing=smoothing)
    kept = ngram(TEXT, order=3, smoothing=smoothing, out=tmp_path / "kept")
    past = ngram(TEXT, order=3, smoothing=smoothing, memory="1G", out=tmp_path / "past", progress=False)
    assert (kept.directory, past.directory) == (tmp_path / "kept", tmp_path / "past")
    models = [kept, past, charlm.load(tmp_path / "kept"), charlm.load(tmp_path / "past")]
    for model in models:
        assert model.source == plain.source
        assert model.evaluate(TEXT) == plain.evaluate(TEXT)
        assert model.next("th").top(3) == plain.next("th").top(3)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    arpa = tmp_path / "model.arpa"
    names = [ngram(TEXT, order=2, smoothing="witten-bell", out=tmp_path / "m", arpa=arpa).directory for _ in range(2)]
    assert names == [tmp_path / "m", tmp_path / "m-2"]
    assert (tmp_path / "model-2.arpa").read_bytes() == arpa.read_bytes()


@pytest.mark.parametrize("when", ["counting", "writing"])
def test_an_interrupted_count_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    if when == "counting":
        monkeypatch.setattr(fit, "count", interrupt)
    else:
        monkeypatch.setattr("charlm.ngrams.model.fingerprints", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ngram(TEXT, out=tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"order": 33}, "from 0 to 32"),
        ({"order": 2.5}, "from 0 to 32"),
        ({"smoothing": "laplace"}, "choose one of none, add-k"),
        ({"processes": 2}, "--memory"),
        ({"processes": 0}, "1 or more"),
        ({"memory": "2G"}, "out="),
        ({"memory": "much", "out": "m"}, "500M or 2G"),
        ({"memory": 1.5, "out": "m"}, "500M or 2G"),
        ({"memory": True, "out": "m"}, "500M or 2G"),
        ({"memory": "1M", "out": "m"}, "64M or more"),
        ({"arpa": "m.arpa"}, "kneser-ney"),
        ({"arpa": "m.arpa", "smoothing": "add-k"}, "kneser-ney"),
    ],
)
def test_wrong_arguments_name_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], way_out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=way_out) as caught:
        ngram(TEXT, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_text_is_a_text_with_a_training_part() -> None:
    with pytest.raises(OptionError, match=r"charlm\.read_text"):
        ngram("abracadabra")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="without a split"):
        ngram(Text(corpus=TEXT.corpus, split=None))
    with pytest.raises(TextError, match="longer text"):
        ngram(Text.of("ab"))


def test_sizes_are_powers_of_1024() -> None:
    assert [parse_size(size) for size in ("1K", "3M", "2G", "1T")] == [2**10, 3 * 2**20, 2 * 2**30, 2**40]
    assert parse_size(12345) == 12345


def test_a_count_that_is_interrupted_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ngram(Text.of("abracadabra" * 9), order=2, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_order_may_be_a_whole_number_of_numpy(tmp_path: Path) -> None:
    text = charlm.Text.of("abracadabra" * 30)
    charlm.ngram(text, order=np.int64(2), out=tmp_path / "counts")  # type: ignore[arg-type]
    assert charlm.load(tmp_path / "counts").evaluate(text).nats == charlm.ngram(text, order=2).evaluate(text).nats
    for order in (True, 2.0, np.int64(33)):
        with pytest.raises(OptionError, match="an order is a whole number"):
            charlm.ngram(text, order=order)  # type: ignore[arg-type]
