"""Vocabularies: which symbols there are, and the way from text to ids and back.

A symbol is a character, or one byte of a character's UTF-8 spelling. Three kinds of vocabulary follow:
characters only (the default), characters with a byte fallback (every rare character is spelled in bytes,
so that none is ever unknown), and bytes only (any file at all).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError, TextError, UnknownCharacterError

Ids = NDArray[Any]
"""A one-dimensional array of ids: uint8, uint16 or uint32, or a signed type where `UNKNOWN` occurs."""

UNKNOWN = -1
"""The id of a character that a vocabulary does not hold, where `encode` was asked to let it pass."""

_BYTES = tuple(range(256))


def smallest_dtype(size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds the ids 0..size-1.

    >>> smallest_dtype(256), smallest_dtype(257)
    (dtype('uint8'), dtype('uint16'))
    """
    return np.min_scalar_type(max(size - 1, 0))


def code_points(text: str) -> NDArray[np.uint32]:
    """The Unicode code points of `text`, uint32; a lone surrogate is refused by name and position.

    >>> code_points("aé").tolist()
    [97, 233]
    """
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text holds a lone surrogate (U+{ord(text[error.start]):04X}) at position {error.start}: "
            "it is not a character, and no file can hold it; read the text again with the right encoding"
        ) from None


