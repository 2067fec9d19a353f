"""A corpus: the ids of one or more texts, where its documents begin and end, and what it was read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError
from charlm.text.cache import BytesRead, corpus_hash, encode_files, is_big
from charlm.text.reading import Reading, decode, files_of, read_content
from charlm.text.splits import PARTS, Spans, Split, count_targets, shared_context, spans_of
from charlm.text.units import arranged, item_spans, item_weights, joined, read_items
from charlm.text.vocab import UNKNOWN, Ids, Vocab, code_points, vocabulary_of_counts


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts as ids.

    Args:
        ids: all documents one after the other; uint8, uint16 or uint32, whichever fits the vocabulary, or
            int32 where a foreign vocabulary left characters `UNKNOWN`. May be a memory map.
        vocab: the vocabulary of the ids.
        documents: the span of each document, int64[n, 2].
        sha256: of the file's bytes; of several files, of their hashes in order.
        names: what was read, as named by the user.
        reading: how it was read.
        items: of a list of items int64[n], the number of each document, equal for equal items; None for running text.
            Documents that are items begin with the line feed that ends the one before.
        lists: of items whose validation and test parts are lists of their own, how many items each list has.
    """

    ids: Ids
    vocab: Vocab
    documents: Spans
    sha256: str
    names: tuple[str, ...]
    reading: Reading
    items: NDArray[np.int64] | None = None
    lists: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def newline(self) -> int | None:
        """The id of the line feed, None where the texts have none."""
        if "\n" in self.vocab.characters:
            return self.vocab.characters.index("\n")
        return len(self.vocab.characters) + 10 if self.vocab.byte_fallback else None

    def parts(self, split: Split) -> dict[str, Spans]:
        """The spans of train, valid and test; see `Split.parts`. A text too short for its split is refused."""
        parts = split.parts(self.ids, self.documents, self.newline, self.items, self.vocab.begins_character)
        for name, share in zip(PARTS, split.shares, strict=True):
            if share and not count_targets(parts[name]):
                raise TextError(
                    f"{self.title} is too short for the split {split}: its {name} part has no character to predict "
                    f"({len(self):,} characters in all); use a longer text or another --split"
                )
        return parts

    def part(self, split: Split, name: str) -> Spans:
        """The spans of one part, or of every document for `all`; a part without a target is refused."""
        if name not in (*PARTS, "all"):
            raise TextError(f"a text has the parts train, valid, test and all, not {name!r}")
        spans = self.documents if name == "all" else self.parts(split)[name]
        if count_targets(spans) == 0:
            raise TextError(f"the split {split} gives {self.title} no {name} part: name another part or --split")
        return spans

    def shared_context(self, spans: Spans, parts: Mapping[str, Spans]) -> NDArray[np.bool_]:
        """For each span whether its first character is context alone: see `splits.shared_context`.

        The line feed before an item is always context alone.
        """
        if self.items is None:
            return shared_context(spans, parts)
        return np.asarray(self.ids[spans[:, 0]] == self.newline)

    def repeated(self, split: Split) -> str:
        """Says which share of the held-out items or files is in the training part too; empty where none is."""
        what = "files" if self.items is None else "items"
        if what == "files" and split.kind != "files":
            return ""
        files = (hashlib.sha256(self.ids[a:b].data).digest() for a, b in self.documents.tolist())
        same = files if self.items is None else self.items.tolist()
        number = dict(zip(self.documents[:, 0].tolist(), same, strict=True))
        parts = {name: [number[start] for start in rows[:, 0].tolist()] for name, rows in self.parts(split).items()}
        train, held = set(parts["train"]), parts["valid"] + parts["test"]
        share = sum(each in train for each in held) / max(1, len(held))
        return f"{100 * share:.1f} % of the held-out {what} are in the training part too" if share else ""

    def name_of(self, document: int) -> str:
        """The name of the file of document 0, 1, ... or of the list."""
        return self.names[document] if self.items is None else self.title

    @property
    def title(self) -> str:
        """The name of the text, or of the first of several, for messages."""
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        return f"{self.names[0]}{more}"

    def under(self, vocab: Vocab) -> Corpus:
        """The corpus in the symbols of another vocabulary, `UNKNOWN` where that one lacks a character.

        Characters keep their positions unless one of the vocabularies spells some of them in bytes.

        >>> corpus_of_text("cab!").under(Vocab.of("abc")).ids.tolist()
        [2, 0, 1, -1]
        """
        if vocab == self.vocab:
            return self
        if not (vocab.byte_fallback or self.vocab.byte_fallback):
            table = vocab.encode("".join(self.vocab.characters), unknown=True)
            ids = table[self.ids]
            if self.ids.dtype.kind == "i":
                ids = np.where(self.ids < 0, np.int32(UNKNOWN), ids)
            return replace(self, ids=ids, vocab=vocab)
        if self.items is not None:
            ids = vocab.encode(self.vocab.decode(self.ids), unknown=True)
            moved = replace(self, ids=ids, vocab=vocab)
            return replace(moved, documents=item_spans(ids, _end_mark(moved)))
        texts = [self.vocab.decode(self.ids[start:end]) for start, end in self.documents.tolist()]
        pieces = [vocab.encode(text, unknown=True) for text in texts]
        return replace(self, ids=np.concatenate(pieces), vocab=vocab, documents=spans_of([*map(len, pieces)]))

    def unknown(self) -> int:
        """How many characters the vocabulary does not hold."""
        return int((self.ids < 0).sum()) if self.ids.dtype.kind == "i" else 0


