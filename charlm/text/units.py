"""Units of a text: words, sentences and tokens inside it, the items of a collection, and the passages that it repeats.

Words, sentences and given tokens: where they begin, so that every character belongs to exactly one of them.

Items are the texts of a collection (names, passwords, molecules, log lines), each modelled by itself: from a begin
state to an end mark. The line feed is both: every item is a span that begins with a line feed, which is context alone,
and ends with one, which is a target. Counts and states never cross a span. Items stand in an order that depends on
their content and not on the file, so that two files with the same lines in another order, or with a column of counts
in place of repeated lines, give the same corpus.

Passages are all strings of a length. Which of them occur twice, or in two parts, is found by fingerprints.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import follower
from charlm.errors import OptionError, TextError
from charlm.text.reading import Reading, decode, read_content, shown
from charlm.text.splits import Spans, slices
from charlm.text.tables import table_of
from charlm.text.vocab import Ids

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
    name = shown(path)
    if reading.items == "line":
        lines = (content.decode("latin-1") if reading.bytes else decode(content, reading, path)).split("\n")
        items, counts = lines[:-1] if not lines[-1] else lines, None
    else:
        table = table_of(content, name, encoding="latin-1" if reading.bytes else reading.encoding)
        items = ["" if value is None else str(value) for value in table.column(reading.column)]
        if (wrong := next((row for row, item in enumerate(items) if "\n" in item), None)) is not None:
            where = table.place(wrong, reading.column)
            raise TextError(f"{where} has a line end in it, which is the end mark of an item: take it out")
        by = reading.weights
        counts = None if by is None else whole_counts(table.column(by), partial(table.place, column=by))
    whole = np.ones(len(items), np.int64) if counts is None else counts
    kept = [i for i, item in enumerate(items) if item and whole[i]]
    if len(kept) < len(items) and not follower():
        _log.warning("%d of %d items of %s are empty or count 0: left out", len(items) - len(kept), len(items), name)
    found, total = [items[i] for i in kept], whole[kept]
    _check_amount(found, total, name)
    return found, total


def _check_amount(items: Sequence[str], counts: NDArray[np.int64], name: str) -> None:
    if not counts.any():
        raise TextError(f"{name} has no item in it: at least one of them is not empty and counts 1 or more")
    if (size := sum((len(item) + 1) * count for item, count in zip(items, counts.tolist(), strict=True))) > MOST:
        raise TextError(
            f"{name} has {size:,} characters with its counts written out, more than {MOST:,}: divide the counts"
        )


def whole_counts(values: Iterable[Any], place: Callable[[int], str]) -> NDArray[np.int64]:
    """Values that are weights, whole numbers of 0 or more; `place` names a row in the sentence that refuses it.

    >>> whole_counts(["2", 3.0], str).tolist()
    [2, 3]
    """
    found = []
    for row, value in enumerate(values):
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        if not 0 <= number < 1 << 53 or number != int(number):
            shown = value.item() if isinstance(value, np.generic) else value
            raise TextError(f"{place(row)} counts {shown!r}: a weight is a whole number of 0 or more")
        found.append(int(number))
    return np.array(found, np.int64)


def item_weights(items: Sequence[str], weights: Any, name: str) -> NDArray[np.int64]:
    """How often each item of a list counts, checked as a table's column of counts is.

    >>> item_weights(["ada", "bob"], [2, 0], "names").tolist()
    [2, 0]
    """
    given = [*weights]
    if len(given) != len(items):
        raise OptionError(f"{name} has {len(items):,} items and {len(given):,} weights: give a weight for each item")
    counts = whole_counts(given, lambda place: f"item {place + 1} of {name}")
    _check_amount(items, counts, name)
    return counts


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
    hashes = {item: hashlib.blake2b(item.encode("utf-8", "surrogatepass"), digest_size=8).digest() for item in items}
    distinct = sorted(hashes, key=lambda item: (hashes[item], item))
    place = {item: number for number, item in enumerate(distinct)}
    number = np.repeat(np.array([place[item] for item in items], np.int64), counts)
    if shuffle:
        lists = np.split(number, np.cumsum(counts)[np.array(ends, np.int64) - 1])
        number = np.concatenate([np.sort(n)[np.random.default_rng(0).permutation(len(n))] for n in lists])
    return [distinct[i] for i in number.tolist()], number


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


# -- passages ----------------------------------------------------------------------------------------------------------

_Places = tuple[NDArray[np.int64], ...]


def distinct_share(ids: Ids, spans: Spans, length: int = 40) -> float:
    """How many different passages of `length` characters there are, as a share of all passages of that length.

    >>> distinct_share(np.array([1, 2, 1, 2, 1, 2]), np.array([[0, 6]]), 2)  # 12, 21, 12, 21, 12
    0.4
    """
    prints = _prints(ids)(starts_in(spans, length), length)
    return len(np.unique(prints)) / len(prints) if len(prints) else 1.0


def longest_repeat(ids: Ids, spans: Spans) -> tuple[int, int]:
    """The length of the longest passage that occurs twice (it may overlap itself), and where it begins first.

    >>> longest_repeat(np.array([1, 2, 3, 9, 1, 2, 3, 8]), np.array([[0, 8]]))
    (3, 0)
    """
    prints = _prints(ids)
    ends = _ends(spans)

    def repeated(length: int, starts: _Places) -> _Places | None:
        at = starts[0][starts[0] + length <= ends[starts[0]]]
        found = prints(at, length)
        _, number, count = np.unique(found, return_inverse=True, return_counts=True)
        twice = count[number] > 1
        return (at[twice],) if twice.any() else None

    length, (places,) = _longest(repeated, (starts_in(spans, 1),))
    return length, int(places[0]) if length else 0


def longest_shared(ids: Ids, first: Spans, second: Spans) -> tuple[int, int]:
    """The length of the longest passage that both lists of spans have, and where it begins in the second.

    >>> ids = np.array([1, 2, 3, 4, 9, 2, 3, 4, 5])
    >>> longest_shared(ids, np.array([[0, 4]]), np.array([[4, 9]]))
    (3, 5)
    """
    prints = _prints(ids)
    ends = [_ends(spans) for spans in (first, second)]

    def shared(length: int, starts: _Places) -> _Places | None:
        places = [at[at + length <= end[at]] for at, end in zip(starts, ends, strict=True)]
        mine, theirs = (prints(at, length) for at in places)
        hit = np.isin(theirs, mine)
        return (places[0][np.isin(mine, theirs[hit])], places[1][hit]) if hit.any() else None

    length, (_, places) = _longest(shared, (starts_in(first, 1), starts_in(second, 1)))
    return length, int(places[0]) if length else 0


def shared_share(ids: Ids, first: Spans, second: Spans, length: int = 40) -> float:
    """The share of the second spans' passages of `length` characters that occur in the first ones too."""
    prints = _prints(ids)
    held_out, known = (prints(starts_in(spans, length), length) for spans in (second, first))
    return float(np.isin(held_out, known).mean()) if len(held_out) else 0.0


