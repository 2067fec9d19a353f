"""Reading files as text: encodings, byte order marks, line ends, and what is wrong with a file."""

from __future__ import annotations

import codecs
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from charlm.errors import OptionError, TextError

__all__ = [
    "Reading",
    "check_magic",
    "decode",
    "empty",
    "files_of",
    "nothing_but_a_mark",
    "read_content",
    "undecodable",
    "unreadable",
]

_MAGIC = {
    b"\x1f\x8b": ("a gzip file", "gunzip"),
    b"PK\x03\x04": ("a zip file", "unzip"),
    **{f"BZh{level}1AY&SY".encode(): ("a bzip2 file", "bunzip2") for level in range(1, 10)},
    b"\xfd7zXZ": ("an xz file", "unxz"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "unzstd"),
    b"%PDF-": ("a PDF file", "pdftotext"),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files become text; part of every checkpoint.

    Args:
        encoding: a codec that Python knows; `utf-8` takes a byte order mark off.
        newlines: `keep` every line end as it stands, or `normalise` `\\r\\n` and `\\r` to `\\n`.
        bytes: take the file as raw bytes, whatever is in it; the encoding is not used then.
        vocab_size: keep the so many most frequent characters and spell all others in bytes; None keeps all.

    >>> Reading(newlines="normalise").to_json()["newlines"]
    'normalise'
    """

    encoding: str = "utf-8"
    newlines: Literal["keep", "normalise"] = "keep"
    bytes: bool = False
    vocab_size: int | None = None

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

    def to_json(self) -> dict[str, Any]:
        """A value for `config.json`; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Reading:
        """Reads what `to_json` made; an unknown key is an error."""
        known = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or not set(value) <= known:
            raise OptionError(f"stored reading options have the keys {sorted(known)} and no others")
        try:
            return cls(**value)
        except TypeError:
            raise OptionError("stored reading options hold a value of the wrong type") from None


def files_of(paths: list[str]) -> list[Path]:
    """The files that these arguments name: a directory stands for its files, sorted, without hidden ones."""
    found: list[Path] = []
    for name in paths:
        path = Path(name)
        if name == "-":
            found.append(path)
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
            if not inside:
                raise TextError(f"the directory {path} holds no files: name a text, or a directory with texts in it")
            found += inside
        else:
            found.append(path)
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_content(path: Path) -> bytes:
    """The bytes of a file, or of standard input for `-`."""
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if not content:
        raise empty(path)
    return content


def unreadable(path: Path, error: OSError) -> TextError:
    """What to say where a file cannot be opened or read."""
    if isinstance(error, FileNotFoundError):
        return TextError(f"there is no file {path}: check the name, or see `charlm corpus list` for texts to get")
    return TextError(f"{path} cannot be read: {error.strerror}")


def empty(path: Path) -> TextError:
    """What to say of a file without a byte in it."""
    return TextError(f"{_shown(path)} is empty: name a text with at least a few characters in it")


def nothing_but_a_mark(path: Path) -> TextError:
    """What to say of a file that is a byte order mark and no more."""
    return TextError(f"{_shown(path)} holds nothing but a byte order mark: name a text with characters in it")


def _shown(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def check_magic(content: bytes, path: Path) -> None:
    """Refuses packed files and the like, which are given by mistake."""
    for magic, (what, tool) in _MAGIC.items():
        if content.startswith(magic):
            raise TextError(f"{_shown(path)} is {what}, not a text: unpack it first ({tool}), or read it with --bytes")


def decode(content: bytes, reading: Reading, path: Path) -> str:
    """The text in `content`; a byte that is not of the encoding is named with its place and the way out."""
    check_magic(content, path)
    name = codecs.lookup(reading.encoding).name
    try:
        if name in ("utf-16", "utf-32"):  # without a byte order mark `bytes.decode` would guess this machine's order
            codecs.getincrementaldecoder(name)("strict").decode(content[:4])
            text = codecs.getincrementaldecoder(name)("strict").decode(content, True)
        else:
            text = content.decode("utf-8-sig" if name == "utf-8" else reading.encoding)
    except UnicodeDecodeError as error:
        position = len(content) - len(error.object) + error.start  # the object is without a byte order mark
        raise undecodable(path, reading, error, position, content.count(b"\n", 0, position) + 1) from None
    except UnicodeError as error:
        raise undecodable(path, reading, error) from None
    if not text:
        raise nothing_but_a_mark(path)
    if reading.newlines == "normalise":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def undecodable(path: Path, reading: Reading, error: UnicodeError, position: int = 0, line: int = 0) -> TextError:
    """What to say of a byte that is not of the encoding, with its position in the file and its line."""
    if not isinstance(error, UnicodeDecodeError):
        return TextError(f"{_shown(path)} is not {reading.encoding} text ({error}): name another --encoding")
    return TextError(
        f"{_shown(path)} is not {reading.encoding}: byte 0x{error.object[error.start]:02x} at position "
        f"{position} (line {line}) cannot be decoded; name its encoding, for example --encoding latin-1 or "
        "--encoding utf-16, or use --bytes"
    )
