"""What units are searched for: properties of positions in a text, and how well a unit follows one.

A property is a number for each position. It describes the situation after the character there has been read: an opening
quotation mark is inside the quotes, a closing one is not. A unit, which has read the same characters, can know it.

The current character alone decides much of a unit's value, so a unit is compared with a property among positions of the
same character only. Of all pairs of such positions of which one has the property and the other has not, the share in
which the unit is higher at the one that has it (a tie is half) is the area under the ROC curve within strata: Mann and
Whitney's statistic (1947; as an area Hanley and McNeil 1982) summed over strata. 1/2 is chance. A property with more or
less of it is taken as "more than the median of its character".

The unit is chosen on the first half of the text and reported on the second, so that the best of many is not flattered.
Beside it stands a control: the highest area of any unit on the second half when the property is shifted round by a
random large offset, which keeps how the property clusters and breaks its tie to the text.

Axes: T positions, U units, P properties, K shifts, N positions of one character; properties take code points uint32[T].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.lm.interface import OnRead
from charlm.recurrent.atlas import Atlas, Finding, Unit
from charlm.text.vocab import Vocab, code_points

Codes = NDArray[np.uint32]
Marks = NDArray[np.bool_]
Counts = NDArray[np.int64]


def code_points_of(vocab: Vocab, ids: NDArray[Any]) -> Codes:
    """The code point of each symbol; U+FFFD for an unknown one and for a byte that is no character alone.

    >>> code_points_of(Vocab.of("ab"), np.array([1, -1])).tolist()
    [98, 65533]
    """
    known = [ord(character) for character in vocab.characters]
    rest = [value if value < 0x80 else 0xFFFD for value in range(len(vocab) - len(known))]
    table = np.array([*known, *rest, 0xFFFD], dtype=np.uint32)
    return table[np.asarray(ids, dtype=np.int64)]  # -1 is the last one


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


def blank_line(codes: Codes) -> Marks:
    """Where a blank line ends."""
    return any_of(codes, "\n\n", "\n\r\n")


def _those(codes: Codes, test: Callable[[str], bool]) -> Marks:
    """Where the character passes a test."""
    points, back = np.unique(codes, return_inverse=True)
    passed: Marks = np.array([test(chr(point)) for point in points.tolist()], dtype=np.bool_)[back]
    return passed


def in_quotes(codes: Codes) -> Marks:
    """Inside double quotes, straight or curly; a blank line ends them, as a paragraph opens its own."""
    forget = blank_line(codes)
    curly = depth(find(codes, "\u201c"), find(codes, "\u201d"), forget) > 0
    return odd(find(codes, '"'), forget) | curly


def brackets(codes: Codes, pair: str) -> Counts:
    """The depth in one kind of bracket; round and square ones are forgotten at a blank line, curly ones are not."""
    forget = None if pair == "{}" else blank_line(codes)
    return depth(find(codes, pair[0]), find(codes, pair[1]), forget)


def in_environment(codes: Codes) -> Marks:
    r"""Between \begin{...} and \end{...}, of any environment but the document."""
    opens, closes = find(codes, "\\begin{"), find(codes, "\\end{")
    for marks, name in ((opens, "\\begin{"), (closes, "\\end{")):
        whole = find(codes, name + "document}")
        marks[np.flatnonzero(whole) - len("document}")] = False
    inside: Marks = depth(opens, closes) > 0
    return inside


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
    letters = _those(codes, str.isalpha)
    started = last_place(find(codes, "\\"))
    named: Marks = letters & (started >= 0) & (started == last_place(~letters))
    return named


def in_tag(codes: Codes) -> Marks:
    """Inside <...>, where a letter, a slash, ! or ? follows the < at once."""
    follows = np.append(_those(codes, str.isalpha) | any_of(codes, "/", "!", "?"), False)[1:]
    return between(find(codes, "<") & follows, find(codes, ">"))


def _name_lines(codes: Codes) -> Counts:
    """(start, end) of lines that name a speaker, int64[n, 2]: a blank line before, a capital first, a colon last."""
    ends = np.flatnonzero(np.append(codes, ord("\n")) == ord("\n"))
    starts = np.append(0, ends[:-1] + 1)
    free = np.append(True, starts[1:] - starts[:-1] <= 1)  # the line before is empty
    filled = (ends - starts > 1) & (ends - starts <= 40) & free
    starts, ends = starts[filled], ends[filled]
    good = _those(codes, str.isupper)[starts] & (codes[ends - 1] == ord(":"))
    return np.stack([starts[good], ends[good]], axis=1).astype(np.int64)


def on_speakers_name(codes: Codes) -> Marks:
    """On a line such as `NAME:` that says who speaks."""
    step = np.zeros(len(codes) + 1, dtype=np.int64)
    starts, ends = _name_lines(codes).T
    step[starts] += 1
    step[ends] -= 1
    on: Marks = np.cumsum(step)[:-1] > 0
    return on


def in_speech(codes: Codes) -> Marks:
    """From the line after a speaker's name to the next blank line."""
    opens = np.zeros(len(codes) + 1, dtype=np.bool_)
    opens[_name_lines(codes)[:, 1]] = True
    return between(opens[:-1], blank_line(codes))


