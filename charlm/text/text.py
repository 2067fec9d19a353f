"""A text and its parts: what a person reads once and hands to every model.

`Text` is a corpus (ids, vocabulary, documents) together with the split that says which characters train, validate and
test; `Part` is one of these parts. `TextFacts` is what a model keeps about the text that it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.codec import decode
from charlm.display import bytes_bar
from charlm.errors import OptionError, TextError
from charlm.text.corpus import Corpus, corpus_of_items, corpus_of_text, read_corpus, split_by_files, split_of
from charlm.text.reading import Reading, hint_at_newlines
from charlm.text.splits import PARTS, Spans, Split, count_targets
from charlm.text.vocab import Vocab


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """What a model was made from: enough to find its text and its parts again.

    Args:
        names: files, as the user named them.
        sha256: of the text's bytes.
        characters: how many symbols it has.
        split: which of them train, validate and test.
        reading: how the files became text.
        first: the id of the text's first symbol, where generation starts when there is no line feed.
    """

    names: tuple[str, ...] = ()
    sha256: str = ""
    characters: int = 0
    split: Split = field(default_factory=Split)
    reading: Reading = field(default_factory=Reading)
    first: int = 0

    @classmethod
    def of(cls, corpus: Corpus, split: Split) -> TextFacts:
        """The facts about a corpus under a split."""
        return cls(
            names=corpus.names,
            sha256=corpus.sha256,
            characters=len(corpus),
            split=split,
            reading=corpus.reading,
            first=int(corpus.ids[0]),
        )

    @classmethod
    def read(cls, value: Any) -> TextFacts:
        """The facts that a `config.json` holds, with nothing missing."""
        return decode(cls, value, "the stored description of the text", beside=True, whole=True)


class HasSource(Protocol):
    """A model, as far as reading a text like its own needs to know it."""

    vocab: Vocab
    source: TextFacts


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a text. Its length is the number of characters to predict.

    Args:
        text: the whole text.
        name: `train`, `valid`, `test` or `all`.
        spans: int64[n, 2], the (start, end) of each piece; the first character of a piece is context.

    >>> part = Text.of("abracadabra" * 100, split="80/10/10").test
    >>> len(part), str(part)[:4]
    (109, 'abra')
    """

    text: Text
    name: str
    spans: Spans

    def __len__(self) -> int:
        return count_targets(self.spans)

    def __str__(self) -> str:
        corpus = self.text.corpus
        pieces = zip(self.spans.tolist(), self._shared().tolist(), strict=True)
        return "".join(corpus.vocab.decode(corpus.ids[start + shared : end]) for (start, end), shared in pieces)

    def _shared(self) -> NDArray[np.bool_]:
        """For each span whether its first character is another part's, and context alone in this one."""
        corpus = self.text.corpus
        if corpus.items is None and (self.text.split is None or self.name == "all"):
            return np.zeros(len(self.spans), dtype=np.bool_)
        return corpus.shared_context(self.spans, {} if corpus.items is not None else self.text.parts)

    def __repr__(self) -> str:
        split = "" if self.text.split is None else f", split {self.text.split}"
        return f"Part({self.name} of {self.text.title!r}{split}, {len(self):,} characters to predict)"

    def under(self, vocab: Vocab) -> Part:
        """The same part in the symbols of another vocabulary; characters that it lacks become unknown.

        Where one of the vocabularies spells characters in bytes, spans begin and end at the same characters. The other
        bytes of the character before a span's first target are targets then, which `per_character` leaves out.
        """
        if vocab == self.text.vocab:
            return self
        text = Text(corpus=self.text.corpus.under(vocab), split=self.text.split)
        if len(text) == len(self.text):
            return Part(text=text, name=self.name, spans=self.spans)
        number = np.cumsum(_begins(self.text.corpus)) - 1  # of the character that each symbol belongs to
        starts = np.append(np.flatnonzero(_begins(text.corpus)), len(text))
        spans = np.stack([starts[number[self.spans[:, 0]]], starts[number[self.spans[:, 1] - 1] + 1]], axis=1)
        return Part(text=text, name=self.name, spans=spans)


