"""What contexts are made of: the past of one lane, in plain Python.

`adaptive.c` says the same (`move` and `expect`); `formulas.py` is what goes on with it. All numbers are kept in the
array `now`, so that the compiled code and this one go on from each other's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

CONTEXTS, MATCHES, LENGTHS = 32, 2, 32
SHORTEST, WORD64 = (5, 10), (1 << 64) - 1

(COUNT, WORD, WORD1, WORD2, LINE, LINE1, IN_WORD, FIRST, FIRST1, KINDS, SPEAKER, LINE_HASH, WORDS, SENTENCE, LINE_WORDS,
 AFTER, SKELETON, LINE_LENGTH, LINES, MATCH) = range(20)  # fmt: skip
LENGTH, HASH = MATCH + MATCHES, MATCH + 2 * MATCHES

Floats = NDArray[np.float64]


def mixed(a: int, b: int) -> int:
    """A hash of two numbers, of which all that counts is that it has 64 bits and depends on all of theirs.

    >>> mixed(1, 2) != mixed(2, 1), mixed(1, 2) < 1 << 64
    (True, True)
    """
    h = ((a + 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 & WORD64) ^ ((b + 1) * 0x94D049BB133111EB & WORD64)
    h = (h ^ h >> 29) * 0xD6E8FEB86659FD93 & WORD64
    return h ^ h >> 32


def hashed(*numbers: int) -> int:
    """`mixed` of the first two, of that and the third, and so on."""
    h = numbers[0]
    for number in numbers[1:]:
        h = mixed(h, number)
    return h


def _signed(x: int, bits: int = 64) -> int:
    """The low bits of a number as a signed number."""
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


class Plan(Protocol):
    """What stays the same while reading; see `contexts.Plan`."""

    symbols: int
    models: int
    table_bits: int
    ring_bits: int
    match_bits: int
    apm_bits: int
    follow_bits: int
    limit: int
    rate_final: float
    tree: Any
    kinds: NDArray[np.int32]
    sounds: NDArray[np.int32]
    folded: NDArray[np.int32]
    stretch: Floats


class Past:
    """The symbols that a lane has read, and the hash of every context of the next one.

    Args:
        plan: the kinds of the symbols and the sizes.
        parts: the arrays that change while reading: `now`, `ring`, `followers`, `places`.
    """

    def __init__(self, plan: Plan, parts: Mapping[str, NDArray[Any]]) -> None:
        self.plan, self.symbols = plan, plan.symbols
        self.now, self._ring = parts["now"], parts["ring"]
        self._followers, self._places = parts["followers"], parts["places"]

    def hash(self, context: int) -> int:
        """What a context is now."""
        return int(self.now[HASH + context])

    def match_length(self, m: int) -> int:
        """How many symbols a match has agreed, 0 where there is none."""
        return int(self.now[LENGTH + m])

    def symbol(self, back: int) -> int:
        """The symbol read `back` steps ago, 1 the last; the number of symbols before the beginning."""
        place = int(self.now[COUNT]) - back
        return self.symbols if place < 0 else int(self._ring[place & (len(self._ring) - 1)])

    def awaited(self, m: int) -> int:
        """The symbol that a match expects; the number of symbols where there is none."""
        there = int(self.now[LENGTH + m])
        return int(self._ring[int(self.now[MATCH + m]) & (len(self._ring) - 1)]) if there else self.symbols

    def move(self, id: int) -> None:
        """Puts a symbol behind those that were read, and finds the contexts of the next one."""
        now, kind = self.now, int(self.plan.kinds[id])
        for m in range(MATCHES):
            if now[LENGTH + m] and id < self.symbols and self.awaited(m) == id:
                now[LENGTH + m] += 1
                now[MATCH + m] += 1
            else:
                now[LENGTH + m] = 0
        self._ring[int(now[COUNT]) & (len(self._ring) - 1)] = id
        now[COUNT] += 1
        self._words(id, kind)
        self._lines(id, kind)
        for m in range(MATCHES):
            self._match(m)
        for context, h in enumerate(self._strings()):
            now[HASH + context] = _signed(mixed(h, context))

    def _words(self, id: int, kind: int) -> None:
        """The word that is being read, and those before it."""
        now, bits = self.now, 64 - self.plan.follow_bits
        if kind in (1, 2):
            folded = int(self.plan.folded[id])
            now[WORD] = _signed(mixed(int(now[WORD]), folded))
            now[IN_WORD] += 1
        elif now[IN_WORD]:
            self._followers[0, mixed(int(now[WORD1]), 77) >> bits] = _signed(mixed(int(now[WORD]), 5), 32)
            now[WORD2], now[WORD1] = now[WORD1], now[WORD]
            now[AFTER] = self._followers[0, mixed(int(now[WORD1]), 77) >> bits]
            now[WORD] = now[IN_WORD] = 0
            now[LINE_WORDS] += 1
            if not now[WORDS]:
                now[SENTENCE] = now[WORD1]
            now[WORDS] += 1
        if kind == 0 and self.symbol(1) == id:
            now[WORDS] = 0

    def _lines(self, id: int, kind: int) -> None:
        """The line that is being read, who speaks, the kinds of the last symbols, and what followed such symbols."""
        now = self.now
        now[LINE_HASH] = 0 if kind == 4 else _signed(mixed(int(now[LINE_HASH]), id))
        sound = 8 + int(self.plan.sounds[id]) if kind == 1 else kind
        now[SKELETON] = (int(now[SKELETON]) << 4 | sound) & 0xFFFFFFFF
        if kind == 4:
            last, before = self.symbol(2), self.symbol(3)
            if self.plan.kinds[last] == 0 and before != id and now[COUNT] - now[LINE] < 40:
                now[SPEAKER] = _signed(mixed(int(now[WORD1]), last))
        for k in (1, 2):
            h = self.symbol(2) if k == 1 else mixed(self.symbol(2), self.symbol(3))
            place = mixed(h, k) >> (64 - self.plan.follow_bits)
            self._followers[k, place] = _signed(int(self._followers[k, place]) << 8 | id & 255, 32)
        if now[COUNT] == now[LINE] + 1:
            now[FIRST1], now[FIRST] = now[FIRST], id
        if kind == 4:
            now[LINE_WORDS], now[LINE_LENGTH] = 0, now[COUNT] - now[LINE]
            now[LINES] = 0 if now[LINE_LENGTH] <= 1 else now[LINES] + 1
            now[LINE1], now[LINE] = now[LINE], now[COUNT]
        now[KINDS] = (int(now[KINDS]) << 3 | (kind or 5 + (id & 1))) & 0xFFFFFFFFF

    def _match(self, m: int) -> None:
        """Looks for the last place where the newest symbols stood, where no match goes on."""
        now, ring, count = self.now, len(self._ring) - 1, int(self.now[COUNT])
        h = hashed(0, *(self.symbol(k) for k in range(1, SHORTEST[m] + 1)))
        slot = h >> (64 - self.plan.match_bits)
        place = int(self._places[m, slot])
        if not now[LENGTH + m] and place and count - place < ring:
            length = 0
            while (
                length < LENGTHS
                and place - length > 0
                and int(self._ring[(place - 1 - length) & ring]) == self.symbol(length + 1)
            ):
                length += 1
            if length >= SHORTEST[m]:
                now[LENGTH + m], now[MATCH + m] = length, place
        self._places[m, slot] = count

    def _strings(self) -> list[int]:
        """A hash of what each context is made of; the last two contexts are those of `expect`."""
        now = [int(x) for x in self.now[:HASH]]
        s1, s2, s3, s4, s5 = (self.symbol(k) for k in range(1, 6))
        orders = [hashed(0, *(self.symbol(k) for k in range(1, n + 1))) for n in (0, 1, 2, 3, 4, 5, 6, 8)]
        column = now[COUNT] - now[LINE]
        above = self.symbol(now[COUNT] - now[LINE1] - column) if now[LINE1] + column < now[LINE] else self.symbols
        plain = 0 if now[IN_WORD] else s1 + 1
        word = mixed(now[WORD], plain)
        bits = 64 - self.plan.follow_bits
        after1 = int(self._followers[1, mixed(s1, 1) >> bits]) & 0xFFFFFFFF
        after2 = int(self._followers[2, hashed(s1, s2, 2) >> bits]) & 0xFFFFFFFF
        return [
            *orders,
            word,
            mixed(word, now[WORD1]),
            mixed(word, now[WORD2]),
            hashed(word, now[WORD1], now[WORD2]),
            hashed(s1, s2, now[WORD1]),
            mixed(min(column, 255), now[LINE_LENGTH]),
            hashed(s2, s3, s4),
            hashed(above, s1, min(column, 3)),
            hashed(min(column, 255), now[FIRST], s1),
            mixed(now[KINDS], s1),
            mixed(word, now[SPEAKER]),
            mixed(now[LINE_HASH], 3),
            mixed(word, now[SENTENCE]),
            mixed(word, min(now[LINE_WORDS], 15)),
            mixed(word, now[AFTER]),
            hashed(min(column, 255), min(now[LINES], 3), int(self.plan.kinds[s1])),
            hashed(after1 & 0xFFFF, s1, 9),
            hashed(after2 & 0xFFFFFF, s1, 10),
            hashed(after2 & 0xFF, s1, s2),
            hashed(s1, s4, s5),
            hashed(min(now[IN_WORD], 15), plain, now[WORD1]),
            hashed(min(column // 4, 15), now[WORD], plain),
        ]

    def expect(self, row_V: Floats | None) -> None:
        """The contexts of what the first of the other models expects most."""
        top = second = self.symbols
        if row_V is not None:
            order = np.argsort(-row_V, kind="stable").tolist()
            top, second = order[0], order[1] if len(order) > 1 else self.symbols
        for context, other in ((CONTEXTS - 2, self.symbol(1)), (CONTEXTS - 1, second)):
            self.now[HASH + context] = _signed(hashed(top, other, context))
