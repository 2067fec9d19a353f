"""Reading files as text: which files, in which encoding, whole or in blocks, and what is wrong with a file."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.display import follower
from charlm.errors import OptionError, TextError
from charlm.text.vocab import code_points

_log = logging.getLogger(__name__)

_HEAD = 1 << 13
_BLOCK = 1 << 22
_ASCII_ALIKE = {"utf-8", "ascii", "iso8859-1", "cp1252"}
_PACKED = {
    b"\x1f\x8b": ("a gzip file", "gunzip"),
    b"PK\x03\x04": ("a zip file", "unzip"),
    **{f"BZh{level}1AY&SY".encode(): ("a bzip2 file", "bunzip2") for level in range(1, 10)},
    b"\xfd7zXZ": ("an xz file", "unxz"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "unzstd"),
    b"%PDF-": ("a PDF file", "pdftotext"),
}
_MEDIA = {
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF87a": "a GIF picture",
    b"GIF89a": "a GIF picture",
    b"RIFF": "a picture, sound or film (RIFF)",
    b"ID3": "an MP3 sound",
    b"OggS": "an Ogg sound or film",
    b"\x7fELF": "a program",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old office document",
    b"\x89HDF": "an HDF5 file",
}
"""What some files begin with that are no texts and hold a zero byte soon after."""

_NOT_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"
"""Bytes that Windows' Western encoding leaves undefined; all others it shares with Latin-1, or prints as text there."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark this one begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks, and the encodings that they show."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files become text; part of every checkpoint.

    Args:
        encoding: a codec that Python knows; `utf-8` takes a byte order mark off.
        newlines: `keep` every line end as it stands, or `normalise` `\\r\\n` and `\\r` to `\\n`.
        bytes: take the file as raw bytes, whatever is in it; the encoding is not used then.
        vocab_size: keep the so many most frequent characters and spell all others in bytes; None keeps all.
        items: `line` takes each line as an item by itself, `column:NAME` each cell of a table's column; None reads one
            running text.
        weights: the column that says how often each item counts.

    >>> Reading(newlines="normalise").encoding
    'utf-8'
    """

    encoding: str = "utf-8"
    newlines: Literal["keep", "normalise"] = "keep"
    bytes: bool = False
    vocab_size: int | None = None
    items: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
            "".encode(self.encoding)
        except (LookupError, ValueError):
            raise OptionError(f"unknown encoding {self.encoding!r}: try utf-8, latin-1, cp1252 or utf-16") from None
        if self.newlines not in ("keep", "normalise"):
            raise OptionError(f"newlines are 'keep' or 'normalise', not {self.newlines!r}")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise OptionError(f"a vocabulary keeps at least one character, not {self.vocab_size}")
        if self.bytes and (self.vocab_size is not None or self.newlines != "keep"):
            raise OptionError("bytes are taken as they are: --bytes goes with neither --vocab-size nor --newlines")
        if self.items not in (None, "line") and not self.column:
            raise OptionError(f"items are 'line' or 'column:NAME' of a table, not {self.items!r}")
        if self.weights is not None and not self.column:
            raise OptionError("--weights names a column of a table: it goes with --items column:NAME")

    @property
    def column(self) -> str:
        """The column of a table that holds the items; empty where there is none."""
        kind, _, name = (self.items or "").partition(":")
        return name if kind == "column" else ""


def files_of(paths: Sequence[str | Path], reading: Reading | None = None) -> list[Path]:
    """The files that these arguments name; a directory stands for the texts in it and below it, sorted by name.

    Of a directory's files, hidden ones are passed over. Empty ones and those that are no texts (pictures, archives,
    other binary files) are left out too, and a warning of the logger `charlm` says which.

    Args:
        paths: files, directories, or `-` for standard input.
        reading: how the files will be read; with `bytes` every file counts as a text.

    Raises:
        TextError: a directory without a text in it.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        found += _texts_in(path, reading or Reading()) if path.is_dir() else [path]
    return found


