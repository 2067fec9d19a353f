"""Big texts: encoded in one pass into a file of ids that is mapped into memory, and found again by their content.

A text is read block by block, hashed and decoded at once, and its code points are written to a temporary file. After
the last character the vocabulary is known, and the temporary file is rewritten with the ids of the vocabulary. At no
time are more than a few blocks in memory.

The ids stay in the cache directory (`cache_directory`) under a key made of the hash of the content and of how it was
read, never of a path, so that a changed text can never be taken for the old one. The next start only hashes the text
and maps the ids. The cache holds copies of the texts: `charlm cache` shows it and clears it. It is kept below a bound
(`cache_bound`); the entries that were not used for the longest time are deleted first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from charlm.codec import encode
from charlm.errors import CharlmError, OptionError
from charlm.files import atomic_writer, read_json, sweep, write_json
from charlm.text.reading import Decoder, Reading, empty, nothing_but_a_mark, readable
from charlm.text.splits import Spans, spans_of
from charlm.text.vocab import Ids, Vocab, vocabulary_of_counts

BIG = 64 << 20
"""From how many bytes on texts go through the cache."""

BLOCK = 1 << 19
"""Bytes read at a time; so few that the work on a block stays in the processor's cache."""

BytesRead = Callable[[int, int], object]
"""Called with the number of bytes read so far and in all."""

_FORMAT = 1


# -- the directory and what is in it ----------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Where encoded texts are kept: `CHARLM_CACHE`, else `~/.cache/charlm`."""
    return Path(os.environ.get("CHARLM_CACHE") or Path.home() / ".cache" / "charlm")


def cache_bound() -> int:
    """How many bytes the cache may take: `CHARLM_CACHE_GB` in units of 10⁹ bytes, else 10 of them."""
    given = os.environ.get("CHARLM_CACHE_GB") or "10"
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < 1e9:
        raise OptionError(f"CHARLM_CACHE_GB is a number of gigabytes such as 10, not {given!r}")
    return int(gigabytes * 1e9)


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One encoded text.

    Args:
        path: the file of its ids; the description of the same name ends in `.json`.
        size: bytes of both files.
        used: when it was last used, in seconds since 1970.
    """

    path: Path
    size: int
    used: float

    def delete(self) -> None:
        """Deletes both files; a program that has the ids mapped keeps them until it ends."""
        for path in (self.path.with_suffix(".json"), self.path):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The cache of encoded texts as it is now; made by `cache`.

    Args:
        directory: where it is.
        entries: the texts in it, the one that was used last first.
        bound: bytes that it may take.
    """

    directory: Path
    entries: tuple[CacheEntry, ...]
    bound: int

    @property
    def size(self) -> int:
        """Bytes of all entries together."""
        return sum(entry.size for entry in self.entries)

    def __repr__(self) -> str:
        texts = "1 text" if len(self.entries) == 1 else f"{len(self.entries):,} texts"
        return f"Cache({self.directory}, {texts}, {self.size:,} bytes of at most {self.bound:,})"

    def clear(self) -> Cache:
        """Deletes every entry, and what interrupted programs left; returns the cache as it is then."""
        for entry in self.entries:
            entry.delete()
        sweep(self.directory)
        return cache()

    def trim(self, kept: str) -> None:
        """Deletes the entries that were unused for the longest time until the bound is kept, but never `kept`."""
        size = self.size
        for entry in reversed(self.entries):
            if size > self.bound and entry.path.stem != kept:
                entry.delete()
                size -= entry.size


def cache() -> Cache:
    """The cache of encoded texts: where it is, how big it is, and how to clear it (`cache().clear()`)."""
    directory, found = cache_directory(), []
    for ids in directory.glob("*.ids"):
        with contextlib.suppress(OSError):  # deleted by another process
            about = ids.with_suffix(".json")
            status = about.stat() if about.exists() else None
            size = ids.stat().st_size + (status.st_size if status else 0)
            found.append(CacheEntry(path=ids, size=size, used=status.st_mtime if status else 0.0))
    found.sort(key=lambda entry: -entry.used)
    return Cache(directory=directory, entries=tuple(found), bound=cache_bound())