def in_capitals(codes: Codes) -> Marks:
    """At the second or a later one of capital letters in a row."""
    upper = _those(codes, str.isupper)
    run: Marks = upper & np.append(False, upper[:-1])
    return run


PROPERTIES: dict[str, Callable[[Codes], NDArray[Any]]] = {
    "position in the line": lambda codes: since(find(codes, "\n")),
    "position in the paragraph": lambda codes: since(blank_line(codes)),
    "position in the word": lambda codes: since(~_those(codes, str.isalpha)),
    "inside double quotes": in_quotes,
    "inside ( )": lambda codes: brackets(codes, "()") > 0,
    "inside [ ]": lambda codes: brackets(codes, "[]") > 0,
    "inside { }": lambda codes: brackets(codes, "{}") > 0,
    "two or more brackets deep": lambda codes: (
        brackets(codes, "()") + brackets(codes, "[]") + brackets(codes, "{}") > 1
    ),
    "in a LaTeX environment": in_environment,
    "in a formula": in_formula,
    "in a LaTeX command's name": in_command,
    "in a comment after %": lambda codes: between(unescaped(codes, "%"), find(codes, "\n")),
    "in a tag < >": in_tag,
    "on a speaker's name": on_speakers_name,
    "in a speech": in_speech,
    "in a run of capitals": in_capitals,
}
"""What units are searched for, by words that end the sentence "this unit follows ...": code points [T] give values [T],
bool, or a number where a position can have more or less of it."""

_BLOCK = 256
"""Units that are ranked at once."""
_SHIFTS = 19
"""How many times a property is shifted: a unit above the control is one at the 5 % level."""


def areas(
    values_UT: NDArray[Any],
    strata_T: NDArray[Any],
    properties_PT: NDArray[Any],
    shifts_K: Sequence[int] = (0,),
    progress: OnRead | None = None,
) -> NDArray[np.float64]:
    """The area under the ROC curve within strata of every unit for every property, [K, P, U].

    Args:
        values_UT: the units.
        strata_T: pairs are taken within positions of one value of this.
        properties_PT: what a position has more of than the median of its stratum counts as having it; of a property
            that is 0 or 1 this is meant as it is.
        shifts_K: how far round the properties are shifted, each in turn.
        progress: called with the number of positions after each stratum.

    Returns:
        NaN for a property that no two positions of one stratum differ in.

    >>> unit = np.array([[0.1, 0.9, 0.5, 0.2]])  # one pair in each stratum; the unit is right about the first
    >>> areas(unit, np.array([7, 7, 8, 8]), np.array([[0, 1, 0, 1]])).tolist()
    [[[0.5]]]
    """
    from scipy.stats import rankdata

    length, kinds = values_UT.shape[1], len(properties_PT)
    graded = properties_PT.max(axis=1) > 1
    won = np.zeros((len(shifts_K) * kinds, len(values_UT)))
    pairs = np.zeros(len(won))
    order = np.argsort(strata_T, kind="stable")
    cuts = np.flatnonzero(np.diff(strata_T[order])) + 1
    for places_N in np.split(order, cuts):
        sources_KN = (places_N + np.asarray(shifts_K)[:, None]) % length
        marks_KPN = np.moveaxis(properties_PT[:, sources_KN], 0, 1).astype(np.float64)
        median = np.median(marks_KPN[:, graded], axis=-1, keepdims=True)
        marks_KPN[:, graded] = marks_KPN[:, graded] > median
        marks = marks_KPN.reshape(len(won), -1)
        has = marks.sum(-1)
        pairs += has * (len(places_N) - has)
        if not ((has > 0) & (has < len(places_N))).any():
            continue
        for start in range(0, len(values_UT), _BLOCK):
            ranks_UN = rankdata(values_UT[start : start + _BLOCK, places_N].astype(np.float32), axis=-1)
            won[:, start : start + _BLOCK] += marks @ (ranks_UN - (len(places_N) + 1) / 2).T
        if progress is not None:
            progress(len(places_N))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 0.5 + won / pairs[:, None]
    return found.reshape(len(shifts_K), kinds, len(values_UT))


