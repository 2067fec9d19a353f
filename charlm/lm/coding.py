"""Arithmetic coding on top of any language model: symbols to bytes and back, at the cost of their log-probabilities.

`encode_symbols` and `decode_symbols` ask the model for the same numbers in the same calls, one step at a time, so that
both see the same bits.
Axes: T steps, B lanes (pieces of the text side by side, each read as a text of its own), V symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import CharlmError
from charlm.lm.interface import LanguageModel
from charlm.lm.range_coder import RangeDecoder, RangeEncoder
from charlm.text.vocab import UNKNOWN

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

    def encode(self, coder: RangeEncoder, lane: int, id: int) -> None:
        """Writes the next symbol of a lane."""
        sums_V = self._sums_BV[lane]
        start = int(sums_V[id])
        coder.encode(start, int(sums_V[id + 1]) - start, int(sums_V[-1]))

    def decode(self, coder: RangeDecoder, lane: int) -> int:
        """Reads the next symbol of a lane."""
        sums_V = self._sums_BV[lane]
        id = int(sums_V.searchsorted(coder.place(int(sums_V[-1])), side="right")) - 1
        start = int(sums_V[id])
        coder.take(start, int(sums_V[id + 1]) - start)
        return id

    def numbers(self) -> bytes:
        """What the model computed last, for a checksum."""
        return np.ascontiguousarray(self.logp_BV).tobytes()


class DecisionSteps(Steps):
    """The same for one lane of a model that predicts a symbol as a path of binary decisions, so that no row is made.

    Such a model's `stepper()` has `child` [V - 1, 2], which says of each decision and bit the next decision or the
    symbol s as ~s; `one(decision, depth)`, the probability of a one; and `read(id, row=False)`.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._stepper: Any = model.stepper()  # type: ignore[attr-defined]
        self._child: list[list[int]] = self._stepper.child.tolist()
        above = {child: (decision, bit) for decision, pair in enumerate(self._child) for bit, child in enumerate(pair)}
        self._paths: list[list[tuple[int, int]]] = []
        for id in range(len(model.vocab)):
            path, node = [], ~id
            while node in above:
                path.append(above[node])
                node = above[node][0]
            self._paths.append(path[::-1])

    def read(self, ids_B: Integers) -> None:
        """Reads the last symbol."""
        self._stepper.read(int(ids_B[0]), row=False)

    def _zeros(self, decision: int, depth: int) -> int:
        return min(max(1, int((1 - self._stepper.one(decision, depth)) * _PARTS)), _PARTS - 1)

    def encode(self, coder: RangeEncoder, lane: int, id: int) -> None:
        """Writes the next symbol."""
        for depth, (decision, bit) in enumerate(self._paths[id]):
            zeros = self._zeros(decision, depth)
            coder.encode(*((zeros, _PARTS - zeros) if bit else (0, zeros)), _PARTS)

    def decode(self, coder: RangeDecoder, lane: int) -> int:
        """Reads the next symbol."""
        node = depth = 0
        while node >= 0 and self._paths[0]:
            zeros = self._zeros(node, depth)
            bit = coder.place(_PARTS) >= zeros
            coder.take(*((zeros, _PARTS - zeros) if bit else (0, zeros)))
            node, depth = self._child[node][bit], depth + 1
        return ~node if self._paths[0] else 0

    def numbers(self) -> bytes:
        """The probability of a one at the first decisions, for a checksum."""
        return np.array([self._stepper.one(decision, 0) for decision in range(min(8, len(self._child)))]).tobytes()


def steps_of(model: LanguageModel, lanes: int) -> Steps:
    """By decisions where a model offers them and there is one lane, else by rows."""
    return DecisionSteps(model) if lanes == 1 and hasattr(model, "stepper") else Steps(model, lanes)


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
    steps, last_B, unknown_bits = steps_of(model, lanes), np.full(lanes, first, dtype=np.int64), 0.0
    for at in _places(len(ids), lanes):
        steps.read(last_B)
        here_B = ids[at.start : at.stop : at.step]
        for lane, id in enumerate(here_B.tolist()):
            if unknown is not None:
                before = coder.bits
                unknown.encode(coder, bool(last_B[lane] < 0), code_at.get(at[lane], -1))
                unknown_bits += coder.bits - before
            if id >= 0:
                steps.encode(coder, lane, id)
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
    steps, last_B = steps_of(model, lanes), np.full(lanes, first, dtype=np.int64)
    for at in _places(len(ids), lanes):
        steps.read(last_B)
        for lane, place in enumerate(at):
            code = UNKNOWN if guess is None else guess.decode(coder, bool(last_B[lane] < 0))
            if code >= 0:
                code_at[place], last_B[lane] = code, UNKNOWN
            else:
                last_B[lane] = steps.decode(coder, lane)
        ids[at.start : at.stop : at.step] = last_B[: len(at)]
        if progress is not None:
            progress(len(at))
    if len(code_at) != unknown:
        raise CharlmError(f"{len(code_at):,} unknown characters were decoded, not {unknown:,}")
    return ids, np.array([code_at[place] for place in sorted(code_at)], dtype=np.int64)
