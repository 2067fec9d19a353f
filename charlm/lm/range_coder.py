"""A range coder with carry (Martin 1979; Schindler 1998) of 64 bits.

A symbol that has `size` of `total` parts leaves so much of an interval of whole numbers, and a byte is written whenever
fewer than 2⁵⁶ numbers are left in it. The bytes are the shortest number in the last interval.
"""

from __future__ import annotations

import math

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