def search(
    atlas: Atlas, vocab: Vocab, *, best: int = 3, seed: int = 0, progress: OnRead | None = None
) -> list[Finding]:
    """The units that follow each property best, the surest first; what the text has too little of is passed over.

    Args:
        atlas: what was read.
        vocab: of the model.
        best: how many units are kept for each property.
        seed: of the shifts.
        progress: called with numbers of positions that were ranked, at most T in all.
    """
    length = len(atlas.ids)
    half = length // 2
    if half < 2:
        return []
    codes = code_points_of(vocab, atlas.ids)
    found = {name: np.asarray(values_of(codes), dtype=np.float32) for name, values_of in PROPERTIES.items()}
    kept = {name: values_T for name, values_T in found.items() if _enough(values_T[:half]) and _enough(values_T[half:])}
    if not kept:
        return []
    values_PT, offsets = np.stack(list(kept.values())), _offsets(length - half, seed)
    searched_PU = areas(atlas.values_UT[:, :half], atlas.ids[:half], values_PT[:, :half], progress=progress)[0]
    shifted_KPU = areas(
        atlas.values_UT[:, half:], atlas.ids[half:], values_PT[:, half:], (0, *offsets), progress=progress
    )
    findings: list[Finding] = []
    for p, name in enumerate(kept):
        if not np.isnan(searched_PU[p]).any() and not np.isnan(shifted_KPU[:, p]).any():
            findings += _best(atlas.units, name, searched_PU[p], shifted_KPU[:, p], best)
    return sorted(findings, key=lambda finding: (-finding.found, -finding.area))


def _enough(values_T: NDArray[np.float32], stretches: int = 4) -> bool:
    """Whether a property comes and goes a few times here."""
    above = values_T > np.median(values_T)
    if above.all() or not above.any():
        above = values_T > values_T.min()
    return int((np.diff(above.astype(np.int8)) != 0).sum()) >= 2 * stretches


def _offsets(length: int, seed: int) -> list[int]:
    """Offsets between a tenth and nine tenths of the way round."""
    low = max(1, length // 10)
    drawn = np.random.default_rng(seed).integers(low, max(low + 1, length - low), size=_SHIFTS)
    return [int(offset) for offset in drawn]


def _best(
    units: Sequence[Unit], name: str, searched_U: NDArray[np.float64], shifted_KU: NDArray[np.float64], best: int
) -> list[Finding]:
    """The findings about one property; of a unit's two signals the better one."""
    control = float(0.5 + np.abs(shifted_KU[1:] - 0.5).max(initial=0))
    found: dict[tuple[int, int], Finding] = {}
    for u in np.argsort(-np.abs(searched_U - 0.5), kind="stable").tolist():
        unit, rises = units[u], bool(searched_U[u] >= 0.5)
        area, chosen = (float(value) if rises else 1 - float(value) for value in (shifted_KU[0, u], searched_U[u]))
        finding = Finding(unit=unit, follows=name, area=area, rises=rises, control=control, searched=chosen)
        found.setdefault((unit.layer, unit.number), finding)
    return list(found.values())[:best]
