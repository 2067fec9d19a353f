"""Big texts: encoded in one streaming pass into a memory-mapped file, found again by what the text is.

A text is read in blocks, hashed and decoded at once, and spooled under provisional ids in the narrowest type
that holds them. When the last character has been seen, the vocabulary is known, and the spool is rewritten
with the ids that it gives. At no time is more than a few blocks in memory. The ids stay in a cache directory
(`CHARLM_CACHE`, else `~/.cache/charlm`) under a key made of the content's hash and of how it was read, never
of a path, so that a changed text can never be taken for the old one; the next start hashes the text and maps
the ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError
from charlm.files import atomic_writer, read_json, write_json
from charlm.text.reading import Reading, check_magic, empty, nothing_but_a_mark, unreadable
from charlm.text.splits import Spans
from charlm.text.spool import Decoder, Spool
from charlm.text.vocab import Ids, Vocab, vocabulary_of_counts

__all__ = ["BIG", "Encoded", "Progress", "cache_directory", "corpus_hash", "encode_files", "is_big"]

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