def corpus_of_text(text: str, *, vocab: Vocab | None = None, name: str = "text") -> Corpus:
    """A corpus of one document from a string.

    >>> corpus = corpus_of_text("abracadabra")
    >>> len(corpus), len(corpus.vocab), corpus.ids.dtype.name
    (11, 5, 'uint8')
    """
    if not text:
        raise TextError("an empty string is no text")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return _assemble([text], [digest], (name,), Reading(), vocab)


def corpus_of_items(
    items: Sequence[str],
    counts: Sequence[int] | NDArray[np.generic] | None = None,
    *,
    vocab: Vocab | None = None,
    name: str = "items",
    arrange: bool = True,
) -> Corpus:
    r"""A corpus of independent items, each a document between two line feeds.

    Args:
        items: their characters, none of them a line feed.
        counts: how often each counts; once by default.
        vocab: encode by this vocabulary; characters that it lacks become `UNKNOWN`.
        name: what messages call them.
        arrange: put the items into an order that depends on their content alone; else they stay in the order given.

    >>> corpus = corpus_of_items(["ada", "bob"], arrange=False)
    >>> corpus.documents.tolist(), corpus.vocab.decode(corpus.ids)
    ([[0, 5], [4, 9]], '\nada\nbob\n')
    """
    if not items:
        raise TextError("an empty list has no items")
    weights = np.ones(len(items), np.int64) if counts is None else item_weights(items, counts, name)
    digest = hashlib.sha256("\n".join(items).encode("utf-8", "surrogatepass")).hexdigest()
    return _assemble_items([(list(items), weights)], [digest], (name,), Reading(items="line"), vocab, arrange)


def read_corpus(
    paths: str | Path | Sequence[str | Path],
    reading: Reading | None = None,
    *,
    vocab: Vocab | None = None,
    progress: BytesRead | None = None,
    streamed: bool = False,
    arrange: bool = True,
    held_out: int | str | Split | None = None,
) -> Corpus:
    """Reads files, directories of files, or standard input (`-`) as one corpus, a document each.

    Texts of more than 64 MB in all are encoded in one streaming pass into a memory-mapped file, which the
    next start finds again; see `charlm.text.cache`. The corpus is the same either way.

    Args:
        paths: what to read, in this order.
        reading: encoding, line ends, bytes, size of the vocabulary.
        vocab: encode by this vocabulary (of a model) instead of the texts' own; unknown characters become
            `UNKNOWN`.
        progress: told the bytes read and the bytes in all, for texts that are big enough to stream.
        streamed: stream files of any size, for the sake of memory.
        arrange: put the items of a list into an order that depends on their content alone.
        held_out: of lists of items how many of the last files are validation and test parts, which stay apart; or a
            split by files that says so.

    Raises:
        TextError: a file that is missing, empty, packed, or not of the encoding, with the way out.
    """
    reading = reading or Reading()
    named = [paths] if isinstance(paths, (str, Path)) else paths
    files = files_of([str(path) for path in named], reading)
    if not files:
        raise TextError("name at least one text")
    names = tuple(str(path) for path in files)
    if reading.items is not None and streamed:
        raise OptionError("a list of items is read into memory: leave --memory away")
    if reading.items is None and is_big(files, streamed=streamed):
        ids, vocab, documents, sha256 = encode_files(files, reading, vocab, progress)
        return Corpus(ids=ids, vocab=vocab, documents=documents, sha256=sha256, names=names, reading=reading)
    contents = [read_content(path) for path in files]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    if reading.items is not None:
        lists = [read_items(path, reading, content) for path, content in zip(files, contents, strict=True)]
        return _assemble_items(lists, digests, names, reading, vocab, arrange, _apart(files, held_out))
    if reading.bytes or (vocab is not None and not vocab.characters):
        vocab = Vocab.of_bytes()
        return _joined([vocab.encode_bytes(content) for content in contents], vocab, digests, names, reading)
    texts = [decode(content, reading, path) for content, path in zip(contents, files, strict=True)]
    return _assemble(texts, digests, names, reading, vocab)