@dataclass(frozen=True)
class Vocab:
    """The symbols of a model, in the order of their ids: first characters (sorted), then single bytes.

    Args:
        characters: the characters that are one symbol each, sorted by code point, no repetition.
        byte_fallback: whether 256 byte symbols follow, in which every other character is spelled as UTF-8.

    >>> vocab = Vocab.of("abracadabra")
    >>> vocab.encode("cab").tolist(), vocab.decode([2, 0, 1])
    ([2, 0, 1], 'cab')
    >>> len(Vocab.of("a").with_fallback().encode("é"))
    2
    """

    characters: tuple[str, ...]
    byte_fallback: bool = False

    def __post_init__(self) -> None:
        if not self.characters and not self.byte_fallback:
            raise TextError("a vocabulary needs at least one character")
        for character in self.characters:
            if not isinstance(character, str) or len(character) != 1:
                raise TextError(f"a vocabulary holds single characters, not {character!r}")
        if list(self.characters) != sorted(set(self.characters)):
            raise TextError("the characters of a vocabulary are sorted and each stands once")
        code_points("".join(self.characters))

    @classmethod
    def of(cls, text: str) -> Vocab:
        """The vocabulary of all characters in `text`."""
        return cls.of_code_points(np.unique(code_points(text)))

    @classmethod
    def of_code_points(cls, codes: NDArray[np.uint32]) -> Vocab:
        """The vocabulary of these code points, in any order."""
        return cls(tuple(chr(code) for code in sorted(set(codes.tolist()))))

    @classmethod
    def of_bytes(cls) -> Vocab:
        """The vocabulary of the 256 bytes, for any file whatever is in it."""
        return cls((), byte_fallback=True)

    def with_fallback(self) -> Vocab:
        """The same characters, with every other character spelled in bytes."""
        return Vocab(self.characters, byte_fallback=True)

    def __len__(self) -> int:
        return len(self.characters) + (len(_BYTES) if self.byte_fallback else 0)

    @property
    def unit(self) -> str:
        """What a figure "per character" counts: 'byte' where all symbols are bytes, else 'character'."""
        return "character" if self.characters else "byte"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned type in which the ids of a text are kept."""
        return smallest_dtype(len(self))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.characters)}

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        """From code point to id, up to the highest known code point, -1 elsewhere."""
        codes = [ord(character) for character in self.characters]
        table = np.full(max(codes, default=-1) + 2, UNKNOWN, dtype=np.int32)
        table[codes] = np.arange(len(codes), dtype=np.int32)
        return table

    def __contains__(self, character: object) -> bool:
        return self.byte_fallback or character in self._ids

    def lookup(self, codes: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Ids of code points, `UNKNOWN` where a code point is no symbol of its own (bytes are not tried)."""
        found: NDArray[np.int32] = self._table[np.minimum(codes, len(self._table) - 1)]
        return found

    def encode(self, text: str, *, unknown: bool = False) -> Ids:
        """The ids of `text`.

        Args:
            text: any string; lone surrogates are refused.
            unknown: whether a character outside the vocabulary becomes `UNKNOWN` (-1) instead of an error;
                the array is int32 then.

        Raises:
            UnknownCharacterError: names the first unknown character and its position.
        """
        return self.encode_codes(code_points(text), unknown=unknown)

    def encode_codes(self, codes: NDArray[np.uint32], *, unknown: bool = False) -> Ids:
        """The ids of code points, as `encode` gives them for a string."""
        ids = self.lookup(codes)
        missing = ids == UNKNOWN
        if missing.any():
            if self.byte_fallback:
                ids = self.spelled(codes, ids, missing)
            elif not unknown:
                position = int(missing.argmax())
                raise UnknownCharacterError(chr(codes[position]), position, len(self))
        return ids if unknown and not self.byte_fallback else ids.astype(self.dtype)

    def spelled(
        self, codes: NDArray[np.uint32], ids: NDArray[np.int32], missing: NDArray[np.bool_]
    ) -> NDArray[np.int32]:
        """Replaces each unknown code point by the ids of its UTF-8 bytes, a lone surrogate by that of its one byte."""
        rare = codes[missing]
        lengths = np.ones(len(codes), dtype=np.int64)
        alone = (rare >= 0xDC80) & (rare <= 0xDCFF)
        lengths[missing] = np.where(alone, 1, 1 + (rare > 0x7F) + (rare > 0x7FF) + (rare > 0xFFFF))
        text = rare.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        raw = np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)
        spelled = np.repeat(ids, lengths)
        spelled[np.repeat(missing, lengths)] = raw + np.int32(len(self.characters))
        return spelled

    def encode_bytes(self, content: bytes) -> Ids:
        """The ids of raw bytes; only where the symbols are bytes alone."""
        if self.characters:
            raise CharlmError("raw bytes can be encoded by a vocabulary of bytes only: decode them to text first")
        return np.frombuffer(content, dtype=np.uint8)

    def decode(self, ids: Any) -> str:
        """The text of `ids`; bytes that spell no character (a generated text may hold such) become U+FFFD."""
        array = np.asarray(ids, dtype=np.int64).reshape(-1)
        if array.size and (array.min() < 0 or array.max() >= len(self)):
            bad = int(array[(array < 0) | (array >= len(self))][0])
            raise TextError(f"id {bad} is outside this vocabulary of {len(self)} symbols")
        if not self.byte_fallback:
            return "".join([self.characters[i] for i in array.tolist()])
        return self._utf8(array).decode("utf-8", "replace")

    def decode_bytes(self, ids: Any) -> bytes:
        """The UTF-8 bytes of `ids`, exact also where they spell no character."""
        return self._utf8(np.asarray(ids, dtype=np.int64).reshape(-1))

    def _utf8(self, array: NDArray[np.int64]) -> bytes:
        return b"".join([self._spellings[i] for i in array.tolist()])

    @cached_property
    def _spellings(self) -> list[bytes]:
        spellings = [character.encode("utf-8") for character in self.characters]
        return spellings + [bytes([value]) for value in _BYTES] if self.byte_fallback else spellings

    def symbol(self, id: int) -> str:
        """How one symbol is shown: the character, or `<C3>` for a byte.

        >>> Vocab.of_bytes().symbol(0xC3)
        '<C3>'
        """
        if id < len(self.characters):
            return self.characters[id]
        return f"<{id - len(self.characters):02X}>"

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """The symbols as a page shows them: a character each, `<C3>` for a byte that is none by itself.

        >>> shown = Vocab.of("é").with_fallback().shown
        >>> shown[1 + 0x41 :][:2], shown[-1]
        (('A', 'B'), '<FF>')
        """
        rest = [chr(byte) if byte < 0x80 else f"<{byte:02X}>" for byte in _BYTES] if self.byte_fallback else []
        return (*self.characters, *rest)

    @cached_property
    def begins_character(self) -> NDArray[np.bool_]:
        """Per id, whether it begins a character: figures per character divide by the number of those.

        All but the continuation bytes of UTF-8; in a vocabulary of bytes alone every byte counts.
        """
        begins = np.ones(len(self), dtype=np.bool_)
        if self.characters and self.byte_fallback:
            begins[len(self.characters) + 0x80 : len(self.characters) + 0xC0] = False
        return begins

    @cached_property
    def sha256(self) -> str:
        """The hash of the symbols, which is kept with weights and counts, so that other symbols are noticed."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A value for `vocab.json`; `from_json` reads it back."""
        return {"characters": list(self.characters), "byte_fallback": self.byte_fallback}

    @classmethod
    def from_json(cls, value: Any) -> Vocab:
        """Reads what `to_json` made; anything else is refused."""
        if not isinstance(value, dict) or set(value) != {"characters", "byte_fallback"}:
            raise TextError("a stored vocabulary has the keys 'characters' and 'byte_fallback' and no others")
        characters, fallback = value["characters"], value["byte_fallback"]
        if not isinstance(characters, list) or not isinstance(fallback, bool):
            raise TextError("a stored vocabulary is a list of characters and a flag")
        return cls(tuple(characters), byte_fallback=fallback)


