"""Measures of a text, against naive counting."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text.corpus import Corpus, corpus_of_text, read_corpus
from charlm.text.profile import entropies, looks_like_list, profile
from charlm.text.splits import Split
from charlm.text.text import Text
from charlm.text.units import distinct_share, longest_repeat, longest_shared, shared_share

texts = st.text("abc", min_size=1, max_size=40)


def ids_of(text: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(text.encode(), dtype=np.uint8)


def whole(ids: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([[0, len(ids)]])


def of(corpus: Corpus) -> Text:
    return Text(corpus=corpus, split=None)


def naive_entropy(documents: list[str], order: int) -> float:
    grams = Counter(d[i : i + order + 1] for d in documents for i in range(len(d) - order))
    histories = Counter(d[i : i + order] for d in documents for i in range(len(d) - order))
    total = sum(grams.values())
    return sum(n / total * math.log(histories[gram[:-1]] / n) for gram, n in grams.items())


@given(st.lists(texts, min_size=1, max_size=3))
def test_entropies_equal_a_count_in_a_dictionary(documents: list[str]) -> None:
    edges = np.cumsum([0, *map(len, documents)])
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    found = entropies(ids_of("".join(documents)), spans, 4)
    assert found == pytest.approx([naive_entropy(documents, order) for order in range(5)], abs=1e-12)


def test_the_entropy_of_equal_letters_is_the_logarithm_of_their_number() -> None:
    assert entropies(np.arange(8), whole(np.arange(8)), 1) == pytest.approx([math.log(8), 0.0])


@given(texts, st.integers(1, 6))
def test_distinct_passages_equal_a_set(text: str, length: int) -> None:
    passages = [text[i : i + length] for i in range(len(text) - length + 1)]
    share = len(set(passages)) / len(passages) if passages else 1.0
    assert distinct_share(ids_of(text), whole(ids_of(text)), length) == share


@given(texts)
def test_the_longest_repeat_equals_a_search(text: str) -> None:
    length, place = longest_repeat(ids_of(text), whole(ids_of(text)))
    longest = max(
        (n for n in range(len(text)) if any(text.find(text[i : i + n], i + 1) >= 0 for i in range(len(text) - n))),
        default=0,
    )
    assert length == longest
    passage = text[place : place + length]
    assert not length or (text.find(passage) == place and text.find(passage, place + 1) > 0)


@given(texts, texts)
def test_the_longest_shared_passage_equals_a_search(first: str, second: str) -> None:
    ids = ids_of(first + second)
    spans = np.array([[0, len(first)]]), np.array([[len(first), len(ids)]])
    length, place = longest_shared(ids, *spans)
    assert length == max(
        n for n in range(len(second) + 1) if any(second[i : i + n] in first for i in range(len(second) - n + 1))
    )
    assert (first + second)[place : place + length] in first
    passages = [second[i : i + 2] for i in range(len(second) - 1)]
    share = sum(p in first for p in passages) / len(passages) if passages else 0.0
    assert shared_share(ids, *spans, 2) == pytest.approx(share)


def test_a_long_repeat_is_found_to_the_character() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 200, 20_000).astype(np.uint8)
    ids[15_000:15_777] = ids[300:1077]
    ids[15_777], ids[14_999] = ids[1077] ^ 1, ids[299] ^ 1
    assert longest_repeat(ids, whole(ids)) == (777, 300)
    assert longest_shared(ids, np.array([[0, 10_000]]), np.array([[10_000, 20_000]])) == (777, 15_000)


def test_a_passage_does_not_cross_a_span() -> None:
    ids = ids_of("abXabYab")
    assert longest_shared(ids, np.array([[0, 1], [1, 2]]), np.array([[3, 8]])) == (1, 3)


def leaky(passage: int) -> Corpus:
    rng = np.random.default_rng(2)
    text = "".join(chr(97 + i) for i in rng.integers(0, 26, 2000))
    return corpus_of_text(text + text[100 : 100 + passage] + "!")


def test_a_copied_passage_is_called_a_leak() -> None:
    found = profile(of(leaky(150)), Split.parse("90/10/0")).leak
    assert found is not None
    assert found.found
    assert found.longest == 150
    honest = profile(of(leaky(60)), Split.parse("90/10/0")).leak
    assert honest is not None
    assert not honest.found
    assert honest.longest == 60


def test_a_profile_counts_lines_and_rare_symbols(tmp_path: object) -> None:
    (tmp_path / "a").write_text("ab\nb" * 10)  # type: ignore[operator]
    (tmp_path / "b").write_text("é\n")  # type: ignore[operator]
    found = profile(of(read_corpus([str(tmp_path)])), Split.parse("100/0/0"))
    assert (found.characters, found.lines, found.documents, found.symbols) == (42, 12, 2, 4)
    assert found.rare == [("é", 1)]
    assert found.leak is None


def test_only_the_beginning_of_a_big_text_is_measured() -> None:
    corpus = leaky(150)
    found = profile(of(corpus), Split.parse("90/10/0"), limit=300)
    assert found.measured == 300
    assert found.characters == len(corpus)
    assert found.entropies[0] == pytest.approx(naive_entropy([corpus.vocab.decode(corpus.ids[:300])], 0))


def test_lists_are_told_from_running_text() -> None:
    random = np.random.default_rng(0)
    names = ["".join(random.choice(list("abcdeimnorst"), size=random.integers(3, 9))) for _ in range(500)]
    urls = [f"/shop/item/{n}" for n in random.integers(0, 10**4, 300).tolist()]
    verse = (Path(__file__).parents[2] / "data" / "shakespeare.txt").read_text()
    said = {
        "sorted": looks_like_list(corpus_of_text("\n".join(sorted(names)))),
        "words": looks_like_list(corpus_of_text("\n".join(names))),
        "alike": looks_like_list(corpus_of_text("\n".join(f"GET {url} 200" for url in urls))),
    }
    assert "in sorted order" in str(said["sorted"])
    assert "single words" in str(said["words"])
    assert "begin like the line before" in str(said["alike"])
    assert all("--items line" in str(sentence) for sentence in said.values())
    for text in (verse, "to be, or not to be\n" * 300, "a\nb\nc", "one line without an end " * 99):
        assert looks_like_list(corpus_of_text(text)) is None