def _texts_in(directory: Path, reading: Reading) -> list[Path]:
    """The texts in and below a directory."""
    inside = [p for p in directory.rglob("*") if p.is_file() and "/." not in f"/{p.relative_to(directory).as_posix()}"]
    if not inside:
        raise TextError(f"the directory {directory} holds no files: name a text, or a directory with texts in it")
    faults = {path: fault for path in sorted(inside) if (fault := _no_text(path, reading)) is not None}
    if faults:
        named = ", ".join(f"{path.relative_to(directory)} ({fault})" for path, fault in list(faults.items())[:5])
        named += f" and {len(faults) - 5:,} more" if len(faults) > 5 else ""
        if len(faults) == len(inside):
            raise TextError(f"the directory {directory} holds no text, only {named}: name a text, or use --bytes")
        if not follower():
            _log.warning("left out of %s, as they are no texts: %s", directory, named)
    return [path for path in sorted(inside) if path not in faults]


def _no_text(path: Path, reading: Reading) -> str | None:
    """Why a file in a directory is no text; None where it may be one, and where reading it will tell what is wrong."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if not head:
        return "empty"
    if reading.bytes:
        return None
    kind = kind_of(head)
    if kind is None and b"\0" in head and not head.startswith(tuple(_MARKS)):
        try:
            codecs.getincrementaldecoder(reading.encoding)("strict").decode(head)
        except UnicodeError:
            return "a binary file"
    return kind


def read_content(path: Path) -> bytes:
    """The bytes of a file, or of standard input for `-`."""
    with readable(path):
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    if not content:
        raise empty(path)
    return content


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises an OSError inside the block as the TextError of a file that cannot be opened or read."""
    try:
        yield
    except FileNotFoundError:
        hint = "check the name, or see `charlm corpus list` for texts to get"
        raise TextError(f"there is no file {path}: {hint}") from None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None


def empty(path: Path) -> TextError:
    """The error for a file of no bytes."""
    return TextError(f"{shown(path)} is empty: name a text with at least a few characters in it")


def nothing_but_a_mark(path: Path) -> TextError:
    """The error for a file that is a byte order mark and nothing else."""
    return TextError(f"{shown(path)} holds nothing but a byte order mark: name a text with characters in it")


def shown(path: Path) -> str:
    """What messages call a file."""
    return "standard input" if str(path) == "-" else str(path)


def kind_of(head: bytes) -> str | None:
    """What a file is that begins so, in a few words; None where that is not known to be anything but a text."""
    for magic, (what, _) in _PACKED.items():
        if head.startswith(magic):
            return what
    for magic, what in _MEDIA.items():
        if head.startswith(magic) and b"\0" in head[:1024]:
            return what
    return None


def hint_at_newlines(title: str, reading: Reading, characters: Sequence[str]) -> None:
    """Warns, through the logger `charlm`, of a text whose Windows line ends are kept, which is seldom wanted."""
    if reading.newlines == "keep" and not reading.bytes and "\r" in characters and not follower():
        what = "Windows line ends (\\r\\n), which are kept as two characters"
        if "\n" not in characters:
            what = "line ends of old Macs (\\r), after which no line is seen to begin"
        _log.warning("%s has %s: --newlines normalise makes them line feeds", title, what)


def check_head(head: bytes, path: Path, reading: Reading) -> None:
    """Refuses a file by how it begins: as an archive or a picture, or with the byte order mark of another encoding."""
    for magic, (what, tool) in _PACKED.items():
        if head.startswith(magic):
            raise TextError(f"{shown(path)} is {what}, not a text: unpack it first ({tool}), or read it with --bytes")
    if (what_else := kind_of(head)) is not None:
        raise TextError(f"{shown(path)} is {what_else}, not a text: name a text, or read it with --bytes")
    for mark, encoding in _MARKS.items():
        if head.startswith(mark) and codecs.lookup(reading.encoding).name in ("utf-8", "ascii"):
            raise TextError(
                f"{shown(path)} is not {reading.encoding}: it begins with the byte order mark of {encoding}, so read "
                f"it with --encoding {encoding}"
            )
    if codecs.lookup(reading.encoding).name in ("utf-8", "ascii") and (order := _wide(head)):
        raise TextError(
            f"{shown(path)} looks like utf-16 without a byte order mark, as every second byte is 0: read it with "
            f"--encoding utf-16-{order}, or with --bytes"
        )


