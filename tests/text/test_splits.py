"""Splits: every character in exactly one part, whatever the text, its documents and the kind of split."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import OptionError, TextError
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import PARTS, Split, count_targets, overlap, shared_context
from charlm.text.vocab import Vocab

documents = st.lists(st.text("ab\n", min_size=1, max_size=40), min_size=1, max_size=5)
cuts = st.tuples(st.integers(1, 100), st.integers(0, 100)).map(
    lambda two: (two[0], min(two[1], 100 - two[0]), 100 - two[0] - min(two[1], 100 - two[0]))
)
kinds = st.one_of(
    st.just("tail"),
    st.integers(1, 12).map(lambda lanes: f"interleaved:{lanes}"),
    st.integers(0, 99).map(lambda seed: f"lines:{seed}"),
    st.integers(0, 99).map(lambda seed: f"paragraphs:{seed}"),
)


def parts_of(texts: list[str], split: Split) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    ids = np.frombuffer("".join(texts).encode(), dtype=np.uint8)
    edges = np.cumsum([0, *map(len, texts)])
    return split.parts(ids, np.stack([edges[:-1], edges[1:]], axis=1), ord("\n"))


@given(documents, kinds, cuts)
def test_no_character_is_a_target_twice_and_no_span_crosses_a_document(
    texts: list[str], kind: str, cut: tuple[int, int, int]
) -> None:
    split = Split.parse(f"{kind}:{cut[0]}/{cut[1]}/{cut[2]}")
    whole = "".join(texts)
    read, targets = np.zeros(len(whole), dtype=int), np.zeros(len(whole), dtype=int)
    document = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    begins = set(np.cumsum([0, *map(len, texts)]).tolist())
    parts = parts_of(texts, split)
    for name, spans in parts.items():
        assert name in PARTS
        assert spans.dtype == np.int64
        assert spans.shape == (len(spans), 2)
        assert (np.diff(spans.ravel()) >= 0).all()  # in the order of the text
        for (start, end), shared in zip(spans.tolist(), shared_context(spans, parts).tolist(), strict=True):
            assert start < end
            assert document[start] == document[end - 1]
            assert not shared or whole[start] == "\n"
            read[start + shared : end] += 1
            targets[start + 1 : end] += 1
    assert (read == 1).all()
    if split.kind in ("lines", "paragraphs"):  # every character of a line, its end included
        assert targets.tolist() == [int(at not in begins) for at in range(len(whole))]
    assert targets.max() <= 1


@given(documents, st.integers(0, 9), cuts, st.booleans())
def test_lines_and_paragraphs_stay_whole(texts: list[str], seed: int, cut: tuple[int, int, int], blank: bool) -> None:
    kind = "paragraphs" if blank else "lines"
    owner = np.empty(sum(map(len, texts)), dtype=object)
    parts = parts_of(texts, Split.parse(f"{kind}:{seed}:{cut[0]}/{cut[1]}/{cut[2]}"))
    for name, spans in parts.items():
        for (start, end), shared in zip(spans.tolist(), shared_context(spans, parts).tolist(), strict=True):
            owner[start + shared : end] = name
    at = 0
    for text in texts:
        for i in range(1, len(text)):
            line_begins = text[i - 1] == "\n"
            paragraph_begins = text[max(i - 2, 0) : i] == "\n\n" and text[i] != "\n"
            if not (paragraph_begins if blank else line_begins):
                assert owner[at + i] == owner[at + i - 1]
        at += len(text)


def test_the_line_end_before_a_held_out_line_is_its_context() -> None:
    text = "ab\ncd\nef\n" * 30
    for seed in range(5):
        parts = parts_of([text], Split.parse(f"lines:{seed}:50/30/20"))
        for spans in parts.values():
            for start, end in spans.tolist():
                assert start == 0 or text[start] == "\n"
                assert text[end - 1] == "\n"
                assert start == 0 or (end - start - 1) % 3 == 0  # every character of whole lines is a target
        assert sum(map(count_targets, parts.values())) == len(text) - 1


@given(st.integers(1, 10_000), cuts)
def test_tail_cuts_where_arithmetic_says(size: int, cut: tuple[int, int, int]) -> None:
    parts = parts_of(["a" * size], Split.parse(f"{cut[0]}/{cut[1]}/{cut[2]}"))
    first, second = size * cut[0] // 100, size * (cut[0] + cut[1]) // 100
    expected = {"train": [0, first], "valid": [first, second], "test": [second, size]}
    assert {name: spans.tolist() for name, spans in parts.items()} == {
        name: [span] if span[0] < span[1] else [] for name, span in expected.items()
    }


def test_interleaved_scatters_the_held_out_pieces() -> None:
    parts = parts_of(["a" * 100], Split.parse("interleaved:2:80/10/10"))
    assert parts["train"].tolist() == [[0, 40], [50, 90]]
    assert parts["valid"].tolist() == [[40, 45], [90, 95]]
    assert parts["test"].tolist() == [[45, 50], [95, 100]]


def test_a_shuffle_is_its_seed() -> None:
    texts = ["".join(f"{i}\n" for i in range(200))]
    first, again, other = (
        parts_of(texts, Split.parse(f"lines:{seed}:80/10/10"))["test"].tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
    lines = [texts[0][start + 1 : end].count("\n") for start, end in first]
    assert sum(lines) == 20


def test_files_give_each_part_its_documents() -> None:
    parts = parts_of(["aa", "bbb", "c"], Split.parse("files:1/1/1"))
    assert {name: spans.tolist() for name, spans in parts.items()} == {
        "train": [[0, 2]],
        "valid": [[2, 5]],
        "test": [[5, 6]],
    }
    with pytest.raises(TextError, match="for 3 documents, this corpus has 1"):
        parts_of(["aa"], Split.parse("files:1/1/1"))


@given(kinds, cuts)
def test_a_split_is_written_and_read_back(kind: str, cut: tuple[int, int, int]) -> None:
    split = Split.parse(f"{kind}:{cut[0]}/{cut[1]}/{cut[2]}")
    assert Split.parse(str(split)) == split


def test_shares_may_be_fractions() -> None:
    split = Split.parse("99.5/0.25/0.25")
    assert split.shares == (Fraction("99.5"), Fraction("0.25"), Fraction("0.25"))
    assert str(split) == "tail:99.5/0.25/0.25"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "90",
        "90/10",
        "90/5/5/0",
        "90/5/6",
        "0/50/50",
        "110/-5/-5",
        "a/b/c",
        "nan/nan/nan",
        "inf/0/0",
        "random:90/5/5",
        "tail:3:90/5/5",
        "interleaved:90/5/5",
        "interleaved:0:90/5/5",
        "interleaved:x:90/5/5",
        "lines:-1:90/5/5",
        "lines:1:2:90/5/5",
    ],
)
def test_a_wrong_split_is_refused_in_one_sentence(wrong: str) -> None:
    with pytest.raises(OptionError) as caught:
        Split.parse(wrong)
    assert "\n" not in str(caught.value)
    assert "90/5/5" in str(caught.value) or "per cent" in str(caught.value)


def test_the_default_depends_on_the_size() -> None:
    assert str(Split.default(999_999)) == "tail:80/10/10"
    assert str(Split.default(1_000_000)) == "tail:90/5/5"


spans = st.lists(st.integers(0, 60), max_size=12, unique=True).map(
    lambda edges: np.array(sorted(edges)[: len(edges) // 2 * 2], dtype=np.int64).reshape(-1, 2)
)


@given(spans, spans)
def test_overlap_is_the_targets_in_common(first: np.ndarray, second: np.ndarray) -> None:  # type: ignore[type-arg]
    targets = [{i for start, end in rows for i in range(start + 1, end)} for rows in (first, second)]
    assert overlap(first, second) == len(targets[0] & targets[1])
    assert count_targets(first) == len(targets[0])


@pytest.mark.parametrize("kind", ["tail", "interleaved:7", "lines:1"])
def test_no_cut_falls_inside_a_character_that_is_spelled_in_bytes(kind: str) -> None:
    for size in range(300, 306):
        content = "a€\n"[: 2 + (kind == "lines:1")] * size
        corpus = corpus_of_text(content, vocab=Vocab.of("a").with_fallback())
        parts = corpus.parts(Split.parse(f"{kind}:80/10/10"))
        assert all(corpus.vocab.begins_character[corpus.ids[spans[:, 0]]].all() for spans in parts.values())
        pieces = sorted((start, end) for spans in parts.values() for start, end in spans.tolist())
        read = "".join(corpus.vocab.decode(corpus.ids[start:end]) for start, end in pieces)
        assert "\ufffd" not in read
        if kind != "lines:1":  # where a line end is shared as context
            assert read == content
