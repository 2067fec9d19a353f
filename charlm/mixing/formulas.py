"""The arithmetic of `adaptive.c` in plain Python: for readers, for tests, and where no compiler was at hand.

Sums are made in the order of the C code and all hashes are of 64 bits, so both give the same numbers. Histories of
contexts, logistic mixing with chosen sets of weights, and adaptive maps are those of PAQ (Mahoney 2005; Mahoney 2013,
Data compression explained, chapters 4.1 to 4.3). `past.py` says what the contexts are made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.mixing.past import (
    APMS,
    CONTEXTS,
    COUNT,
    IN_WORD,
    KNOTS,
    LENGTH,
    LENGTHS,
    LINE,
    LINE_LENGTH,
    LINE_WORDS,
    MATCHES,
    SKELETON,
    WORD,
    WORD1,
    WORDS,
    Floats,
    Past,
    Plan,
    mixed,
)

BUCKET = 4


def _within(x: float, low: float, high: float) -> float:
    return low if x < low else high if x > high else x


def squash(x: float) -> float:
    """The probability whose logarithm of odds is x."""
    return 1 / (1 + math.exp(-_within(x, -20.0, 20.0)))


def _weighed(weights: Sequence[float], x: Sequence[float]) -> float:
    """The sum of products, made of the sums over every fourth one, as a vector of four makes it."""
    sums = [0.0] * 4
    for i, (weight, value) in enumerate(zip(weights, x, strict=True)):
        sums[i % 4] += weight * value
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


class _View:
    """One decision: the inputs `x`, the set of weights of each selector, and what came out of every stage."""

    def __init__(self) -> None:
        self.x: list[float] = []
        self.sets: list[int] = []
        self.p_set: list[float] = []
        self.x_set: list[float] = []
        self.knots: list[int] = []
        self.expected: list[int] = []
        self.p = self.share = self.final = 0.0


class Formulas:
    """One lane: the same memory as the compiled code has, and the same calls.

    Args:
        plan: the tree and the sizes.
        parts: the arrays that are learned; see `past.Plan`.
    """

    def __init__(self, plan: Plan, parts: Mapping[str, NDArray[Any]]) -> None:
        self.plan, self.symbols, self.past, self.rate = plan, plan.symbols, Past(plan, parts), 0.0
        self._table, self._maps, self._lucks = parts["table"], parts["maps"], parts["lucks"]
        self._weights, self._finals, self._apms = parts["weights"], parts["finals"], parts["apms"].reshape(-1)
        self._ones = self.ones(None)
        self._paths = [
            path[:length].tolist() for path, length in zip(plan.tree.path, plan.tree.lengths.tolist(), strict=True)
        ]

    def _find(self, context: int, decision: int) -> tuple[int, int, int]:
        """The slot of a context and decision, or -1; the slot to replace where there is none; and the check."""
        h = mixed(self.past.hash(context), decision)
        check = h & 0xFFFF or 1
        first = h >> (64 - self.plan.table_bits) & ~(BUCKET - 1)
        least = first
        for place in range(first, first + BUCKET):
            slot, kept = int(self._table[place]), int(self._table[least])
            if slot & 0xFFFF == check:
                return place, place, check
            free = slot & 0xFFFF == 0
            if kept & 0xFFFF and (free or slot >> 32 & 1023 < kept >> 32 & 1023):
                least = place
        return -1, least, check

    def _stretched(self, p: float) -> float:
        return float(self.plan.stretch[int(_within(int(p * 4096), 0, 4095))])

    # -- one decision -------------------------------------------------------------------------------------------

    def look(self, decision: int, depth: int, ones_E: Floats) -> _View:
        """The probability of a one at a decision, and all that it was made of.

        Args:
            decision: its number.
            depth: how many decisions come before it.
            ones_E: the other models' probabilities of a one.
        """
        v = _View()
        seen = self._contexts(decision, v)
        for m in range(MATCHES):
            awaited = self.past.awaited(m)
            path = self._paths[awaited] if awaited < self.symbols else []
            bit = next((step & 1 for step in path if step >> 1 == decision), -1)
            luck = self._lucks[m, min(self.past.match_length(m), LENGTHS - 1)]
            v.expected.append(bit)
            v.x.append(0.0 if bit < 0 else self._stretched(luck) * (1 if bit else -1))
        v.x += [math.log(float(p) / (1 - float(p))) for p in ones_E]
        v.x.append(0.3)
        self._select(decision, depth, seen, v)
        for chosen in v.sets:
            total = _weighed(self._weights[chosen].tolist(), v.x)
            v.p_set.append(squash(total))
            v.x_set.append(_within(total, -20.0, 20.0))
        v.x_set.append(0.3)
        total = 0.0
        for weight, x in zip(self._finals[decision].tolist(), v.x_set, strict=True):
            total += weight * x
        v.p = squash(total)
        self._correct(decision, total, v)
        return v

    def _contexts(self, decision: int, v: _View) -> int:
        """Two inputs of each context; returns how many of the orders 1 to 8 have met this decision."""
        seen = 0
        for context in range(CONTEXTS):
            place, *_ = self._find(context, decision)
            slot = int(self._table[place]) if place >= 0 else 0
            if slot >> 32 & 1023:
                v.x.append(float(self.plan.stretch[slot >> 52]))
                v.x.append(self._stretched(self._maps[context, slot >> 16 & 0xFFFF]))
                seen += 0 < context < 8
            else:
                v.x += [0.0, 0.0]
        return seen

    def _select(self, decision: int, depth: int, seen: int, v: _View) -> None:
        """Which set of weights each selector takes."""
        now, before, ends = self.past.now, self.past.symbol(1), self.symbols + 1
        length = int(now[LENGTH + 1]) or int(now[LENGTH])
        known = min(1 + length // 4 if length else 0, 7)
        shallow, in_word, words = min(depth, 7), min(int(now[IN_WORD]), 7), min(int(now[WORDS]), 15)
        trust = min(int(abs(v.x[-1 - self.plan.models])), 7) if self.plan.models else shallow
        column = int(now[COUNT]) - int(now[LINE])
        chosen = (
            (decision, self.symbols - 1),
            (words * 8 + in_word, 128),
            ((known * 8 + trust) * 3 + v.expected[0] + 1, 192),
            (mixed(before * ends + decision, 9) >> 53, 2048),
            ((int(self.plan.kinds[before]) * 8 + in_word) * 8 + seen, 320),
            (min(int(now[LINE_LENGTH]) // 4, 15) * 16 + min(column // 4, 15), 256),
            (mixed(int(now[WORD]), 4) >> 54, 1024),
            ((words * 8 + shallow) * 8 + in_word, 1024),
            (min(column, 63) * 8 + shallow, 512),
            (mixed(before * ends + self.past.symbol(2), 9) >> 54, 1024),
            (mixed(int(now[WORD1]), 9) >> 54, 1024),
            (mixed(int(now[SKELETON]) & 0xFFFF, 9) >> 53, 2048),
            (min(int(now[LINE_WORDS]), 15) * 8 + in_word, 128),
        )
        first = 0
        for number, size in chosen:
            v.sets.append(first + number)
            first += size

    def _correct(self, decision: int, total: float, v: _View) -> None:
        """The last correction: what really came where the mixture said the same, after the last symbol or two."""
        position = _within(total, -7.999, 7.999) * 2 + 16
        knot, before = int(position), self.past.symbol(1)
        v.share, final = position - knot, 2 * v.p
        for k in range(APMS):
            context = before * (self.symbols + 1) + self.past.symbol(2) if k else before
            row = k << self.plan.apm_bits | mixed(context, decision * 2 + k) >> (64 - self.plan.apm_bits)
            place = row * KNOTS + knot
            v.knots.append(place)
            final += float(self._apms[place]) * (1 - v.share) + float(self._apms[place + 1]) * v.share
        v.final = _within(final / (2 + APMS), 1e-6, 1 - 1e-6)

    def learn(self, decision: int, bit: int, v: _View) -> None:
        """Every stage takes a step towards what came."""
        for chosen, p in zip(v.sets, v.p_set, strict=True):
            self._weights[chosen] += self.rate * (bit - (p + 9 * v.p) / 10) * np.array(v.x)
        self._finals[decision] += self.plan.rate_final * (bit - v.p) * np.array(v.x_set)
        for place in v.knots:
            self._apms[place] += 0.02 * (1 - v.share) * (bit - self._apms[place])
            self._apms[place + 1] += 0.02 * v.share * (bit - self._apms[place + 1])
        for m, expected in enumerate(v.expected):
            if expected >= 0:
                length = min(self.past.match_length(m), LENGTHS - 1)
                self._lucks[m, length] += 0.01 * ((bit == expected) - self._lucks[m, length])
        for context in range(CONTEXTS):
            self._learn_slot(context, decision, bit)

    def _learn_slot(self, context: int, decision: int, bit: int) -> None:
        place, least, check = self._find(context, decision)
        slot = int(self._table[place]) if place >= 0 else check | 1 << 63
        history, times, old = slot >> 16 & 0xFFFF, slot >> 32 & 1023, slot >> 42
        self._maps[context, history] += 0.006 * (bit - self._maps[context, history])
        away = ((1 << 22) - 1 - old if bit else old) * 2 // (2 * times + 3)
        n = [history >> 6, history >> 1 & 31]
        n[bit] = min(n[bit] + 1, 31)
        if n[1 - bit] > 2:
            n[1 - bit] = 2 + (n[1 - bit] - 2) // 4
        p = old + away if bit else old - away
        p = p << 10 | min(times + 1, self.plan.limit)
        self._table[place if place >= 0 else least] = p << 32 | (n[0] << 6 | n[1] << 1 | bit) << 16 | check

    # -- symbols ---------------------------------------------------------------------------------------------------

    def ones(self, rows_EV: Floats | None) -> Floats:
        """The other models' probabilities of a one at every decision [V - 1, E], from rows of log-probabilities."""
        child, models = self.plan.tree.child.tolist(), self.plan.models
        ones = np.full((max(1, self.symbols - 1), models), 0.5)
        for e in range(models if rows_EV is not None else 0):
            row = rows_EV[e].tolist()  # type: ignore[index]
            uniform, sums = math.isnan(row[0]), [0.0] * self.symbols
            for decision in reversed(range(self.symbols - 1)):
                zero, one = (sums[c] if c >= 0 else 1.0 if uniform else math.exp(row[~c]) for c in child[decision])
                sums[decision] = zero + one
                p = one / sums[decision] if sums[decision] > 0 else 0.5
                ones[decision, e] = _within(p, 1e-6, 1 - 1e-6)
        return ones

    def along(self, id: int, ones: Floats, *, learning: bool) -> float:
        """The log-probability of a symbol, along its path; learning begins when all its decisions were looked at."""
        views, logp = [], 0.0
        for depth, step in enumerate(self._paths[id]):
            v = self.look(step >> 1, depth, ones[step >> 1])
            logp += math.log(v.final if step & 1 else 1 - v.final)
            views.append(v)
        for step, v in zip(self._paths[id] if learning else [], views, strict=learning):
            self.learn(step >> 1, step & 1, v)
        return logp

    def row(self, ones: Floats) -> Floats:
        """The log-probabilities of all symbols."""
        row = np.zeros(self.symbols)
        sums, depths = [0.0] * self.symbols, [0] * self.symbols
        for decision, children in enumerate(self.plan.tree.child[: self.symbols - 1].tolist()):
            p = self.look(decision, depths[decision], ones[decision]).final
            for bit, child in enumerate(children):
                logp = sums[decision] + math.log(p if bit else 1 - p)
                if child >= 0:
                    sums[child], depths[child] = logp, depths[decision] + 1
                else:
                    row[~child] = logp
        return row

    def read(
        self,
        ids_T: NDArray[np.int64],
        rows_TEV: Floats | None,
        *,
        foreseen: bool,
        targets_T: NDArray[np.int64] | None,
        tops_T: NDArray[np.bool_] | None = None,
        rows: bool,
        rate: float,
    ) -> Floats:
        """Reads ids, -1 for unknown ones.

        Args:
            ids_T: the symbols.
            rows_TEV: log-probabilities of the other models, one row more than ids: row t foresaw id t.
            foreseen: whether the first id was foreseen, so that there is something to learn from it.
            targets_T: symbols whose log-probability after each id is asked for.
            tops_T: where it is written whether each target is the most probable symbol.
            rows: whether all log-probabilities after each id are asked for.
            rate: the step of the first mixing's weights.

        Returns:
            The log-probabilities of the targets [T], or all [T, V] where `rows` is set.
        """
        self.rate = rate
        found = np.zeros((len(ids_T), self.symbols) if rows else len(ids_T))
        given = [None] * (len(ids_T) + 1) if rows_TEV is None or not self.plan.models else list(rows_TEV)
        ones = self.ones(given[0])
        for t, number in enumerate(ids_T.tolist()):
            id = number if number >= 0 else self.symbols
            if id < self.symbols and (foreseen or t):
                self.along(id, ones, learning=True)
            self.past.move(id)
            ones = self.ones(given[t + 1])
            row_EV = given[t + 1]
            self.past.expect(None if row_EV is None else row_EV[0])
            if rows:
                found[t] = self.row(ones)
            elif targets_T is not None and targets_T[t] >= 0:
                found[t] = self.along(int(targets_T[t]), ones, learning=False)
                if tops_T is not None:
                    tops_T[t] = self.row(ones).argmax() == targets_T[t]
        self._ones = ones
        return found

    def one(self, decision: int, depth: int) -> float:
        """The probability of a one at a decision of the symbol after the last one; nothing is learned."""
        return self.look(decision, depth, self._ones[decision]).final
