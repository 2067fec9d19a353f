"""Code points of a text on the disk, while it streams by: what `charlm.text.cache` makes ids of.

Big texts: encoded in one streaming pass into a memory-mapped file, found again by what the text is.

A text is read in blocks, hashed and decoded at once, and spooled under provisional ids in the narrowest type
that holds them. When the last character has been seen, the vocabulary is known, and the spool is rewritten
with the ids that it gives. At no time is more than a few blocks in memory. The ids stay in a cache directory
(`CHARLM_CACHE`, else `~/.cache/charlm`) under a key made of the content's hash and of how it was read, never
of a path, so that a changed text can never be taken for the old one; the next start hashes the text and maps
the ids.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError
from charlm.files import atomic_writer, read_json, write_json
from charlm.text.reading import Reading, check_magic, empty, nothing_but_a_mark, undecodable, unreadable
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, Vocab, code_points, vocabulary_of_counts

__all__ = ["BIG", "Decoder", "Encoded", "Progress", "Spool", "cache_directory", "corpus_hash", "encode_files", "is_big"]

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


BIG = 64 << 20
"""From how many bytes on texts go through the cache."""

BLOCK = 1 << 19
"""Bytes read at a time; so few that the work on a block stays in the processor's cache."""

Progress = Callable[[int, int], None]
"""Called with the bytes read and the bytes in all."""

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Files as ids: what `Corpus` needs, with `ids` mapped from the cache."""

    ids: Ids
    vocab: Vocab
    documents: Spans
    sha256: str


def cache_directory() -> Path:
    """Where encoded texts are kept: `CHARLM_CACHE`, else `~/.cache/charlm`."""
    chosen = os.environ.get("CHARLM_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "charlm"


def is_big(files: list[Path]) -> bool:
    """Whether these files together are big enough for the cache; standard input never is."""
    if any(str(path) == "-" for path in files):
        return False
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in files) >= BIG
    return False


def encode_files(
    files: list[Path], reading: Reading, vocab: Vocab | None = None, progress: Progress | None = None
) -> Encoded:
    """The ids of these files, from the cache or by one pass over them that fills it.

    Args:
        files: one document each.
        reading: how they become text.
        vocab: encode by this vocabulary instead of the texts' own.
        progress: told how far the pass over the files is.

    Raises:
        TextError: as reading in memory does, with the same sentences.
        CharlmError: the cache directory cannot be written.
    """
    if reading.bytes or (vocab is not None and not vocab.characters):
        vocab = Vocab.of_bytes()
    told = _Told(progress, sum(_size(path) for path in files))
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if _worth_hashing(directory, told.total):
            digests = [_hash(path, told) for path in files]
            if (found := _load(directory, _key(digests, reading, vocab))) is not None:
                return found
            told = _Told(progress, told.total)
        return _encode(files, reading, vocab, directory, told)
    except OSError as error:
        raise CharlmError(
            f"the cache for big texts in {directory} cannot be used ({error.strerror}): set CHARLM_CACHE "
            f"to a directory with {5 * told.total:,} bytes free"
        ) from None


class _Told:
    """Adds up the bytes that were read and passes them on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self.total, self._done = progress, total, 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self.total)


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None
    if size == 0:
        raise empty(path)
    return size


def _blocks(path: Path, told: _Told) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                yield block
                told.add(len(block))
    except OSError as error:
        raise unreadable(path, error) from None


def _hash(path: Path, told: _Told) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path, told):
        digest.update(block)
    return digest.hexdigest()


def corpus_hash(digests: list[str]) -> str:
    """The hash of a corpus: its file's, or of several files the hash of their hashes in order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _key(digests: list[str], reading: Reading, vocab: Vocab | None) -> str:
    how = {
        "format": _FORMAT,
        "files": digests,
        "reading": reading.to_json(),
        "vocab": vocab.to_json() if vocab is not None else None,
    }
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:40]


def _worth_hashing(directory: Path, total: int) -> bool:
    """Whether the cache has a text of this size: if not, hashing alone would be a pass for nothing."""
    return any(directory.glob(f"{total}-*.json"))


def _encode(files: list[Path], reading: Reading, vocab: Vocab | None, directory: Path, told: _Told) -> Encoded:
    with tempfile.TemporaryFile(dir=directory) as file:
        spool = Spool(file, keeps_bytes=vocab is not None and not vocab.characters)
        digests = [_spool_file(path, reading, spool, told) for path in files]
        key = _key(digests, reading, vocab)
        foreign = vocab is not None
        if vocab is None:
            vocab = vocabulary_of_counts(spool.counts, reading.vocab_size)
        name = f"{told.total}-{key}"
        lengths = _write_ids(spool, vocab, directory / f"{name}.ids", unknown=foreign)
    edges = np.cumsum([0, *lengths])
    about = {
        "format": _FORMAT,
        "sha256": corpus_hash(digests),
        "vocab": vocab.to_json(),
        "dtype": _dtype(vocab, foreign).name,
        "edges": edges.tolist(),
    }
    write_json(directory / f"{name}.json", about)
    found = _load(directory, key)
    assert found is not None
    return found


def _spool_file(path: Path, reading: Reading, spool: Spool, told: _Told) -> str:
    """Adds one file to the spool as a document; returns its hash."""
    digest = hashlib.sha256()
    decoder = None if spool.keeps_bytes else Decoder(path, reading)
    spool.begin_document()
    for number, block in enumerate(_blocks(path, told)):
        digest.update(block)
        if decoder is None:
            spool.add(np.frombuffer(block, dtype=np.uint8))
            continue
        if number == 0:
            check_magic(block, path)
        spool.add(decoder.codes(block))
    if decoder is not None:
        spool.add(decoder.codes(b"", final=True))
        if spool.length == 0:
            raise nothing_but_a_mark(path)
    return digest.hexdigest()


def _write_ids(spool: Spool, vocab: Vocab, path: Path, *, unknown: bool) -> list[int]:
    """Rewrites the spool as ids; returns the length of each document in ids."""
    dtype = _dtype(vocab, unknown)
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


def _dtype(vocab: Vocab, unknown: bool) -> np.dtype[Any]:
    return np.dtype(np.int32) if unknown and not vocab.byte_fallback else vocab.dtype


def _translate(block: NDArray[Any], table: Ids) -> Ids:
    """`table[block]`, three times as fast where both are bytes."""
    if block.dtype != np.uint8 or table.dtype != np.uint8:
        ids: Ids = table[block]
        return ids
    whole = table[:256].tobytes().ljust(256, b"\0")
    return np.frombuffer(block.tobytes().translate(whole), dtype=np.uint8)


def _load(directory: Path, key: str) -> Encoded | None:
    """What the cache has under this key; a damaged entry counts as none."""
    for path in directory.glob(f"*-{key}.json"):
        with contextlib.suppress(CharlmError, OSError, KeyError, TypeError, ValueError):
            about = read_json(path)
            edges = np.array(about["edges"], dtype=np.int64)
            dtype = np.dtype(about["dtype"])
            ids_path = path.with_suffix(".ids")
            if about["format"] == _FORMAT and ids_path.stat().st_size == int(edges[-1]) * dtype.itemsize:
                # copy on write: torch wants writable memory, and the file stays as it is
                ids = np.memmap(ids_path, dtype=dtype, mode="c").view(np.ndarray)
                return Encoded(
                    ids=ids,
                    vocab=Vocab.from_json(about["vocab"]),
                    documents=np.stack([edges[:-1], edges[1:]], axis=1),
                    sha256=str(about["sha256"]),
                )
    return None