# -- texts to ids -----------------------------------------------------------------------------------------------------

Encoded = tuple[Ids, Vocab, Spans, str]
"""Files as ids: the ids, mapped from the cache, their vocabulary, the span of each document, and the hash."""


def is_big(files: list[Path], *, streamed: bool = False) -> bool:
    """Whether these files together are big enough for the cache, or wanted in it; standard input never goes there."""
    with contextlib.suppress(OSError):
        return "-" not in map(str, files) and (streamed or sum(path.stat().st_size for path in files) >= BIG)
    return False


def encode_files(
    files: list[Path], reading: Reading, vocab: Vocab | None = None, progress: BytesRead | None = None
) -> Encoded:
    """The ids of these files, from the cache or by one pass over them that fills it.

    Args:
        files: one document each.
        reading: how they become text.
        vocab: encode by this vocabulary instead of the texts' own.
        progress: called with the bytes of the files that were read so far, and in all.

    Raises:
        TextError: as reading in memory does, with the same sentences.
        CharlmError: the cache directory cannot be written.
    """
    cache_bound()  # refuses a wrong setting before any work
    if reading.bytes or (vocab is not None and not vocab.characters):
        vocab = Vocab.of_bytes()
    read, directory = _Read(files, progress), cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.glob(f"{read.total}-*.json")):  # else a pass that only hashes the text would find nothing
            digests = [_digest(read.blocks(path)) for path in files]
            if (found := _load(directory, _key(digests, reading, vocab))) is not None:
                return found
            read.done = 0
        return _encode(files, reading, vocab, directory, read)
    except OSError as error:
        raise CharlmError(
            f"the cache for big texts in {directory} cannot be used ({error.strerror}): set CHARLM_CACHE "
            f"to a directory with {5 * read.total:,} bytes free"
        ) from None


class _Read:
    """Reads files block by block, and tells how much of all of them has been read."""

    def __init__(self, files: list[Path], progress: BytesRead | None) -> None:
        self._progress, self.done, self.total = progress, 0, 0
        for path in files:
            with readable(path):
                size = path.stat().st_size
            if not size:
                raise empty(path)
            self.total += size

    def blocks(self, path: Path) -> Iterator[bytes]:
        with readable(path), open(path, "rb") as file:
            while block := file.read(BLOCK):
                yield block
                self.done += len(block)
                if self._progress is not None:
                    self._progress(self.done, self.total)


def _digest(blocks: Iterator[bytes], take: Callable[[bytes], object] = bytes) -> str:
    """The hash of a file's blocks, each of which is handed over."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        take(block)
    return digest.hexdigest()


def corpus_hash(digests: list[str]) -> str:
    """The hash of a corpus: its file's, or of several files the hash of their hashes in order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _key(digests: list[str], reading: Reading, vocab: Vocab | None) -> str:
    how = {"format": _FORMAT, "files": digests, "reading": encode(reading), "vocab": vocab and vocab.to_json()}
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:40]


def _encode(files: list[Path], reading: Reading, vocab: Vocab | None, directory: Path, read: _Read) -> Encoded:
    with tempfile.TemporaryFile(dir=directory) as file:
        spool = _Spool(file, keeps_bytes=vocab is not None and not vocab.characters)
        digests = [spool.add_file(path, reading, read) for path in files]
        name = f"{read.total}-{_key(digests, reading, vocab)}"
        signed = vocab is not None and not vocab.byte_fallback  # some characters may be unknown to it
        vocab = vocab or vocabulary_of_counts(spool.counts, reading.vocab_size)
        dtype = np.dtype(np.int32) if signed else vocab.dtype
        lengths = spool.write_ids(directory / f"{name}.ids", vocab, dtype)
    about = {
        "format": _FORMAT,
        "sha256": corpus_hash(digests),
        "vocab": vocab.to_json(),
        "dtype": dtype.name,
        "edges": np.cumsum([0, *lengths]).tolist(),
    }
    write_json(directory / f"{name}.json", about)
    cache().trim(kept=name)
    return map_ids(directory / f"{name}.ids", dtype), vocab, spans_of(lengths), corpus_hash(digests)