def _assemble_items(
    lists: Sequence[tuple[list[str], NDArray[np.int64]]],
    digests: list[str],
    names: tuple[str, ...],
    reading: Reading,
    vocab: Vocab | None,
    arrange: bool = True,
    apart: int = 0,
) -> Corpus:
    """The corpus of the items of all lists, of which the last ones may stay apart."""
    items = [item for found, _ in lists for item in found]
    counts = np.concatenate([weights for _, weights in lists])
    edges = np.cumsum([len(found) for found, _ in lists])[len(lists) - 1 - apart :]
    sizes = np.diff(np.cumsum(counts)[edges - 1], prepend=0).tolist() if apart else []
    items, numbers = arranged(items, counts, shuffle=arrange, ends=edges[:-1].tolist())
    text = joined(items)
    if reading.bytes or (vocab is not None and not vocab.characters):
        vocab = Vocab.of_bytes()
        ids = vocab.encode_bytes(text.encode("latin-1") if reading.bytes else text.encode("utf-8"))
    else:
        foreign = vocab is not None
        vocab = vocab or _vocabulary([text], reading.vocab_size)
        ids = vocab.encode(text, unknown=foreign)
    corpus = Corpus(
        ids=ids,
        vocab=vocab,
        documents=np.zeros((0, 2), np.int64),
        sha256=corpus_hash(digests),
        names=names,
        reading=reading,
        items=numbers,
        lists=tuple(sizes),
    )
    return replace(corpus, documents=item_spans(ids, _end_mark(corpus)))


def _end_mark(corpus: Corpus) -> int:
    if corpus.newline is None:
        raise OptionError(f"items begin and end with a line feed, which the vocabulary read {corpus.title} in lacks")
    return corpus.newline


def _assemble(
    texts: list[str], digests: list[str], names: tuple[str, ...], reading: Reading, vocab: Vocab | None
) -> Corpus:
    foreign = vocab is not None
    if vocab is None:
        vocab = _vocabulary(texts, reading.vocab_size)
    pieces = [vocab.encode(text, unknown=foreign) for text in texts]
    return _joined(pieces, vocab, digests, names, reading)


def _vocabulary(texts: list[str], size: int | None) -> Vocab:
    """All characters of the texts, or the `size` most frequent ones with a byte fallback for the others."""
    counts = np.zeros(0x110000, dtype=np.int64)
    for text in texts:
        codes, seen = np.unique(code_points(text), return_counts=True)
        counts[codes] += seen
    return vocabulary_of_counts(counts, size)


def _joined(pieces: list[Ids], vocab: Vocab, digests: list[str], names: tuple[str, ...], reading: Reading) -> Corpus:
    signed = any(piece.dtype.kind == "i" for piece in pieces)
    ids = pieces[0] if len(pieces) == 1 else np.concatenate(pieces).astype(np.int32 if signed else vocab.dtype)
    return Corpus(
        ids=ids,
        vocab=vocab,
        documents=spans_of([*map(len, pieces)]),
        sha256=corpus_hash(digests),
        names=names,
        reading=reading,
    )


def split_of(corpus: Corpus, split: str | Split | None) -> Split:
    """The split that was named, else the default; of a list of items by item."""
    found = Split.parse(split) if isinstance(split, str) else split or Split.default(len(corpus))
    return found if corpus.items is None else found.for_items()


def split_by_files(
    corpus: Corpus, named: Sequence[str | Path], valid: str | Path | None, test: str | Path | None
) -> Split:
    """The split of a text whose validation and test parts are files of their own."""
    held = [0 if name is None else 1 for name in (valid, test)]
    counts = [len(files_of([str(path) for path in named], corpus.reading)), *held]
    if corpus.items is not None and len(corpus.names) == sum(counts):
        sizes = list(corpus.lists)
        return Split.parse("files:" + "/".join(str(sizes.pop(0) if count else 0) for count in (1, *held)))
    if len(corpus.names) != sum(counts):
        raise OptionError("--valid and --test name one file each, not a directory")
    return Split.parse("files:" + "/".join(map(str, counts)))


def _apart(files: Sequence[Path], held_out: int | str | Split | None) -> int:
    """How many of the last files are validation and test parts."""
    if isinstance(held_out, int):
        return held_out
    split = Split.parse(held_out) if isinstance(held_out, str) else held_out
    held = 0 if split is None or split.kind != "files" else sum(share > 0 for share in split.shares[1:])
    return held if held < len(files) else 0
