"""What contexts are made of: the trees of decisions, the sizes, and the past of one lane, in plain Python.

`adaptive.c` says the same as `Past` (`move` and `expect`); `formulas.py` is what goes on with it. All numbers are kept
in the array `now`, so that the compiled code and this one go on from each other's memory. Axis: V symbols.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.vocab import Vocab

CONTEXTS, MATCHES, SELECTORS, APMS, KNOTS, HISTORIES, LENGTHS = 32, 2, 13, 2, 33, 2048, 32
DEEPEST, SHORTEST, WORD64 = 32, (5, 10), (1 << 64) - 1

RATE = 0.00175
"""The step of the first mixing's weights; chosen, as the other numbers here and in adaptive.c, on the validation part
of a bundled text (benchmarks/RESULTS.md)."""

(COUNT, WORD, WORD1, WORD2, LINE, LINE1, IN_WORD, FIRST, FIRST1, KINDS, SPEAKER, LINE_HASH, WORDS, SENTENCE, LINE_WORDS,
 AFTER, SKELETON, LINE_LENGTH, LINES, MATCH) = range(20)  # fmt: skip
LENGTH, HASH = MATCH + MATCHES, MATCH + 2 * MATCHES
SIZES = [CONTEXTS, MATCHES, SELECTORS + 1, APMS, KNOTS, HISTORIES, LENGTHS, HASH + CONTEXTS]
"""The numbers that adaptive.c must agree with."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


def balanced(weights: Ints, deepest: int = DEEPEST) -> Any:
    """A tree in the order of the symbols, which splits them again and again into parts of nearly equal weight.

    Frequent symbols take few decisions then (Fano 1949), and symbols that stand beside each other in the vocabulary,
    as lower-case letters do, stay together.

    Args:
        weights: of the symbols, each 1 or more.
        deepest: most decisions of a symbol.

    >>> balanced(np.array([9, 1, 1, 2])), balanced(np.array([1, 1, 1]))
    ([0, [[1, 2], 3]], [[0, 1], 2])
    """
    sums = np.append(0, weights.cumsum())

    def split(first: int, end: int, left: int) -> Any:
        if end - first == 1:
            return first
        most = 1 << (left - 1)  # symbols that fit below one branch
        places = np.arange(max(first + 1, end - most), min(end - 1, first + most) + 1)
        unequal = abs(2 * sums[places] - sums[first] - sums[end])
        cut = int(places[len(places) - 1 - unequal[::-1].argmin()])
        return [split(first, cut, left - 1), split(cut, end, left - 1)]

    return split(0, len(weights), deepest)


def questions(vocab: Vocab, weights: Ints, count: int) -> list[Any]:
    """One or two trees that ask different questions, so that the mean of what they foresee errs less than either.

    The first is `balanced` in the order of the vocabulary. In the second, symbols of one kind and one sound (vowels and
    other letters, lower and upper case) stand together, the frequent ones first.

    Args:
        vocab: the symbols.
        weights: of the symbols, each 1 or more.
        count: 1 or 2.

    >>> questions(Vocab.of("abc."), np.array([4, 2, 3, 2]), 2)
    [[[0, 1], [2, 3]], [[0, 2], [3, 1]]]
    """
    kinds, sounds, _ = kinds_of(vocab)
    order = np.lexsort((-weights, sounds[:-1], kinds[:-1]))

    def named(node: Any) -> Any:
        return [named(child) for child in node] if isinstance(node, list) else int(order[node])

    return [balanced(weights), named(balanced(weights[order]))][:count]


class _Tree:
    """A tree as arrays: `child` of each decision, `path` and number of decisions of each symbol."""

    def __init__(self, tree: Any, symbols: int) -> None:
        self.child = np.zeros((max(symbols - 1, 1), 2), dtype=np.int32)
        self.lengths = np.zeros(symbols, dtype=np.int32)
        paths: list[list[int]] = [[] for _ in range(symbols)]
        queue: list[tuple[Any, list[int]]] = [(tree, [])]
        number, decisions = 0, 1
        for node, path in queue:  # breadth first: a child has a larger number than its decision
            if not isinstance(node, list):
                paths[node], self.lengths[node] = path, len(path)
                continue
            for bit, child in enumerate(node):
                self.child[number, bit] = decisions if isinstance(child, list) else ~child
                decisions += isinstance(child, list)
                queue.append((child, [*path, 2 * number + bit]))
            number += 1
        self.depth = max(1, int(self.lengths.max()))
        self.path = np.zeros((symbols, self.depth), dtype=np.int32)
        for symbol, path in enumerate(paths):
            self.path[symbol, : len(path)] = path


def kinds_of(vocab: Vocab) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Of each symbol, and of the unknown one: its kind and its sound (see adaptive.c), and its lower-case form."""
    symbols = [vocab.symbol(id) for id in range(len(vocab))]
    ids = {symbol: id for id, symbol in enumerate(symbols)}
    kinds, sounds = (np.zeros(len(symbols) + 1, dtype=np.int32) for _ in range(2))
    folded = np.arange(len(symbols) + 1, dtype=np.int32)
    for id, symbol in enumerate(symbols):
        letter, digit = symbol.isalpha() or symbol == "'", symbol.isdigit()
        kinds[id] = 4 if symbol == "\n" else 1 if letter else 2 if digit else 3 if symbol.isspace() else 0
        sounds[id] = (symbol.lower() in "aeiouy") + 2 * symbol.isupper()
        folded[id] = ids.get(symbol.lower(), id)
    return kinds, sounds, folded


class Plan:
    """All that stays the same while reading: the tree, the sizes, and where in one block of memory everything lies."""

    def __init__(self, vocab: Vocab, tree: Any, models: int, characters: int) -> None:
        self.symbols, self.models = len(vocab), models
        self.tree = _Tree(tree, self.symbols)
        self.kinds, self.sounds, self.folded = kinds_of(vocab)
        self.stretch = np.array([math.log((i + 0.5) / (4095.5 - i)) for i in range(4096)])
        self.inputs = 2 * CONTEXTS + MATCHES + models + 1
        self.table_bits = min(25, max(18, math.ceil(math.log2(64 * max(1, characters)))))
        self.ring_bits = min(26, max(16, math.ceil(math.log2(2 * max(1, characters)))))
        self.match_bits, self.apm_bits, self.follow_bits, self.limit = min(22, self.ring_bits), 14, 16, 255
        self.rate, self.rate_final = RATE, 0.00025
        sets = self.symbols - 1 + 128 + 192 + 2048 + 320 + 256 + 1024 + 1024 + 512 + 2 * 1024 + 2048 + 128
        self.shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "table": (np.uint64, (1 << self.table_bits,)),
            "maps": (np.float64, (CONTEXTS, HISTORIES)),
            "lucks": (np.float64, (MATCHES, LENGTHS)),
            "weights": (np.float64, (sets, self.inputs)),
            "finals": (np.float64, (max(1, self.symbols - 1), SELECTORS + 1)),
            "apms": (np.float64, (APMS, 1 << self.apm_bits, KNOTS)),
            "ring": (np.int32, (1 << self.ring_bits,)),
            "followers": (np.int32, (3, 1 << self.follow_bits)),
            "places": (np.int32, (MATCHES, 1 << self.match_bits)),
            "now": (np.int64, (HASH + CONTEXTS,)),
        }
        self.offsets, self.size = {}, 0
        for name, (kind, shape) in self.shapes.items():
            self.offsets[name] = self.size
            self.size += -(-math.prod(shape) * np.dtype(kind).itemsize // 64) * 64


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