def _begins(corpus: Corpus) -> NDArray[np.bool_]:
    """For each symbol whether it begins a character; an unknown one does."""
    return corpus.vocab.begins_character[np.maximum(corpus.ids.astype(np.int64), 0)] | (corpus.ids < 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Text:
    """A text, its vocabulary, and the parts of it that train, validate and test.

    Made by `read_text` from files, or by `Text.of` from a string.

    Args:
        corpus: the ids of the text, its vocabulary, its documents.
        split: which characters train, validate and test; None where all of it is read as one.

    >>> text = Text.of("abracadabra" * 100)
    >>> text
    Text('text', 1,100 characters, 5 symbols, split tail:80/10/10)
    >>> len(text.train), len(text.valid), len(text.test)
    (879, 109, 109)
    """

    corpus: Corpus
    split: Split | None

    @classmethod
    def of(
        cls,
        text: str | Sequence[str],
        *,
        split: str | Split | None = None,
        vocab: Vocab | None = None,
        name: str = "text",
        items: Literal["line"] | None = None,
        weights: Sequence[int] | None = None,
    ) -> Text:
        """A text from a string, or from a list of items.

        Args:
            text: its characters; a list of texts stands for items, each modelled by itself.
            split: as `--split` takes it; by default 90/5/5, and 80/10/10 under a million characters.
            vocab: encode by this vocabulary; characters that it lacks become unknown.
            name: what messages call it.
            items: `line` takes each line of the string as an item; empty lines are left out.
            weights: how often each item of a list counts, whole numbers; one of 0 leaves it out.

        Raises:
            TextError: the text is empty, or a weight is no whole number of 0 or more.
            OptionError: the split cannot be read, or weights without a list of items, or not one for each.

        >>> names = Text.of(["ada", "bob", "eve"] * 9, split="34/33/33")
        >>> len(names.all), len(set(str(names.train).split()))  # equal items are never on both sides
        (108, 1)
        """
        if isinstance(text, str) and items is None:
            if weights is not None:
                raise OptionError("weights say how often each item of a list counts: give a list of items")
            corpus = corpus_of_text(text, vocab=vocab, name=name)
        else:
            listed = [line for line in text.split("\n") if line] if isinstance(text, str) else list(text)
            corpus = corpus_of_items(listed, weights, vocab=vocab, name=name)
        return cls(corpus=corpus, split=split_of(corpus, split))

    @property
    def vocab(self) -> Vocab:
        """The symbols of the text."""
        return self.corpus.vocab

    @property
    def title(self) -> str:
        """The name of the text, or of the first of several files."""
        return self.corpus.title

    def __len__(self) -> int:
        return len(self.corpus)

    def __str__(self) -> str:
        return self.vocab.decode(self.corpus.ids)

    def __repr__(self) -> str:
        split = "no split" if self.split is None else f"split {self.split}"
        return f"Text({self.title!r}, {len(self):,} characters, {len(self.vocab)} symbols, {split})"

    @cached_property
    def parts(self) -> dict[str, Spans]:
        """The spans of train, valid and test; a text too short for its split is refused."""
        if self.split is None:
            raise OptionError(f"{self.title} was read without a split, so it has only the part `all`")
        return self.corpus.parts(self.split)

    def part(self, name: str) -> Part:
        """The part `train`, `valid`, `test` or `all`.

        Raises:
            OptionError: there is no such part.
            TextError: the part has no character to predict.
        """
        if name not in (*PARTS, "all"):
            raise OptionError(f"a text has the parts train, valid, test and all, not {name!r}")
        spans = self.corpus.documents if name == "all" else self.parts[name]
        if not count_targets(spans):
            if name == "all" or self.split is None:
                raise TextError(f"{self.title} has no character to predict: the first one is context alone")
            raise TextError(
                f"the split {self.split} gives {self.title} no {name} part: name another part or another --split"
            )
        return Part(text=self, name=name, spans=spans)

    @property
    def train(self) -> Part:
        """The part that models are made from."""
        return self.part("train")

    @property
    def valid(self) -> Part:
        """The part that choices are made on, such as when to stop training."""
        return self.part("valid")

    @property
    def test(self) -> Part:
        """The part that figures are reported on."""
        return self.part("test")

    @property
    def all(self) -> Part:
        """The whole text."""
        return self.part("all")

    @property
    def reported(self) -> Part:
        """The part that figures are reported on: test, else valid where there is no test part, else all."""
        if self.split is None:
            return self.all
        name = next((name for name in ("test", "valid") if count_targets(self.parts[name])), None)
        if name is None:
            raise TextError(f"the split {self.split} holds no part of {self.title} out: name the part to measure")
        return self.part(name)


def as_text(text: object) -> Text:
    """The text itself; anything else, such as the name of a file, is refused.

    >>> as_text("data/shakespeare.txt")
    Traceback (most recent call last):
    charlm.errors.OptionError: a text is what charlm.read_text or charlm.Text.of returns, not str
    """
    if not isinstance(text, Text):
        raise OptionError(f"a text is what charlm.read_text or charlm.Text.of returns, not {type(text).__name__}")
    return text


def read_text(
    paths: str | Path | Sequence[str | Path],
    *,
    split: str | Split | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    encoding: str | None = None,
    newlines: Literal["keep", "normalise"] | None = None,
    bytes: bool | None = None,
    vocab_size: int | None = None,
    items: str | None = None,
    weights: str | None = None,
    like: HasSource | None = None,
    vocab: Vocab | None = None,
    streamed: bool = False,
    progress: bool | None = None,
) -> Text:
    """Reads one or more files, a directory of files, or standard input (`-`) as one text.

    Args:
        paths: what to read, in this order; each file is a document.
        split: as `--split` takes it; by default 90/5/5, and 80/10/10 under a million characters.
        valid, test: files of their own for these parts, instead of a split.
        encoding: how the files' bytes spell characters; by default UTF-8.
        newlines: `keep` Windows line ends (the default) or `normalise` them to line feeds.
        bytes: take the files as raw bytes.
        vocab_size: keep so many of the most frequent characters and spell the others in bytes.
        items: `line` reads a list whose lines are independent items, `column:NAME` the items of a table (CSV, TSV, JSON
            Lines, Parquet). Each is modelled by itself; the split is by item, and equal items are in one part.
        weights: the column of such a table that says how often each item counts.
        like: read as this model's own text was but for the options that are given, in the model's vocabulary; the
            split is the model's for the model's own text, and none (only the part `all`) for another one.
        vocab: encode by this vocabulary instead of the text's own.
        streamed: read through a file on disk even where the text would fit into memory.
        progress: show a bar for big texts; None shows it on a terminal or in a notebook.

    Raises:
        TextError: a file that is missing, empty, packed, or not of the encoding; the message says the way out.
        OptionError: options that do not go together.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory) / "names.txt"
    ...     _ = path.write_text("anna\\nbob\\n" * 50)
    ...     text = read_text(path, split="80/10/10")
    >>> len(text), text.vocab.characters
    (450, ('\\n', 'a', 'b', 'n', 'o'))
    """
    given: dict[str, Any] = {"encoding": encoding, "newlines": newlines, "bytes": bytes, "vocab_size": vocab_size}
    reading = Reading() if like is None else like.source.reading
    reading = replace(reading, **{name: value for name, value in given.items() if value is not None})
    if items is not None or weights is not None:
        reading = replace(reading, items=items or reading.items, weights=weights)
    vocab = vocab if like is None else like.vocab
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    held_out = [name for name in (valid, test) if name is not None]
    if held_out and split is not None:
        raise OptionError("--split divides TEXT itself: it does not go with --valid and --test")
    with bytes_bar("reading", show=progress) as tell:
        held = len(held_out) or split or (None if like is None else like.source.split)
        corpus = read_corpus([*named, *held_out], reading, vocab=vocab, progress=tell, streamed=streamed, held_out=held)
    if vocab is None:
        hint_at_newlines(corpus.title, reading, corpus.vocab.characters)
    if held_out:
        return Text(corpus=corpus, split=split_by_files(corpus, named, valid, test))
    if like is not None and split is None:
        own = like.source.sha256 == corpus.sha256 and like.source.reading.items == reading.items
        return Text(corpus=corpus, split=like.source.split if own else None)
    return Text(corpus=corpus, split=split_of(corpus, split))
