"""Files become text, or are refused in one sentence that names the way out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm import codec
from charlm.errors import CheckpointError, OptionError, TextError
from charlm.text.reading import Reading, decode, files_of, read_content
from charlm.text.text import read_text

texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda t: not t.startswith("\ufeff"))
PATH = Path("some/text.txt")


def refusal(content: bytes, reading: Reading | None = None) -> str:
    with pytest.raises(TextError) as caught:
        decode(content, reading or Reading(), PATH)
    assert "\n" not in str(caught.value)
    assert str(PATH) in str(caught.value)
    return str(caught.value)


@given(texts.filter(lambda t: t.encode()[:2] not in (b"PK", b"%P")), st.booleans())
def test_utf8_is_read_with_and_without_a_mark(text: str, mark: bool) -> None:
    assert decode((b"\xef\xbb\xbf" if mark else b"") + text.encode(), Reading(), PATH) == text


@given(texts)
def test_utf16_is_read(text: str) -> None:
    assert decode(text.encode("utf-16"), Reading(encoding="utf-16"), PATH) == text


@given(st.text("a\r\n", min_size=1))
def test_line_ends_are_kept_or_normalised(text: str) -> None:
    assert decode(text.encode(), Reading(), PATH) == text
    naive, i = "", 0
    while i < len(text):
        pair = text[i : i + 2] == "\r\n"
        naive += "\n" if text[i] in "\r\n" else text[i]
        i += 2 if pair else 1
    assert decode(text.encode(), Reading(newlines="normalise"), PATH) == naive


@given(texts, st.sampled_from([b"\xff", b"\xc0", b"\xe2\x82"]), st.booleans())
def test_an_undecodable_byte_is_named_with_its_place(text: str, bad: bytes, mark: bool) -> None:
    start = (b"\xef\xbb\xbf" if mark else b"") + b"x" + text.encode()
    line = start.count(b"\n") + 1
    said = refusal(start + bad)
    assert f"byte 0x{bad[0]:02x} at position {len(start)} (line {line})" in said
    assert "--encoding" in said
    assert "--bytes" in said


def test_a_text_of_another_encoding_is_read_once_it_is_named() -> None:
    content = "“naïve” façade".encode("cp1252")
    assert "--encoding cp1252" in refusal(content)
    assert decode(content, Reading(encoding="cp1252"), PATH) == "“naïve” façade"
    assert "--encoding latin-1" in refusal(b"\x81")  # a byte that cp1252 leaves undefined
    assert "--encoding utf-8" in refusal("é".encode(), Reading(encoding="ascii"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-32-be"])
def test_a_byte_order_mark_names_the_encoding(encoding: str) -> None:
    content = (("\ufeff" if encoding[6:] else "") + "text\n").encode(encoding)
    assert f"--encoding {encoding[:6]}" in refusal(content)
    assert decode(content, Reading(encoding=encoding[:6]), PATH) == "text\n"
    assert decode(b"\xff\xfeabc", Reading(encoding="latin-1"), PATH) == "ÿþabc"  # as asked for


@pytest.mark.parametrize(
    "head", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff\xe0\0\x10JFIF", b"GIF89a\x10\0\x10\0"]
)
def test_a_picture_is_refused_in_every_encoding(head: bytes) -> None:
    for encoding in ("utf-8", "latin-1"):
        assert "picture, not a text" in refusal(head, Reading(encoding=encoding))
    assert decode(b"GIF89a was a format", Reading(), PATH) == "GIF89a was a format"


def test_a_cut_utf16_text_is_refused() -> None:
    assert "utf-16" in refusal("abc".encode("utf-16")[:-1], Reading(encoding="utf-16"))


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", "text")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"text"), "gunzip"),
        (bz2.compress(b"text"), "bunzip2"),
        (lzma.compress(b"text"), "unxz"),
        (zipped(), "unzip"),
        (b"\x28\xb5\x2f\xfd\x00", "unzstd"),
        (b"%PDF-1.7\n", "pdftotext"),
    ],
    ids=["gzip", "bzip2", "xz", "zip", "zstd", "pdf"],  # packed bytes hold the time
)
def test_a_packed_file_is_named_with_the_tool_to_unpack_it(content: bytes, what: str) -> None:
    assert what in refusal(content)


def test_a_text_may_begin_like_a_packed_file() -> None:
    assert decode(b"BZhang, a name", Reading(), PATH) == "BZhang, a name"


def test_a_file_of_a_mark_alone_is_refused() -> None:
    assert "byte order mark" in refusal(b"\xef\xbb\xbf")
    assert "byte order mark" in refusal(b"\xff\xfe", Reading(encoding="utf-16"))


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(TextError, match=r"there is no file .*missing: .*charlm corpus list"):
        read_content(tmp_path / "missing")
    with pytest.raises(TextError, match=r"empty is empty: "):
        read_content(tmp_path / "empty")
    with pytest.raises(TextError, match="cannot be read"):
        read_content(tmp_path)


def test_standard_input_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"abc")))
    assert read_content(Path("-")) == b"abc"
    with pytest.raises(TextError, match="standard input is empty"):
        read_content(Path("-"))


def test_a_directory_stands_for_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.txt", ".hidden", ".git/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    found = files_of([str(tmp_path), "-", "other"])
    assert found == [tmp_path / "a/y.txt", tmp_path / "a/z.txt", tmp_path / "b.txt", Path("-"), Path("other")]


def test_pictures_in_a_directory_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    (tmp_path / "c.bin").write_bytes(b"\0\xff\xff\0")
    (tmp_path / "d.txt").write_bytes(b"")
    (tmp_path / "e.txt").write_bytes("né".encode("latin-1"))  # a text, whose encoding is asked for when it is read
    assert files_of([tmp_path]) == [tmp_path / "a.txt", tmp_path / "e.txt"]
    (said,) = [record.getMessage() for record in caplog.records]
    for words in ("b.png (a PNG picture)", "c.bin (a binary file)", "d.txt (empty)"):
        assert words in said
    assert len(files_of([tmp_path], Reading(bytes=True))) == 4
    for name in ("a.txt", "e.txt"):
        (tmp_path / name).unlink()
    with pytest.raises(TextError, match=r"holds no text, only b\.png"):
        files_of([tmp_path])


def test_a_directory_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(TextError, match="holds no files"):
        files_of([str(tmp_path)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "utf-99"},
        {"encoding": "rot13"},
        {"encoding": "a\0b"},
        {"newlines": "strip"},
        {"vocab_size": 0},
        {"bytes": True, "vocab_size": 5},
        {"bytes": True, "newlines": "normalise"},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Reading(**wrong)  # type: ignore[arg-type]


def test_reading_options_are_stored_and_read_back() -> None:
    reading = Reading(encoding="utf-16", newlines="normalise", vocab_size=7)
    assert codec.decode(Reading, json.loads(json.dumps(codec.encode(reading)))) == reading
    for broken in (None, {"encodings": "utf-8"}, {"vocab_size": "x"}):
        with pytest.raises(CheckpointError):
            codec.decode(Reading, broken)


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf16_without_a_mark_is_named(order: str) -> None:
    content = "Every second byte is zero.\n".encode(f"utf-16-{order}")
    assert f"--encoding utf-16-{order}" in refusal(content)
    assert decode(content, Reading(encoding=f"utf-16-{order}"), PATH) == "Every second byte is zero.\n"
    assert "\0" in decode(b"a few\0 zeros in a text\0", Reading(), PATH)


def test_windows_line_ends_that_are_kept_bring_a_hint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "dos.txt"
    path.write_bytes(b"one\r\ntwo\r\n" * 9)
    read_text(path, newlines="normalise")
    read_text(path, bytes=True)
    assert not caplog.records
    text = read_text(path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "dos.txt" in said
    assert "--newlines normalise" in said
    path.write_bytes(b"one\rtwo\r" * 9)
    read_text(path)
    assert "line ends of old Macs" in caplog.records.pop().getMessage()
    read_text(path, vocab=text.vocab)  # read as a model's text was: there is nothing to choose
    assert len(caplog.records) == 1
