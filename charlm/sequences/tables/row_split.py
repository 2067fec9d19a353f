"""Which rows of a table train, validate and test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError
from charlm.text.splits import PARTS, parse_shares, show_shares

__all__ = ["RowSplit"]

_GRAMMAR = "write it as 80/10/10, shuffled:SEED:80/10/10 or ordered:80/10/10 (train/valid/test in per cent)"


@dataclass(frozen=True, kw_only=True)
class RowSplit:
    """A division of rows into train, valid and test.

    Args:
        shares: per cent of each part; they sum to 100, training has some.
        seed: rows are dealt out after shuffling with it; None takes them in their order, the test part last.

    `80/10/10` and `shuffled:80/10/10` shuffle with seed 0, `shuffled:7:80/10/10` with 7; `ordered:80/10/10` does not:
    for rows that follow each other in time.

    >>> split = RowSplit.parse("60/20/20")
    >>> str(split), {part: len(rows) for part, rows in split.parts(10).items()}
    ('shuffled:0:60/20/20', {'train': 6, 'valid': 2, 'test': 2})
    >>> RowSplit.parse("ordered:50/25/25").parts(4)["test"].tolist()
    [3]
    """

    shares: tuple[Fraction, Fraction, Fraction] = (Fraction(80), Fraction(10), Fraction(10))
    seed: int | None = 0

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or not self.shares[0]:
            raise OptionError(f"a split needs a training part and no negative share: {_GRAMMAR}")
        if sum(self.shares) != 100:
            raise OptionError(f"the shares of a split sum to 100, not to {float(sum(self.shares)):g}: {_GRAMMAR}")

    @classmethod
    def parse(cls, text: str) -> RowSplit:
        """Reads the way a split is written on the command line and in checkpoints."""
        *head, shares = text.strip().split(":")
        kind = head[0] if head else "shuffled"
        if kind not in ("shuffled", "ordered") or len(head) > (2 if kind == "shuffled" else 1):
            raise OptionError(f"cannot read the split {text[:80]!r}: {_GRAMMAR}")
        if len(head) == 2 and not re.fullmatch(r"[0-9]{1,18}", head[1]):
            raise OptionError(f"{head[1][:40]!r} in the split {text[:80]!r} is not a whole number: {_GRAMMAR}")
        seed = None if kind == "ordered" else int(head[1]) if len(head) == 2 else 0
        return cls(shares=parse_shares(shares, text, _GRAMMAR), seed=seed)

    def __str__(self) -> str:
        shares = show_shares(self.shares)
        return f"ordered:{shares}" if self.seed is None else f"shuffled:{self.seed}:{shares}"

    def parts(self, rows: int) -> dict[str, NDArray[np.int64]]:
        """The numbers of the rows of each part, in rising order; every row is in exactly one.

        Shares are rounded down to whole rows, but a part that was asked for gets at least one.

        Raises:
            TextError: fewer rows than parts.
        """
        wanted = [share > 0 for share in self.shares]
        if rows < sum(wanted):
            raise TextError(
                f"{rows} rows cannot be divided by {self}: give the table more rows, or use --split 100/0/0"
            )
        order = np.arange(rows) if self.seed is None else np.random.default_rng(self.seed).permutation(rows)
        valid, test = (max(int(rows * share / 100), int(share > 0)) for share in self.shares[1:])
        train = rows - valid - test
        while train < 1:  # many small parts of few rows
            valid, test = (valid - 1, test) if valid > test else (valid, test - 1)
            train += 1
        cut = np.split(order, [train, train + valid])
        return {part: np.sort(piece).astype(np.int64) for part, piece in zip(PARTS, cut, strict=True)}
