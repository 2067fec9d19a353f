"""The files of big texts: characters on the disk until their vocabulary is known, then ids, mapped into memory.

Used by `charlm.text.cache`, which says how the whole works.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from charlm.files import atomic_writer
from charlm.text.vocab import Ids, Vocab

_EVERY = 1 << 24
_READ: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()
"""How many ids of each mapped file were read since its pages were given back."""


def map_ids(path: Path, dtype: np.dtype[Any]) -> Ids:
    """The ids in a file, mapped into memory; it may be written to, as torch wants it, and the file stays as it is."""
    mapped = np.memmap(path, dtype=dtype, mode="c")
    _READ[mapped.base] = 0  # type: ignore[index]
    return mapped.view(np.ndarray)


def give_back(ids: Ids, count: int) -> None:
    """Is told that `count` of these ids were read; after each 16 million it gives their pages back to the system.

    Else all pages that were ever read would count as this program's memory. They stay in the system's cache of files,
    so that reading them again costs little. Ids that `map_ids` did not map are left alone.
    """
    base: Any = ids
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if isinstance(base, mmap.mmap) and base in _READ:
        _READ[base] += count
        if _READ[base] >= _EVERY and hasattr(mmap, "MADV_DONTNEED"):
            _READ[base] = 0
            base.madvise(mmap.MADV_DONTNEED)


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


def write_ids(spool: Spool, vocab: Vocab, path: Path, *, unknown: bool) -> list[int]:
    """Rewrites the spool as ids; returns the length of each document in ids."""
    dtype = dtype_of(vocab, unknown)
    found = vocab.lookup(spool.codes)
    table, spelled = found.astype(dtype), found < 0
    lengths = []
    with atomic_writer(path) as out:
        for blocks in spool.documents():
            length = 0
            for block in blocks:
                if spool.keeps_bytes:
                    ids: Ids = block
                elif vocab.byte_fallback and spelled[block].any():
                    ids = vocab.encode_codes(spool.codes[block])
                else:
                    ids = _translate(block, table)
                out.write(ids.data)
                length += len(ids)
            lengths.append(length)
    return lengths


def dtype_of(vocab: Vocab, unknown: bool) -> np.dtype[Any]:
    """The type of ids of a vocabulary: int32 where some characters may be unknown to it."""
    return np.dtype(np.int32) if unknown and not vocab.byte_fallback else vocab.dtype


def _translate(block: NDArray[Any], table: Ids) -> Ids:
    """`table[block]`, three times as fast where both are bytes."""
    if block.dtype != np.uint8 or table.dtype != np.uint8:
        ids: Ids = table[block]
        return ids
    whole = table[:256].tobytes().ljust(256, b"\0")
    return np.frombuffer(block.tobytes().translate(whole), dtype=np.uint8)