def _wide(head: bytes) -> str:
    """The byte order of what looks like UTF-16: `le`, `be`, or nothing.

    >>> _wide("a text".encode("utf-16-le") * 3), _wide(b"a text" * 3)
    ('le', '')
    """
    zeros = [half.count(0) / max(1, len(half)) for half in (head[::2], head[1::2])]
    if len(head) < 16 or max(zeros) < 0.9 or min(zeros) > 0.1:
        return ""
    return "be" if zeros[0] > zeros[1] else "le"


def decode(content: bytes, reading: Reading, path: Path) -> str:
    """The text in `content`; a byte that is not of the encoding is named with its place and the way out."""
    check_head(content[:_HEAD], path, reading)
    name = codecs.lookup(reading.encoding).name
    try:
        if name in ("utf-16", "utf-32"):  # without a byte order mark `bytes.decode` would guess this machine's order
            codecs.getincrementaldecoder(name)("strict").decode(content[:4])
            text = codecs.getincrementaldecoder(name)("strict").decode(content, True)
        else:
            text = content.decode("utf-8-sig" if name == "utf-8" else reading.encoding)
    except UnicodeDecodeError as error:
        position = len(content) - len(error.object) + error.start  # the object is without a byte order mark
        raise _undecodable(path, reading, error, position, content.count(b"\n", 0, position) + 1) from None
    except UnicodeError as error:
        raise _undecodable(path, reading, error) from None
    if not text:
        raise nothing_but_a_mark(path)
    if reading.newlines == "normalise":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


class Decoder:
    """Decodes a file block by block into code points; characters and line ends that a block cuts are put together."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading, self._fed = path, reading, 0
        name = codecs.lookup(reading.encoding).name
        self._plain = name in _ASCII_ALIKE
        self._normalises = reading.newlines == "normalise"
        inner = codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else reading.encoding)("strict")
        self._decoder: Any = io.IncrementalNewlineDecoder(inner, translate=True) if self._normalises else inner

    def codes(self, block: bytes, *, final: bool = False) -> NDArray[Any]:
        """The code points that are whole by now: uint8 where nothing but ASCII came, else uint32.

        Raises:
            TextError: a byte that is not of the encoding, with its place in the file.
        """
        if self._fed == 0 and block:
            check_head(block[:_HEAD], self._path, self._reading)
        self._fed += len(block)
        plain = self._plain and self._decoder.getstate() == (b"", 0) and block.isascii()
        if plain and not (self._normalises and b"\r" in block):
            return np.frombuffer(block, dtype=np.uint8)
        try:
            return code_points(self._decoder.decode(block, final))
        except UnicodeDecodeError as error:
            position = self._fed - len(error.object) + error.start
            raise _undecodable(self._path, self._reading, error, position, self._line(position)) from None
        except UnicodeError as error:
            raise _undecodable(self._path, self._reading, error) from None

    def _line(self, position: int) -> int:
        """The number of the line that holds this byte; the file is read once more for it."""
        line, left = 1, position
        with open(self._path, "rb") as file:
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                line += block.count(b"\n")
                left -= len(block)
        return line


def _undecodable(path: Path, reading: Reading, error: UnicodeError, position: int = 0, line: int = 0) -> TextError:
    """The error for a byte that is not of the encoding, with its position in the file and its line."""
    if not isinstance(error, UnicodeDecodeError):
        return TextError(f"{shown(path)} is not {reading.encoding} text ({error}): name another --encoding")
    byte, own = error.object[error.start : error.start + 1], codecs.lookup(reading.encoding).name
    likely = "latin-1" if own == "cp1252" or byte in _NOT_IN_CP1252 else "cp1252"
    if own != "utf-8" and 0xC2 <= byte[0] <= 0xF4:  # the first byte of a character in UTF-8
        likely = "utf-8"
    return TextError(
        f"{shown(path)} is not {reading.encoding}: byte 0x{byte.hex()} at position {position} (line {line}) cannot be "
        f"decoded; name its encoding, for example --encoding {likely} or --encoding utf-16, or use --bytes"
    )


def tokens_of(path: str | None) -> list[str] | None:
    """The tokens of a file, one a line; empty lines are passed over. None of no file."""
    if path is None:
        return None
    text = decode(read_content(Path(path)), Reading(newlines="normalise"), Path(path))
    return [line.strip() for line in text.split("\n") if line.strip()]