def vocabulary_of_counts(counts: NDArray[np.int64], size: int | None) -> Vocab:
    """The vocabulary of a table of counts by code point; ties at the cap go to the lower code point."""
    codes = np.flatnonzero(counts)
    if size is None or len(codes) <= size:
        return Vocab.of_code_points(codes.astype(np.uint32))
    kept = codes[np.argsort(-counts[codes], kind="stable")[:size]]
    return Vocab.of_code_points(kept.astype(np.uint32)).with_fallback()


# -- any bytes as symbols, and the same bytes back --------------------------------------------------------------------


def take_apart(content: bytes, vocab: Vocab, encoding: str) -> tuple[str, NDArray[np.int64], NDArray[np.int64]]:
    """Any bytes as symbols of a vocabulary, so that `put_together` gives the same bytes.

    A byte that is not of the encoding becomes the lone surrogate, U+DC80 to U+DCFF, that Python has for it, and so an
    unknown character, or a single byte in a vocabulary that spells in bytes.

    Args:
        content: the bytes.
        vocab: the symbols.
        encoding: how the bytes most probably spell characters.

    Returns:
        The codec, which is an encoding, with ` crlf` behind it where line ends were made line feeds; ids, int64, with
        `UNKNOWN` for unknown characters; and the code points of those.

    >>> codec, ids, codes = take_apart(b"caf\\xe9", Vocab.of("acf"), "utf-8")
    >>> ids.tolist(), hex(codes[0]), put_together(ids, codes, codec, Vocab.of("acf"))
    ([1, 0, 2, -1], '0xdce9', b'caf\\xe9')
    """
    for codec in _codecs(content, vocab, encoding):
        with contextlib.suppress(UnicodeError, LookupError):
            ids, codes = _symbols(content, codec, vocab)
            if put_together(ids, codes, codec, vocab) == content:
                return codec, ids, codes
    raise AssertionError("UTF-8 with lone surrogates gives back any bytes")


def put_together(ids: NDArray[np.int64], codes: NDArray[np.int64], codec: str, vocab: Vocab) -> bytes:
    """The bytes that `take_apart` was given; a UnicodeError where there are no such bytes."""
    if not vocab.characters:
        return ids.astype(np.uint8).tobytes()
    if vocab.byte_fallback:
        text = vocab.decode_bytes(ids).decode("utf-8", "surrogateescape")
    else:
        points = np.array([ord(character) for character in vocab.characters], dtype="<u4")[np.maximum(ids, 0)]
        points[ids < 0] = codes
        text = points.tobytes().decode("utf-32-le", "surrogatepass")
    name, _, ends = codec.partition(" ")
    return (text.replace("\n", "\r\n") if ends else text).encode(name, "surrogateescape")


def _codecs(content: bytes, vocab: Vocab, encoding: str) -> Iterator[str]:
    """Ways of reading bytes as characters, the best first; the last one gives back any bytes."""
    if b"\r" in content and "\n" in vocab.characters and "\r" not in vocab.characters:
        yield f"{encoding} crlf"
    yield from (encoding, f"{encoding}-le", f"{encoding}-be", "utf-8")


def _symbols(content: bytes, codec: str, vocab: Vocab) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and the code points of unknown characters."""
    none = np.zeros(0, dtype=np.int64)
    if not vocab.characters:
        return np.frombuffer(content, dtype=np.uint8).astype(np.int64), none
    name, _, ends = codec.partition(" ")
    text = content.decode(name, "surrogateescape")
    text = text.replace("\r\n", "\n") if ends else text
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)
    ids = vocab.lookup(codes)
    if vocab.byte_fallback:
        return vocab.spelled(codes, ids, ids < 0).astype(np.int64), none
    return ids.astype(np.int64), codes[ids < 0].astype(np.int64)
