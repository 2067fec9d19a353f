"""Vocabularies: the way to ids and back, for any text there is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CharlmError, TextError, UnknownCharacterError
from charlm.text.vocab import UNKNOWN, Vocab, code_points, smallest_dtype, vocabulary_of_counts

anything = st.text(st.characters(codec="utf-8"), min_size=1)
kept = st.text(st.characters(codec="utf-8"), max_size=5)


@given(anything)
def test_encode_and_decode_are_inverse(text: str) -> None:
    vocab = Vocab.of(text)
    ids = vocab.encode(text)
    assert vocab.decode(ids) == text
    assert vocab.decode_bytes(ids) == text.encode()
    assert ids.dtype == smallest_dtype(len(vocab))
    assert [vocab.characters[i] for i in ids] == list(text)
    assert vocab.characters == tuple(sorted(set(text)))


@given(anything, anything)
def test_a_byte_fallback_spells_every_other_character(text: str, few: str) -> None:
    vocab = Vocab.of_code_points(code_points(few)).with_fallback()
    ids = vocab.encode(text)
    spelled = [
        vocab.characters.index(c) if c in few else [len(vocab.characters) + byte for byte in c.encode()] for c in text
    ]
    naive = [id for one in spelled for id in (one if isinstance(one, list) else [one])]
    assert ids.tolist() == naive
    assert vocab.decode(ids) == text
    assert vocab.decode_bytes(ids) == text.encode()
    assert int(vocab.begins_character[ids].sum()) == len(text)


@given(st.binary())
def test_bytes_are_their_own_ids(content: bytes) -> None:
    vocab = Vocab.of_bytes()
    ids = vocab.encode_bytes(content)
    assert ids.tolist() == list(content)
    assert vocab.decode_bytes(ids) == content
    assert vocab.begins_character.all()


@given(anything, kept)
def test_an_unknown_character_is_named_or_let_pass(text: str, few: str) -> None:
    vocab = Vocab.of(few + "a")
    missing = [i for i, c in enumerate(text) if c not in few + "a"]
    ids = vocab.encode(text, unknown=True)
    assert ids.dtype == np.int32
    assert np.flatnonzero(ids == UNKNOWN).tolist() == missing
    if not missing:
        assert vocab.decode(vocab.encode(text)) == text
        return
    with pytest.raises(UnknownCharacterError) as caught:
        vocab.encode(text)
    assert (caught.value.character, caught.value.position) == (text[missing[0]], missing[0])
    assert f"position {missing[0]} " in str(caught.value)


@given(anything, st.characters(categories=["Cs"]), anything)
def test_a_surrogate_is_refused_by_name(before: str, surrogate: str, after: str) -> None:
    text = before + surrogate + after
    for use in (
        Vocab.of,
        Vocab.of("a").with_fallback().encode,
        lambda t: Vocab.of("a").encode(t, unknown=True),
    ):
        with pytest.raises(TextError, match=f"U\\+{ord(surrogate):04X}.* at position {len(before)}:"):
            use(text)


@given(anything, st.booleans())
def test_a_stored_vocabulary_is_read_back(text: str, fallback: bool) -> None:
    vocab = Vocab.of(text).with_fallback() if fallback else Vocab.of(text)
    assert Vocab.from_json(json.loads(json.dumps(vocab.to_json()))) == vocab


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"characters": ["a"]},
        {"characters": "ab", "byte_fallback": False},
        {"characters": ["b", "a"], "byte_fallback": False},
        {"characters": ["a", "a"], "byte_fallback": False},
        {"characters": ["ab"], "byte_fallback": False},
        {"characters": ["\ud800"], "byte_fallback": False},
        {"characters": [1], "byte_fallback": False},
        {"characters": [], "byte_fallback": False},
        {"characters": ["a"], "byte_fallback": 1},
        {"characters": ["a"], "byte_fallback": False, "more": 1},
    ],
)
def test_a_broken_stored_vocabulary_is_refused(value: object) -> None:
    with pytest.raises(TextError):
        Vocab.from_json(value)


@given(st.text("abcdeé漢😀", min_size=1), st.integers(1, 6))
def test_a_cap_keeps_the_most_frequent(text: str, size: int) -> None:
    counts = np.bincount(code_points(text), minlength=0x110000)
    vocab = vocabulary_of_counts(counts, size)
    by_rank = sorted(set(text), key=lambda c: (-text.count(c), c))
    assert set(vocab.characters) == set(by_rank[:size])
    assert vocab.byte_fallback == (len(by_rank) > size)
    assert vocab.decode(vocab.encode(text)) == text


@pytest.mark.parametrize(("size", "dtype"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65537, "uint32")])
def test_ids_are_kept_in_the_narrowest_type(size: int, dtype: str) -> None:
    assert smallest_dtype(size) == np.dtype(dtype)


def test_a_vocabulary_of_more_than_256_characters_needs_two_bytes() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    ids = Vocab.of(text).encode(text)
    assert ids.dtype == np.uint16
    assert ids.tolist() == list(range(300))


def test_a_damaged_spelling_becomes_replacement_characters() -> None:
    vocab = Vocab.of("a").with_fallback()
    euro = vocab.encode("€")
    assert vocab.decode(euro[:2]) == "\ufffd"
    assert vocab.decode([0, *euro, 0]) == "a€a"
    assert vocab.symbol(int(euro[0])) == "<E2>"
    assert (vocab.unit, Vocab.of_bytes().unit) == ("character", "byte")
    assert "€" in vocab
    assert "€" not in Vocab.of("a")


def test_wrong_uses_are_refused() -> None:
    with pytest.raises(TextError, match="at least one character"):
        Vocab(())
    with pytest.raises(TextError, match="outside this vocabulary of 1"):
        Vocab.of("a").decode([0, 1])
    with pytest.raises(TextError, match="id -1"):
        Vocab.of("a").decode([UNKNOWN])
    with pytest.raises(CharlmError, match="bytes only"):
        Vocab.of("a").encode_bytes(b"a")
