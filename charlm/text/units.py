"""Units of a text: words, sentences and tokens inside it, and the items of a collection.

Words, sentences and given tokens: where they begin, so that every character belongs to exactly one of them.

Items are the texts of a collection (names, passwords, molecules, log lines), each modelled by itself: from a begin
state to an end mark. The line feed is both: every item is a span that begins with a line feed, which is context alone,
and ends with one, which is a target. Counts and states never cross a span. Items stand in an order that depends on
their content and not on the file, so that two files with the same lines in another order, or with a column of counts
in place of repeated lines, give the same corpus.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.display import follower
from charlm.errors import OptionError, TextError
from charlm.text.reading import Reading, decode, read_content
from charlm.text.splits import Spans
from charlm.text.tables import Table, table_of

_WORD, _APART = r"\S+", r"[\w'’\-]+|[^\w\s]+"
_ENDS = re.compile(r"[.!?…][\"'”’»)\]]*\Z")


def _check(space: str) -> None:
    if space not in ("before", "after"):
        raise OptionError(f"white space goes with the word 'before' or 'after' it, not {space!r}")


def word_starts(text: str, space: str = "before", *, apart: bool = False) -> list[int]:
    """Where words begin; white space at the end (or the beginning) of a text, with no word to go with, stands alone.

    Args:
        text: any text.
        space: `before`: a word includes the white space before it, as many tokens do; `after`: that behind it.
        apart: take runs of punctuation as words of their own.

    >>> word_starts("to be, or "), word_starts("to be, or ", "after"), word_starts("be, or", apart=True)
    ([0, 2, 6, 9], [0, 3, 7], [0, 2, 3])
    """
    _check(space)
    word = _APART if apart else _WORD
    pattern = rf"\s*(?:{word})|\s+" if space == "before" else rf"(?:{word})\s*|\s+"
    return [found.start() for found in re.finditer(pattern, text)]


def sentence_starts(text: str, space: str = "before") -> list[int]:
    r"""Where sentences begin: after a word that ends in `.`, `!`, `?` or `…`, quotes behind it counted to it, and after
    a blank line.

    >>> sentence_starts("He went. \"So?\" She\n\nAct II"), sentence_starts("He went. So", "after")
    ([0, 8, 14, 18], [0, 9])
    """
    _check(space)
    starts, ended, edge = [], True, 0
    for found in re.finditer(r"\S+", text):
        between = text[edge : found.start()]
        if ended or between.count("\n") > 1:
            starts.append(edge if space == "before" else found.start())
        ended, edge = _ENDS.search(found[0]) is not None, found.end()
    return starts if starts[:1] == [0] else [0, *starts]


def token_starts(text: str, tokens: Sequence[str], space: str = "before") -> list[int]:
    """Where tokens begin that were given, such as the words of a table of reading times.

    Args:
        text: has these tokens in this order, and nothing but white space between them.
        tokens: none of them empty.
        space: see `word_starts`.

    Raises:
        TextError: a token does not stand where it should, or text is left over.

    >>> token_starts("Well, to be", ["Well", ",", "to", "be"])
    [0, 4, 5, 8]
    """
    _check(space)
    starts, at = [], 0
    for number, token in enumerate(tokens, 1):
        begin = at
        while at < len(text) and text[at].isspace():
            at += 1
        if not token or not text.startswith(token, at):
            raise TextError(
                f"token {number} is {token[:30]!r}, but at character {at:,} the text goes on with {text[at : at + 9]!r}"
            )
        starts.append(begin if space == "before" else at)
        at += len(token)
    if text[at:].strip():
        raise TextError(f"after the last token the text goes on with {text[at:].strip()[:40]!r}")
    edge = [at] if space == "before" and at < len(text) else []
    return [*([] if starts[:1] == [0] else [0]), *starts, *edge]


def tokens_of(path: str | None) -> list[str] | None:
    """The tokens of a file, one a line; empty lines are passed over. None of no file."""
    if path is None:
        return None
    text = decode(read_content(Path(path)), Reading(newlines="normalise"), Path(path))
    return [line.strip() for line in text.split("\n") if line.strip()]


_log = logging.getLogger(__name__)

MOST = 1 << 30
"""Characters that a list may have once its counts are written out."""


def read_items(path: Path, reading: Reading, content: bytes | None = None) -> tuple[list[str], NDArray[np.int64]]:
    """The items of a file in its order, and how often each counts.

    Items with a count of 0 and empty ones are left out, and a warning of the logger `charlm` says how many.

    Args:
        path: a list with an item a line, or a table (CSV, TSV, JSON Lines, Parquet) with a header.
        reading: `items` is `line` or `column:NAME`; `weights` names the column of counts.
        content: the file's bytes, where they have been read.

    Raises:
        TextError: a column that is not there, an item with a line feed in it, a count that is no whole number.
    """
    content = read_content(path) if content is None else content
    name = "standard input" if str(path) == "-" else str(path)
    if reading.items == "line":
        lines = (content.decode("latin-1") if reading.bytes else decode(content, reading, path)).split("\n")
        items, counts = lines[:-1] if not lines[-1] else lines, None
    else:
        table = table_of(content, name, encoding="latin-1" if reading.bytes else reading.encoding)
        items = ["" if value is None else str(value) for value in table.column(reading.column)]
        if (wrong := next((row for row, item in enumerate(items) if "\n" in item), None)) is not None:
            where = table.place(wrong, reading.column)
            raise TextError(f"{where} has a line end in it, which is the end mark of an item: take it out")
        counts = None if reading.weights is None else _counts(table, reading.weights)
    whole = np.ones(len(items), np.int64) if counts is None else counts
    kept = [i for i, item in enumerate(items) if item and whole[i]]
    if len(kept) < len(items) and not follower():
        _log.warning("%d of %d items of %s are empty or count 0: left out", len(items) - len(kept), len(items), name)
    if not kept:
        raise TextError(f"{name} has no item in it: name a list with at least one line that is not empty")
    found, total = [items[i] for i in kept], whole[kept]
    if (size := int((np.array([len(item) + 1 for item in found]) * total).sum())) > MOST:
        raise TextError(
            f"{name} has {size:,} characters with its counts written out, more than {MOST:,}: divide the counts"
        )
    return found, total


def _counts(table: Table, column: str) -> NDArray[np.int64]:
    found = np.zeros(len(table), np.int64)
    for row, value in enumerate(table.column(column)):
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        if not 0 <= number < 1 << 53 or number != int(number):
            raise TextError(f"{table.place(row, column)} counts {value!r}: a weight is a whole number of 0 or more")
        found[row] = int(number)
    return found


def arranged(
    items: Sequence[str], counts: NDArray[np.int64], *, shuffle: bool = True, ends: Sequence[int] = ()
) -> tuple[list[str], NDArray[np.int64]]:
    """The items written out as often as they count, in an order of chance that depends on nothing but their content.

    Args:
        items: any texts.
        counts: how often each counts.
        shuffle: take that order; else the items stay in the order given.
        ends: where among the items lists end that stay apart, each in an order of its own.

    Returns:
        The items, and int64 numbers of them, equal for equal items; distinct items are numbered by a hash.

    >>> first = arranged(["ada", "bob", "ada"], np.array([1, 1, 1]))
    >>> second = arranged(["bob", "ada"], np.array([1, 2]))
    >>> first[0] == second[0], first[1].tolist() == second[1].tolist(), sorted(first[0])
    (True, True, ['ada', 'ada', 'bob'])
    """
    distinct = sorted(set(items), key=lambda item: (hashlib.blake2b(_spelled(item), digest_size=8).digest(), item))
    place = {item: number for number, item in enumerate(distinct)}
    number = np.repeat(np.array([place[item] for item in items], np.int64), counts)
    if shuffle:
        lists = np.split(number, np.cumsum(counts)[np.array(ends, np.int64) - 1])
        number = np.concatenate([np.sort(n)[np.random.default_rng(0).permutation(len(n))] for n in lists])
    return [distinct[i] for i in number.tolist()], number


def _spelled(item: str) -> bytes:
    return item.encode("utf-8", "surrogatepass")


def joined(items: Sequence[str]) -> str:
    r"""The text that holds these items, each between two line feeds; neighbours share one.

    >>> joined(["ada", "bob"])
    '\nada\nbob\n'
    """
    for item in items:
        if "\n" in item or not item:
            raise OptionError(f"the item {item[:40]!r} is empty or has a line end in it, which is the end mark")
    return "\n" + "\n".join(items) + "\n"


def item_spans(ids: NDArray[np.generic], newline: int) -> Spans:
    """The span of each item of such a text: from the line feed before it to the one that ends it.

    >>> item_spans(np.array([9, 1, 2, 9, 3, 9]), 9).tolist()
    [[0, 4], [3, 6]]
    """
    places = np.flatnonzero(ids == newline)
    return np.stack([places[:-1], places[1:] + 1], axis=1).astype(np.int64)
