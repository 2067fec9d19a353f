"""Big texts: encoded in one pass into a file of ids that is mapped into memory, and found again by their content.

A text is read block by block, hashed and decoded at once, and written to a temporary file (`Spool`) under provisional
ids in the narrowest type that holds them. After the last character the vocabulary is known, and the temporary file is
rewritten with the ids of the vocabulary. At no time are more than a few blocks in memory.

The ids stay in the cache directory (`cache_directory`) under a key made of the hash of the content and of how it was
read, never of a path, so that a changed text can never be taken for the old one. The next start only hashes the text
and maps the ids. The cache holds copies of the texts: `charlm cache` shows it and clears it. It is kept below a bound
(`cache_bound`); the entries that were not used for the longest time are deleted first.
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

import numpy as np

from charlm.codec import encode
from charlm.errors import CharlmError, OptionError
from charlm.files import read_json, sweep, write_json
from charlm.text.reading import Decoder, Reading, empty, nothing_but_a_mark, unreadable
from charlm.text.splits import Spans
from charlm.text.spool import Spool, dtype_of, map_ids, write_ids
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
    chosen = os.environ.get("CHARLM_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "charlm"


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
            if size <= self.bound:
                return
            if entry.path.stem != kept:
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
    entries = tuple(sorted(found, key=lambda entry: -entry.used))
    return Cache(directory=directory, entries=entries, bound=cache_bound())


# -- texts to ids -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Files as ids: what `Corpus` needs, with `ids` mapped from the cache."""

    ids: Ids
    vocab: Vocab
    documents: Spans
    sha256: str


def is_big(files: list[Path]) -> bool:
    """Whether these files together are big enough for the cache; standard input never is."""
    if any(str(path) == "-" for path in files):
        return False
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in files) >= BIG
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
    """Adds up the bytes that were read and reports the sum."""

    def __init__(self, progress: BytesRead | None, total: int) -> None:
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
        "reading": encode(reading),
        "vocab": vocab.to_json() if vocab is not None else None,
    }
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:40]


def _worth_hashing(directory: Path, total: int) -> bool:
    """Whether the cache has a text of this size; if not, a pass that only hashes the text would find nothing."""
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
        lengths = write_ids(spool, vocab, directory / f"{name}.ids", unknown=foreign)
    edges = np.cumsum([0, *lengths])
    about = {
        "format": _FORMAT,
        "sha256": corpus_hash(digests),
        "vocab": vocab.to_json(),
        "dtype": dtype_of(vocab, foreign).name,
        "edges": edges.tolist(),
    }
    write_json(directory / f"{name}.json", about)
    cache().trim(kept=name)
    found = _load(directory, key)
    assert found is not None
    return found


def _spool_file(path: Path, reading: Reading, spool: Spool, told: _Told) -> str:
    """Adds one file to the spool as a document; returns its hash."""
    digest = hashlib.sha256()
    decoder = None if spool.keeps_bytes else Decoder(path, reading)
    spool.begin_document()
    for block in _blocks(path, told):
        digest.update(block)
        if decoder is None:
            spool.add(np.frombuffer(block, dtype=np.uint8))
            continue
        spool.add(decoder.codes(block))
    if decoder is not None:
        spool.add(decoder.codes(b"", final=True))
        if spool.length == 0:
            raise nothing_but_a_mark(path)
    return digest.hexdigest()


def _load(directory: Path, key: str) -> Encoded | None:
    """What the cache has under this key; a damaged entry counts as none."""
    for path in directory.glob(f"*-{key}.json"):
        with contextlib.suppress(CharlmError, OSError, KeyError, TypeError, ValueError):
            about = read_json(path)
            edges = np.array(about["edges"], dtype=np.int64)
            dtype = np.dtype(about["dtype"])
            ids_path = path.with_suffix(".ids")
            if about["format"] == _FORMAT and ids_path.stat().st_size == int(edges[-1]) * dtype.itemsize:
                ids = map_ids(ids_path, dtype)
                with contextlib.suppress(OSError):
                    os.utime(path)  # the time of the last use, for `Cache.trim`
                return Encoded(
                    ids=ids,
                    vocab=Vocab.from_json(about["vocab"]),
                    documents=np.stack([edges[:-1], edges[1:]], axis=1),
                    sha256=str(about["sha256"]),
                )
    return None