def _longest(attempt: Callable[[int, _Places], _Places | None], places: _Places) -> tuple[int, _Places]:
    """The greatest length that `attempt` finds, and its places: by doubling, then by bisection.

    A longer passage can only begin where a shorter one was found: every success leaves fewer places.
    """
    low, high = 0, 16
    while (found := attempt(high, places)) is not None:
        low, high, places = high, high * 2, found
    while high - low > 1:
        middle = (low + high) // 2
        found = attempt(middle, places)
        if found is None:
            high = middle
        else:
            low, places = middle, found
    return low, places


def _ends(spans: Spans) -> NDArray[np.int64]:
    """For each position of the text the end of the span it lies in, 0 outside all of them."""
    ends = np.zeros(int(spans[:, 1].max(initial=0)), dtype=np.int64)
    ends[starts_in(spans, 1)] = np.repeat(spans[:, 1], spans[:, 1] - spans[:, 0])
    return ends


def starts_in(spans: Spans, length: int) -> NDArray[np.int64]:
    """Where a passage of `length` characters can begin without leaving its span."""
    return slices(spans[:, 0], np.maximum(spans[:, 1] - spans[:, 0] - length + 1, 0))


def _prints(ids: Ids) -> Callable[[NDArray[np.int64], int], NDArray[np.uint64]]:
    """The 64-bit fingerprints of a text's passages, by where they begin and their length, in a few vectorised steps.

    A passage's fingerprint is the sum of its characters' random numbers times rising powers of an odd base,
    modulo 2^64, read off one array of prefix sums and made independent of the place by the inverse power. Two
    different passages agree with a chance of about 2^-64 a pair.
    """
    base = 0x9E3779B97F4A7C15
    powers, inverse = np.full((2, len(ids)), [[base], [pow(base, -1, 1 << 64)]], dtype=np.uint64)
    for steps in (powers, inverse):
        steps[:1] = 1
        np.cumprod(steps, out=steps)
    numbers = np.random.default_rng(0x63686172).integers(0, 1 << 64, int(ids.max(initial=0)) + 2, dtype=np.uint64)
    sums = np.append(np.zeros(1, np.uint64), np.cumsum(numbers[ids.astype(np.int64) + 1] * powers, dtype=np.uint64))
    return lambda starts, length: np.asarray((sums[starts + length] - sums[starts]) * inverse[starts])
