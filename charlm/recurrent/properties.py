"""Properties of positions in a text that units may follow: in quotes, in brackets, far into a line, in a formula.

A property is a number for each position. It describes the situation after the character there has been read: an opening
quotation mark is inside the quotes, a closing one is not. A unit, which has read the same characters, can know it.
Axes: T positions; every function takes code points uint32[T].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.vocab import Vocab, code_points

Codes = NDArray[np.uint32]
Marks = NDArray[np.bool_]
Counts = NDArray[np.int64]
_MISSING = 0xFFFD


@dataclass(frozen=True)
class Property:
    """A property of positions.

    Args:
        name: a few words, which end the sentence "this unit follows ...".
        of: maps code points [T] to values [T]: bool, or a number where a position can have more or less of it.
    """

    name: str
    of: Callable[[Codes], NDArray[Any]]


def code_points_of(vocab: Vocab, ids: NDArray[Any]) -> Codes:
    """The code point of each symbol; U+FFFD for an unknown one and for a byte that is no character alone.

    >>> code_points_of(Vocab.of("ab"), np.array([1, -1])).tolist()
    [98, 65533]
    """
    known = [ord(character) for character in vocab.characters]
    rest = [value if value < 0x80 else _MISSING for value in range(len(vocab) - len(known))]
    table = np.array([*known, *rest, _MISSING], dtype=np.uint32)
    return table[np.asarray(ids, dtype=np.int64)]  # -1 is the last one


def symbols_of(vocab: Vocab, ids: NDArray[Any]) -> list[str]:
    """How each symbol is shown, so that all of them together are the text.

    A character that is spelled in several bytes stands at its last byte and the others show nothing; what spells no
    character, and what the vocabulary does not hold, is U+FFFD.

    >>> symbols_of(Vocab.of_bytes(), np.frombuffer("né".encode(), dtype=np.uint8))
    ['n', '', 'é']
    """
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    size = len(vocab.characters)
    shown: list[str] = []
    for id in np.asarray(ids).tolist():
        if id >= size:
            shown.append(decoder.decode(bytes([id - size])))
        else:
            broken = decoder.decode(b"", True)
            decoder.reset()
            shown.append(broken + (vocab.characters[id] if id >= 0 else chr(_MISSING)))
    broken = decoder.decode(b"", True)
    return [*shown[:-1], shown[-1] + broken] if shown else []


def find(codes: Codes, pattern: str) -> Marks:
    """Where a pattern ends, bool[T].

    >>> find(code_points("aabaa"), "aa").tolist()
    [False, True, False, False, True]
    """
    found = np.ones(len(codes), dtype=np.bool_)
    for back, code in enumerate(code_points(pattern)[::-1].tolist()):
        found[back:] &= codes[: max(0, len(codes) - back)] == code
        found[:back] = False
    return found


def any_of(codes: Codes, *patterns: str) -> Marks:
    """Where one of some patterns ends, bool[T]."""
    found: Marks = np.logical_or.reduce([find(codes, pattern) for pattern in patterns])
    return found


def unescaped(codes: Codes, pattern: str) -> Marks:
    r"""Where a pattern ends that has no backslash before it, bool[T]; `\\\\[` is a line break and no formula."""
    return find(codes, pattern) & ~find(codes, "\\" + pattern)


def last_place(marks: Marks) -> Counts:
    """The position of the last mark up to each position, -1 before the first."""
    return np.maximum.accumulate(np.where(marks, np.arange(len(marks)), -1))


def since(marks: Marks) -> Counts:
    """How many characters ago the last mark was; before the first, how many characters the text has had.

    >>> since(np.array([False, False, True, False])).tolist()
    [1, 2, 0, 1]
    """
    return np.arange(len(marks)) - last_place(marks)


def between(opens: Marks, closes: Marks) -> Marks:
    """Whether the last mark was an opening one; a position that has both kinds counts as opening."""
    return last_place(opens) > np.where(opens, -2, last_place(closes))


def depth(opens: Marks, closes: Marks, forget: Marks | None = None) -> Counts:
    """How many brackets are open; one that closes nothing is ignored, and after `forget` none is open.

    >>> marks = code_points("a)b((c)d")
    >>> depth(find(marks, "("), find(marks, ")")).tolist()
    [0, 0, 0, 1, 2, 2, 1, 1]
    """
    level = np.cumsum(opens.astype(np.int64) - closes)
    if forget is None:
        forget = np.zeros(len(level), dtype=np.bool_)
    stretch = np.cumsum(forget) * (2 * len(level) + 1)  # so that each stretch begins below all before it
    floor = np.minimum.accumulate(np.where(forget | (stretch > 0), level, np.minimum(level, 0)) - stretch) + stretch
    open_T: Counts = level - floor
    return open_T


def odd(marks: Marks, forget: Marks) -> Marks:
    """Whether an odd number of marks came since the last `forget`."""
    count = np.append(np.cumsum(marks), 0)  # place -1: no mark before the text
    left_T: Marks = (count[:-1] - count[last_place(forget)]) % 2 == 1
    return left_T


def _positive(counts: Counts) -> Marks:
    return counts > 0


def blank_line(codes: Codes) -> Marks:
    """Where a blank line ends."""
    return any_of(codes, "\n\n", "\n\r\n")


def _letters(codes: Codes) -> Marks:
    points, back = np.unique(codes, return_inverse=True)
    letters: Marks = np.array([chr(point).isalpha() for point in points.tolist()], dtype=np.bool_)[back]
    return letters


def _upper(codes: Codes) -> Marks:
    points, back = np.unique(codes, return_inverse=True)
    upper: Marks = np.array([chr(point).isupper() for point in points.tolist()], dtype=np.bool_)[back]
    return upper


def in_quotes(codes: Codes) -> Marks:
    """Inside double quotes, straight or curly; a blank line ends them, as a paragraph opens its own."""
    forget = blank_line(codes)
    curly = depth(find(codes, "\u201c"), find(codes, "\u201d"), forget) > 0
    return odd(find(codes, '"'), forget) | curly


def brackets(codes: Codes, pair: str) -> Counts:
    """The depth in one kind of bracket; round and square ones are forgotten at a blank line, curly ones are not."""
    forget = None if pair == "{}" else blank_line(codes)
    return depth(find(codes, pair[0]), find(codes, pair[1]), forget)


def nesting(codes: Codes) -> Counts:
    """How many brackets of any kind are open."""
    return brackets(codes, "()") + brackets(codes, "[]") + brackets(codes, "{}")


def in_environment(codes: Codes) -> Marks:
    r"""Between \begin{...} and \end{...}, of any environment but the document."""
    opens, closes = find(codes, "\\begin{"), find(codes, "\\end{")
    for marks, name in ((opens, "\\begin{"), (closes, "\\end{")):
        whole = find(codes, name + "document}")
        marks[np.flatnonzero(whole) - len("document}")] = False
    return _positive(depth(opens, closes))


def in_formula(codes: Codes) -> Marks:
    r"""Inside $...$, $$...$$, \(...\) or \[...\]; a blank line ends a formula, as TeX has it."""
    forget = blank_line(codes)
    dollars = unescaped(codes, "$")
    twins = find(codes, "$$")
    dollars &= ~(twins & ~np.append(False, twins[:-1]))  # of two in a row the first one counts
    opens = unescaped(codes, "\\[") | unescaped(codes, "\\(")
    closes = unescaped(codes, "\\]") | unescaped(codes, "\\)")
    return odd(dollars, forget) | (depth(opens, closes, forget) > 0)


def in_command(codes: Codes) -> Marks:
    r"""In the name of a LaTeX command: the letters after a backslash."""
    letters = _letters(codes)
    started = last_place(find(codes, "\\"))
    named: Marks = letters & (started >= 0) & (started == last_place(~letters))
    return named


def in_comment(codes: Codes) -> Marks:
    """Between a per cent sign and the end of its line."""
    return between(unescaped(codes, "%"), find(codes, "\n"))


def in_tag(codes: Codes) -> Marks:
    """Inside <...>, where a letter, a slash, ! or ? follows the < at once."""
    follows = np.append(_letters(codes) | any_of(codes, "/", "!", "?"), False)[1:]
    return between(find(codes, "<") & follows, find(codes, ">"))


def _name_lines(codes: Codes) -> Counts:
    """(start, end) of lines that name a speaker, int64[n, 2]: a blank line before, a capital first, a colon last."""
    ends = np.flatnonzero(np.append(codes, ord("\n")) == ord("\n"))
    starts = np.append(0, ends[:-1] + 1)
    free = np.append(True, starts[1:] - starts[:-1] <= 1)  # the line before is empty
    filled = (ends - starts > 1) & (ends - starts <= 40) & free
    starts, ends = starts[filled], ends[filled]
    good = _upper(codes)[starts] & (codes[ends - 1] == ord(":"))
    return np.stack([starts[good], ends[good]], axis=1).astype(np.int64)


def on_speakers_name(codes: Codes) -> Marks:
    """On a line such as `NAME:` that says who speaks."""
    step = np.zeros(len(codes) + 1, dtype=np.int64)
    starts, ends = _name_lines(codes).T
    step[starts] += 1
    step[ends] -= 1
    return _positive(np.cumsum(step)[:-1])


def in_speech(codes: Codes) -> Marks:
    """From the line after a speaker's name to the next blank line."""
    opens = np.zeros(len(codes) + 1, dtype=np.bool_)
    opens[_name_lines(codes)[:, 1]] = True
    return between(opens[:-1], blank_line(codes))


def in_capitals(codes: Codes) -> Marks:
    """At the second or a later one of capital letters in a row."""
    upper = _upper(codes)
    run: Marks = upper & np.append(False, upper[:-1])
    return run


PROPERTIES: tuple[Property, ...] = (
    Property("position in the line", lambda codes: since(find(codes, "\n"))),
    Property("position in the paragraph", lambda codes: since(blank_line(codes))),
    Property("position in the word", lambda codes: since(~_letters(codes))),
    Property("inside double quotes", in_quotes),
    Property("inside ( )", lambda codes: brackets(codes, "()") > 0),
    Property("inside [ ]", lambda codes: brackets(codes, "[]") > 0),
    Property("inside { }", lambda codes: brackets(codes, "{}") > 0),
    Property("two or more brackets deep", lambda codes: nesting(codes) > 1),
    Property("in a LaTeX environment", in_environment),
    Property("in a formula", in_formula),
    Property("in a LaTeX command's name", in_command),
    Property("in a comment after %", in_comment),
    Property("in a tag < >", in_tag),
    Property("on a speaker's name", on_speakers_name),
    Property("in a speech", in_speech),
    Property("in a run of capitals", in_capitals),
)
"""What units are searched for, by name."""
