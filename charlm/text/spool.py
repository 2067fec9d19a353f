"""Code points of a text on the disk, while it streams by: what `charlm.text.cache` makes ids of."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.reading import Reading, undecodable
from charlm.text.vocab import code_points

__all__ = ["Decoder", "Spool"]

_BLOCK = 1 << 22
_ASCII_ALIKE = {"utf-8", "ascii", "iso8859-1", "cp1252"}


class Decoder:
    """Code points of a file's blocks; characters and line ends that a boundary cuts are put together."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading, self._fed = path, reading, 0
        name = codecs.lookup(reading.encoding).name
        self._plain = name in _ASCII_ALIKE
        self._normalises = reading.newlines == "normalise"
        inner = codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else reading.encoding)("strict")
        self._decoder: Any = io.IncrementalNewlineDecoder(inner, translate=True) if self._normalises else inner

    def codes(self, block: bytes, *, final: bool = False) -> NDArray[Any]:
        """The code points that are whole by now: uint8 where nothing but ASCII came, else uint32."""
        self._fed += len(block)
        plain = self._plain and self._decoder.getstate() == (b"", 0) and block.isascii()
        if plain and not (self._normalises and b"\r" in block):
            return np.frombuffer(block, dtype=np.uint8)
        try:
            return code_points(self._decoder.decode(block, final))
        except UnicodeDecodeError as error:
            position = self._fed - len(error.object) + error.start
            raise undecodable(self._path, self._reading, error, position, self._line(position)) from None
        except UnicodeError as error:
            raise undecodable(self._path, self._reading, error) from None

    def _line(self, position: int) -> int:
        """The number of the line that holds this byte; the file is read once more for it."""
        line, left = 1, position
        with open(self._path, "rb") as file:
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                line += block.count(b"\n")
                left -= len(block)
        return line


class Spool:
    """Characters (or bytes) on the disk as provisional ids, each block in the narrowest type that holds it.

    The first 128 provisional ids are the ASCII characters, so that plain text is spooled as it comes; every
    other character gets the next one when it first appears, so that rare characters have the high numbers.
    """

    def __init__(self, file: IO[bytes], *, keeps_bytes: bool) -> None:
        self._file, self.keeps_bytes = file, keeps_bytes
        self._table = np.full(0x110000, -1, dtype=np.int32)
        self._table[:128] = np.arange(128)
        self.codes = np.arange(128, dtype=np.uint32)
        self._counts = np.zeros(256, dtype=np.int64)
        self._blocks: list[list[tuple[np.dtype[Any], int]]] = []

    def begin_document(self) -> None:
        """What is added from here on is another document."""
        self._blocks.append([])

    @property
    def length(self) -> int:
        """How many characters the newest document has so far."""
        return sum(count for _, count in self._blocks[-1])

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each code point occurs."""
        counts = np.zeros(0x110000, dtype=np.int64)
        counts[self.codes] = self._counts[: len(self.codes)]
        return counts

    def add(self, codes: NDArray[Any]) -> None:
        """Appends code points to the newest document: uint8 for ASCII (or any bytes), else uint32."""
        if not len(codes):
            return
        ids = codes if codes.dtype == np.uint8 else self._provisional(codes)
        if not self.keeps_bytes:
            self._count(ids)
        self._file.write(ids.data)
        self._blocks[-1].append((ids.dtype, len(ids)))

    def _provisional(self, codes: NDArray[np.uint32]) -> NDArray[Any]:
        ids = self._table[codes]
        if (ids < 0).any():
            new = np.unique(codes[ids < 0])
            self._table[new] = np.arange(len(self.codes), len(self.codes) + len(new))
            self.codes = np.concatenate([self.codes, new])
            ids = self._table[codes]
        return ids.astype(np.min_scalar_type(int(ids.max())))

    def _count(self, ids: NDArray[Any]) -> None:
        seen = _count_bytes(ids) if ids.dtype == np.uint8 else np.bincount(ids)
        if len(seen) > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(len(seen), dtype=np.int64)])
        self._counts[: len(seen)] += seen

    def documents(self) -> Iterator[Iterator[NDArray[Any]]]:
        """The blocks of each document as provisional ids, in order; `codes` says what they stand for."""
        self._file.seek(0)
        for blocks in self._blocks:
            yield (np.frombuffer(self._file.read(dtype.itemsize * count), dtype) for dtype, count in blocks)


def _count_bytes(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the 256 values occurs; counted in pairs, which is faster."""
    even = len(codes) // 2 * 2
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts: NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
    counts[codes[even:]] += 1
    return counts
