"""Arithmetic coding on top of any language model: symbols to bytes and back, at the cost of their log-probabilities.

A range coder with carry (Martin 1979; Schindler 1998) of 64 bits: a symbol that has `size` of `total` parts leaves so
much of the interval, and a byte is written whenever fewer than 2⁵⁶ numbers are left in it. `encode_symbols` and
`decode_symbols` ask the model for the same rows in the same calls, one step at a time, so that both see the same bits.
Axes: T steps, B lanes (pieces of the text side by side, each read as a text of its own), V symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import CharlmError
from charlm.lm.interface import LanguageModel
from charlm.text.vocab import UNKNOWN

__all__ = ["Coded", "RangeDecoder", "RangeEncoder", "Stepper", "decode_symbols", "encode_symbols", "frequencies"]

_WORD = (1 << 64) - 1
_NARROW = 1 << 56  # an interval of fewer numbers is widened by a byte
_PARTS = 1 << 30  # parts of an interval that a row shares out; with those below never 2³¹
_RANGES = ((0, 0x80), (0xDC80, 0xDD00), (0x80, 0x800), (0x800, 0x10000), (0x10000, 0x110000))
"""Code points by kind: ASCII, bytes that are not of the encoding, and what UTF-8 spells in two, three, four bytes."""

Integers = NDArray[np.int64]


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

    >>> coder, found = RangeDecoder(bytes([0x1F])), []
    >>> for _ in range(3):
    ...     found.append(coder.place(4))
    ...     coder.take(found[-1], 1)
    >>> found
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


class Stepper:
    """A model that reads one symbol a lane at a time, on the CPU and with one thread, always by the same calls.

    One call for many steps may round differently from many calls for one, as may another number of threads.
    """

    def __init__(self, model: LanguageModel, lanes: int) -> None:
        self._model, self._state = model, model.initial_state(lanes)

    def read(self, ids_B: Integers) -> NDArray[Any]:
        """Log-probabilities of the next symbols, [B, V]."""
        with torch.inference_mode():
            ids_TB = torch.from_numpy(ids_B)[None].to(self._model.device)
            logp_TBV, self._state = self._model.logprobs(ids_TB, self._state)
            return logp_TBV[0].cpu().numpy()


class _Unknown:
    """What characters outside the vocabulary cost: whether one comes, and which one.

    Whether one comes is estimated from how often one came so far after a known and after an unknown character
    (Krichevsky and Trofimov 1981). Which one is estimated from its number so far; a new one has as many parts as there
    are different ones (method C of Moffat 1990). Of a new one the kind is estimated, and within it all are alike.
    """

    def __init__(self) -> None:
        self._came = [[1, 1], [1, 1]]
        self._places: dict[int, int] = {}
        self._codes: list[int] = []
        self._counts = np.zeros(64, dtype=np.int64)
        self._kinds = [1] * len(_RANGES)

    def encode(self, coder: RangeEncoder, after: bool, code: int) -> None:
        """Writes that a code point comes, or with -1 that none does."""
        known, unknown = self._came[after]
        coder.encode(*((0, known) if code < 0 else (known, unknown)), known + unknown)
        self._came[after][code >= 0] += 2
        if code < 0:
            return
        new, total = max(1, len(self._codes)), int(self._counts.sum())
        if (place := self._places.get(code)) is None:
            coder.encode(total, new, total + new)
            self._encode_new(coder, code)
        else:
            coder.encode(int(self._counts[:place].sum()), int(self._counts[place]), total + new)
        self._count(code)

    def decode(self, coder: RangeDecoder, after: bool) -> int:
        """Reads which code point comes, -1 for none."""
        known, unknown = self._came[after]
        comes = coder.place(known + unknown) >= known
        coder.take(*((known, unknown) if comes else (0, known)))
        self._came[after][comes] += 2
        if not comes:
            return UNKNOWN
        new, total = max(1, len(self._codes)), int(self._counts.sum())
        at = coder.place(total + new)
        if at >= total:
            coder.take(total, new)
            code = self._decode_new(coder)
        else:
            ends = np.cumsum(self._counts)
            place = int(np.searchsorted(ends, at, side="right"))
            coder.take(int(ends[place] - self._counts[place]), int(self._counts[place]))
            code = self._codes[place]
        self._count(code)
        return code

    def _encode_new(self, coder: RangeEncoder, code: int) -> None:
        kind = next(kind for kind, (first, end) in enumerate(_RANGES) if first <= code < end)
        coder.encode(sum(self._kinds[:kind]), self._kinds[kind], sum(self._kinds))
        first, end = _RANGES[kind]
        coder.encode(code - first, 1, end - first)
        self._kinds[kind] += 1

    def _decode_new(self, coder: RangeDecoder) -> int:
        at, kind, start = coder.place(sum(self._kinds)), 0, 0
        while at >= start + self._kinds[kind]:
            start += self._kinds[kind]
            kind += 1
        coder.take(start, self._kinds[kind])
        first, end = _RANGES[kind]
        code = first + coder.place(end - first)
        coder.take(code - first, 1)
        self._kinds[kind] += 1
        return code

    def _count(self, code: int) -> None:
        place = self._places.setdefault(code, len(self._codes))
        if place == len(self._codes):
            self._codes.append(code)
        if place == len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._counts[place] += 1


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Symbols as bytes, and what they cost.

    Args:
        written: the bytes.
        bits: that all symbols cost by the frequencies they were coded with; `written` is as long, to within a byte
            or two.
        unknown_bits: how many of these say whether unknown characters come, and which.
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
    model: LanguageModel,
    first: int,
    ids: Integers,
    codes: Integers,
    *,
    lanes: int = 1,
    progress: Callable[[int], object] | None = None,
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
    stepper, last_B, unknown_bits = Stepper(model, lanes), np.full(lanes, first, dtype=np.int64), 0.0
    for at in _places(len(ids), lanes):
        sums_BV = frequencies(stepper.read(last_B))
        here_B = ids[at.start : at.stop : at.step]
        rows = np.arange(len(at))
        starts, ends = sums_BV[rows, np.maximum(here_B, 0)], sums_BV[rows, np.maximum(here_B, 0) + 1]
        shares = zip(starts.tolist(), (ends - starts).tolist(), sums_BV[rows, -1].tolist(), strict=True)
        for lane, share in enumerate(shares):
            if unknown is not None:
                before = coder.bits
                unknown.encode(coder, bool(last_B[lane] < 0), code_at.get(at[lane], -1))
                unknown_bits += coder.bits - before
            if here_B[lane] >= 0:
                coder.encode(*share)
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
    progress: Callable[[int], object] | None = None,
) -> tuple[Integers, Integers]:
    """The ids and the code points of unknown characters that `encode_symbols` wrote.

    Args:
        model: the one that coded them; another one, or one that rounds differently, gives nonsense.
        first: as for `encode_symbols`.
        written: its bytes.
        symbols: how many to read.
        unknown: how many of them are outside the vocabulary.
        lanes: as for `encode_symbols`.
        progress: called with the number of symbols that were just decoded.

    Raises:
        CharlmError: the bytes hold something else than so many symbols.
    """
    coder, guess = RangeDecoder(written), _Unknown() if unknown else None
    ids, code_at = np.zeros(symbols, dtype=np.int64), {}
    stepper, last_B = Stepper(model, lanes), np.full(lanes, first, dtype=np.int64)
    for at in _places(len(ids), lanes):
        sums_BV = frequencies(stepper.read(last_B))
        totals = sums_BV[:, -1].tolist()
        for lane, place in enumerate(at):
            code = UNKNOWN if guess is None else guess.decode(coder, bool(last_B[lane] < 0))
            if code >= 0:
                code_at[place], last_B[lane] = code, UNKNOWN
                continue
            sums_V = sums_BV[lane]
            id = int(sums_V.searchsorted(coder.place(totals[lane]), side="right")) - 1
            start = int(sums_V[id])
            coder.take(start, int(sums_V[id + 1]) - start)
            last_B[lane] = id
        ids[at.start : at.stop : at.step] = last_B[: len(at)]
        if progress is not None:
            progress(len(at))
    if len(code_at) != unknown:
        raise CharlmError(f"{len(code_at):,} unknown characters were decoded, not {unknown:,}")
    return ids, np.array([code_at[place] for place in sorted(code_at)], dtype=np.int64)