def _load(directory: Path, key: str) -> Encoded | None:
    """What the cache has under this key; a damaged entry counts as none."""
    for path in directory.glob(f"*-{key}.json"):
        with contextlib.suppress(CharlmError, OSError, KeyError, TypeError, ValueError):
            about = read_json(path)
            edges, dtype, ids = np.array(about["edges"]), np.dtype(about["dtype"]), path.with_suffix(".ids")
            if about["format"] == _FORMAT and ids.stat().st_size == int(edges[-1]) * dtype.itemsize:
                mapped, vocab = map_ids(ids, dtype), Vocab.from_json(about["vocab"])
                with contextlib.suppress(OSError):
                    os.utime(path)  # the time of the last use, for `Cache.trim`
                return mapped, vocab, spans_of(np.diff(edges).tolist()), str(about["sha256"])
    return None


class _Spool:
    """Characters (or bytes) on the disk as code points, each block in the narrowest type that holds it."""

    def __init__(self, file: IO[bytes], *, keeps_bytes: bool) -> None:
        self._file, self._keeps_bytes = file, keeps_bytes
        self._blocks: list[int] = []  # how many each document has
        self.counts = np.zeros(0x110000, dtype=np.int64)  # how often each code point occurs

    def add_file(self, path: Path, reading: Reading, read: _Read) -> str:
        """Appends a file as a document; returns its hash."""
        self._blocks.append(0)
        if self._keeps_bytes:
            return _digest(read.blocks(path), lambda block: self._add(np.frombuffer(block, dtype=np.uint8)))
        decoder = Decoder(path, reading)
        digest = _digest(read.blocks(path), lambda block: self._add(decoder.codes(block)))
        self._add(decoder.codes(b"", final=True))
        if not self._blocks[-1]:
            raise nothing_but_a_mark(path)
        return digest

    def _add(self, codes: NDArray[Any]) -> None:
        """Appends code points to the newest document: uint8 for ASCII (or any bytes), else uint32."""
        if not len(codes):
            return
        codes = codes.astype(np.min_scalar_type(int(codes.max())), copy=False)
        if not self._keeps_bytes:
            seen = _count_bytes(codes) if codes.dtype == np.uint8 else np.bincount(codes)
            self.counts[: len(seen)] += seen
        np.save(self._file, codes)
        self._blocks[-1] += 1

    def write_ids(self, path: Path, vocab: Vocab, dtype: np.dtype[Any]) -> list[int]:
        """Rewrites all documents as ids of a vocabulary; returns the length of each in ids."""
        points = np.arange(np.flatnonzero(self.counts).max(initial=255) + 1, dtype=np.uint32)
        found, lengths = points.astype(np.int32) if self._keeps_bytes else vocab.lookup(points), []
        table, spelled = found.astype(dtype), found < 0
        self._file.seek(0)
        with atomic_writer(path) as out:
            for blocks in self._blocks:
                lengths.append(0)
                for _ in range(blocks):
                    codes = np.load(self._file)
                    if vocab.byte_fallback and spelled[codes].any():
                        ids = vocab.encode_codes(codes.astype(np.uint32))
                    elif codes.dtype == table.dtype == np.uint8:  # three times as fast as `table[codes]`
                        ids = np.frombuffer(codes.tobytes().translate(table[:256].tobytes()), dtype=np.uint8)
                    else:
                        ids = table[codes]
                    out.write(ids.data)
                    lengths[-1] += len(ids)
        return lengths


def _count_bytes(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the 256 values occurs; counted in pairs, which is faster."""
    even = len(codes) // 2 * 2
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts: NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
    counts[codes[even:]] += 1
    return counts


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
