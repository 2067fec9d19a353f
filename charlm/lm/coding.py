"""Arithmetic coding on top of any language model: symbols to bytes and back, at the cost of their log-probabilities.

A range coder with carry (Martin 1979; Schindler 1998) of 64 bits: a symbol that has `size` of `total` parts leaves so
much of an interval of whole numbers, and a byte is written whenever fewer than 2⁵⁶ numbers are left in it. The bytes
are the shortest number in the last interval. `part` of a coder writes or reads, so that what is coded is said once.

`encode_symbols` and `decode_symbols` ask the model for the same numbers in the same calls, one step at a time, so that
both see the same bits. Axes: B lanes (pieces of the text side by side, each read as a text of its own), V symbols.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import CharlmError
from charlm.lm.interface import LanguageModel, OnRead
from charlm.text.vocab import UNKNOWN

Integers = NDArray[np.int64]
Sums = Integers | Sequence[int]
"""Numbers of parts summed up, from 0 to the total."""

_WORD = (1 << 64) - 1
_NARROW = 1 << 56  # an interval of fewer numbers is widened by a byte


class RangeEncoder:
    """Writes symbols of known frequencies; `finish` gives the bytes.

    >>> coder = RangeEncoder()
    >>> for start in (0, 1, 3):
    ...     coder.encode(start, 1, 4)
    >>> coder.finish().hex()  # the quarters 0, 1 and 3 one after the other are 00 01 11 in binary
    '1f'
    """

    def __init__(self) -> None:
        self._low, self._range, self._written = 0, _WORD, bytearray()
        self.bits = 0.0  # that the symbols cost by their frequencies

    def encode(self, start: int, size: int, total: int) -> None:
        """Takes the part [start, start + size) of a total of at most 2³¹; `size` is 1 or more."""
        unit = self._range // total
        self._low += unit * start
        self._range = unit * size
        self.bits += math.log2(total / size)
        if self._low > _WORD:
            self._low &= _WORD
            self._carry()
        while self._range < _NARROW:
            self._written.append(self._low >> 56)
            self._low = self._low << 8 & _WORD
            self._range <<= 8

    def part(self, sums: Sums, which: int | None) -> int:
        """Writes which of the parts came, and returns it."""
        assert which is not None
        start = int(sums[which])
        self.encode(start, int(sums[which + 1]) - start, int(sums[-1]))
        return which

    def _carry(self) -> None:
        """Adds one to the number that was written so far."""
        last = len(self._written) - 1
        while self._written[last] == 0xFF:
            self._written[last] = 0
            last -= 1
        self._written[last] += 1

    def finish(self) -> bytes:
        """The bytes of the shortest number in the interval; zeros follow it, and zeros at its end are left out."""
        for size in range(9):
            kept = 64 - 8 * size
            number = (self._low + self._range - 1) >> kept << kept
            if number >= self._low:
                break
        if number > _WORD:
            self._carry()
        self._written += (number & _WORD).to_bytes(8, "big")[:size]
        return bytes(self._written).rstrip(b"\0")


class RangeDecoder:
    """Reads what a `RangeEncoder` wrote, given the same frequencies.

    >>> coder = RangeDecoder(bytes([0x1F]))
    >>> [coder.part(range(5)) for _ in range(3)]
    [0, 1, 3]
    """

    def __init__(self, written: bytes) -> None:
        self._written, self._at, self._range, self._unit = written, 8, _WORD, 1
        self._value = int.from_bytes(written[:8].ljust(8, b"\0"), "big")  # above the interval's lower end

    def place(self, total: int) -> int:
        """Which part of the total the next symbol's share contains."""
        self._unit = self._range // total
        return min(self._value // self._unit, total - 1)

    def take(self, start: int, size: int) -> None:
        """Goes on to the symbol after the one with this share, of the total that `place` was asked for."""
        self._value -= self._unit * start
        self._range = self._unit * size
        while self._range < _NARROW:
            following = self._written[self._at] if self._at < len(self._written) else 0
            self._value = (self._value << 8 | following) & _WORD
            self._at += 1
            self._range <<= 8

    def part(self, sums: Sums, which: int | None = None) -> int:
        """Reads which of the parts came."""
        which = bisect_right(sums, self.place(int(sums[-1]))) - 1
        start = int(sums[which])
        self.take(start, int(sums[which + 1]) - start)
        return which


Coder = RangeEncoder | RangeDecoder

_PARTS = 1 << 30  # parts of an interval that a row shares out; with those below never 2³¹
_RANGES = ((0, 0x80), (0xDC80, 0xDD00), (0x80, 0x800), (0x800, 0x10000), (0x10000, 0x110000))
"""Code points by kind: ASCII, bytes that are not of the encoding, and what UTF-8 spells in two, three, four bytes."""


def frequencies(logp_BV: NDArray[Any]) -> Integers:
    """Whole numbers in proportion to probabilities, summed up: [B, V + 1] from 0 to the total.

    Every symbol gets one part of about 2³⁰ beside its share, so that none is impossible. A row that is undefined
    (NaN) counts as uniform.

    >>> frequencies(np.log([[0.5, 0.25, 0.25]])).tolist()
    [[0, 536870913, 805306370, 1073741827]]
    """
    p_BV = np.exp(logp_BV.astype(np.float64))
    p_BV[np.isnan(p_BV).any(1)] = 1 / p_BV.shape[1]
    sums_BV = np.zeros((len(p_BV), p_BV.shape[1] + 1), dtype=np.int64)
    np.cumsum((p_BV * _PARTS).astype(np.int64) + 1, axis=1, out=sums_BV[:, 1:])
    return sums_BV


class Steps:
    """A model that reads one symbol a lane at a time, always by the same calls, and codes what comes next.

    One call for many steps may round differently from many calls for one.
    """

    def __init__(self, model: LanguageModel, lanes: int) -> None:
        self._model, self._state = model, model.initial_state(lanes)
        self.logp_BV: NDArray[Any] = np.zeros((lanes, len(model.vocab)))  # of the next symbols
        self._sums_BV = np.zeros((lanes, 0), dtype=np.int64)

    def read(self, ids_B: Integers) -> None:
        """Reads the last symbol of each lane."""
        with torch.inference_mode():
            ids_TB = torch.from_numpy(ids_B)[None].to(self._model.device)
            logp_TBV, self._state = self._model.logprobs(ids_TB, self._state)
            self.logp_BV = logp_TBV[0].cpu().numpy()
        self._sums_BV = frequencies(self.logp_BV)

    def code(self, coder: Coder, lane: int, id: int | None = None) -> int:
        """Writes the next symbol of a lane, or reads it where it is None."""
        return coder.part(self._sums_BV[lane], id)

    def numbers(self) -> bytes:
        """What the model computed last, for a checksum."""
        return np.ascontiguousarray(self.logp_BV).tobytes()


class DecisionSteps(Steps):
    """The same for one lane of a model that predicts a symbol as a path of binary decisions, so that no row is made.
    Its `stepper()` has `child` [V - 1, 2], the next decision of each decision and bit, or the symbol s as ~s;
    `one(decision, depth)`, the probability of a one; and `read(id, row=False)`.
    """

    def __init__(self, stepper: Any) -> None:
        self._stepper = stepper
        self._child: list[list[int]] = self._stepper.child.tolist()
        above = {child: (decision, bit) for decision, pair in enumerate(self._child) for bit, child in enumerate(pair)}
        self._bits: list[list[int]] = [[] for _ in range(len(self._child) + 1)]  # of each symbol's path
        for id, bits in enumerate(self._bits):
            node = ~id
            while node in above:
                node, bit = above[node]
                bits.insert(0, bit)

    def read(self, ids_B: Integers) -> None:
        """Reads the last symbol."""
        self._stepper.read(int(ids_B[0]), row=False)

    def code(self, coder: Coder, lane: int, id: int | None = None) -> int:
        """Writes the next symbol, or reads it."""
        node, depth = 0 if self._child else ~0, 0
        while node >= 0:
            zeros = min(max(1, int((1 - self._stepper.one(node, depth)) * _PARTS)), _PARTS - 1)
            bit = coder.part((0, zeros, _PARTS), None if id is None else self._bits[id][depth])
            node, depth = self._child[node][bit], depth + 1
        return ~node

    def numbers(self) -> bytes:
        """The probability of a one at the first decisions, for a checksum."""
        return np.array([self._stepper.one(decision, 0) for decision in range(min(8, len(self._child)))]).tobytes()


def steps_of(model: LanguageModel, lanes: int) -> Steps:
    """By decisions where a model offers them and there is one lane, else by rows."""
    stepper = lanes == 1 and hasattr(model, "stepper") and model.stepper()
    return DecisionSteps(stepper) if stepper else Steps(model, lanes)


class _Unknown:
    """What characters outside the vocabulary cost: whether one comes, and which one.

    Whether one comes is estimated from how often one came so far after a known and after an unknown character
    (Krichevsky and Trofimov 1981). Which one is estimated from its number so far; a new one has as many parts as there
    are different ones (method C of Moffat 1990). Of a new one the kind is estimated, and within it all are alike.
    """

    def __init__(self) -> None:
        self._came, self._kinds = np.ones((2, 2), np.int64), np.ones(len(_RANGES), np.int64)
        self._codes, self._places, self._counts = list[int](), dict[int, int](), np.zeros(0, np.int64)

    def code(self, coder: Coder, after: bool, code: int | None = None) -> int:
        """Writes that a code point comes, or with -1 that none does; reads that where it is None."""
        came, size = self._came[int(after)], len(self._codes)
        comes = coder.part(_summed(came), None if code is None else int(code >= 0))
        came[comes] += 2
        if not comes:
            return UNKNOWN
        parts = np.append(self._counts, max(1, size))
        place = coder.part(_summed(parts), None if code is None else self._places.get(code, size))
        if place == size:
            found = self._new(coder, code)
            self._codes.append(found)
            self._places[found], self._counts = size, np.append(self._counts, 0)
        self._counts[place] += 1
        return self._codes[place]

    def _new(self, coder: Coder, code: int | None) -> int:
        """A code point that comes for the first time."""
        found = next((kind for kind, (first, end) in enumerate(_RANGES) if first <= (code or 0) < end), None)
        kind = coder.part(_summed(self._kinds), found)
        self._kinds[kind] += 1
        first, end = _RANGES[kind]
        return first + coder.part(range(end - first + 1), None if code is None else code - first)


def _summed(parts: Integers) -> Integers:
    return np.concatenate([[0], np.cumsum(parts)])


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Symbols as bytes, the bits that they cost by their frequencies, and those of them that are for unknown ones.

    `written` is as long as `bits`, to within a byte or two.
    """

    written: bytes
    bits: float
    unknown_bits: float


def _places(symbols: int, lanes: int) -> Iterator[range]:
    """For each step the places in the text that are read, lane by lane; the last lanes may end before the others.

    >>> [list(places) for places in _places(5, 2)]
    [[0, 3], [1, 4], [2]]
    """
    steps = -(-symbols // lanes)
    return (range(step, symbols, steps) for step in range(steps))


def encode_symbols(
    model: LanguageModel, first: int, ids: Integers, codes: Integers, *, lanes: int = 1, progress: OnRead | None = None
) -> Coded:
    """Codes symbols at the cost of their log-probabilities under a model.

    Args:
        model: gives the probabilities; see `frequencies`.
        first: the symbol that each lane is read after.
        ids: of the text, int64; `UNKNOWN` for characters outside the vocabulary.
        codes: the code points of those, in the order of the text.
        lanes: pieces that are read side by side, each from the model's initial state.
        progress: called with the number of symbols that were just coded.
    """
    coder, unknown = RangeEncoder(), _Unknown() if len(codes) else None
    code_at = dict(zip(np.flatnonzero(ids < 0).tolist(), codes.tolist(), strict=True))
    steps, last_B, unknown_bits = steps_of(model, lanes), np.full(lanes, first, dtype=np.int64), 0.0
    for at in _places(len(ids), lanes):
        steps.read(last_B)
        here_B = ids[at.start : at.stop : at.step]
        for lane, id in enumerate(here_B.tolist()):
            if unknown is not None:
                before = coder.bits
                unknown.code(coder, bool(last_B[lane] < 0), code_at.get(at[lane], -1))
                unknown_bits += coder.bits - before
            if id >= 0:
                steps.code(coder, lane, id)
        last_B[: len(at)] = here_B
        if progress is not None:
            progress(len(at))
    return Coded(written=coder.finish(), bits=coder.bits, unknown_bits=unknown_bits)


def decode_symbols(
    model: LanguageModel,
    first: int,
    written: bytes,
    *,
    symbols: int,
    unknown: int,
    lanes: int = 1,
    progress: OnRead | None = None,
) -> tuple[Integers, Integers]:
    """The ids and the code points of unknown characters that `encode_symbols` wrote.

    Args:
        model: the one that coded them; another one, or one that rounds differently, gives nonsense.
        written: its bytes.
        symbols, unknown: how many to read, and how many of them are outside the vocabulary.
        first, lanes, progress: as for `encode_symbols`.

    Raises:
        CharlmError: the bytes hold something else than so many symbols.
    """
    coder, guess = RangeDecoder(written), _Unknown() if unknown else None
    ids, code_at = np.zeros(symbols, dtype=np.int64), {}
    steps, last_B = steps_of(model, lanes), np.full(lanes, first, dtype=np.int64)
    for at in _places(len(ids), lanes):
        steps.read(last_B)
        for lane, place in enumerate(at):
            code = UNKNOWN if guess is None else guess.code(coder, bool(last_B[lane] < 0))
            if code >= 0:
                code_at[place], last_B[lane] = code, UNKNOWN
            else:
                last_B[lane] = steps.code(coder, lane)
        ids[at.start : at.stop : at.step] = last_B[: len(at)]
        if progress is not None:
            progress(len(at))
    if len(code_at) != unknown:
        raise CharlmError(f"{len(code_at):,} unknown characters were decoded, not {unknown:,}")
    return ids, np.array([code_at[place] for place in sorted(code_at)], dtype=np.int64)
