"""Corpora: several files, directories and standard input as documents, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import TextError
from charlm.text.corpus import corpus_of_text, read_corpus
from charlm.text.reading import Reading
from charlm.text.splits import Split
from charlm.text.vocab import Vocab

texts = st.lists(st.text("ab\n\réß漢😀", min_size=1, max_size=20), min_size=1, max_size=4)


@pytest.mark.slow
@given(texts, st.sampled_from([None, 2]), st.booleans())
def test_a_directory_equals_its_files_as_documents(written: list[str], size: int | None, as_bytes: bool) -> None:
    reading = Reading(bytes=True) if as_bytes else Reading(vocab_size=size)
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.txt" for number in range(len(written))]
        for path, text in zip(paths, written, strict=True):
            path.write_bytes(text.encode())
        whole, listed = read_corpus([name], reading), read_corpus(paths, reading)
    assert np.array_equal(whole.ids, listed.ids)
    assert np.array_equal(whole.documents, listed.documents)
    assert (whole.vocab, whole.sha256, whole.names) == (listed.vocab, listed.sha256, listed.names)
    pieces = [whole.ids[start:end] for start, end in whole.documents]
    assert [whole.vocab.decode_bytes(piece).decode() for piece in pieces] == written


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_text_is_one_document_and_comes_back(text: str) -> None:
    corpus = corpus_of_text(text)
    assert corpus.vocab.decode(corpus.ids) == text
    assert corpus.documents.tolist() == [[0, len(text)]]
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.unknown() == 0


def test_the_hash_is_of_the_bytes_and_of_several_of_their_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\n")
    (tmp_path / "b").write_bytes(b"two")
    one, two = (hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in "ab")
    assert read_corpus([tmp_path / "a"]).sha256 == one
    assert read_corpus([tmp_path / "a"], Reading(newlines="normalise")).sha256 == one
    assert read_corpus([tmp_path]).sha256 == hashlib.sha256((one + two).encode()).hexdigest()


def test_a_windows_text_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    corpus = read_corpus([path])
    assert corpus.vocab.decode(corpus.ids) == "one\r\ntwo\r\n"
    assert corpus.newline == corpus.vocab.characters.index("\n")
    normal = read_corpus([path], Reading(newlines="normalise"))
    assert normal.vocab.decode(normal.ids) == "one\ntwo\n"
    assert read_corpus([path], Reading(bytes=True)).ids[:3].tolist() == [0xEF, 0xBB, 0xBF]


def test_the_newline_is_found_in_every_kind_of_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("aaab\nab\n")
    for reading in (Reading(), Reading(bytes=True), Reading(vocab_size=1)):
        corpus = read_corpus([path], reading)
        assert corpus.newline is not None
        assert corpus.vocab.decode_bytes(corpus.ids[corpus.ids == corpus.newline]) == b"\n\n"
    assert corpus_of_text("abc").newline is None


def test_a_foreign_vocabulary_counts_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("abcé")
    corpus = read_corpus([path], vocab=Vocab.of("ab"))
    assert corpus.ids.tolist() == [0, 1, -1, -1]
    assert corpus.unknown() == 2
    assert read_corpus([path], vocab=Vocab.of_bytes()).ids.tolist() == list("abcé".encode())
    assert read_corpus([path], vocab=Vocab.of("ab").with_fallback()).unknown() == 0


def test_standard_input_is_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"abc")))
    corpus = read_corpus(["-"])
    assert (corpus.vocab.decode(corpus.ids), corpus.title) == ("abc", "-")


def test_more_than_256_characters_take_two_bytes_each(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("".join(map(chr, range(0x4E00, 0x4F00 + 1))), encoding="utf-8")
    assert read_corpus([path]).ids.dtype == np.uint16


def refusal(path: Path, reading: Reading | None = None) -> str:
    with pytest.raises(TextError) as caught:
        read_corpus([path], reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_texts_are_each_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "packed").write_bytes(gzip.compress(b"text"))
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    (tmp_path / "folder").mkdir()
    assert "there is no file" in refusal(tmp_path / "missing")
    assert "is empty" in refusal(tmp_path / "empty")
    assert "is empty" in refusal(tmp_path / "empty", Reading(bytes=True))
    assert "gunzip" in refusal(tmp_path / "packed")
    assert "holds no files" in refusal(tmp_path / "folder")
    assert "byte 0xe9 at position 0" in refusal(tmp_path / "latin")
    assert read_corpus([tmp_path / "packed"], Reading(bytes=True)).vocab.unit == "byte"
    with pytest.raises(TextError, match="name at least one text"):
        read_corpus([])
    with pytest.raises(TextError, match="empty string"):
        corpus_of_text("")


def test_a_part_without_a_target_is_refused() -> None:
    corpus = corpus_of_text("abc")
    with pytest.raises(TextError, match=r"too short for the split tail:80/10/10: its valid part .*3 characters"):
        corpus.part(Split.parse("80/10/10"), "valid")
    with pytest.raises(TextError, match="gives text no test part"):
        corpus_of_text("abc" * 9).part(Split.parse("80/20/0"), "test")
    with pytest.raises(TextError, match="not 'exam'"):
        corpus.part(Split.parse("80/10/10"), "exam")
    assert corpus.part(Split.parse("100/0/0"), "train").tolist() == [[0, 3]]
    assert corpus.part(Split.parse("80/10/10"), "all").tolist() == [[0, 3]]


def test_one_path_may_stand_for_a_list_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("abracadabra")
    for one in (path, str(path)):
        corpus = read_corpus(one)
        assert np.array_equal(corpus.ids, read_corpus([path]).ids)
        assert corpus.names == (str(path),)
